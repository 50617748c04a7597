"""Session parameters follow the client from one server connection to the next."""

import asyncio

import pytest

from proxy.service.running_view import RunningView
from proxy.wire import messages
from proxy.wire.startup import encode_startup
from tests.session.fake_server import FakeServer, Session
from tests.support.eventually import eventually
from tests.support.running import RunProxy
from tests.support.servers import Postgres
from tests.support.wire_client import SYNC, query, run

ONE_SLOT = {"budget": {"total": 2}, "classes": {"all": {"limit": 1, "queue": {"timeout": "20s"}, "pinned_limit": 1}}}

STARTUP = {
    "client_encoding": ("LATIN1", "LATIN1"),
    "DateStyle": ("German", "German, DMY"),
    "TimeZone": ("Europe/Berlin", "Europe/Berlin"),
    "IntervalStyle": ("iso_8601", "iso_8601"),
    "application_name": ('it\'s \\ "me"', 'it\'s \\ "me"'),
    "search_path": ("pg_catalog, public", "pg_catalog, public"),
    "extra_float_digits": ("0", "0"),
    "lock_timeout": ("1234", "1234ms"),
}


@pytest.mark.parametrize("name", STARTUP)
async def test_startup_parameters_hold_for_their_client_only(run_proxy: RunProxy, name: str) -> None:
    asked, shown = STARTUP[name]
    proxy = await run_proxy(**ONE_SLOT)
    plain = await proxy.connect()
    default = await plain.value(f"show {name}")
    special = await proxy.connect(**{name: asked})
    for _ in range(2):
        assert await special.value(f"show {name}") == shown
        assert await plain.value(f"show {name}") == default
    assert await (await proxy.connect(**{name: asked})).value(f"show {name}") == shown


async def test_startup_options_hold_for_their_client_only(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE_SLOT)
    plain = await proxy.connect()
    special = await proxy.connect(options="-c statement_timeout=4321 --work_mem=1MB")
    for _ in range(2):
        answer = await special.query("show statement_timeout; show work_mem")
        assert answer.rows == [("4321ms",), ("1MB",)]
        assert await plain.value("show statement_timeout") == "0"
        assert await plain.value("show work_mem") == "4MB"


async def test_the_greeting_tells_each_client_its_own_values(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE_SLOT)
    await proxy.connect()
    for _ in range(2):  # the first one is tried on the server, the second one is known
        client = await proxy.connect(TimeZone="Asia/Tokyo", DateStyle="SQL, DMY", application_name="teller")
        told = client.greeting.parameters
        assert (told["TimeZone"], told["DateStyle"], told["application_name"]) == ("Asia/Tokyo", "SQL, DMY", "teller")
    assert (await proxy.connect()).greeting.parameters["TimeZone"] != "Asia/Tokyo"


async def test_a_set_holds_for_its_client_only(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE_SLOT)
    one, two = await proxy.connect(), await proxy.connect()
    for statement in ("set timezone to 'Asia/Tokyo'", "set time zone 'Asia/Tokyo'"):
        answer = await one.query(statement)
        assert (answer.parameters, proxy.controller.in_use) in (({"TimeZone": "Asia/Tokyo"}, 0), ({}, 0))
        assert await two.value("show timezone") != "Asia/Tokyo"
        assert await one.value("show timezone") == "Asia/Tokyo"


async def test_a_set_that_is_rolled_back_is_forgotten(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE_SLOT)
    one, two = await proxy.connect(), await proxy.connect()
    before = await one.value("show timezone")
    await one.query("begin; set timezone = 'Asia/Tokyo'")
    await one.query("rollback")
    await two.query("set timezone = 'Asia/Tokyo'")
    assert await one.value("show timezone") == before


@pytest.mark.parametrize("reset", ["reset all", "discard all", "reset timezone", "set timezone to default"])
@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
async def test_a_reset_brings_back_the_startup_values_and_gives_the_slot_back(
    run_proxy: RunProxy, reset: str, extended: bool
) -> None:
    proxy = await run_proxy(**ONE_SLOT)
    client = await proxy.connect(TimeZone="Asia/Tokyo")
    await client.query("set timezone = 'Europe/Paris'")
    await (client.extended if extended else client.query)(reset)
    await proxy.until_free()
    assert await client.value("show timezone") == "Asia/Tokyo"
    assert client.parameters["TimeZone"] == "Asia/Tokyo"


