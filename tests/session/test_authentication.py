"""Who is let in, seen from inside: rules, users asked from the server, passwords passed on, failures slowed down.

The proxy stands in front of a real server and real clients log in; `tests/clients/test_authentication.py` has the table
of methods on both legs.
"""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import psycopg
import pytest

from proxy.demo.postgres import EmbeddedPostgres, free_port, password_of
from proxy.session import user_lookup
from proxy.wire import messages
from proxy.wire.scram import make_verifier
from proxy.wire.startup import encode_startup
from tests.support.certificates import issue, make_certificates
from tests.support.eventually import eventually
from tests.support.running import Running, RunProxy
from tests.support.servers import Postgres
from tests.support.wire_client import SYNC, bind, execute, parse

MakePostgres = Callable[..., EmbeddedPostgres]
T = TypeVar("T")

PG_SHADOW = "SELECT usename, passwd FROM pg_shadow WHERE usename = $1"
NOBODY_LISTED: dict[str, Any] = {"method": "scram", "users_file": None, "auth_query": PG_SHADOW}


async def who(running: Running, user: str = "app", **more: str) -> str:
    async with await running.psycopg(user, **more) as connection:
        row = await (await connection.execute("SELECT current_user::text")).fetchone()
        return str(row[0])


def says_and_resets(port: int, said: bytes) -> None:
    """In one go, so that the proxy accepts a connection that its peer has reset already."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.sendall(said)
    sock.close()


async def refusal(running: Running, **options: Any) -> str:
    """What libpq says of a login that must fail."""
    known = {"host": "127.0.0.1", "port": running.port, "dbname": "app", "user": "app", "password": "wrong"}
    with pytest.raises(psycopg.OperationalError) as caught:
        await psycopg.AsyncConnection.connect(**{**known, "connect_timeout": 10, **options})
    return str(caught.value)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder)
    for name in ("app", "web.prod"):
        issue(folder, name, subject=f"/CN={name}")
    return folder


def offering_tls(certificates: Path, **more: Any) -> dict[str, Any]:
    names = {"cert": "server.crt", "key": "server.key", "client_ca": "ca.crt"}
    return {"tls": {**{key: str(certificates / name) for key, name in names.items()}, **more}}


def showing(certificates: Path, name: str) -> dict[str, str]:
    return {
        "sslmode": "require",
        "sslcert": str(certificates / f"{name}.crt"),
        "sslkey": str(certificates / f"{name}.key"),
    }


# -- rules ----------------------------------------------------------------------------------------------------------


async def test_the_first_rule_that_matches_decides(run_proxy: RunProxy) -> None:
    rules = [
        {"method": "reject", "user": "web"},
        {"method": "trust", "user": "bulk", "address": "127.0.0.0/8"},
        {"method": "scram", "database": "app"},
    ]
    proxy = await run_proxy(auth={"method": None, "rules": rules})
    assert await who(proxy, "app") == "app"
    bare = await psycopg.AsyncConnection.connect(f"host=127.0.0.1 port={proxy.port} user=bulk dbname=app")
    await bare.close()
    assert "password authentication failed" in await refusal(proxy)
    told = await refusal(proxy, user="web")
    assert 'connections are not allowed for host "127.0.0.1", user "web", database "app", no encryption' in told
    assert 'database "postgres"' in await refusal(proxy, dbname="postgres")
    assert proxy.measures.login_failures == {"wrong_password": 1, "not_allowed": 2}


async def test_rules_tell_sockets_and_encryption_apart(run_proxy: RunProxy, certificates: Path, tmp_path: Path) -> None:
    rules = [
        {"method": "trust", "address": "local"},
        {"method": "trust", "tls": "required", "user": "web"},
        {"method": "scram", "tls": "refused"},
    ]
    port = free_port()
    listen = {**offering_tls(certificates), "unix_socket_dir": str(tmp_path), "port": port}
    proxy = await run_proxy(auth={"method": None, "rules": rules}, listen=listen)
    by_socket = await psycopg.AsyncConnection.connect(f"host={tmp_path} port={port} user=app dbname=app")
    await by_socket.close()
    assert await who(proxy, "web", sslmode="require") == "web"
    assert await who(proxy, "app", sslmode="disable") == "app"
    assert "SSL encryption" in await refusal(proxy, sslmode="require")


async def test_who_is_gone_before_it_is_looked_at_is_not_taken_for_a_client_of_the_unix_socket(
    run_proxy: RunProxy,
) -> None:
    """A connection that was reset has no peer's address any more, and what was sent on it can still be read: it was let
    in by a rule for the unix socket."""
    rules = [{"method": "trust", "address": "local"}, {"method": "scram"}]
    proxy = await run_proxy(auth={"method": None, "rules": rules})
    says_and_resets(proxy.port, encode_startup({"user": "app", "database": "app"}))
    assert await who(proxy) == "app", "accepted behind it"
    assert proxy.measures.logins == 1


async def test_rules_change_with_a_reload(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(auth={"method": None, "rules": [{"method": "trust"}]})
    assert await who(proxy) == "app"
    proxy.reload(auth={"rules": [{"method": "reject"}]})
    assert "not allowed" in await refusal(proxy)
    proxy.reload(auth={"rules": [{"method": "scram"}], "users_file": None, "users": {"app": password_of("app")}})
    assert await who(proxy) == "app"
    assert "password authentication failed" in await refusal(proxy)


async def test_a_users_file_is_read_again_with_a_reload(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(auth={"method": "scram"})
    assert await who(proxy) == "app"
    (proxy.folder / "users.txt").write_text('"app" "another"\n')
    proxy.reload()
    assert "password authentication failed" in await refusal(proxy, password=password_of("app"))


# -- cleartext ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["cleartext", "passthrough"])
async def test_a_password_in_the_clear_is_taken_over_tls_only(
    run_proxy: RunProxy, certificates: Path, method: str
) -> None:
    proxy = await run_proxy(auth={"method": method}, listen=offering_tls(certificates))
    assert await who(proxy, sslmode="require") == "app"
    told = await refusal(proxy, sslmode="disable", password=password_of("app"))
    assert "passwords are taken over TLS only" in told
    assert "sslmode=require" in told


# -- certificates ---------------------------------------------------------------------------------------------------


async def test_a_certificate_proves_the_user_of_its_common_name(run_proxy: RunProxy, certificates: Path) -> None:
    auth = {"method": "cert", "cert_users": {"web.prod": "web"}}
    proxy = await run_proxy(auth=auth, listen=offering_tls(certificates))
    assert await who(proxy, "app", **showing(certificates, "app")) == "app"
    assert await who(proxy, "web", **showing(certificates, "web.prod")) == "web"
    told = await refusal(proxy, user="web", **showing(certificates, "app"))
    assert 'certificate authentication failed for user "web"' in told
    told = await refusal(proxy, user="web.prod", **showing(certificates, "web.prod"))
    assert 'certificate authentication failed for user "web.prod"' in told
    assert "requires a valid client certificate" in await refusal(proxy, sslmode="require", sslcertmode="disable")
    assert "requires a valid client certificate" in await refusal(proxy, sslmode="disable")
    assert proxy.measures.login_failures == {"certificate": 4}


async def test_where_certificates_are_asked_for_others_need_none(run_proxy: RunProxy, certificates: Path) -> None:
    rules = [{"method": "cert", "user": "web"}, {"method": "scram"}]
    proxy = await run_proxy(auth={"method": None, "rules": rules}, listen=offering_tls(certificates))
    assert await who(proxy, "app", sslmode="require", sslcertmode="disable") == "app"


# -- channel binding ------------------------------------------------------------------------------------------------


async def test_libpq_binds_its_login_to_the_certificate_of_the_proxy(run_proxy: RunProxy, certificates: Path) -> None:
    proxy = await run_proxy(auth={"method": "scram"}, listen=offering_tls(certificates))
    assert await who(proxy, sslmode="require", channel_binding="require") == "app"
    assert await who(proxy, sslmode="require", channel_binding="disable") == "app"
    assert "channel binding" in await refusal(proxy, sslmode="disable", channel_binding="require")
    told = await refusal(proxy, sslmode="require", channel_binding="require")
    assert "password authentication failed" in told


async def test_asyncpg_logs_in_without_binding_where_it_is_offered(run_proxy: RunProxy, certificates: Path) -> None:
    proxy = await run_proxy(auth={"method": "scram"}, listen=offering_tls(certificates))
    context = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
    connection = await asyncpg.connect(
        host="127.0.0.1", port=proxy.port, user="app", database="app", password=password_of("app"), ssl=context
    )
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()


# -- auth_query -----------------------------------------------------------------------------------------------------


@pytest.fixture
def as_superuser(postgres: Postgres) -> str:
    """Who may read pg_shadow, over TCP as the tests' server has it."""
    return postgres.url("postgres")


