"""A SET of a parameter that the server does not report does not pin: it goes with the client, and with nobody else."""

import pytest

from tests.session.fake_server import FakeServer
from tests.support.eventually import eventually
from tests.support.running import Running, RunProxy
from tests.support.wire_client import SYNC, WireClient, bind, execute, parse, query

ONE = {"classes": {"all": {"limit": 1, "pinned_limit": 1}}, "budget": {"total": 2}}
TWO = {"classes": {"all": {"limit": 2, "pinned_limit": 2}}, "budget": {"total": 3}}


async def show(client: WireClient, name: str) -> str | None:
    return await client.value(f"select current_setting('{name}', true)")


async def elsewhere(proxy: Running, client: WireClient) -> WireClient:
    """A client that holds, in a transaction, the server connection that `client` has used last."""
    first, second = await proxy.connect(), await proxy.connect()
    pid = await client.value("select pg_backend_pid()")
    await first.query("begin")
    if await first.value("select pg_backend_pid()") == pid:
        return first
    await second.query("begin")
    assert await second.value("select pg_backend_pid()") == pid
    await first.query("commit")
    return second


LASTING = [
    ("set extra_float_digits = 1", "extra_float_digits", "1"),
    ("set session statement_timeout to 5000", "statement_timeout", "5s"),
    ('set search_path = a, "B c"', "search_path", 'a, "B c"'),
    ("set my.own = 'it''s \\ own'", "my.own", "it's \\ own"),
    ("select set_config('lock_timeout', '1234', false)", "lock_timeout", "1234ms"),
    (
        "set session characteristics as transaction isolation level serializable",
        "default_transaction_isolation",
        "serializable",
    ),
    ("set work_mem = '1MB'; select 1", "work_mem", "1MB"),
    ("begin; set work_mem = '2MB'; commit", "work_mem", "2MB"),
    ("begin; set work_mem = '2MB'; savepoint s; set work_mem = '3MB'; rollback to s; commit", "work_mem", "2MB"),
    ("set local work_mem = '3MB'; set work_mem = '5MB'", "work_mem", "5MB"),
]


@pytest.mark.parametrize(
    ("statement", "name", "value", "extended"),
    [(*one, extended) for one in LASTING for extended in (False, True) if not (extended and ";" in one[0])],
)
async def test_it_goes_with_the_client(
    run_proxy: RunProxy, statement: str, name: str, value: str, extended: bool
) -> None:
    proxy = await run_proxy(**TWO)
    client, other = await proxy.connect(), await proxy.connect()
    default = await show(client, name)
    answer = await (client.extended if extended else client.query)(statement)
    assert (answer.codes, answer.status) == ([], "I")
    await proxy.until_free()
    assert proxy.measures.pins == {}
    assert await show(other, name) in (default, "" if default is None else default)
    assert await show(client, name) == value
    holder = await elsewhere(proxy, client)
    assert await show(client, name) == value
    await holder.query("commit")
    await client.query("discard all")
    assert await show(client, name) in (default, "")


@pytest.mark.parametrize(
    "statement",
    ["begin; set work_mem = '2MB'; rollback", "set work_mem = 'nonsense'", "set work_mem = '2MB'; select 1/0",
     "set work_mem = '2MB'; reset work_mem", "set work_mem = '2MB'; set work_mem to default",
     "set work_mem = '2MB'; reset all", "begin; set local work_mem = '2MB'; commit"],
)  # fmt: skip
async def test_what_did_not_last_does_not_go_anywhere(run_proxy: RunProxy, statement: str) -> None:
    proxy = await run_proxy(**TWO)
    client = await proxy.connect()
    await client.query(statement)
    await proxy.until_free()
    applied = proxy.measures.parameters_reapplied
    holder = await elsewhere(proxy, client)
    assert await show(client, "work_mem") == "4MB"
    assert proxy.measures.parameters_reapplied == applied, "nothing differs from any other client"
    await holder.query("commit")


