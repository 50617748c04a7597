"""The proxies that are measured, configured for the least work: no TLS, no password hashing, one pool of 20.

Owns: one running process of each kind, and how a client reaches it.
Does not know: what is measured.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from loadtests.pgbouncer import PgBouncer, pgbouncer_version, users_with_passwords
from proxy.demo.postgres import DATABASE, PostgresServer
from proxy.demo.serving import ProxyProcess, ServedProcess, in_front_of

POOL = 20
FIRST_WITH_PREPARED_STATEMENTS = (1, 21)


@dataclass(frozen=True, slots=True)
class Subject:
    """A kind of proxy. `start(server, prepared)`: prepared asks for prepared statements in transaction mode."""

    name: str
    start: Callable[[PostgresServer, bool], ServedProcess]
    remark_on_prepared: str = ""


def address(process: ServedProcess) -> tuple[str, int]:
    assert isinstance(process, PgBouncer | ProxyProcess), "the two kinds there are"
    return process.host, process.port


def url(process: ServedProcess) -> str:
    host, port = address(process)
    return f"postgresql://app@{host}:{port}/{DATABASE}"


def pgbouncer(binary: Path) -> Subject:
    numbers = re.findall(r"\d+", pgbouncer_version(binary))
    able = (int(numbers[0]), int(numbers[1])) >= FIRST_WITH_PREPARED_STATEMENTS

    def start(server: PostgresServer, prepared: bool) -> ServedProcess:
        settings = {"max_prepared_statements": "100"} if able else {}
        if prepared and not able:
            settings = {"pool_mode": "session"}
        databases = {DATABASE: f"dbname={DATABASE} pool_size={POOL}"}
        return PgBouncer(
            binary, server, databases=databases, users=users_with_passwords(), auth_type="trust", settings=settings
        )

    remark = "" if able else f"{pgbouncer_version(binary)} cannot share prepared statements: measured in session mode"
    return Subject("PgBouncer", start, remark)


def start_pgheadroom(server: PostgresServer, prepared: bool, tls: Mapping[str, str] | None = None) -> ServedProcess:
    return in_front_of(
        server,
        budget={"total": POOL + 2},
        # Logins that ask for nothing and leave, thousands a second, are what connects.per_identity is there to stop.
        classes={
            "all": {
                "reserved": 1,
                "limit": POOL,
                "max_clients": 12_000,
                "connects": {"per_identity": {"rate": 0}},
            }
        },
        default_class="all",
        users=users_with_passwords(),
        auth_method="trust",
        tls=tls,
    )


PGHEADROOM = Subject("pgheadroom", start_pgheadroom)