async def test_users_are_asked_from_the_server_and_their_verifiers_log_in_there(
    run_proxy: RunProxy, as_superuser: str
) -> None:
    """No password is stored anywhere: what a client proves is what the proxy logs in with."""
    proxy = await run_proxy(as_superuser, auth=NOBODY_LISTED)
    for user in ("app", "web", "app"):
        assert await who(proxy, user) == user
    pool = proxy.registry.pool("app", "app")
    assert pool.credentials is not None
    assert pool.credentials.password is None
    assert pool.credentials.scram_keys is not None
    assert proxy.measures.auth_queries == 2


async def test_a_user_the_server_does_not_know_looks_like_a_wrong_password(
    run_proxy: RunProxy, as_superuser: str
) -> None:
    proxy = await run_proxy(as_superuser, auth=NOBODY_LISTED)
    for user in ("nobody", "app", "nobody"):
        assert f'password authentication failed for user "{user}"' in await refusal(proxy, user=user)
    assert proxy.measures.auth_queries == 2
    assert proxy.measures.login_failures == {"unknown_user": 2, "wrong_password": 1}


async def test_the_name_of_a_user_is_a_value_and_never_a_part_of_the_query(
    run_proxy: RunProxy, as_superuser: str
) -> None:
    proxy = await run_proxy(as_superuser, auth=NOBODY_LISTED)
    for user in ("' OR usename = 'app", "app'--", "$1", "\u00fc"):
        assert "password authentication failed" in await refusal(proxy, user=user, password=password_of("app"))
    assert proxy.measures.auth_query_failures == 0


