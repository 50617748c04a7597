"""A PostgreSQL server of our own, for a demo, a test or a benchmark.

Owns: one data directory in a temporary folder, the server process on it, its roles, and leaving nothing behind.
Does not know: which installation it runs (that is handed in), proxies, load.

A server listens on 127.0.0.1 (a free port) and on a unix socket in its folder. Over TCP passwords are really checked
(`auth`); the superuser `postgres` gets in over the unix socket without one. What only costs time in a throw-away server
(fsync and its kin) is off.
"""

import os
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from proxy.demo.cluster import SETTINGS_FILE, fill_data_directory
from proxy.demo.errors import StartError
from proxy.demo.guarded import GuardedFolder
from proxy.demo.installation import Installation, embedded_installation

SUPERUSER = "postgres"
ROLES = ("web", "bulk", "app")
DATABASE = "app"

# The log lines of a server that had no connection left; their number must stay 0 behind a proxy that keeps its budget.
REFUSALS = ("sorry, too many clients already", "remaining connection slots are reserved")

THROW_AWAY = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_wal_senders": "0",
    "wal_level": "minimal",
    "log_line_prefix": "'%m [%p] %u@%d %a '",
    "lc_messages": "C",
    "autovacuum": "off",
}


def password_of(role: str) -> str:
    return f"{role}-secret"


# What holds the ports last given out: many more than are asked for before the first of them is listened at.
_HELD_PORTS: deque[socket.socket] = deque(maxlen=64)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free, and given to nobody else by chance before a server listens there.

    A socket of ours stays bound to it. It refuses whoever connects, as a free port does; servers pass it by, since
    they set SO_REUSEADDR too; and the kernel hands the port to no process that asks for any.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    _HELD_PORTS.append(held)
    port: int = held.getsockname()[1]
    return port


