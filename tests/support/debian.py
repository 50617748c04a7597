"""The PostgreSQL of Debian's packages, with TLS (the embedded one is built without).

Owns: finding it, a certificate authority and a server certificate made by openssl.
Does not know: fixtures.
"""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from proxy.demo.installation import Installation, unprivileged_user
from proxy.demo.postgres import PostgresServer


def debian_installation() -> Installation | None:
    """The newest of /usr/lib/postgresql/*/bin that holds a server, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return Installation(bin=found[-1].parent, run_as=unprivileged_user()) if found else None


class DebianPostgres(PostgresServer):
    """A server with TLS on. `ca_path` is the authority that signed its certificate (localhost and 127.0.0.1)."""

    def __init__(self, installation: Installation, *, settings: Mapping[str, str] | None = None, **options: object):
        tls = {"ssl": "on", "ssl_cert_file": "'../server.crt'", "ssl_key_file": "'../server.key'"}
        super().__init__(installation, settings={**tls, **(settings or {})}, **options)  # type: ignore[arg-type]
        self.version = int(installation.bin.parent.name)

    @property
    def ca_path(self) -> Path:
        return self.root / "ca.crt"

    def start(self, *, timeout_seconds: float = 30.0) -> None:
        if not self.ca_path.exists():
            make_certificates(self.root)
            self.installation.give(self.root / "server.crt", self.root / "server.key")
        super().start(timeout_seconds=timeout_seconds)


def make_certificates(folder: Path, *, names: str = "DNS:localhost,IP:127.0.0.1") -> None:
    """Put ca.crt, ca.key, server.crt and server.key (valid for two days, for `names`) into `folder`."""
    _openssl(folder, "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-ca -keyout ca.key -out ca.crt")
    _openssl(folder, "req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key -out server.csr")
    (folder / "names.ext").write_text(f"subjectAltName={names}\n")
    _openssl(
        folder,
        "x509 -req -days 2 -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -extfile names.ext -out server.crt",
    )
    (folder / "server.key").chmod(0o600)


def _openssl(folder: Path, arguments: str) -> None:
    subprocess.run(["openssl", *arguments.split()], cwd=folder, check=True, capture_output=True)