async def test_hundred_clients_of_one_user_ask_once(run_proxy: RunProxy, as_superuser: str) -> None:
    proxy = await run_proxy(as_superuser, auth=NOBODY_LISTED)
    assert await asyncio.gather(*(who(proxy) for _ in range(100))) == ["app"] * 100
    assert proxy.measures.auth_queries == 1


async def test_what_is_remembered_is_asked_again_after_its_time(run_proxy: RunProxy, as_superuser: str) -> None:
    auth = {**NOBODY_LISTED, "cache": {"ttl": 0, "negative_ttl": 0}}
    proxy = await run_proxy(as_superuser, auth=auth)
    assert [await who(proxy), await who(proxy)] == ["app", "app"]
    assert proxy.measures.auth_queries == 2


async def test_a_new_password_works_at_the_second_try_at_the_latest(
    run_proxy: RunProxy, postgres: Postgres, as_superuser: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is remembered is the old one; a wrong password makes the proxy ask again."""
    monkeypatch.setattr("proxy.session.authentication._ASK_AGAIN_AFTER_SECONDS", 0.0)
    postgres.psql("DROP ROLE IF EXISTS changing; CREATE ROLE changing LOGIN PASSWORD 'old'")
    proxy = await run_proxy(as_superuser, auth={**NOBODY_LISTED, "cache": {"ttl": "1h"}})
    login = {"host": "127.0.0.1", "port": proxy.port, "user": "changing", "dbname": "app"}
    await (await psycopg.AsyncConnection.connect(**login, password="old")).close()
    postgres.psql("ALTER ROLE changing PASSWORD 'new'")
    assert "password authentication failed" in await refusal(proxy, user="changing", password="new")
    await (await psycopg.AsyncConnection.connect(**login, password="new")).close()


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("SELECT usename, passwd FROM no_such_table WHERE usename = $1", "no_such_table"),
        ("SELECT passwd FROM pg_shadow WHERE usename = $1", "1 rows of 1 columns"),
        ("SELECT usename, passwd FROM pg_shadow WHERE usename <> $1", "rows of 2 columns"),
        ("SELECT 'web', passwd FROM pg_shadow WHERE usename = $1", "another user"),
    ],
)
async def test_a_query_that_fails_is_told_by_its_setting_and_explained_in_the_log(
    run_proxy: RunProxy, as_superuser: str, query: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    proxy = await run_proxy(as_superuser, auth={**NOBODY_LISTED, "auth_query": query})
    told = await refusal(proxy, password=password_of("app"))
    assert 'user "app" cannot be looked up now: auth.auth_query failed' in told
    assert why not in told
    assert why in capsys.readouterr().out
    assert proxy.measures.login_failures == {"unavailable": 1}


async def test_a_query_that_never_ends_is_cancelled_and_leaves_no_backend_behind(
    run_proxy: RunProxy, as_superuser: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_lookup, "QUERY_TIMEOUT_SECONDS", 0.3)
    sleeping = "SELECT usename, passwd FROM pg_shadow, pg_sleep(3600) WHERE usename = $1"
    proxy = await run_proxy(as_superuser, auth={**NOBODY_LISTED, "auth_query": sleeping})
    assert "auth.auth_query failed" in await refusal(proxy)
    count = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(3600) WHERE%' AND state = 'active'"
    await eventually(lambda: postgres.psql(f"{count} AND pid <> pg_backend_pid()") == "0")


async def test_while_the_server_is_away_a_lookup_fails_in_words_and_at_once(
    run_proxy: RunProxy, make_postgres: MakePostgres
) -> None:
    server = await asyncio.to_thread(make_postgres, 18)
    proxy = await run_proxy(server.url("postgres"), auth=NOBODY_LISTED)
    await asyncio.to_thread(server.stop)
    assert "auth.auth_query failed" in await refusal(proxy, password=password_of("app"))
    await asyncio.to_thread(server.start)
    await eventually(lambda: proxy.registry.connector.down is None, within_seconds=15)
    assert await who(proxy) == "app"


async def test_while_the_server_does_not_answer_a_lookup_ends_in_words_too(
    run_proxy: RunProxy, make_postgres: MakePostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_lookup, "QUERY_TIMEOUT_SECONDS", 0.5)
    server = await asyncio.to_thread(make_postgres, 18)
    proxy = await run_proxy(server.url("postgres"), auth={**NOBODY_LISTED, "cache": {"ttl": 0}})
    assert await who(proxy) == "app"
    server.freeze()
    try:
        for _ in range(3):
            assert "auth.auth_query failed" in await refusal(proxy)
    finally:
        server.thaw()
    await eventually(lambda: proxy.registry.connector.down is None, within_seconds=15)
    assert await who(proxy) == "app"


async def test_a_client_that_leaves_while_it_is_looked_up_leaves_nothing(
    run_proxy: RunProxy, as_superuser: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_lookup, "QUERY_TIMEOUT_SECONDS", 0.5)
    sleeping = "SELECT usename, passwd FROM pg_shadow, pg_sleep(3600) WHERE usename = $1"
    proxy = await run_proxy(as_superuser, auth={**NOBODY_LISTED, "auth_query": sleeping})
    client = await proxy.open()
    await client.send(encode_startup({"user": "app", "database": "app"}))
    await eventually(lambda: proxy.measures.auth_queries == 1)
    await client.abort()
    await eventually(lambda: proxy.desk.connected == 0)


async def test_bytes_ahead_of_any_question_are_bounded(run_proxy: RunProxy, as_superuser: str) -> None:
    sleeping = "SELECT usename, passwd FROM pg_shadow, pg_sleep(1) WHERE usename = $1"
    proxy = await run_proxy(as_superuser, auth={**NOBODY_LISTED, "auth_query": sleeping})
    client = await proxy.open()
    await client.send(encode_startup({"user": "app", "database": "app"}))
    await eventually(lambda: proxy.measures.auth_queries == 1)
    await client.send(bytes(20_000))
    answer = await client.answer("never")
    assert answer.codes == ["08P01"]


async def test_users_that_exist_do_not_wait_behind_invented_ones(run_proxy: RunProxy, as_superuser: str) -> None:
    auth = {**NOBODY_LISTED, "cache": {"ttl": 0}, "failures": {"delay": 0}}
    proxy = await run_proxy(as_superuser, auth=auth)
    assert await who(proxy) == "app"
    lookup = proxy.upstream.user_lookup
    answered: list[str] = []

    async def find(user: str) -> None:
        await lookup.find_or_none(user)
        answered.append(user)

    await asyncio.gather(*(find(f"guest{number}") for number in range(20)), find("app"))
    assert answered.index("app") <= 1


async def test_a_lookup_between_two_units_of_a_client_is_not_what_the_client_runs(
    run_proxy: RunProxy, as_superuser: str
) -> None:
    """Both use the unnamed statement of one server connection, where the client is the upstream's own user."""
    rules = [{"method": "trust", "user": "postgres"}, {"method": "scram"}]
    proxy = await run_proxy(as_superuser, auth={**NOBODY_LISTED, "method": None, "rules": rules})
    client = await proxy.connect("postgres")
    await client.send(parse("SELECT 'mine'"), SYNC)
    await client.answer()
    dials = proxy.measures.dials
    assert await who(proxy) == "app"
    await client.send(bind(), execute(), SYNC)
    assert (await client.answer()).value == "mine"
    assert (proxy.measures.auth_queries, proxy.measures.dials) == (1, dials + 1)


async def test_what_is_listed_of_the_upstreams_own_user_does_not_replace_the_password_of_its_url(
    run_proxy: RunProxy, as_superuser: str
) -> None:
    """A client came with a verifier that the server does not have, and the proxy could no longer ask the server."""
    stale = make_verifier("let me in", b"another salt").format()
    proxy = await run_proxy(as_superuser, auth={"method": "scram", "users_file": None, "users": {"postgres": stale}})
    connection = await psycopg.AsyncConnection.connect(
        f"postgresql://postgres:let%20me%20in@127.0.0.1:{proxy.port}/app"
    )
    await connection.close()
    proxy.registry.close_all_idle()
    await eventually(lambda: not proxy.registry.connections)
    assert (await proxy.watch.ask()).max_connections > 0


# -- passthrough ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def passing_through(
    run_proxy: RunProxy, certificates: Path, *arguments: Any, **changes: Any
) -> AsyncIterator[Running]:
    auth = {"method": "passthrough", "users_file": None, **changes.pop("auth", {})}
    yield await run_proxy(*arguments, auth=auth, listen=offering_tls(certificates), **changes)


