"""Corners of the protocol that drivers reach rarely: portals, COPY that fails on either side, late news."""

import asyncio
from pathlib import Path

import psycopg
import pytest

from proxy.demo.postgres import EmbeddedPostgres, free_port
from proxy.session.client import Phase
from proxy.wire import messages
from proxy.wire.messages import message
from proxy.wire.startup import encode_ssl_request, encode_startup
from tests.support.eventually import eventually
from tests.support.running import Running, RunProxy
from tests.support.servers import Postgres
from tests.support.wire_client import (
    COPY_DONE,
    COPY_FAIL,
    FLUSH,
    SYNC,
    WireClient,
    bind,
    close,
    copy_data,
    describe,
    execute,
    function_call,
    parse,
    query,
    run,
)

ONE_SLOT = {"budget": {"total": 2}, "classes": {"all": {"limit": 1, "queue": {"timeout": "20s"}}}}
GSSENC_REQUEST = (8).to_bytes(4, "big") + (1234 << 16 | 5680).to_bytes(4, "big")


async def pair(run_proxy: RunProxy) -> tuple[Running, WireClient, WireClient]:
    """A client to be tested, and one that needs the only slot afterwards."""
    proxy = await run_proxy(**ONE_SLOT)
    return proxy, await proxy.connect(), await proxy.connect()


# -- portals -----------------------------------------------------------------------------------------------------------


async def test_a_portal_is_read_in_parts_within_its_transaction(run_proxy: RunProxy) -> None:
    proxy, client, other = await pair(run_proxy)
    await client.send(query("begin"))
    await client.answer()
    await client.send(parse("select * from generate_series(1, 5)"), bind(portal="p"), execute("p", rows=2), FLUSH)
    assert [(await client.answer("s")).kinds] == ["12DDs"]
    await client.send(execute("p", rows=2), SYNC)
    answer = await client.answer()
    assert (answer.kinds, [row[0] for row in answer.rows], answer.status) == ("DDsZ", ["3", "4"], "T")
    await client.send(execute("p"), close("P", "p"), SYNC)
    answer = await client.answer()
    assert ([row[0] for row in answer.rows], answer.tags) == (["5"], ["SELECT 1"])
    assert proxy.controller.in_use == 1
    await client.query("commit")
    assert await other.value("select 1") == "1"


async def test_a_suspended_portal_ends_with_its_sync_outside_a_transaction(run_proxy: RunProxy) -> None:
    """And frees the slot; its name is then unknown, on whichever connection."""
    _, client, other = await pair(run_proxy)
    await client.send(parse("select * from generate_series(1, 5)"), bind(portal="p"), execute("p", rows=2), SYNC)
    answer = await client.answer()
    assert (answer.kinds, answer.status) == ("12DDsZ", "I")
    assert await other.value("select 1") == "1"
    await client.send(execute("p"), SYNC)
    answer = await client.answer()
    assert (answer.codes, answer.status) == (["34000"], "I")


# -- COPY --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
async def test_a_copy_out_that_fails_in_the_middle(run_proxy: RunProxy, extended: bool) -> None:
    proxy, client, other = await pair(run_proxy)
    sql = "copy (select 1 / (500 - n) from generate_series(1, 1000) n) to stdout"
    await client.send(run(sql) + SYNC if extended else query(sql))
    answer = await client.answer()
    assert len(answer.payloads("d")) == 499
    assert (answer.codes, answer.status) == (["22012"], "I")
    assert proxy.controller.in_use == 0
    assert await other.value("select 1") == "1"