async def test_it_is_known_before_the_client_s_next_statement(run_proxy: RunProxy) -> None:
    """Pipelined behind it, on the same connection or another: the question of ours stands between them."""
    proxy = await run_proxy(**ONE)
    client, other = await proxy.connect(), await proxy.connect()
    await client.send(
        query("set work_mem = '1MB'"), parse("select current_setting('work_mem')"), bind(), execute(), SYNC
    )
    assert (await client.answer()).tags == ["SET"]
    assert (await client.answer()).rows == [("1MB",)]
    assert await show(other, "work_mem") == "4MB"
    assert await show(client, "work_mem") == "1MB"


async def test_a_statement_is_not_shared_with_a_client_of_other_settings(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE)
    hex_client, escape_client = await proxy.connect(), await proxy.connect()
    await escape_client.query("set bytea_output = 'escape'")
    sql = r"select ('\x41'::bytea)::text"
    for client in (hex_client, escape_client):
        await client.send(parse(sql, "s"), SYNC)
        assert (await client.answer()).kinds == "1Z"
    for client, expected in ((hex_client, "\\x41"), (escape_client, "A")) * 2:
        await client.send(bind(statement="s"), execute(), SYNC)
        assert (await client.answer()).rows == [(expected,)]


async def test_a_client_that_leaves_behind_a_set_leaves_nothing(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE)
    for goodbye in ("leave", "abort"):
        client = await proxy.connect()
        await client.query("begin; set work_mem = '1MB'")
        await client.send(query("commit"))
        await getattr(client, goodbye)()
        await proxy.until_free()
        other = await proxy.connect()
        assert await show(other, "work_mem") == "4MB"


async def test_startup_options_and_set_are_one(run_proxy: RunProxy) -> None:
    """RESET brings back what the client started with, also where it was set to something else in between."""
    proxy = await run_proxy(**TWO)
    client = await proxy.connect(options="-c work_mem=1MB")
    assert await show(client, "work_mem") == "1MB"
    await client.query("set work_mem = '2MB'")
    holder = await elsewhere(proxy, client)
    assert await show(client, "work_mem") == "2MB"
    await holder.query("commit")
    await client.query("reset work_mem")
    assert await show(client, "work_mem") == "1MB"
    holder = await elsewhere(proxy, client)
    assert await show(client, "work_mem") == "1MB"
    await holder.query("commit")


async def test_what_cannot_be_asked_for_pins(fake_server: FakeServer, run_proxy: RunProxy) -> None:
    """The server refuses the question: the SET may be in force all the same, so nobody else gets the connection."""
    proxy = await run_proxy(fake_server.url)
    client = await proxy.connect()
    await client.query("set my.own = 1")
    await eventually(lambda: proxy.measures.pins == {("all", "set"): 1})
    assert proxy.controller.in_use == 1


@pytest.mark.parametrize(
    "failing",
    [
        "set nonsense = 3",
        "set max_connections = 5",
        "set work_mem = '7MB'; set nonsense = 3",
        "begin; set lock_timeout = 7000; commit; set nonsense = 3; select 1",
    ],
)
@pytest.mark.parametrize("behaviour", ["pin", "ignore", "reject"])
async def test_a_set_that_failed_leaves_no_failed_transaction_and_no_pin(
    run_proxy: RunProxy, failing: str, behaviour: str
) -> None:
    """Asked what had become of the parameter, the server refused in a transaction of the proxy's own: the client's next
    statements were refused in it."""
    classes = {"all": {"limit": 1, "pinned_limit": 1, "on_session_state": behaviour}}
    proxy = await run_proxy(classes=classes, budget={"total": 2})
    client, other = await proxy.connect(), await proxy.connect()
    answer = await client.query(failing)
    assert (len(answer.errors), answer.status) == (1, "I")
    answer = await client.query("select 1")
    assert (answer.codes, answer.status) == ([], "I")
    assert await show(other, "lock_timeout") == "0"
    assert await show(other, "work_mem") == "4MB"
    assert await show(client, "lock_timeout") == ("7s" if "lock_timeout" in failing else "0")
    assert await show(client, "work_mem") == "4MB"
    await proxy.until_free()
    assert proxy.measures.pins == {}