async def test_a_password_that_the_server_takes_lets_in_and_is_remembered(
    run_proxy: RunProxy, certificates: Path
) -> None:
    async with passing_through(run_proxy, certificates) as proxy:
        for user in ("app", "web", "app", "app"):
            assert await who(proxy, user, sslmode="require") == user
        assert proxy.measures.passthrough_logins == 2
        dials = proxy.measures.dials
        assert await who(proxy, "app", sslmode="require") == "app"
        assert proxy.measures.dials == dials


async def test_a_password_that_the_server_refuses_is_refused_in_the_usual_words_and_leaves_the_pool_alone(
    run_proxy: RunProxy, certificates: Path
) -> None:
    async with passing_through(run_proxy, certificates) as proxy:
        async with await proxy.psycopg(sslmode="require") as working:
            for user in ("app", "nobody"):
                told = await refusal(proxy, user=user, sslmode="require")
                assert f'password authentication failed for user "{user}"' in told
            assert await (await working.execute("SELECT 1")).fetchone() == (1,)
        assert proxy.measures.login_failures == {"server_refused": 2}
        assert sorted(user for _, user in proxy.registry.pools) == ["app"]
        assert await who(proxy, "app", sslmode="require") == "app"


async def test_a_flood_of_wrong_passwords_costs_one_server_connection_at_a_time(
    run_proxy: RunProxy, certificates: Path
) -> None:
    async with passing_through(run_proxy, certificates, auth={"failures": {"delay": 0}}) as proxy:
        guesses = [refusal(proxy, password=f"guess {n}", sslmode="require") for n in range(30)]
        told, most = await most_slots_used(proxy, asyncio.gather(*guesses))
        assert all("password authentication failed" in one for one in told)
        assert most == 1


