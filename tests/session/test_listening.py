"""Clients that only listen share one server connection, and hear what they would hear on one of their own."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Any

import asyncpg
import psycopg
import pytest

from proxy.admission.classes import INTERNAL_CLASS
from proxy.demo.postgres import DATABASE, EmbeddedPostgres
from proxy.session.listen_hubs import ListenCounts
from tests.support.eventually import eventually
from tests.support.running import Running, RunProxy
from tests.support.servers import Postgres
from tests.support.wire_client import FLUSH, SYNC, WireClient, bind, close, describe, execute, parse, query, run

MakePostgres = Callable[..., EmbeddedPostgres]
QUICK = {"retry_min": "20ms", "retry_max": "100ms"}


async def heard(client: WireClient, count: int = 1) -> list[tuple[str, str]]:
    """The next notifications as (channel, payload); anything else that comes is an AssertionError."""
    told = []
    for _ in range(count):
        kind, payload = await client.reply()
        assert kind == "A", (kind, payload)
        told.append(_spoken(payload))
    return told


def _spoken(payload: bytes) -> tuple[str, str]:
    channel, said, rest = payload[4:].split(b"\0")
    assert rest == b""
    return channel.decode(), said.decode()


async def notice(client: WireClient) -> tuple[str, str, str]:
    """The next message, which is to be a notice: severity, SQLSTATE, text."""
    answer = await client.answer("NZ")
    (told,) = answer.notices
    assert answer.kinds == "", answer.replies
    return told.severity, told.code, told.message


async def heard_nothing(client: WireClient) -> bool:
    """Nothing stands before the answer to a query."""
    answer = await client.query("select 1")
    return answer.payloads("A") == [] and answer.value == "1"


def listening_backends(postgres: Postgres) -> list[int]:
    sql = "select pid from pg_stat_activity where application_name = 'pgheadroom listen'"
    return [int(pid) for pid in postgres.psql(sql).split()]


def internal(proxy: Running) -> Any:
    snapshot = proxy.process.view.snapshot()
    (reading,) = (one for one in snapshot.classes if one.name == INTERNAL_CLASS)
    return reading


async def until_shared_is_over(proxy: Running) -> None:
    await eventually(lambda: len(proxy.upstream.listen_hubs) == 0)


# -- fan-out --------------------------------------------------------------------------------------------------------


async def test_fifty_clients_listen_over_one_server_connection(run_proxy: RunProxy, postgres: Postgres) -> None:
    proxy = await run_proxy()
    clients = [await proxy.connect() for _ in range(50)]
    for number, client in enumerate(clients):
        answer = await client.query(f"listen news; listen own_{number}")
        assert (answer.tags, answer.status) == (["LISTEN", "LISTEN"], "I")
    assert len(listening_backends(postgres)) == 1
    assert proxy.controller.in_use == 1
    assert proxy.measures.pins == {}
    assert proxy.upstream.listen_hubs.counts() == ListenCounts(connections=1, channels=51, clients=50)
    speaker = await proxy.connect()
    for number in range(20):
        await speaker.query(f"notify news, '{number}'")
    await speaker.query("notify own_7, 'only for one'")
    for client in clients:
        assert await heard(client, 20) == [("news", str(number)) for number in range(20)]
    assert await heard(clients[7]) == [("own_7", "only for one")]
    assert await heard_nothing(clients[8])
    assert proxy.measures.notifications_received == 21


async def test_more_listeners_than_are_told_in_one_turn_all_hear_all_of_it_in_order(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    clients = [await proxy.connect() for _ in range(450)]
    for client in clients:
        await client.query("listen crowd")
    speaker = await proxy.connect()
    await speaker.query("select pg_notify('crowd', n::text) from generate_series(1, 30) n")
    for client in clients:
        assert [said for _, said in await heard(client, 30)] == [str(n) for n in range(1, 31)]


@pytest.mark.parametrize(
    "spelled",
    ["PlainWord", '"PlainWord"', '"with "" quote; and more"', "x" * 80, '"' + "y" * 80 + '"', '"Ünïcode"', '" "'],
)
async def test_a_channel_is_the_one_that_the_server_would_listen_to(
    run_proxy: RunProxy, postgres: Postgres, spelled: str
) -> None:
    proxy = await run_proxy()
    async with await psycopg.AsyncConnection.connect(postgres.url(), autocommit=True) as direct:
        await direct.execute(f"LISTEN {spelled}".encode())
        row = await (await direct.execute("select * from pg_listening_channels()")).fetchone()
        assert row is not None
        client, other = await proxy.connect(client_encoding="UTF8"), await proxy.connect()
        assert (await client.query(f"LISTEN {spelled}")).codes == []
        await direct.execute("select pg_notify(%s, 'hello')", row)
        assert await heard(client) == [(row[0], "hello")]
        assert (await client.query(f"UNLISTEN {spelled}")).tags == ["UNLISTEN"]
        await other.query("notify something")
        assert await heard_nothing(client)


async def test_what_the_server_refuses_is_the_servers_error(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client, other = await proxy.connect(), await proxy.connect()
    for _ in range(2):
        answer = await client.query("listen fine; listen select; listen fine_too")
        assert (answer.codes, answer.status, answer.kinds) == (["42601"], "I", "EZ")
    assert (await client.query("listen later")).tags == ["LISTEN"]
    await other.query("notify fine; notify later")
    assert await heard(client) == [("later", "")], "all of a text or nothing of it"


# -- both protocols ---------------------------------------------------------------------------------------------------


async def test_every_shape_of_the_extended_protocol_is_answered_without_a_slot(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client, other = await proxy.connect(), await proxy.connect()

    async def kinds(*parts: bytes) -> str:
        await client.send(*parts, SYNC)
        return (await client.answer()).kinds

    assert await kinds(run("listen one")) == "12nCZ"
    assert await kinds(parse("listen two"), describe("S")) == "1tnZ"
    assert await kinds(bind(), execute()) == "2CZ", "the unnamed statement of before"
    assert await kinds(parse('listen "Three"', "named"), describe("S", "named")) == "1tnZ"
    assert (
        await kinds(bind(statement="named", portal="p"), describe("P", "p"), execute("p"), close("P", "p")) == "2nC3Z"
    )
    assert await kinds(close("S", "named")) == "3Z"
    assert await kinds(parse("unlisten one", "away"), bind(statement="away"), execute()) == "12CZ"
    assert (proxy.measures.pins, proxy.controller.in_use) == ({}, 1)
    await other.query('notify one; notify two; notify "Three"')
    assert await heard(client, 2) == [("two", ""), ("Three", "")]
    await client.send(bind(statement="named"), execute(), SYNC)
    assert (await client.answer()).codes == ["26000"], "it was closed, and the server does not know it either"


async def test_a_unit_with_a_flush_in_it_is_answered_in_parts(run_proxy: RunProxy) -> None:
    """As asyncpg sends it."""
    proxy = await run_proxy()
    client, other = await proxy.connect(), await proxy.connect()
    await client.send(parse("listen a", "named"), describe("S", "named"), FLUSH)
    assert (await client.answer("n")).kinds == "1tn"
    await client.send(bind(statement="named", portal="p"), execute("p"), FLUSH)
    assert (await client.answer("C")).kinds == "2C"
    await client.send(close("S", "named"), SYNC)
    assert (await client.answer()).kinds == "3Z"
    await client.send(parse("unlisten b"), FLUSH, run("select 1"), SYNC)
    assert (await client.answer()).kinds == "112nDCZ".replace("n", "T")
    assert proxy.measures.pins == {}
    await other.query("notify a")
    assert await heard(client) == [("a", "")]


async def test_a_unit_may_come_byte_by_byte(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client = await proxy.connect()
    for byte in run("listen slowly") + SYNC + query("listen again"):
        await client.send(bytes((byte,)))
        await asyncio.sleep(0)
    assert [(await client.answer()).kinds for _ in range(2)] == ["12nCZ", "CZ"]
    assert proxy.measures.pins == {}


async def test_what_stands_behind_a_listen_is_answered_in_its_turn(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client = await proxy.connect()
    await client.send(query("listen a"), run("listen b"), SYNC, query("select 7"), run("select 8"), SYNC)
    answers = [await client.answer() for _ in range(4)]
    assert [one.tags for one in answers] == [["LISTEN"], ["LISTEN"], ["SELECT 1"], ["SELECT 1"]]
    assert [one.value for one in answers[2:]] == ["7", "8"]
    assert proxy.measures.pins == {}


async def test_a_thousand_listens_in_one_write_are_all_answered(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client, other = await proxy.connect(), await proxy.connect()
    await client.send(*(query(f"listen many_{number}") for number in range(1000)))
    for _ in range(1000):
        assert (await client.answer()).tags == ["LISTEN"]
    await other.query("notify many_999")
    assert await heard(client) == [("many_999", "")]


@pytest.mark.parametrize(
    "parts",
    [
        [query("listen a; select 1")],
        [query("begin"), query("listen a"), query("commit")],
        [parse("listen a"), bind(), execute(), parse("select 1"), bind(), execute(), SYNC],
    ],
    ids=["text", "transaction", "pipeline"],
)
async def test_a_listen_among_other_work_keeps_a_connection_of_its_own(
    run_proxy: RunProxy, parts: Sequence[bytes]
) -> None:
    proxy = await run_proxy()
    client, other = await proxy.connect(), await proxy.connect()
    await client.send(*parts)
    for _ in [part for part in parts if part[:1] in b"QS"]:
        assert (await client.answer()).codes == []
    assert proxy.measures.pins == {("all", "listen"): 1}
    assert len(proxy.upstream.listen_hubs) == 0
    await other.query("notify a, 'own'")
    assert await heard(client) == [("a", "own")]


@pytest.mark.parametrize("name", ["", "named"])
async def test_a_prepared_listen_that_is_piped_among_other_work_keeps_a_connection_of_its_own(
    run_proxy: RunProxy, name: str
) -> None:
    proxy = await run_proxy()
    client, other = await proxy.connect(), await proxy.connect()
    await client.send(parse("listen a", name), SYNC)
    assert (await client.answer()).kinds == "1Z"
    assert proxy.measures.pins == {}
    await client.send(bind(statement=name), execute(), parse("select 1"), bind(), execute(), SYNC)
    assert (await client.answer()).kinds == "2C12DCZ"
    assert proxy.measures.pins == {("all", "listen"): 1}
    await other.query("notify a, 'own'")
    assert await heard(client) == [("a", "own")]


async def test_a_name_that_is_taken_is_the_servers_error(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client = await proxy.connect()
    for expected in ([], ["42P05"]):
        await client.send(parse("listen a", "taken"), SYNC)
        assert (await client.answer()).codes == expected
    await client.query("deallocate taken")
    await client.send(bind(statement="taken"), execute(), SYNC)
    assert (await client.answer()).codes == ["26000"]


# -- its own notifications, and the end -------------------------------------------------------------------------------


async def test_a_listener_hears_itself_and_no_process_id_is_that_of_a_client(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client = await proxy.connect()
    await client.query("listen me")
    answer = await client.query("notify me, 'myself'; select pg_backend_pid()")
    kind, payload = await client.reply()
    assert (kind, _spoken(payload)) == ("A", ("me", "myself"))
    backend = int(answer.rows[0][0] or 0)
    assert int.from_bytes(payload[:4], "big") == backend
    assert client.process_id > 1 << 22, "no server process has such an id: nobody is taken for oneself"


@pytest.mark.parametrize(
    "how",
    ["unlisten a; unlisten b", "unlisten *", "discard all", "select 1; unlisten *", "unlisten b; unlisten a; select 1"],
)
async def test_the_last_to_leave_a_channel_ends_it_on_the_server(run_proxy: RunProxy, how: str) -> None:
    proxy = await run_proxy()
    client, stays, other = await proxy.connect(), await proxy.connect(), await proxy.connect()
    await client.query("listen a; listen b")
    await stays.query("listen b")
    assert (await client.query(how)).codes == []
    await eventually(lambda: proxy.upstream.listen_hubs.counts() == ListenCounts(1, 1, 1))
    await other.query("notify a; notify b, 'still'")
    assert await heard(stays) == [("b", "still")]
    assert await heard_nothing(client)
    assert (await stays.query(how)).codes == []
    await until_shared_is_over(proxy)
    assert proxy.controller.in_use == 0
    assert proxy.linked() == 0


async def test_who_is_pinned_meanwhile_can_leave_a_channel_all_the_same(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client, other = await proxy.connect(), await proxy.connect()
    await client.query('listen a; listen "B"; listen c')
    await client.query("create temp table listening_left (n int)")
    assert (await client.query('select 1; unlisten "B"')).tags == ["SELECT 1", "UNLISTEN"]
    assert (await client.extended("unlisten a")).tags == ["UNLISTEN"]
    await eventually(lambda: proxy.upstream.listen_hubs.counts().channels == 1)
    await other.query('notify a; notify "B"; notify c')
    assert await heard(client) == [("c", "")]
    assert (await client.query("unlisten c; select 1 / 0")).codes == ["22012"]
    await other.query("notify c")
    assert await heard(client) == [("c", "")]


async def test_a_discard_that_fails_ends_nothing(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client, other = await proxy.connect(), await proxy.connect()
    await client.query("listen a")
    await client.query("begin")
    assert (await client.query("discard all")).codes == ["25001"]
    await client.query("rollback")
    await other.query("notify a")
    assert await heard(client) == [("a", "")]


async def test_a_channel_that_is_left_and_asked_for_again_at_once_is_heard(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client, other = await proxy.connect(), await proxy.connect()
    for number in range(50):
        await client.send(query("listen flapping"), query("unlisten flapping"), query("listen flapping"))
        for _ in range(3):
            await client.answer()
        await other.query(f"notify flapping, '{number}'")
        assert await heard(client) == [("flapping", str(number))]
        await client.query("unlisten flapping")


async def test_a_connection_that_has_listened_is_clean_and_serves_again(
    run_proxy: RunProxy, postgres: Postgres
) -> None:
    proxy = await run_proxy()
    client = await proxy.connect()
    await client.query("listen a")
    (backend,) = listening_backends(postgres)
    await client.query("unlisten *")
    await until_shared_is_over(proxy)
    assert listening_backends(postgres) == []
    await client.query("listen a")
    assert listening_backends(postgres) == [backend]


async def test_a_client_that_vanishes_while_it_asks_leaves_nothing(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    for _ in range(10):
        client = await proxy.connect()
        await client.send(query("listen in_vain"))
        await client.abort()
    await until_shared_is_over(proxy)


# -- when a client is told --------------------------------------------------------------------------------------------


async def test_inside_a_transaction_nothing_is_told(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client, other = await proxy.connect(), await proxy.connect()
    await client.query("listen a")
    await client.query("begin")
    await other.query("notify a, 'during'")
    await eventually(lambda: proxy.measures.notifications_received == 1)
    assert await heard_nothing(client)
    await client.send(query("select 1 / 0"))
    assert (await client.answer()).kinds == "EZ"
    await client.send(query("rollback"))
    assert (await client.answer()).kinds == "CZ"
    assert await heard(client) == [("a", "during")]


async def test_a_notification_never_cuts_an_answer(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client, other = await proxy.connect(), await proxy.connect()
    await client.query("listen a")
    await client.send(query("select n, pg_sleep(0.0001) from generate_series(1, 2000) n"))
    for number in range(20):
        await other.query(f"notify a, '{number}'")
    answer = await client.answer()
    assert (answer.payloads("A"), len(answer.rows)) == ([], 2000)
    assert [said for _, said in await heard(client, 20)] == [str(number) for number in range(20)]


async def test_a_client_pinned_for_something_else_is_told_between_its_units(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client, other = await proxy.connect(), await proxy.connect()
    await client.query("listen a")
    await client.query("create temp table listening_pinned (n int)")
    assert proxy.measures.pins == {("all", "temporary_table"): 1}
    await other.query("notify a, 'idle'")
    assert await heard(client) == [("a", "idle")]
    await client.query("begin")
    await other.query("notify a, 'in transaction'")
    await eventually(lambda: proxy.measures.notifications_received == 2)
    assert await heard_nothing(client)
    await client.query("commit")
    assert await heard(client) == [("a", "in transaction")]
    await client.query("discard all")
    await until_shared_is_over(proxy)


async def test_nothing_notified_after_the_answer_is_missed(run_proxy: RunProxy, postgres: Postgres) -> None:
    """By somebody else, the moment the answer is there."""
    proxy = await run_proxy()
    async with await psycopg.AsyncConnection.connect(postgres.url(), autocommit=True) as direct:
        for number in range(100):
            client = await proxy.connect()
            await client.query(f"listen at_once_{number}")
            await direct.execute(f"notify at_once_{number}".encode())
            assert await heard(client) == [(f"at_once_{number}", "")]
            await client.leave()


# -- who does not keep up ---------------------------------------------------------------------------------------------


async def test_the_largest_payload_arrives_whole(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client, other = await proxy.connect(), await proxy.connect()
    await client.query("listen large")
    await other.query(f"notify large, '{'x' * 7999}'")
    assert await heard(client) == [("large", "x" * 7999)]


async def test_who_never_reads_costs_a_bounded_amount_and_nobody_else_waits(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(limits={"max_notification_bytes": "64KiB"})
    deaf, client, other = await proxy.open(), await proxy.connect(), await proxy.connect()
    deaf.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    await deaf.log_in("app", DATABASE)
    await deaf.query("listen flood")
    await client.query("listen flood")
    deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]
    rounds, each = 25, 50
    for number in range(rounds):
        await other.query(f"select pg_notify('flood', n || repeat('x', 7900)) from generate_series(1, {each}) n")
        assert len(await heard(client, each)) == each, number
    dropped = proxy.measures.notifications_dropped
    assert dropped > 0
    (listening,) = (one.listening for one in proxy.desk.clients if one.process_id == deaf.process_id)
    assert listening._untold_bytes <= 64 * 1024
    deaf.writer.transport.resume_reading()  # type: ignore[attr-defined]
    answer = await deaf.answer("N")
    assert [one.code for one in answer.notices] == ["01000"]
    assert answer.notices[0].message.startswith(f"{dropped} notifications were dropped here")
    assert len(answer.payloads("A")) + dropped == rounds * each
    await other.query("notify flood, 'after'")
    assert await heard(deaf) == [("flood", "after")]


async def test_a_long_transaction_is_told_how_much_it_has_missed(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(limits={"max_notification_bytes": 10_000})
    client, other = await proxy.connect(), await proxy.connect()
    await client.query("listen a")
    await client.query("begin")
    for number in range(5):
        await other.query(f"notify a, '{number}{'x' * 3000}'")
    await eventually(lambda: proxy.measures.notifications_dropped == 2)
    await client.query("commit")
    assert [said[0] for _, said in await heard(client, 3)] == ["0", "1", "2"]
    assert (await notice(client))[2].startswith("2 notifications were dropped here")
    await other.query("notify a, 'on'")
    assert await heard(client) == [("a", "on")]


# -- the shared connection is lost ------------------------------------------------------------------------------------


async def test_a_lost_connection_comes_back_and_every_listener_is_told_of_the_gap(
    run_proxy: RunProxy, postgres: Postgres
) -> None:
    proxy = await run_proxy(pool=QUICK)
    clients = [await proxy.connect() for _ in range(5)]
    for number, client in enumerate(clients):
        await client.query(f"listen shared; listen own_{number}")
    for gap in (1, 2):
        (backend,) = listening_backends(postgres)
        postgres.psql(f"select pg_terminate_backend({backend})")
        for client in clients:
            severity, code, text = await notice(client)
            assert (severity, code) == ("WARNING", "01000")
            assert text.startswith("notifications may have been missed between 20")
        assert proxy.measures.listen_gaps == gap
        assert listening_backends(postgres) != [backend]
        other = await proxy.connect()
        await other.query(f"notify shared, '{gap}'; notify own_3")
        for client in clients:
            assert await heard(client) == [("shared", str(gap))]
        assert await heard(clients[3]) == [("own_3", "")]
    assert proxy.controller.in_use == 1
    late = await proxy.connect()
    await late.query("listen shared")
    assert await heard_nothing(late), "what was before it came is no gap for it"


async def test_a_gap_is_told_to_who_works_when_it_is_done(run_proxy: RunProxy, postgres: Postgres) -> None:
    proxy = await run_proxy(pool=QUICK)
    client = await proxy.connect()
    await client.query("listen a")
    await client.query("begin")
    (backend,) = listening_backends(postgres)
    postgres.psql(f"select pg_terminate_backend({backend})")
    await eventually(lambda: listening_backends(postgres) not in ([], [backend]))
    assert (await client.query("select 1")).notices == []
    await client.query("commit")
    assert (await notice(client))[1] == "01000"


async def test_while_the_server_is_down_listen_waits_as_long_as_its_class_does(
    run_proxy: RunProxy, make_postgres: MakePostgres
) -> None:
    server = await asyncio.to_thread(make_postgres)
    classes = {"all": {"limit": 3, "queue": {"timeout": "400ms"}}}
    proxy = await run_proxy(server.url("app"), pool=QUICK, classes=classes)
    listener, client, patient = await proxy.connect(), await proxy.connect(), await proxy.connect()
    await listener.query("listen a")
    await asyncio.to_thread(server.stop)
    assert (await notice(listener))[2].startswith("notifications may be missed since")
    assert proxy.measures.listen_gaps == 1
    assert proxy.upstream.listen_hubs.counts() == ListenCounts(connections=0, channels=1, clients=1)
    answer = await client.query("listen b")
    assert (answer.error and answer.error.severity, answer.status) == ("ERROR", "I")
    assert answer.codes[0] in ("08006", "53300", "57P03")
    await patient.send(run("listen b"), SYNC)
    await asyncio.to_thread(server.start)
    answer = await patient.answer()
    if answer.codes:  # the start took longer than its patience
        answer = await patient.extended("listen b")
    assert (answer.codes, answer.status) == ([], "I")
    assert (await notice(listener))[2].startswith("notifications may have been missed between")
    assert await heard_nothing(patient), "it had not listened before"
    await listener.query("notify b, 'back'")
    assert await heard(patient) == [("b", "back")]


# -- the budget -------------------------------------------------------------------------------------------------------


async def test_the_shared_connection_counts_and_the_proxys_own_queries_keep_their_slot(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(budget={"total": 3})
    client, first, second = [await proxy.connect() for _ in range(3)]
    await client.query("listen a")
    assert (internal(proxy).used, internal(proxy).reserved, internal(proxy).pinned) == (1, 2, 1)
    await first.query("begin")
    await second.send(query("begin"))
    await eventually(lambda: proxy.waiting() == 1)
    assert await proxy.watch.ask(), "full of others, and the proxy still asks what it has to know"
    assert proxy.registry.count <= 3
    await client.query("unlisten a")
    assert (await second.answer()).tags == ["BEGIN"], "what the listener held goes to who waits"
    assert (internal(proxy).used, internal(proxy).reserved) == (0, 1)


async def test_a_listen_that_waits_for_a_slot_can_be_cancelled_and_gives_up_in_time(
    run_proxy: RunProxy, postgres: Postgres
) -> None:
    postgres.psql("create database listen_waits owner app")
    proxy = await run_proxy(budget={"total": 4}, classes={"all": {"limit": 3, "queue": {"timeout": "700ms"}}})
    holders = [await proxy.connect() for _ in range(3)]
    client, other = await proxy.connect(), await proxy.connect(database="listen_waits")
    for holder in holders:
        await holder.query("begin")
    await client.query("listen a")
    assert proxy.controller.in_use == 4
    await other.send(query("listen a"), query("unlisten a"))
    await eventually(lambda: proxy.waiting() == 1)
    await other.ask_to_cancel()
    assert (await other.answer()).codes == ["57014"]
    assert (await other.answer()).tags == ["UNLISTEN"]
    answer = await other.query("listen a")
    assert (answer.codes, answer.status) == (["53300"], "I")
    assert answer.error is not None
    assert "pool.listen_connections" in (answer.error.hint or "")
    for holder in holders:
        await holder.query("commit")
    assert (await other.query("listen a")).tags == ["LISTEN"]


async def test_in_a_budget_of_two_a_listener_keeps_its_own(run_proxy: RunProxy) -> None:
    """Shared, it would leave the only other slot to the proxy's queries, and none to clients."""
    proxy = await run_proxy(budget={"total": 2})
    client = await proxy.connect()
    await client.query("listen a")
    await client.query("unlisten *")
    assert proxy.measures.pins == {("all", "listen"): 1}