class PostgresServer:
    """One server on a data directory of its own; a context manager that leaves no process and no file.

    `max_connections` includes the `superuser_reserved_connections`: ordinary roles get the difference.
    `auth` is the method pg_hba.conf asks for over TCP. `settings` are lines of postgresql.conf.
    """

    host = "127.0.0.1"

    def __init__(
        self,
        installation: Installation,
        *,
        max_connections: int = 100,
        superuser_reserved_connections: int = 3,
        auth: str = "scram-sha-256",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.installation = installation
        self.auth = auth
        self.settings = {
            **THROW_AWAY,
            "max_connections": str(max_connections),
            "superuser_reserved_connections": str(superuser_reserved_connections),
            **(settings or {}),
        }
        self.port = free_port()
        self._folder = GuardedFolder("pgheadroom-postgres")
        self.root = self._folder.path
        self._server: subprocess.Popen[bytes] | None = None

    # -- the folder

    @property
    def data_directory(self) -> Path:
        return self.root / "data"

    @property
    def log_path(self) -> Path:
        return self.root / "postgres.log"

    @property
    def socket_directory(self) -> Path:
        return self.root

    def log_text(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def refusals_in_log(self) -> int:
        """How often the server had to say that it has no connection left."""
        return sum(self.log_text().count(phrase) for phrase in REFUSALS)

    def _configure(self) -> None:
        lines = {
            **self.settings,
            "port": str(self.port),
            "listen_addresses": f"'{self.host}'",
            "unix_socket_directories": f"'{self.socket_directory}'",
        }
        (self.data_directory / SETTINGS_FILE).write_text("".join(f"{k} = {v}\n" for k, v in lines.items()))
        (self.data_directory / "pg_hba.conf").write_text(self._hba())

    def _hba(self) -> str:
        return (
            f"local all,replication {SUPERUSER} trust\nlocal all all {self.auth}\n"
            f"host all,replication all 127.0.0.1/32 {self.auth}\n"
        )

    # -- the process

    def __enter__(self) -> Self:
        try:
            fill_data_directory(self.installation, self.data_directory)
            self.start()
            self._create_roles()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def start(self, *, timeout_seconds: float = 30.0) -> None:
        """Start the server on its data directory and wait until it takes connections."""
        assert self._server is None, "start() of a server that already runs"
        self._configure()
        self.installation.give(self.root)
        with self.log_path.open("ab") as log:
            self._server = subprocess.Popen(  # noqa: S603 - the program of our own installation
                [self.installation.program("postgres"), "-D", str(self.data_directory)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.root,
                start_new_session=True,  # Ctrl-C in the terminal is ours to handle; the server is stopped in order
                **self.installation.identity(),
            )
        self._wait_until_ready(self._server, time.monotonic() + timeout_seconds)

    def _wait_until_ready(self, server: subprocess.Popen[bytes], deadline: float) -> None:
        """As pg_ctl does: the last line of postmaster.pid says "ready", or "standby" where it is one (and the first one
        names this process)."""
        pid_file = self.data_directory / "postmaster.pid"
        while time.monotonic() < deadline:
            if server.poll() is not None:
                break
            lines = pid_file.read_text().split("\n") if pid_file.exists() else []
            if lines and lines[0] == str(server.pid) and len(lines) > 7 and lines[7].strip() in ("ready", "standby"):
                return
            time.sleep(0.01)
        self.kill()
        raise StartError(f"PostgreSQL did not start; the end of its log:\n{self.log_text()[-2000:]}")

    def stop(self, *, how: signal.Signals = signal.SIGINT, timeout_seconds: float = 20.0) -> None:
        """Shut down: SIGTERM waits for clients ("smart"), SIGINT ends them ("fast"), SIGQUIT leaves a crash behind."""
        if self._server is None:
            return
        self.thaw()
        self._server.send_signal(how)
        try:
            self._server.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self.kill()
        self._server = None

    def kill(self) -> None:
        """kill -9 the whole server, as a lost machine would: clients get a reset or an end, and no word of farewell."""
        if self._server is None:
            return
        for pid in (self._server.pid, *self.backend_pids()):
            _signal_if_alive(pid, signal.SIGKILL)
        self._server.wait()
        self._server = None

    def restart(self, **settings: str) -> None:
        """Stop ("fast") and start again on the same port, with these settings of postgresql.conf changed."""
        self.stop()
        self.settings.update(settings)
        self.start()

    def freeze(self) -> None:
        """SIGSTOP everything: connections stay open, the kernel still accepts new ones, and nobody ever answers."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        if self._server is not None and self._server.poll() is None:
            for pid in (self._server.pid, *self.backend_pids()):
                _signal_if_alive(pid, number)

    @property
    def pid(self) -> int:
        assert self._server is not None, "the server does not run"
        return self._server.pid

    def backend_pids(self) -> list[int]:
        """The server's child processes (backends and its own helpers). Linux only; empty elsewhere."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(pid) for pid in children.read_text().split()] if children.exists() else []

    def close(self) -> None:
        """Stop the server and remove its folder. May be called twice."""
        self.stop()
        self._folder.close()

    # -- roles and addresses

    def _create_roles(self) -> None:
        self.psql(f"ALTER ROLE {SUPERUSER} PASSWORD '{password_of(SUPERUSER)}'")
        self.psql("".join(f"CREATE ROLE {role} LOGIN PASSWORD '{password_of(role)}';" for role in ROLES))
        self.psql(f"CREATE DATABASE {DATABASE} STRATEGY file_copy")
        self.psql(f"GRANT ALL ON SCHEMA public TO {', '.join(ROLES)}", database=DATABASE)

    def url(self, user: str = "app", database: str = DATABASE, *, password: str | None = None) -> str:
        """A libpq URI over TCP, password included."""
        secret = quote(password if password is not None else password_of(user), safe="")
        return f"postgresql://{user}:{secret}@{self.host}:{self.port}/{database}"

    def superuser_url(self, database: str = DATABASE) -> str:
        """A libpq URI of the superuser over the unix socket; it also finds the reserved connections."""
        folder = quote(str(self.socket_directory), safe="")
        return f"postgresql:///{database}?host={folder}&port={self.port}&user={SUPERUSER}"

    def users_file(self) -> str:
        """The lines of a users file (PgBouncer's format) with what the server itself stores: SCRAM verifiers."""
        rows = self.psql("SELECT rolname, rolpassword FROM pg_authid WHERE rolpassword IS NOT NULL").splitlines()
        return "".join('"{}" "{}"\n'.format(*row.split("|")) for row in rows)

    def psql(self, sql: str, *, database: str = "postgres") -> str:
        """Run statements as the superuser over the unix socket; unaligned rows, `|` between columns.

        Raises CalledProcessError (its `stderr` says why) at the first statement that fails.
        """
        command = [self.installation.program("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", self.superuser_url(database)]
        finished = subprocess.run(  # noqa: S603 - the program of our own installation
            command, input=sql, text=True, capture_output=True, check=True, timeout=60
        )
        return finished.stdout.strip()


class EmbeddedPostgres(PostgresServer):
    """PostgreSQL 16 or 18 from the wheel."""

    def __init__(
        self,
        version: int = 18,
        *,
        max_connections: int = 100,
        superuser_reserved_connections: int = 3,
        auth: str = "scram-sha-256",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            embedded_installation(version),
            max_connections=max_connections,
            superuser_reserved_connections=superuser_reserved_connections,
            auth=auth,
            settings=settings,
        )
        self.version = version


def _signal_if_alive(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
