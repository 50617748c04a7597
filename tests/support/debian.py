"""The PostgreSQL of Debian's packages, with TLS (the embedded one is built without).

Owns: finding it, switching TLS on.
Does not know: fixtures, how certificates are made.
"""

from collections.abc import Mapping
from pathlib import Path

from proxy.demo.installation import Installation, unprivileged_user
from proxy.demo.postgres import PostgresServer
from tests.support.certificates import make_certificates


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