async def test_a_reload_keeps_the_slot_of_the_shared_connection(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client, other = await proxy.connect(), await proxy.connect()
    await client.query("listen a")
    proxy.reload(budget={"total": 4})
    assert internal(proxy).reserved == 2
    proxy.reload(pool={"listen_connections": 0})
    await other.query("notify a")
    assert await heard(client) == [("a", "")]
    await other.query("listen b")
    assert proxy.measures.pins == {("all", "listen"): 1}, "new ones are not shared any more"


async def test_beyond_as_many_databases_as_may_be_shared_a_listener_keeps_its_own(
    run_proxy: RunProxy, postgres: Postgres
) -> None:
    postgres.psql("create database listen_second owner app")
    proxy = await run_proxy(pool={"listen_connections": 1})
    first, second = await proxy.connect(), await proxy.connect(database="listen_second")
    await first.query("listen a")
    assert (await second.query("listen a")).tags == ["LISTEN"]
    assert proxy.measures.pins == {("all", "listen"): 1}
    await first.query("notify a, 'first'")
    await second.query("notify a, 'second'")
    assert await heard(first) == [("a", "first")]
    answer = await second.query("select 1")
    assert [_spoken(one)[1] for one in answer.payloads("A")] in ([], ["second"])


async def test_two_databases_are_listened_to_over_two_connections(run_proxy: RunProxy, postgres: Postgres) -> None:
    postgres.psql("create database listen_third owner app")
    proxy = await run_proxy()
    first, second = await proxy.connect(), await proxy.connect(database="listen_third")
    for client, said in ((first, "first"), (second, "second")):
        await client.query("listen a")
        await client.query(f"notify a, '{said}'")
        assert await heard(client) == [("a", said)]
    assert (internal(proxy).used, internal(proxy).reserved) == (2, 3)
    assert len(listening_backends(postgres)) == 2


async def test_where_the_proxys_own_user_may_not_log_in_each_listener_keeps_its_own(
    run_proxy: RunProxy, postgres: Postgres
) -> None:
    postgres.psql("create database listen_closed")
    postgres.psql(
        "revoke connect on database listen_closed from public; grant connect on database listen_closed to web"
    )
    proxy = await run_proxy()
    clients = [await proxy.connect("web", "listen_closed") for _ in range(2)]
    for client in clients:
        await client.send(parse("listen a", "prepared"), describe("S", "prepared"), SYNC)
        assert (await client.answer()).kinds == "1tnZ"
        await client.send(bind(statement="prepared"), execute(), SYNC)
        assert (await client.answer()).kinds == "2CZ"
    assert proxy.measures.pins[("all", "listen")] == 2
    other = await proxy.connect("web", "listen_closed")
    await other.query("notify a, 'own'")
    for client in clients:
        assert await heard(client) == [("a", "own")]


async def test_a_login_that_the_proxy_may_not_have_forgets_no_pool_of_clients(
    run_proxy: RunProxy, postgres: Postgres
) -> None:
    """Both pools bear the same name, and the unused one took the other with it."""
    postgres.psql("create database listen_revoked")
    proxy = await run_proxy()
    client = await proxy.connect(database="listen_revoked")
    pool = proxy.registry.pools["listen_revoked", "app"]
    postgres.psql("revoke connect on database listen_revoked from public")
    await client.query("listen a")
    assert proxy.registry.pools["listen_revoked", "app"] is pool
    assert len(proxy.registry.pools) == 2, "that of the server watch, and the client's"


async def test_a_client_with_another_encoding_keeps_its_own(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client, other = await proxy.connect(client_encoding="LATIN1"), await proxy.connect(client_encoding="UTF8")
    await client.query("listen a")
    assert proxy.measures.pins == {("all", "listen"): 1}
    await other.query("notify a, 'é'")
    kind, payload = await client.reply()
    assert (kind, payload[4:]) == ("A", b"a\0" + "é".encode("latin-1") + b"\0")


async def test_who_changes_its_encoding_is_told_what_it_cannot_be_told(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client, other = await proxy.connect(client_encoding="UTF8"), await proxy.connect(client_encoding="UTF8")
    await client.query("listen a")
    await client.query("set client_encoding = 'LATIN1'")
    await other.query("notify a, 'plain'")
    assert await heard(client) == [("a", "plain")]
    await other.query("notify a, 'é'")
    await eventually(lambda: proxy.measures.notifications_dropped == 1)
    await client.send(query("select 1"))
    answer = await client.answer()
    assert answer.value == "1"
    assert (await notice(client))[2].startswith("1 notifications were dropped here")


async def test_in_statement_mode_it_is_shared_too(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(classes={"all": {"limit": 3, "pool_mode": "statement"}})
    client, other = await proxy.connect(), await proxy.connect()
    await client.query("listen a")
    await other.query("notify a")
    assert await heard(client) == [("a", "")]
    assert proxy.measures.pins == {}


@pytest.mark.parametrize("behaviour", ["reject", "ignore"])
async def test_what_is_shared_is_no_session_state_of_the_client(
    run_proxy: RunProxy, postgres: Postgres, behaviour: str
) -> None:
    postgres.psql(f"create database listen_{behaviour}")
    proxy = await run_proxy(classes={"all": {"limit": 3, "on_session_state": behaviour}})
    client, other = await proxy.connect(), await proxy.connect()
    assert (await client.query("listen a")).codes == []
    await client.query("select 1")
    await other.query("notify a")
    assert await heard(client) == [("a", "")]
    unshared = await proxy.connect(database=f"listen_{behaviour}")
    postgres.psql(f"revoke connect on database listen_{behaviour} from public")
    answer = await unshared.query("listen a")
    assert (answer.tags, answer.status) == ([] if behaviour == "reject" else ["LISTEN"], "I")
    assert proxy.measures.pins == {}


async def test_in_session_mode_a_client_listens_on_its_own_connection(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(classes={"all": {"limit": 3, "pool_mode": "session"}})
    client, other = await proxy.connect(), await proxy.connect()
    await client.query("listen a")
    assert len(proxy.upstream.listen_hubs) == 0
    await other.query("notify a")
    assert await heard(client) == [("a", "")]


async def test_a_drain_does_not_wait_for_listeners(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(shutdown={"drain_timeout": "30s"})
    client = await proxy.connect()
    await client.query("listen a")
    async with asyncio.timeout(5):
        await proxy.process.drain_and_stop()
    assert (await client.answer()).codes == ["57P01"]
    assert proxy.registry.count == 0


# -- drivers ----------------------------------------------------------------------------------------------------------


async def test_psycopg_listens_and_works_on_the_same_connection(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    async with await proxy.psycopg() as connection:
        for _ in range(7):  # from the sixth on psycopg prepares it
            await connection.execute("LISTEN jobs")
        await connection.execute("NOTIFY jobs, 'mine'")
        async with await proxy.psycopg() as other:
            await other.execute("NOTIFY jobs, 'theirs'")
        told = [one async for one in connection.notifies(timeout=10, stop_after=2)]
        assert [one.payload for one in told] == ["mine", "theirs"]
        assert proxy.controller.in_use == 1
        assert "listen" not in {reason for _, reason in proxy.measures.pins}


async def test_asyncpgs_listeners_are_called_until_they_are_removed(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    told: asyncio.Queue[str] = asyncio.Queue()
    connection = await asyncpg.connect(proxy.url().partition("?")[0])
    other = await asyncpg.connect(proxy.url().partition("?")[0])

    def hear(*arguments: Any) -> None:
        told.put_nowait(arguments[3])

    for _ in range(3):
        await connection.add_listener("Jobs", hear)
        await other.execute("""NOTIFY "Jobs", 'hello'""")
        assert await asyncio.wait_for(told.get(), 10) == "hello"
        await connection.remove_listener("Jobs", hear)
    assert proxy.measures.pins == {}
    await connection.close()
    await other.close()
    assert told.empty()
