"""Certificates for tests, made by openssl: an authority, and what it signs.

Owns: the files' names (NAME.crt, NAME.key) and their lifetime of two days.
Does not know: who shows them.
"""

import subprocess
from pathlib import Path

_NEW_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"  # made in no time, unlike RSA


def make_certificates(folder: Path, *, names: str = "DNS:localhost,IP:127.0.0.1") -> None:
    """Put ca.crt, ca.key, server.crt and server.key (for `names`) into `folder`."""
    make_authority(folder)
    issue(folder, "server", subject="/CN=localhost", names=names)


def make_authority(folder: Path, name: str = "ca") -> None:
    _openssl(folder, f"req -x509 {_NEW_KEY} -days 2 -subj /CN=test-{name} -keyout {name}.key -out {name}.crt")


def issue(folder: Path, name: str, *, subject: str, names: str = "", authority: str = "ca", days: int = 2) -> None:
    """A certificate NAME.crt with its key, signed by the authority in the same folder. `days` may lie in the past."""
    _openssl(folder, f"req {_NEW_KEY} -keyout {name}.key -out {name}.csr -subj", subject)
    signing = f"x509 -req -days {days} -in {name}.csr -CA {authority}.crt -CAkey {authority}.key -CAcreateserial"
    if names:
        (folder / f"{name}.ext").write_text(f"subjectAltName={names}\n")
        signing += f" -extfile {name}.ext"
    _openssl(folder, f"{signing} -out {name}.crt")
    (folder / f"{name}.key").chmod(0o600)


def _openssl(folder: Path, arguments: str, *more: str) -> None:
    subprocess.run(["openssl", *arguments.split(), *more], cwd=folder, check=True, capture_output=True)
