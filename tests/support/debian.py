"""The PostgreSQL of Debian's packages.

Owns: finding it.
Does not know: fixtures.
"""

from pathlib import Path

from proxy.demo.installation import Installation, unprivileged_user
from tests.support.tls_postgres import TlsPostgres


def debian_installation() -> Installation | None:
    """The newest of /usr/lib/postgresql/*/bin that holds a server, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return Installation(bin=found[-1].parent, run_as=unprivileged_user()) if found else None


class DebianPostgres(TlsPostgres):
    """Debian's server, with TLS on."""

    def __init__(self, installation: Installation, **options: object) -> None:
        super().__init__(installation, int(installation.bin.parent.name), **options)  # type: ignore[arg-type]