async def test_hundred_clients_with_one_password_try_it_once(run_proxy: RunProxy, certificates: Path) -> None:
    async with passing_through(run_proxy, certificates) as proxy:
        assert set(await asyncio.gather(*(who(proxy, sslmode="require") for _ in range(60)))) == {"app"}
        assert proxy.measures.passthrough_logins == 1


async def test_while_the_server_is_away_a_password_is_not_called_wrong(
    run_proxy: RunProxy, make_postgres: MakePostgres, certificates: Path
) -> None:
    server = await asyncio.to_thread(make_postgres, 18)
    async with passing_through(run_proxy, certificates, server.url("app")) as proxy:
        await asyncio.to_thread(server.stop)
        assert "cannot be reached" in await refusal(proxy, password=password_of("app"), sslmode="require")
        assert proxy.measures.login_failures == {"unavailable": 1}


# -- who exists -----------------------------------------------------------------------------------------------------


async def challenge(proxy: Running, user: str) -> tuple[bytes, bytes, bytes]:
    """What is offered, and salt and iterations that the user is shown."""
    client = await proxy.open()
    await client.send(encode_startup({"user": user, "database": "app"}))
    _, offered = await client.reply()
    await client.send(messages.sasl_initial_response("SCRAM-SHA-256", b"n,,n=,r=abc"))
    _, shown = await client.reply()
    _, salt, iterations = shown[4:].split(b",")
    await client.abort()
    return offered, salt, iterations