@pytest.mark.parametrize("end", [COPY_DONE, COPY_FAIL], ids=["the server's fault", "the client's"])
@pytest.mark.parametrize("in_block", [False, True], ids=["alone", "in a transaction"])
async def test_a_copy_in_that_fails_on_either_side(run_proxy: RunProxy, end: bytes, in_block: bool) -> None:
    proxy, client, other = await pair(run_proxy)
    await client.query("create table if not exists fails_on_a_side (n int)")
    if in_block:
        await client.query("begin")
    await client.send(query("copy fails_on_a_side from stdin"))
    await client.answer("G")
    await client.send(copy_data(b"1\n"), copy_data(b"no number\n") if end == COPY_DONE else b"", end)
    answer = await client.answer()
    assert answer.codes == (["22P02"] if end == COPY_DONE else ["57014"])
    assert answer.status == ("E" if in_block else "I")
    if in_block:
        assert (await client.query("commit")).tags == ["ROLLBACK"]
    await proxy.until_free()
    assert await other.value("select count(*) from fails_on_a_side") == "0"
    await other.query("drop table fails_on_a_side")


async def test_several_statements_with_a_copy_among_them(run_proxy: RunProxy) -> None:
    _, client, other = await pair(run_proxy)
    await client.query("create table if not exists among_others (n int)")
    await client.send(query("select 'first'; copy among_others from stdin; select count(*) from among_others"))
    await client.answer("G")
    await client.send(copy_data(b"1\n2\n"), COPY_DONE)
    answer = await client.answer()
    assert (answer.tags, answer.rows, answer.status) == (["COPY 2", "SELECT 1"], [("2",)], "I")
    await other.query("drop table among_others")


# -- cancel in every state ---------------------------------------------------------------------------------------------


CANCELLED = {
    "a query": ([query("select pg_sleep(60)")], ""),
    "a batch": ([run("select pg_sleep(60)"), SYNC], ""),
    "a batch behind a Flush": ([run("select pg_sleep(60)"), FLUSH], ""),
    "copy out": (
        [query("copy (select repeat('x', 9000), pg_sleep(.01) from generate_series(1, 6000)) to stdout")],
        "H",
    ),
    "the second of two": ([query("select 1"), query("select pg_sleep(60)")], "Z"),
}


@pytest.mark.parametrize("state", list(CANCELLED))
async def test_a_cancel_reaches_its_client_in_every_state(run_proxy: RunProxy, state: str) -> None:
    proxy, client, other = await pair(run_proxy)
    sent, until = CANCELLED[state]
    await client.send(*sent)
    if until:
        await client.answer(until)
    else:
        await eventually(lambda: Phase.LINKED in proxy.phases())
    answer = await client.cancelled(until="E")
    assert answer.codes == ["57014"]
    await client.send(SYNC if "Flush" in state else b"")
    assert (await client.answer()).status == "I"
    assert await client.value("select 'mine'") == "mine"
    assert await other.value("select 'others'") == "others"


async def test_a_cancel_in_a_copy_in_is_heard_with_the_next_data(run_proxy: RunProxy) -> None:
    """A server that waits for data looks at nothing else."""
    _, client, other = await pair(run_proxy)
    await client.query("create table if not exists cancelled_in (n int)")
    await client.send(query("copy cancelled_in from stdin"))
    await client.answer("G")
    await client.ask_to_cancel()
    await client.send(copy_data(b"1\n"), COPY_DONE)
    answer = await client.answer()
    assert (answer.codes, answer.status) == (["57014"], "I")
    assert await other.value("select count(*) from cancelled_in") == "0"
    await other.query("drop table cancelled_in")


# -- startup -----------------------------------------------------------------------------------------------------------


