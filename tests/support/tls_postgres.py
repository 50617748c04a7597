"""A PostgreSQL server with TLS on.

Owns: its certificate, and which connections pg_hba.conf lets in.
Does not know: which installation it runs, fixtures.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from proxy.demo.installation import Installation
from proxy.demo.postgres import PostgresServer
from tests.support.certificates import make_certificates


class TlsPostgres(PostgresServer):
    """`ca_path` is the authority that signed the server's certificate, which names `names`.

    It also signs certificates of clients, which the server verifies where they show one. `rules` are lines of
    pg_hba.conf that stand before the usual ones. Passwords are stored for SCRAM, which is the default only from 14 on.
    """

    def __init__(
        self,
        installation: Installation,
        version: int,
        *,
        settings: Mapping[str, str] | None = None,
        names: str = "DNS:localhost,IP:127.0.0.1",
        rules: Sequence[str] = (),
        **options: object,
    ) -> None:
        files = {"cert": "server.crt", "key": "server.key", "ca": "ca.crt"}
        tls = {
            "ssl": "on",
            "password_encryption": "'scram-sha-256'",
            **{f"ssl_{what}_file": f"'../{name}'" for what, name in files.items()},
        }
        super().__init__(installation, settings={**tls, **(settings or {})}, **options)  # type: ignore[arg-type]
        self.version = version
        self.names = names
        self.rules = rules

    @property
    def ca_path(self) -> Path:
        return self.root / "ca.crt"

    def _hba(self) -> str:
        return "".join(f"{rule}\n" for rule in self.rules) + super()._hba()

    def start(self, *, timeout_seconds: float = 30.0) -> None:
        if not self.ca_path.exists():
            make_certificates(self.root, names=self.names)
            self.installation.give(self.root / "server.crt", self.root / "server.key", self.ca_path)
        super().start(timeout_seconds=timeout_seconds)