async def test_an_exchange_does_not_tell_who_exists(run_proxy: RunProxy) -> None:
    """Kept as a password, as a verifier, or not at all: offer and iterations are alike, each salt stays."""
    users = {"kept": "secret", "verified": make_verifier("secret", bytes(range(16)), 5000).format()}
    proxy = await run_proxy(auth={"method": "scram", "users_file": None, "users": users})
    first = {user: await challenge(proxy, user) for user in ("kept", "verified", "nobody")}
    proxy.reload(auth={"users": {**users, "kept": "another"}})
    again = {user: await challenge(proxy, user) for user in first}
    assert first == again
    assert {(offered, len(salt), iterations) for offered, salt, iterations in first.values()} == {
        (first["nobody"][0], 2 + 24, b"i=5000")
    }
    assert len({salt for _, salt, _ in first.values()}) == 3


# -- failures are slowed down ---------------------------------------------------------------------------------------


@pytest.mark.alone
async def test_failures_wait_longer_each_time_and_never_those_who_succeed(run_proxy: RunProxy) -> None:
    """A worker with a wrong password shares user and address with sound ones."""
    failures = {"delay": "200ms", "max_delay": "800ms"}
    proxy = await run_proxy(auth={"method": "scram", "failures": failures})
    loop = asyncio.get_running_loop()
    took = []
    for _ in range(4):
        began = loop.time()
        await refusal(proxy)
        took.append(loop.time() - began)
    assert [seconds >= least for seconds, least in zip(took, (0.2, 0.4, 0.8, 0.8), strict=True)] == [True] * 4
    # Both ends of these exchanges compute in this process, and the last must be done before the first was held enough.
    failing = asyncio.gather(*(refusal(proxy) for _ in range(10)))
    await eventually(lambda: proxy.desk.failed_logins.held == 10)
    assert await who(proxy) == "app"
    assert proxy.desk.failed_logins.held == 10
    await failing


