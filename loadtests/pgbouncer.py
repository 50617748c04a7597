"""PgBouncer, for comparison.

Owns: where its binary is found, its configuration, its process.
Does not know: the load.
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from proxy.demo.installation import Installation, unprivileged_user
from proxy.demo.postgres import ROLES, PostgresServer, free_port, password_of
from proxy.demo.serving import ServedProcess


def find_pgbouncer() -> Path | None:
    """$PGBOUNCER, else the one in PATH, else Debian's place, which is in the PATH of root only."""
    named = os.environ.get("PGBOUNCER")
    if named:
        return Path(named)
    found = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
    return Path(found) if found else None


def pgbouncer_version(binary: Path) -> str:
    printed = subprocess.run([str(binary), "--version"], capture_output=True, text=True, check=True).stdout
    return printed.splitlines()[0]


def users_with_passwords() -> str:
    return "".join(f'"{role}" "{password_of(role)}"\n' for role in ROLES)


class PgBouncer(ServedProcess):
    """PgBouncer, in transaction mode unless `settings` say otherwise.

    `databases` maps the names that clients use to their settings (dbname, pool_size).
    """

    name = "pgbouncer"

    def __init__(
        self,
        binary: Path,
        postgres: PostgresServer,
        *,
        databases: Mapping[str, str],
        users: str,
        auth_type: str = "scram-sha-256",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.binary = binary
        self.host = "127.0.0.1"
        self.port = free_port()
        (self.folder / "users.txt").write_text(users)
        options = {
            "listen_addr": self.host,
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "auth_type": auth_type,
            "auth_file": str(self.folder / "users.txt"),
            "pool_mode": "transaction",
            "max_client_conn": "12000",
            "log_connections": "0",
            "log_disconnections": "0",
            **(settings or {}),
        }
        lines = [
            "[databases]",
            *(f"{n} = host={postgres.host} port={postgres.port} {s}" for n, s in databases.items()),
        ]
        lines += ["[pgbouncer]", *(f"{key} = {value}" for key, value in options.items())]
        (self.folder / "pgbouncer.ini").write_text("\n".join(lines) + "\n")

    def command(self) -> Sequence[str]:
        return [str(self.binary), str(self.folder / "pgbouncer.ini")]

    def identity(self) -> Mapping[str, Any]:
        """PgBouncer refuses to run as root."""
        owner = Installation(self.binary.parent, unprivileged_user())
        owner.give(self.folder, *self.folder.iterdir())
        return owner.identity()

    def ready(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((self.host, self.port)) == 0