async def test_gssapi_encryption_is_refused_politely_and_the_client_goes_on(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client = await proxy.open()
    for request in (GSSENC_REQUEST, encode_ssl_request(), GSSENC_REQUEST):
        await client.send(request)
        assert await client.reader.readexactly(1) == b"N"
    await client.log_in("app", "app")
    assert await client.value("select 1") == "1"


async def test_a_unix_socket_is_as_good_as_tcp(run_proxy: RunProxy, tmp_path: Path) -> None:
    local = {"limit": 2, "match": [{"address": "local"}]}
    port = free_port()
    listen = {"unix_socket_dir": str(tmp_path), "port": port}
    proxy = await run_proxy(listen=listen, classes={"local": local, "all": {"limit": 2}})
    url = f"postgresql://app@/app?host={tmp_path}&port={port}"
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        assert [one.class_name for one in proxy.desk.clients] == ["local"]
        work = asyncio.create_task(connection.execute("select pg_sleep(60)"))
        await eventually(lambda: proxy.phases() == [Phase.LINKED])
        await connection.cancel_safe()
        with pytest.raises(psycopg.errors.QueryCanceled):
            await work


# -- what comes by itself ----------------------------------------------------------------------------------------------


async def test_a_parameter_that_the_server_changes_is_told_to_who_is_linked_and_to_nobody_twice(
    run_proxy: RunProxy, embedded_postgres_16: EmbeddedPostgres
) -> None:
    """A reload of the server's configuration reaches sessions without a question of theirs."""
    server = embedded_postgres_16
    proxy = await run_proxy(server.url("app"))
    linked, idle = await proxy.connect(), await proxy.connect()
    await linked.query("begin")
    assert linked.parameters["IntervalStyle"] == "postgres"
    server.psql("alter system set IntervalStyle = 'iso_8601'")
    server.psql("select pg_reload_conf()")
    try:

        async def has_changed() -> bool:
            return await linked.value("show IntervalStyle") == "iso_8601"

        await eventually(has_changed)  # a session looks at its configuration with its next command
        assert linked.parameters["IntervalStyle"] == "iso_8601"
        await linked.query("commit")
        assert await linked.value("show IntervalStyle") == "iso_8601"
        assert await idle.value("show IntervalStyle") == idle.parameters["IntervalStyle"], "as it was told"
    finally:
        server.psql("alter system reset IntervalStyle")
        server.psql("select pg_reload_conf()")


async def test_notices_of_every_kind_pass_in_their_order(run_proxy: RunProxy) -> None:
    _, client, _ = await pair(run_proxy)
    kinds = ("debug", "log", "info", "notice", "warning")
    raised = " ".join(f"raise {kind} '{kind}';" for kind in kinds)
    await client.query("set client_min_messages = debug1")
    answer = await client.query(f"do $$ begin {raised} end $$")
    assert [one.message for one in answer.notices if one.message in kinds] == list(kinds)
    assert answer.tags == ["DO"]


# -- large objects, function calls, empty queries ----------------------------------------------------------------------


async def test_a_large_object_is_written_and_read_by_function_calls(run_proxy: RunProxy, postgres: Postgres) -> None:
    """The way libpq's lo_ functions do it: fast-path calls in one transaction."""
    proxy, client, other = await pair(run_proxy)
    names = "'lo_create', 'lo_open', 'loread', 'lowrite', 'lo_lseek', 'lo_close', 'lo_unlink'"
    found = await client.query(f"select proname, oid from pg_proc where proname in ({names})")
    oids = {str(name): int(oid or 0) for name, oid in found.rows}

    async def call(name: str, *arguments: bytes) -> bytes:
        await client.send(function_call(oids[name], *arguments))
        answer = await client.answer()
        assert (answer.kinds, answer.status) == ("VZ", "T"), answer.errors
        return answer.payloads("V")[0][4:]

    def number(value: int) -> bytes:
        return value.to_bytes(4, "big")

    await client.query("begin")
    oid = await call("lo_create", number(0))
    handle = await call("lo_open", oid, number(0x60000))
    content = bytes(range(256)) * 1000
    assert await call("lowrite", handle, content) == number(len(content))
    await call("lo_lseek", handle, number(0), number(0))
    assert await call("loread", handle, number(len(content))) == content
    await call("lo_close", handle)
    await call("lo_unlink", oid)
    await client.query("commit")
    assert proxy.controller.in_use == 0
    assert await other.value("select 1") == "1"


@pytest.mark.parametrize("nothing", ["", " ; ;", "-- nothing\n", "/* nothing */"])
async def test_queries_of_nothing(run_proxy: RunProxy, nothing: str) -> None:
    proxy, client, other = await pair(run_proxy)
    assert (await client.query(nothing)).kinds == "IZ"
    await client.send(parse(nothing), bind(), describe(), execute(), SYNC)
    assert (await client.answer()).kinds == "12nIZ"
    assert proxy.controller.in_use == 0
    assert await other.value("select 1") == "1"


async def test_an_error_ends_the_rest_of_a_query_and_of_nothing_else(run_proxy: RunProxy) -> None:
    _, client, other = await pair(run_proxy)
    await client.send(query("select 1; select 1/0; select 3"), query("select 4"))
    answer = await client.answer()
    assert (answer.tags, answer.codes, answer.status) == (["SELECT 1"], ["22012"], "I")
    assert (await client.answer()).value == "4"
    assert (await client.query("begin; select 1/0")).status == "E"
    assert (await client.query("select 1; select 2")).codes == ["25P02"]
    assert (await client.query("rollback")).status == "I"
    assert await other.value("select 1") == "1"


async def test_a_message_of_an_unknown_kind_is_a_violation_on_either_side(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client = await proxy.connect()
    await client.send(message(ord("y"), b"what"))
    answer = await client.answer()
    assert (answer.codes, answer.errors[0].severity, answer.status) == (["08P01"], "FATAL", "")
    other = await proxy.open()
    await other.send(encode_startup({"user": "app", "database": "app"}), message(messages.QUERY, b"no end"))
    await other.answer()


@pytest.mark.parametrize("mode", ["transaction", "session"])
@pytest.mark.parametrize("name", ["", "named"], ids=["unnamed", "named"])
@pytest.mark.parametrize("ends", [COPY_DONE, COPY_FAIL], ids=["done", "failed"])
@pytest.mark.parametrize("ahead", [b"", SYNC], ids=["", "ignored Sync ahead"])
async def test_a_copy_sent_whole_before_the_server_asks_for_its_data(
    run_proxy: RunProxy, mode: str, name: str, ends: bytes, ahead: bytes
) -> None:
    """The Sync behind CopyDone was taken for one of those that the server ignores, and its answer for one too many."""
    proxy = await run_proxy(classes={"all": {"limit": 2, "pool_mode": mode}})
    client = await proxy.connect()
    await client.query("drop table if exists copied_ahead; create table copied_ahead (n int)")
    copy = parse("copy copied_ahead from stdin", name) + bind(statement=name) + execute() + ahead
    whole = copy + copy_data(b"1\n") + copy_data(b"2\n") + ends + SYNC
    expected = [["COPY 2"]] if ends == COPY_DONE else [[]]
    for cut in (0, len(copy), len(copy) + 10, len(whole) - len(SYNC), len(whole)):
        await client.send(whole[:cut])
        await asyncio.sleep(0)
        await client.send(whole[cut:], query("select 'behind'"), SYNC)
        answer = await client.answer()
        assert [answer.tags] == expected, answer.errors
        assert answer.status == "I"
        assert (await client.answer()).value == "behind"
        assert (await client.answer()).kinds == "Z"
        if name:
            await client.query(f"deallocate {name}")
    count = await client.value("select count(*) from copied_ahead")
    assert count == ("10" if ends == COPY_DONE else "0")
    await client.query("drop table copied_ahead")


@pytest.mark.parametrize("kind", [messages.DESCRIBE, messages.CLOSE])
@pytest.mark.parametrize("body", [b"", b"S"])
@pytest.mark.parametrize("in_block", [False, True])
async def test_a_message_that_names_nothing_breaks_the_protocol_and_nothing_else(
    run_proxy: RunProxy, kind: int, body: bytes, in_block: bool
) -> None:
    _, client, other = await pair(run_proxy)
    if in_block:
        await client.query("begin")
    await client.send(message(kind, body))
    answer = await client.answer("E")
    assert answer.codes == ["08P01"]
    assert await client.is_at_end()
    assert await other.value("select 'mine'") == "mine"