async def test_failed_logins_never_take_a_slot(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(auth={"method": "scram", "failures": {"delay": 0}})
    guesses = [refusal(proxy, user=user) for user in ("app", "nobody") * 20]
    told, most = await most_slots_used(proxy, asyncio.gather(*guesses))
    assert (len(told), most) == (40, 0)


async def most_slots_used(proxy: Running, work: Awaitable[T]) -> tuple[T, int]:
    """What came of `work`, and how many slots were in use at any turn of the loop meanwhile."""
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, proxy.controller.in_use)
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    try:
        done = await work
    finally:
        watching.cancel()
    return done, most


async def test_real_clients_work_on_while_others_fail(run_proxy: RunProxy) -> None:
    """Two hundred guesses while four clients work on the four slots there are."""
    failures = {"delay": "300ms", "max_held": 50}
    proxy = await run_proxy(auth={"method": "scram", "failures": failures})

    async def work() -> int:
        async with await proxy.psycopg() as connection:
            for _ in range(50):
                await connection.execute("SELECT 1")
        return 50

    guesses = [refusal(proxy, user=f"guest{n % 20}") for n in range(200)]
    told, *done = await asyncio.gather(asyncio.gather(*guesses), *(work() for _ in range(4)))
    assert len(told) == 200
    assert done == [50] * 4
    assert proxy.measures.login_failures == {"unknown_user": 200}
    assert sorted(user for _, user in proxy.registry.pools) == ["app"]


async def test_more_failures_than_may_wait_are_answered_at_once(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(auth={"method": "md5", "failures": {"delay": "1m", "max_delay": "1m", "max_held": 1}})
    waiting = await proxy.open()
    await waiting.send(encode_startup({"user": "app", "database": "app"}))
    await waiting.answer("R")
    await waiting.send(messages.password_message("wrong"))
    await eventually(lambda: proxy.desk.failed_logins.held == 1)
    assert "password authentication failed" in await refusal(proxy)
    await waiting.abort()
    await eventually(lambda: proxy.desk.failed_logins.held == 0)


async def test_the_end_of_the_process_answers_those_who_wait(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(auth={"method": "scram", "failures": {"delay": "1m", "max_delay": "1m"}})
    waiting = asyncio.create_task(refusal(proxy, connect_timeout=60))
    await eventually(lambda: proxy.desk.failed_logins.held == 1)
    await proxy.process.drain_and_stop()
    assert "password authentication failed" in await waiting


@pytest.fixture
def log_text(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    return lambda: "".join(capsys.readouterr())


async def test_no_password_is_ever_logged(
    run_proxy: RunProxy, certificates: Path, as_superuser: str, log_text: Callable[[], str]
) -> None:
    rules = [
        {"method": "cleartext", "user": "web", "tls": "required"},
        {"method": "passthrough", "user": "bulk", "tls": "required"},
        {"method": "scram"},
    ]
    auth = {"method": None, "rules": rules, "users_file": None, "auth_query": PG_SHADOW}
    proxy = await run_proxy(as_superuser, auth=auth, listen=offering_tls(certificates))
    for user in ("app", "web", "bulk"):
        assert await who(proxy, user, sslmode="require") == user
        await refusal(proxy, user=user, password="hunter2", sslmode="require")
    said = log_text()
    assert "login_refused" in said
    assert not [word for word in ("hunter2", "-secret", "SCRAM-SHA-256$") if word in said]
