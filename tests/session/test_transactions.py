"""Many clients on few server connections: when a connection is held, and when it is given back."""

import asyncio
import os
import signal

from proxy.wire.startup import encode_startup
from tests.session.fake_server import FakeServer
from tests.support.eventually import eventually
from tests.support.running import Running, RunProxy
from tests.support.servers import Postgres
from tests.support.wire_client import (
    COPY_DONE,
    COPY_FAIL,
    FLUSH,
    SYNC,
    TERMINATE,
    bind,
    copy_data,
    describe,
    execute,
    function_call,
    parse,
    query,
    run,
)

ONE_SLOT = {"classes": {"all": {"limit": 1, "queue": {"timeout": "20s"}, "pinned_limit": 1}}}


async def test_many_clients_share_few_connections(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(budget={"total": 3}, classes={"all": {"limit": 2, "queue": {"timeout": "20s"}}})
    clients = [await proxy.connect() for _ in range(30)]
    answers = await asyncio.gather(*(client.value(f"select {n}") for n, client in enumerate(clients)))
    assert answers == [str(n) for n in range(30)]
    assert proxy.registry.count <= 3


async def test_a_transaction_keeps_its_connection_until_commit(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    one, two = await proxy.connect(), await proxy.connect()
    assert (await one.query("begin")).status == "T"
    mine = await one.value("select pg_backend_pid()")
    assert await two.value("select pg_backend_pid()") != mine
    assert await one.value("select pg_backend_pid()") == mine
    assert proxy.controller.in_use == 1
    assert (await one.query("commit")).status == "I"
    assert proxy.controller.in_use == 0


async def test_a_connection_is_given_back_after_rollback(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client = await proxy.connect()
    await client.query("begin")
    assert (await client.query("rollback")).tags == ["ROLLBACK"]
    assert proxy.controller.in_use == 0


async def test_a_connection_is_given_back_after_an_error(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client = await proxy.connect()
    answer = await client.query("select 1/0")
    assert (answer.codes, answer.status) == (["22012"], "I")
    assert proxy.controller.in_use == 0


async def test_a_failed_transaction_keeps_its_connection_until_it_is_ended(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client = await proxy.connect()
    await client.query("begin")
    assert (await client.query("select 1/0")).status == "E"
    assert (await client.query("select 1")).codes == ["25P02"]
    assert proxy.controller.in_use == 1
    assert (await client.query("commit")).tags == ["ROLLBACK"]
    assert proxy.controller.in_use == 0


async def test_pipelined_simple_queries_are_answered_in_order_on_one_connection(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client = await proxy.connect()
    await client.send(*(query(f"select {n}, pg_backend_pid()") for n in range(50)))
    answers = [await client.answer() for _ in range(50)]
    assert [answer.rows[0][0] for answer in answers] == [str(n) for n in range(50)]
    assert len({answer.rows[0][1] for answer in answers}) == 1
    assert proxy.controller.in_use == 0


async def test_queries_sent_one_by_one_without_waiting_are_all_answered(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client = await proxy.connect()
    for n in range(50):
        await client.send(query(f"select {n}"))
        if n % 7 == 0:
            await asyncio.sleep(0)
    assert [(await client.answer()).value for _ in range(50)] == [str(n) for n in range(50)]


async def test_a_pipeline_of_extended_batches_is_answered_batch_by_batch(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client = await proxy.connect()
    await client.send(run("select 1"), SYNC, run("select 1/0"), run("select 2"), SYNC, run("select 3"), SYNC)
    first, second, third = [await client.answer() for _ in range(3)]
    assert first.value == "1"
    assert (second.codes, second.rows) == (["22012"], [])
    assert third.value == "3"
    assert proxy.controller.in_use == 0


async def test_flush_without_sync_brings_answers_and_a_portal_keeps_the_connection(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client = await proxy.connect()
    await client.send(parse("select 7"), describe("S"), FLUSH)
    assert (await client.answer("T")).kinds == "1tT"
    await proxy.until_free()
    await client.send(bind(), execute(), FLUSH)
    assert (await client.answer("C")).kinds == "2DC"
    assert proxy.controller.in_use == 1
    await client.send(SYNC)
    assert (await client.answer()).status == "I"
    assert proxy.controller.in_use == 0


async def test_the_unnamed_statement_outlives_its_unit(run_proxy: RunProxy) -> None:
    """Parsed in one unit and bound in a later one, on another connection: it is sent again, and nobody sees it."""
    proxy = await run_proxy()
    client, other = await proxy.connect(), await proxy.connect()
    await client.send(parse("select 40 + $1::int"), SYNC)
    assert (await client.answer()).kinds == "1Z"
    for value in ("1", "2"):
        await other.extended("select 'something else'")
        await client.send(bind(value), execute(), SYNC)
        answer = await client.answer()
        assert answer.kinds == "2DCZ", "ParseComplete belongs to the proxy"
        assert answer.rows == [(str(40 + int(value)),)]
    await other.extended("select 'something else'")
    await client.send(describe("S"), SYNC)
    assert (await client.answer()).kinds == "tTZ"


async def test_a_bind_in_two_pieces_whose_connection_must_be_dialled_ends_its_unit(run_proxy: RunProxy) -> None:
    """Its first piece holds nothing to decide on, and was once kept as if it were a simple query."""
    proxy = await run_proxy()
    client = await proxy.connect()
    await client.send(parse("select length($1)"), SYNC)
    assert (await client.answer()).kinds == "1Z"
    await proxy.until_free()
    proxy.registry.close_all_idle()
    whole = bind("set " * 5000)
    await client.send(whole[:500])
    await asyncio.sleep(0.05)
    await client.send(whole[500:], execute(), SYNC)
    answer = await client.answer()
    assert (answer.kinds, answer.rows) == ("2DCZ", [("20000",)])
    assert proxy.controller.in_use == 0
    assert proxy.measures.pins == {}


async def test_a_replayed_statement_that_no_longer_parses_is_the_servers_error(
    run_proxy: RunProxy, postgres: Postgres
) -> None:
    proxy = await run_proxy()
    client = await proxy.connect()
    await client.query("create table gone_before_bind (n int)")
    await client.send(parse("select n from gone_before_bind"), SYNC)
    await client.answer()
    await client.query("begin; savepoint s")  # a simple query destroys the unnamed statement
    await client.query("rollback")
    await client.send(bind(), execute(), SYNC)
    assert (await client.answer()).codes == ["26000"]
    await client.send(parse("select n from gone_before_bind"), SYNC)
    await client.answer()
    other = await proxy.connect()
    await other.query("drop table gone_before_bind")
    await client.send(bind(), execute(), SYNC)
    answer = await client.answer()
    assert (answer.codes, answer.status, answer.kinds) == (["42P01"], "I", "EZ")
    assert await client.value("select 1") == "1"


async def test_a_bind_of_a_statement_never_parsed_is_an_error_up_to_sync(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client = await proxy.connect()
    await client.send(bind(), execute(), SYNC)
    answer = await client.answer()
    assert (answer.codes, answer.status) == (["26000"], "I")
    assert await client.value("select 1") == "1"


async def test_an_empty_query_is_answered_by_the_server(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client = await proxy.connect()
    for sql in ("", ";", "-- nothing"):
        answer = await client.query(sql)
        assert (answer.kinds, answer.status) == ("IZ", "I")


async def test_a_lone_sync_needs_no_slot(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE_SLOT)
    holder, client = await proxy.connect(), await proxy.connect()
    await holder.query("begin")
    await client.send(SYNC, FLUSH, SYNC)
    assert [(await client.answer()).kinds, (await client.answer()).kinds] == ["Z", "Z"]


async def test_copy_messages_out_of_place_are_ignored_without_a_slot(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE_SLOT)
    holder, client = await proxy.connect(), await proxy.connect()
    await holder.query("begin")
    await client.send(copy_data(b"late\n"), COPY_DONE, COPY_FAIL, SYNC)
    assert (await client.answer()).kinds == "Z"
    await holder.query("commit")
    assert await client.value("select 1") == "1"


async def test_copy_in_and_out_pass_through(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client = await proxy.connect()
    await client.query("create table copied (n int, s text)")
    await client.send(query("copy copied from stdin"))
    assert (await client.answer("G")).kinds == "G"
    assert proxy.controller.in_use == 1
    rows = b"".join(b"%d\trow %d\n" % (n, n) for n in range(20_000))
    for at in range(0, len(rows), 50_000):
        await client.send(copy_data(rows[at : at + 50_000]))
    await client.send(COPY_DONE)
    assert (await client.answer()).tags == ["COPY 20000"]
    await proxy.until_free()
    await client.send(query("copy (select * from copied order by n) to stdout"))
    out = await client.answer()
    assert b"".join(out.payloads("d")) == rows
    await client.query("drop table copied")
    assert proxy.controller.in_use == 0


async def test_copy_by_the_extended_protocol_passes_through(run_proxy: RunProxy) -> None:
    """A Sync sent ahead of the data is ignored by the server, so the one behind CopyDone ends the unit."""
    proxy = await run_proxy()
    client = await proxy.connect()
    await client.query("create table copied_extended (n int)")
    for ahead in (SYNC, SYNC + SYNC, b""):
        await client.send(parse("copy copied_extended from stdin"), bind(), execute(), ahead or FLUSH)
        assert (await client.answer("G")).kinds == "12G"
        await client.send(copy_data(b"1\n2\n"))
        await client.send(COPY_DONE, SYNC)
        answer = await client.answer()
        assert (answer.tags, answer.status) == (["COPY 2"], "I")
        assert proxy.controller.in_use == 0
    assert await client.value("select count(*) from copied_extended") == "6"
    await client.query("drop table copied_extended")


async def test_a_copy_that_the_client_gives_up_frees_its_slot(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client = await proxy.connect()
    await client.query("create table given_up (n int)")
    await client.send(query("copy given_up from stdin"))
    await client.answer("G")
    await client.send(copy_data(b"1\n"), COPY_FAIL)
    assert (await client.answer()).codes == ["57014"]
    await proxy.until_free()
    await client.query("drop table given_up")


async def test_a_copy_that_fails_early_frees_its_slot_while_the_client_sends_on(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE_SLOT)
    client, other = await proxy.connect(), await proxy.connect()
    await client.query("create table fails_early (n int)")
    await client.send(query("copy fails_early from stdin"))
    await client.answer("G")
    await client.send(copy_data(b"not a number\n" * 10_000))
    answer = await client.answer()
    assert (answer.codes, answer.status) == (["22P02"], "I")
    assert await other.value("select 1") == "1", "the slot is free although the client still sends"
    for _ in range(20):
        await client.send(copy_data(b"too late\n" * 1000))
    await client.send(COPY_DONE, query("select 'alive'"))
    assert (await client.answer()).value == "alive"
    await client.query("drop table fails_early")


async def test_a_copy_that_fails_in_the_middle_of_a_message_frees_its_slot_at_the_end_of_it(
    run_proxy: RunProxy,
) -> None:
    """The rest of the message comes together with CopyDone: the slot was kept until the client's next query."""
    proxy = await run_proxy()
    client = await proxy.connect()
    await client.query("create table fails_in_message (n int)")
    await client.send(query("copy fails_in_message from stdin"))
    await client.answer("G")
    data = copy_data(b"not a number\n" * 50_000)
    await client.send(copy_data(b"not a number\n" * 10_000), data[:400_000])
    assert (await client.answer()).codes == ["22P02"]
    assert proxy.controller.in_use == 1, "the server still waits for the rest of the message"
    await client.send(data[400_000:], COPY_DONE)
    await proxy.until_free()
    await client.query("drop table fails_in_message")
    # What was noted about that message must not end a later unit in its middle.
    await client.send(parse("select 7"), SYNC)
    await client.answer()
    await client.send(bind(), execute(), FLUSH)
    await client.answer("C")
    assert proxy.controller.in_use == 1
    await client.send(SYNC)
    await client.answer()


async def test_copy_data_sent_before_the_server_refused_the_copy_frees_the_slot(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client = await proxy.connect()
    await client.send(query("copy no_such_table_here from stdin"), copy_data(b"1\n"))
    assert (await client.answer()).codes == ["42P01"]
    await client.send(COPY_DONE)
    await proxy.until_free()
    assert await client.value("select 1") == "1"


async def test_a_function_call_is_a_unit_of_work(run_proxy: RunProxy, postgres: Postgres) -> None:
    proxy = await run_proxy()
    client = await proxy.connect()
    oid = int(await client.value("select 'int4pl'::regproc::oid") or 0)
    await client.send(function_call(oid, b"\0\0\0\x02", b"\0\0\0\x03"))
    answer = await client.answer()
    assert (answer.kinds, answer.payloads("V")[0][-4:]) == ("VZ", b"\0\0\0\x05")
    assert proxy.controller.in_use == 0


async def test_work_sent_ahead_of_a_farewell_is_done(run_proxy: RunProxy) -> None:
    """A server reads Terminate after it has answered what came before; a COMMIT sent ahead of it must count."""
    proxy = await run_proxy()
    watcher = await proxy.connect()
    await watcher.query("create table farewell (n int)")
    client = await proxy.connect()
    await client.send(query("insert into farewell values (1)"), TERMINATE)
    assert await client.answer("never") is not None
    await proxy.until_free()
    linked = await proxy.connect()
    await linked.query("begin; insert into farewell values (2)")
    await linked.send(query("commit"), TERMINATE)
    await linked.answer("never")
    await proxy.until_free()
    assert (await watcher.query("select n from farewell order by n")).rows == [("1",), ("2",)]
    await watcher.query("drop table farewell")


async def test_a_farewell_that_waits_for_a_clearing_answer_is_the_end_of_the_client(run_proxy: RunProxy) -> None:
    """The answer lets the Terminate go on, and the connection is idle before the answer is done with."""
    proxy = await run_proxy(**ONE_SLOT, pool={"listen_connections": 0})
    client, other = await proxy.connect(), await proxy.connect()
    await client.query("listen somewhere")
    backend = int(await client.value("select pg_backend_pid()") or 0)
    os.kill(backend, signal.SIGSTOP)
    await client.send(query("unlisten *"))
    await asyncio.sleep(0.1)
    await client.send(TERMINATE)
    await asyncio.sleep(0.1)
    os.kill(backend, signal.SIGCONT)
    await proxy.until_free()
    assert await other.value("select 1") == "1"


async def test_a_farewell_in_an_open_transaction_leaves_nothing_behind(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE_SLOT)
    client, other = await proxy.connect(), await proxy.connect()
    await other.query("create table left_open (n int)")
    await client.query("begin; insert into left_open values (1)")
    await client.leave()
    answer = await other.query("select count(*), txid_current_if_assigned() from left_open")
    assert answer.rows == [("0", None)]
    await other.query("drop table left_open")


async def test_pipelining_past_a_farewell_is_not_executed(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    watcher = await proxy.connect()
    await watcher.query("create table past_farewell (n int)")
    client = await proxy.connect()
    await client.send(TERMINATE, query("insert into past_farewell values (1)"))
    assert await client.is_at_end()
    assert await watcher.value("select count(*) from past_farewell") == "0"
    await watcher.query("drop table past_farewell")


def transcript() -> tuple[bytes, int]:
    """A small session with each kind of unit, and how often it is answered with ReadyForQuery, the greeting too."""
    startup = encode_startup({"user": "app", "database": "app", "application_name": "cut"})
    units = [
        query("select 1"),
        query("begin"),
        run("select 2") + SYNC,
        query("commit"),
        parse("select 3") + SYNC,
        bind() + execute() + SYNC,
        query("copy (values (1), (2)) to stdout"),
        SYNC,
        copy_data(b"late") + COPY_DONE + query("select 1/0"),
    ]
    return startup + b"".join(units), len(units) + 1


async def _outcome(proxy: Running, pieces: list[bytes], readies: int) -> list[str]:
    client = await proxy.open()
    for piece in pieces:
        client.writer.write(piece)
        await asyncio.sleep(0)
    kinds = [(await client.answer()).kinds for _ in range(readies)]
    await client.leave()
    return kinds


async def test_a_session_may_arrive_one_byte_at_a_time(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    data, readies = transcript()
    startup = int.from_bytes(data[:4], "big")
    whole = await _outcome(proxy, [data[:startup], data[startup:]], readies)
    assert whole[1:] == ["TDCZ", "CZ", "12TDCZ", "CZ", "1Z", "2DCZ", "HddcCZ", "Z", "EZ"]
    client = await proxy.open()
    client.writer.transport.get_extra_info("socket").setsockopt(6, 1, 1)  # TCP_NODELAY
    for at in range(len(data)):
        client.writer.write(data[at : at + 1])
        if at % 5 == 0:
            await asyncio.sleep(0)
    kinds = [(await client.answer()).kinds for _ in range(readies)]
    assert kinds == whole


async def test_a_session_may_be_cut_in_two_anywhere(run_proxy: RunProxy) -> None:
    """Also between a startup packet and what a client sends without waiting for the answer."""
    proxy = await run_proxy()
    data, readies = transcript()
    whole = await _outcome(proxy, [data], readies)
    for cut in range(1, len(data), 3):
        assert await _outcome(proxy, [data[:cut], data[cut:]], readies) == whole, f"cut at {cut}"


async def test_a_client_that_disappears_at_any_byte_leaves_nothing(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    data, _ = transcript()
    for cut in range(1, len(data), 5):
        client = await proxy.open()
        await client.send(data[:cut])
        await client.abort()
    await eventually(lambda: not proxy.leftovers(), within_seconds=20, but=proxy.leftovers)


async def test_replies_may_be_cut_anywhere(fake_server: FakeServer, run_proxy: RunProxy) -> None:
    """One byte per write from the server: swallowed replies and held messages come in pieces."""

    async def drip(session, kind: str, payload: bytes) -> None:
        kept: list[bytes] = []
        session.send = lambda *parts: kept.extend(parts)
        session.obey(kind, payload)
        del session.send
        for byte in b"".join(kept):
            session.writer.write(bytes((byte,)))
            await asyncio.sleep(0)

    fake_server.on_message = drip
    proxy = await run_proxy(fake_server.url)
    one = await proxy.connect(application_name="one")
    two = await proxy.connect(application_name="two", TimeZone="Europe/Berlin")
    for _ in range(3):
        for client in (one, two):
            assert (await client.query("select")).kinds == "CZ"
            assert (await client.extended("select")).kinds == "12nCZ"
    await one.send(parse("select"), SYNC)
    await one.answer()
    await two.query("select")
    await one.send(bind(), execute(), SYNC)
    assert (await one.answer()).kinds == "2CZ"
