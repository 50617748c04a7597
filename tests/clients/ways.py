"""The ways from a client to a server: straight to it, or through the proxy in one of its pool modes.

Owns: addresses and credentials in the spelling of each client, running command-line clients, comparing two ways.
Does not know: what is tested over them.
"""

import json
import os
import subprocess
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.request import urlopen

from proxy.demo.installation import Installation
from proxy.demo.postgres import PostgresServer, password_of
from proxy.demo.serving import ProxyProcess
from tests.support.eventually import eventually_sync

T = TypeVar("T")

PROGRAM_TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Way:
    """Where a client connects, as whom, and which programs suit the server at the other end."""

    host: str
    port: int
    application_name: str
    installation: Installation
    version: int
    user: str = "app"
    password: str = password_of("app")
    database: str = "app"
    ca_path: Path | None = None
    sslmode: str = "prefer"
    more: Mapping[str, str] = field(default_factory=dict)  # further parameters of libpq
    direct: "Way | None" = field(default=None, compare=False)
    proxy: ProxyProcess | None = field(default=None, compare=False)

    @property
    def straight(self) -> "Way":
        """The same without the proxy."""
        assert self.direct is not None, "this way leads straight to the server already"
        return self.direct

    def to(self, database: str) -> "Way":
        """Another database of the same server."""
        direct = self.direct and self.direct.to(database)
        return replace(self, database=database, direct=direct)

    def until_no_slot_is_used(self) -> None:
        """Wait for it; clients may still be connected."""
        assert self.proxy is not None, "this way leads past the proxy"
        proxy = self.proxy
        eventually_sync(lambda: status(proxy)["budget"]["in_use"] == 0, but=lambda: status(proxy)["classes"])

    def libpq(self, **changes: Any) -> dict[str, Any]:
        """Keyword arguments of psycopg.connect()."""
        known = {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "password": self.password,
            "dbname": self.database,
            "application_name": self.application_name,
            "sslmode": self.sslmode,
            **({"sslrootcert": str(self.ca_path)} if self.ca_path else {}),
            **self.more,
        }
        return {**known, **changes}

    def asyncpg(self, *, server_settings: Mapping[str, str] | None = None, **changes: Any) -> dict[str, Any]:
        """Keyword arguments of asyncpg.connect() and asyncpg.create_pool()."""
        root = f"?sslrootcert={self.ca_path}" if self.ca_path else ""
        known = {
            "dsn": f"postgresql://{self.host}:{self.port}/{self.database}{root}",
            "user": self.user,
            "password": self.password,
            "ssl": None if self.ca_path else False,
            "server_settings": {"application_name": self.application_name, **(server_settings or {})},
        }
        if self.ca_path:
            known["dsn"] += "".join(f"&{key}={value}" for key, value in {"sslmode": self.sslmode, **self.more}.items())
            del known["ssl"]
        return {**known, **changes}

    def environment(self) -> dict[str, str]:
        """libpq's variables, for programs."""
        names = {"dbname": "PGDATABASE", "application_name": "PGAPPNAME"}
        own = {names.get(key, f"PG{key.upper()}"): str(value) for key, value in self.libpq().items()}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return {**kept, **own, "LC_ALL": "C", "PSQLRC": os.devnull, "TZ": "UTC"}

    def run(
        self, program: str, *arguments: str, stdin: str = "", check: bool = True, cwd: Path | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run a program of the server's own installation to its end. With `check` it must succeed."""
        finished = subprocess.run(
            [self.installation.program(program), *arguments],
            input=stdin,
            env=self.environment(),
            encoding="utf-8",
            errors="backslashreplace",  # a script may ask for another encoding
            capture_output=True,
            timeout=PROGRAM_TIMEOUT_SECONDS,
            check=False,
            cwd=cwd,
        )
        assert not check or finished.returncode == 0, f"{program} {arguments}: {finished.stderr}"
        return finished

    def psql(self, *arguments: str, stdin: str = "", check: bool = True) -> "subprocess.CompletedProcess[str]":
        return self.run("psql", "-X", *arguments, stdin=stdin, check=check)


@dataclass(frozen=True)
class Target:
    """A server and the proxy in front of it, shared by the tests of a run.

    Where `ca_path` is given, clients speak TLS to either of them and check who it is.
    """

    postgres: PostgresServer
    proxy: ProxyProcess
    server_ca_path: Path | None = None
    proxy_ca_path: Path | None = None

    def way(self, application_name: str) -> Way:
        """Through the proxy, whose configuration chooses the class by `application_name`."""
        return replace(
            self._way(self.proxy.port, application_name, self.proxy_ca_path),
            direct=self._way(self.postgres.port, application_name, self.server_ca_path),
            proxy=self.proxy,
        )

    def _way(self, port: int, application_name: str, ca_path: Path | None) -> Way:
        sslmode = "verify-full" if ca_path else "prefer"
        installation = self.postgres.installation
        version = self.postgres.version
        return Way("127.0.0.1", port, application_name, installation, version, ca_path=ca_path, sslmode=sslmode)


def status(proxy: ProxyProcess) -> dict[str, Any]:
    with urlopen(f"{proxy.http_url}/status", timeout=5) as reply:
        document: dict[str, Any] = json.load(reply)
    return document


def assert_left_quiet(proxy: ProxyProcess) -> None:
    """Whatever the clients did, they have left: no slot is in use, nobody waits, its log holds no traceback."""

    def is_quiet() -> bool:
        now = status(proxy)
        assert now["clients"]["total"] == 0, now["clients"]
        assert (now["budget"]["in_use"], now["budget"]["waiting"]) == (0, 0), now["classes"]
        assert [c["name"] for c in now["classes"] if c["used"] or c["pinned"] or c["waiting"]] == []
        return True

    eventually_sync(is_quiet)
    assert "Traceback" not in proxy.log_text(), proxy.log_text()


def same_as_direct(way: Way, work: Callable[[Way], T]) -> T:
    """Do `work` straight at the server, then through the proxy; both must come to the same. Returns it."""
    expected = work(way.straight)
    found = work(way)
    assert found == expected
    return found


async def same_as_direct_async(way: Way, work: Callable[[Way], Awaitable[T]]) -> T:
    """The same for a coroutine function."""
    expected = await work(way.straight)
    found = await work(way)
    assert found == expected
    return found