async def test_a_refused_startup_parameter_is_the_servers_error_at_login(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    for bad in ({"TimeZone": "Mars/Olympus"}, {"options": "-c no_such_setting=1"}, {"client_encoding": "klingon"}):
        client = await proxy.open()
        await client.send(encode_startup({"user": "app", "database": "app", **bad}))
        answer = await client.answer()
        (error,) = answer.errors
        assert (answer.kinds, error.severity) == ("RE", "FATAL")
        assert error.code in ("22023", "42704")
        await proxy.until_free()


async def test_known_parameters_cost_no_round_trip(fake_server: FakeServer, run_proxy: RunProxy) -> None:
    """The server holds back its answer to the SET until it has the query: it never gets the one without the other."""
    together: list[str] = []

    async def wait_for_the_query(session: Session, kind: str, payload: bytes) -> None:
        if payload.startswith(b"BEGIN;SET") and together:
            head = await asyncio.wait_for(session.reader.readexactly(5), 5)
            rest = await session.reader.readexactly(int.from_bytes(head[1:], "big") - 4)
            session.obey(kind, payload)
            together.append(rest[:-1].decode())
            session.obey(chr(head[0]), rest)
        else:
            session.obey(kind, payload)

    fake_server.on_message = wait_for_the_query
    proxy = await run_proxy(fake_server.url, **ONE_SLOT)
    one, two = await proxy.connect(TimeZone="Asia/Tokyo"), await proxy.connect(TimeZone="Europe/Paris")
    together.append("from now on")
    for n in range(3):
        assert (await one.query(f"one {n}")).kinds == "CZ"
        assert (await two.query(f"two {n}")).kinds == "CZ"
    assert together[1:] == ["one 0", "two 0", "one 1", "two 1", "one 2", "two 2"]
    assert (len(fake_server.of("app")), proxy.measures.parameters_reapplied) == (1, 6)


async def test_an_idle_connection_that_matches_already_is_preferred(
    fake_server: FakeServer, run_proxy: RunProxy
) -> None:
    proxy = await run_proxy(fake_server.url)
    one, two = await proxy.connect(TimeZone="Asia/Tokyo"), await proxy.connect(TimeZone="Europe/Paris")
    await one.query("begin")
    await two.query("begin")
    await one.query("commit")
    await two.query("commit")
    reapplied = proxy.measures.parameters_reapplied
    for _ in range(5):
        await one.query("select")
        await two.query("select")
    assert proxy.measures.parameters_reapplied == reapplied


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
@pytest.mark.parametrize("first", ["", "rollback", "commit"])
async def test_where_a_known_value_fails_later_nothing_of_the_clients_runs(
    run_proxy: RunProxy, postgres: Postgres, extended: bool, first: str
) -> None:
    """A role that may no longer be taken. A client that begins with ROLLBACK ends the failed transaction that should
    have stopped what it sends behind it."""
    proxy = await run_proxy(**ONE_SLOT)
    await asyncio.to_thread(
        postgres.psql, "drop role if exists taken; create role taken; grant taken to app", database="app"
    )
    special, plain = await proxy.connect(options="-c role=taken"), await proxy.connect()
    await plain.query("create table if not exists under_settings (who text); truncate under_settings")
    await plain.query("grant insert on under_settings to public")
    assert await special.value("select current_user") == "taken"
    assert await plain.value("select current_user") == "app"
    await asyncio.to_thread(postgres.psql, "revoke taken from app", database="app")
    insert = "insert into under_settings values (current_user)"
    if extended:
        await special.send(*((run(first), SYNC) if first else ()), run(insert), SYNC)
    else:
        await special.send(*((query(first),) if first else ()), query(insert))
    answer = await special.answer("never")
    assert answer.errors[-1].severity == "FATAL"
    assert answer.errors[-1].code == "42501"
    assert await plain.value("select count(*) from under_settings") == "0"
    await plain.query("drop table under_settings")
    await asyncio.to_thread(postgres.psql, "drop role taken", database="app")


async def test_one_query_that_begins_with_rollback_does_not_run_under_foreign_settings(
    fake_server: FakeServer, run_proxy: RunProxy
) -> None:
    """As above for one text: the server runs what stands behind the ROLLBACK."""
    fails = False

    async def refuse(session: Session, kind: str, payload: bytes) -> None:
        if fails and payload.startswith(b"BEGIN;SET"):
            session.fail("22023")
            session.status = b"E"
            session.send(messages.ready_for_query(b"E"))
        else:
            session.obey(kind, payload)

    fake_server.on_message = refuse
    proxy = await run_proxy(fake_server.url, **ONE_SLOT)
    one, two = await proxy.connect(TimeZone="Asia/Tokyo"), await proxy.connect()
    await two.query("select")
    fails = True
    await one.send(query("rollback; insert"))
    await eventually(lambda: len(proxy.desk.clients) == 1)
    assert "rollback; insert" not in fake_server.queries()


async def test_a_class_gives_its_clients_parameters_that_they_do_not_set(run_proxy: RunProxy) -> None:
    given = {"statement_timeout": "7s", "work_mem": "5MB"}
    proxy = await run_proxy(classes={"all": {"limit": 2, "parameters": given}})
    client, own = await proxy.connect(), await proxy.connect(options="-c work_mem=6MB")
    assert await client.value("show statement_timeout") == "7s"
    assert await own.value("show work_mem") == "6MB"
    await client.query("set statement_timeout = '1s'")
    assert await client.value("show statement_timeout") == "1s"
    await client.query("reset all")
    assert await client.value("show statement_timeout") == "7s"
    assert await client.value("show work_mem") == "5MB"


async def test_a_transaction_that_waits_for_its_client_is_seen_and_ends(run_proxy: RunProxy) -> None:
    """A slot held across a slow await: the metric names the application, a parameter of the class bounds it."""
    given = {"idle_in_transaction_session_timeout": "300ms"}
    proxy = await run_proxy(classes={"all": {"limit": 2, "parameters": given}})
    client = await proxy.connect(application_name="slow-await")
    view = RunningView(proxy.process)
    await client.query("begin")
    assert [(key.application_name, count) for key, count in view.idle_in_transaction().items()] == [("slow-await", 1)]
    assert (await client.answer("E")).codes == ["25P03"]
    await proxy.until_free()
    assert view.idle_in_transaction() == {}
