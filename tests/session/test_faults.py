"""Wrong, foreign, slow and dying peers: each gets its SQLSTATE, and nobody else notices."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable

import psycopg
import pytest

from proxy.demo.postgres import EmbeddedPostgres
from proxy.session import transports
from proxy.session.transports import WRITE_HIGH_BYTES
from proxy.wire import messages
from proxy.wire.startup import encode_startup
from tests.session.fake_server import FACTS, FakeServer, Session
from tests.support.eventually import eventually
from tests.support.running import Running, RunProxy
from tests.support.servers import Postgres
from tests.support.wire_client import SYNC, TERMINATE, Answer, query, run

MakePostgres = Callable[..., EmbeddedPostgres]
ONE_SLOT = {"budget": {"total": 2}, "classes": {"all": {"limit": 1, "queue": {"timeout": "20s"}}}}
QUICK = {"dial_timeout": "300ms", "gone_timeout": "200ms", "retry_min": "20ms", "retry_max": "100ms"}


async def greeting(proxy: Running, *raw: bytes) -> Answer:
    """What a client is told that says this, up to the end of the connection."""
    client = await proxy.open()
    await client.send(*raw)
    return await client.answer("never")


def only_error(answer: Answer) -> tuple[str, str]:
    (error,) = answer.errors
    return error.severity, error.code


# -- clients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("user", "counted"), [("app", "wrong_password"), ("nobody-knows-me", "unknown_user")])
async def test_a_wrong_password_is_told_in_the_servers_words(run_proxy: RunProxy, user: str, counted: str) -> None:
    proxy = await run_proxy(auth={"method": "scram"})
    with pytest.raises(psycopg.OperationalError, match=f'password authentication failed for user "{user}"'):
        await psycopg.AsyncConnection.connect(f"postgresql://{user}:wrong@127.0.0.1:{proxy.port}/app")
    assert proxy.measures.login_failures == {counted: 1}
    assert proxy.controller.in_use == 0
    async with await proxy.psycopg() as connection:
        assert await (await connection.execute("select 1")).fetchone() == (1,)


async def test_an_unknown_database_is_the_servers_own_error_at_login(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    answer = await greeting(proxy, encode_startup({"user": "app", "database": "no_such_database"}))
    assert answer.kinds == "RE"
    assert only_error(answer) == ("FATAL", "3D000")
    assert ("no_such_database", "app") not in proxy.registry.pools


async def test_a_user_whom_the_server_does_not_let_in_gets_the_servers_error(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    (proxy.folder / "users.txt").write_text('"app" "app-secret"\n"stranger" "secret"\n')
    proxy.reload()
    answer = await greeting(proxy, encode_startup({"user": "stranger", "database": "app"}))
    assert only_error(answer) == ("FATAL", "28P01")


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /x HTTP/1.0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100,
        b"\0\0\0\x02garbage",
        b"\xff" * 100,
        b"\0\0\x40\0" + b"x" * 20_000,
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\0\0\0\x08\0\x02\0\0",
        encode_startup({"user": "app"})[:-1] + b"x",
        b"\0\0\0\x09\0\x03\0\0\0",
    ],
    ids=["get", "post", "tls", "short", "ff", "oversized", "ssh", "protocol-2", "no-nul", "no-user"],
)
async def test_what_is_not_postgresql_gets_one_error_and_is_closed(run_proxy: RunProxy, said: bytes) -> None:
    proxy = await run_proxy()
    answer = await greeting(proxy, said)
    assert answer.kinds == "E"
    severity, code = only_error(answer)
    assert severity == "FATAL"
    assert code in ("08P01", "28000", "0A000")
    assert sum(proxy.measures.protocol_violations.values()) == 1


async def test_what_is_not_postgresql_may_come_byte_by_byte(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client = await proxy.open()
    for byte in b"GET / HTTP/1.1\r\n\r\n"[:8]:
        await client.send(bytes((byte,)))
    assert only_error(await client.answer("never")) == ("FATAL", "08P01")


async def test_a_client_that_never_logs_in_is_closed(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(listen={"login_timeout": "200ms"}, auth={"method": "scram"})
    silent, half, waiting = [await proxy.open() for _ in range(3)]
    await half.send(encode_startup({"user": "app"})[:10])
    await waiting.send(encode_startup({"user": "app"}))
    for client in (silent, half, waiting):
        assert only_error(await client.answer("never")) == ("FATAL", "08004")
    assert proxy.measures.login_timeouts == 3
    assert proxy.desk.connected == 0


async def test_a_replication_client_is_refused_in_words(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    answer = await greeting(proxy, encode_startup({"user": "app", "database": "app", "replication": "database"}))
    assert only_error(answer) == ("FATAL", "0A000")


async def test_more_clients_than_may_connect_are_refused(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(listen={"max_client_connections": 2})
    first = await proxy.connect()
    await proxy.connect()
    answer = await greeting(proxy, encode_startup({"user": "app", "database": "app"}))
    assert only_error(answer) == ("FATAL", "53300")
    await first.leave()
    await eventually(lambda: proxy.desk.connected == 1)
    await proxy.connect()


@pytest.mark.parametrize("in_transaction", [False, True])
async def test_an_over_long_message_is_an_error_and_the_end(run_proxy: RunProxy, in_transaction: bool) -> None:
    proxy = await run_proxy(limits={"max_message_bytes": 20_000}, **ONE_SLOT)
    client, other = await proxy.connect(), await proxy.connect()
    if in_transaction:
        await client.query("begin")
    await client.send(query("select '" + "x" * 30_000 + "'"))
    async with asyncio.timeout(1):
        assert only_error(await client.answer("never")) == ("FATAL", "08P01")
    assert await other.value("select 1") == "1"


@pytest.mark.parametrize("said", [b"?\0\0\0\x04", b"Q\0\0\0\x03", b"S\xff\xff\xff\xff", b"p\0\0\0\x08spam"])
async def test_garbage_from_a_client_ends_it_alone(run_proxy: RunProxy, said: bytes) -> None:
    proxy = await run_proxy(**ONE_SLOT)
    client, other = await proxy.connect(), await proxy.connect()
    await client.query("begin; select pg_advisory_xact_lock(3)")
    await client.send(said)
    assert only_error(await client.answer("never")) == ("FATAL", "08P01")
    assert await other.value("select pg_try_advisory_xact_lock(3)") == "t"


async def test_a_statement_too_long_to_be_inspected_still_runs(run_proxy: RunProxy) -> None:
    """It may do anything, also what DISCARD ALL does not end: it pins until its client leaves."""
    proxy = await run_proxy(limits={"max_inspected_bytes": 1000})
    client = await proxy.connect()
    answer = await client.query(f"select length('{'x' * 500_000}')")
    assert answer.value == "500000"
    answer = await client.extended(f"select length('{'x' * 500_000}')")
    assert answer.value == "500000"
    await client.query("discard all")
    assert proxy.controller.in_use == 1
    await client.leave()
    await proxy.until_free()


async def test_a_half_open_client_is_noticed_by_keepalive(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    await proxy.connect()
    (client,) = proxy.desk.clients
    sock = client.transport.get_extra_info("socket")
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 60


async def test_a_client_that_does_not_read_holds_no_memory_and_stops_nobody(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    reader, other = await proxy.connect(), await proxy.connect()
    reader.reader._transport.pause_reading()  # type: ignore[attr-defined]  # its kernel's buffers fill up
    await reader.send(query("select repeat('x', 1000) from generate_series(1, 100000)"))
    (stuck,) = (one for one in proxy.desk.clients if one.process_id == reader.process_id)
    await eventually(lambda: stuck.transport.get_write_buffer_size() > WRITE_HIGH_BYTES)
    for n in range(200):
        assert await other.value(f"select {n}") == str(n)
        assert stuck.transport.get_write_buffer_size() < 4 * WRITE_HIGH_BYTES
    reader.reader._transport.resume_reading()  # type: ignore[attr-defined]
    answer = await reader.answer()
    assert len(answer.payloads("D")) == 100_000
    assert proxy.controller.in_use == 0


@pytest.mark.parametrize("ending", ["half-closed", "garbage", "farewell"])
async def test_a_closed_client_that_reads_nothing_keeps_neither_socket_nor_slot(
    run_proxy: RunProxy, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """What is still to be sent to it holds the socket open, and its machine is alive: no keepalive ever ends that."""
    monkeypatch.setattr(transports, "LINGER_SECONDS", 0.2)
    proxy = await run_proxy()
    client = await proxy.connect()
    client.reader._transport.pause_reading()  # type: ignore[attr-defined]  # its kernel's buffers fill up
    await client.send(query("select repeat('x', 1000) from generate_series(1, 100000)"))
    (stuck,) = proxy.desk.clients
    await eventually(lambda: stuck.transport.get_write_buffer_size() > WRITE_HIGH_BYTES)
    if ending == "half-closed":
        client.stop_sending()
    else:
        await client.send({"garbage": b"\0garbage", "farewell": TERMINATE}[ending])
    await eventually(lambda: proxy.desk.connected == 0)
    await proxy.until_free()


async def test_a_client_that_sends_faster_than_the_server_reads_is_slowed_down(
    fake_server: FakeServer, run_proxy: RunProxy
) -> None:
    reads_on = asyncio.Event()

    async def slow(session: Session, kind: str, payload: bytes) -> None:
        if kind == "Q" and payload.startswith(b"copy"):
            session.send(messages.message(messages.COPY_IN_RESPONSE, b"\0\0\0"))
            await reads_on.wait()
        elif kind == "c":
            session.complete("COPY 1")
        elif kind != "d":
            session.obey(kind, payload)

    fake_server.on_message = slow
    proxy = await run_proxy(fake_server.url)
    client = await proxy.connect()
    await client.send(query("copy"))
    await client.answer("G")
    data = messages.message(messages.COPY_DATA, b"x" * 8_000_000)
    client.writer.write(data + data)
    (server,) = (one for one in proxy.registry.connections if one.client is not None)
    await eventually(lambda: server.transport.get_write_buffer_size() > WRITE_HIGH_BYTES)
    await asyncio.sleep(0.1)
    assert server.transport.get_write_buffer_size() < 4 * WRITE_HIGH_BYTES
    reads_on.set()
    await client.send(messages.message(messages.COPY_DONE))
    assert (await client.answer()).tags == ["COPY 1"]


async def test_a_client_is_read_on_when_the_server_gave_up_a_copy_it_did_not_read(
    fake_server: FakeServer, run_proxy: RunProxy
) -> None:
    """The server answers with an error while much of the data still waits to be sent to it: the client's unit is over,
    and reading it has to go on although its server connection is another's business now."""
    fails = asyncio.Event()
    reads_on = asyncio.Event()

    async def slow(session: Session, kind: str, payload: bytes) -> None:
        if payload.startswith(b"copy"):
            session.send(messages.message(messages.COPY_IN_RESPONSE, b"\0\0\0"))
            await fails.wait()
            session.fail("22P02")
            session.send(messages.ready_for_query(b"I"))
            await reads_on.wait()
        elif kind not in "dc":
            session.obey(kind, payload)

    fake_server.on_message = slow
    proxy = await run_proxy(fake_server.url)
    client = await proxy.connect()
    await client.send(query("copy"))
    await client.answer("G")
    (server,) = (one for one in proxy.registry.connections if one.client is not None)
    data = messages.message(messages.COPY_DATA, b"x" * 8_000)
    while server.transport.get_write_buffer_size() <= WRITE_HIGH_BYTES:
        await client.send(data)  # one by one: the proxy stops reading at the end of a message
        await asyncio.sleep(0)
    fails.set()
    assert (await client.answer()).codes == ["22P02"]
    reads_on.set()
    await client.send(messages.message(messages.COPY_DONE), query("select"))
    assert (await client.answer()).status == "I"


# -- servers that die -------------------------------------------------------------------------------------------------


async def test_a_backend_killed_in_mid_result_is_fatal_for_its_client_only(
    make_postgres: MakePostgres, run_proxy: RunProxy
) -> None:
    """kill -9 of one backend makes the server end all others with 57P02; a client is never told ERROR with status I."""
    server = await asyncio.to_thread(make_postgres)
    proxy = await run_proxy(server.url("app"), pool=QUICK)
    client, idle = await proxy.connect(), await proxy.connect()
    pid = int(await client.value("select pg_backend_pid()") or 0)
    await client.send(query("select repeat('x', 1000), pg_sleep(0.001) from generate_series(1, 100000)"))
    await client.answer("T")
    os.kill(pid, signal.SIGKILL)
    answer = await client.answer("never")
    assert answer.status == "", "no ReadyForQuery follows"
    told = [(error.severity, error.code) for error in answer.errors]
    assert told in ([], [("FATAL", "08006")]), "an error that would stand in the middle of a row is not sent"
    await eventually(lambda: proxy.registry.connector.down is None and proxy.controller.in_use == 0)

    async def served() -> bool:
        answer = await idle.query("select 1")
        return not answer.errors

    await eventually(served, within_seconds=15)


@pytest.mark.parametrize("whole", [False, True])
async def test_an_error_never_completes_a_row_that_was_cut_short(
    fake_server: FakeServer, run_proxy: RunProxy, whole: bool
) -> None:
    row = messages.data_row(["x" * 100])

    async def answer(session: Session, kind: str, payload: bytes) -> None:
        if payload == b"die\0":
            session.rows()
            session.send(row if whole else row[:50])
            session.writer.close()
        else:
            session.obey(kind, payload)

    fake_server.on_message = answer
    proxy = await run_proxy(fake_server.url, pool=QUICK)
    client = await proxy.connect()
    await client.send(query("die"))
    await client.answer("T")
    rest = await client.reader.read()
    assert rest.startswith(row if whole else row[:50])
    assert (b"08006" in rest) is whole
    assert whole or rest == row[:50]


async def test_an_idle_connection_that_sends_garbage_serves_nobody(
    fake_server: FakeServer, run_proxy: RunProxy
) -> None:
    proxy = await run_proxy(fake_server.url, pool=QUICK)
    client = await proxy.connect()
    await client.query("select")
    (liar,) = fake_server.of("app")
    fake_server.never_closes = True
    liar.send(b"\0" * 100)
    await eventually(lambda: proxy.measures.protocol_violations["server"] == 1)
    assert (await client.query("next")).errors == []
    assert "next" not in liar.queries
    fake_server.never_closes = False
    liar.writer.transport.abort()


async def test_a_terminated_backend_passes_its_own_error_on(run_proxy: RunProxy, postgres: Postgres) -> None:
    proxy = await run_proxy()
    client, other = await proxy.connect(), await proxy.connect()
    pid = await client.value("select pg_backend_pid()")
    await client.query("begin")
    await asyncio.to_thread(postgres.psql, f"select pg_terminate_backend({pid})")
    answer = await client.query("select 1")
    assert (answer.codes, answer.status) == (["57P01"], "")
    assert await other.value("select 1") == "1"


async def test_an_idle_connection_that_is_lost_is_invisible(run_proxy: RunProxy, postgres: Postgres) -> None:
    proxy = await run_proxy()
    client = await proxy.connect()
    pid = await client.value("select pg_backend_pid()")
    await asyncio.to_thread(postgres.psql, f"select pg_terminate_backend({pid})")
    await eventually(lambda: all(one.process_id != int(pid or 0) for one in proxy.registry.connections))
    assert await client.value("select 1") == "1"


async def test_a_restart_of_the_server_is_invisible_to_idle_clients(
    make_postgres: MakePostgres, run_proxy: RunProxy
) -> None:
    server = await asyncio.to_thread(make_postgres)
    proxy = await run_proxy(server.url("app"), pool=QUICK)
    client = await proxy.connect()
    assert await client.value("select 1") == "1"
    await asyncio.to_thread(server.restart)
    await eventually(lambda: proxy.registry.count == 0)
    assert await client.value("select 2") == "2"


async def test_a_server_that_is_not_there_at_start_is_used_when_it_comes(
    fake_server: FakeServer, run_proxy: RunProxy
) -> None:
    await fake_server.stop()
    proxy = await run_proxy(fake_server.url, pool=QUICK)
    assert proxy.process.view.ready()[0] is False
    answer = await greeting(proxy, encode_startup({"user": "app", "database": "app"}))
    assert only_error(answer) == ("FATAL", "08006")
    await fake_server.start()
    await eventually(lambda: proxy.process.view.ready()[0])
    client = await proxy.connect()
    assert (await client.query("select")).status == "I"


async def test_while_the_server_is_down_units_fail_fast_and_the_client_stays(
    fake_server: FakeServer, run_proxy: RunProxy
) -> None:
    proxy = await run_proxy(fake_server.url, pool=QUICK)
    client = await proxy.connect()
    await fake_server.stop()
    await eventually(lambda: proxy.registry.count == 0)
    await client.send(*(query("select") for _ in range(3000)), run("select"), SYNC)
    for _ in range(3001):
        answer = await client.answer()
        assert (answer.codes, answer.status) == (["08006"], "I")
    await fake_server.start()
    await eventually(lambda: proxy.registry.connector.down is None)
    assert (await client.query("select")).errors == []


async def test_a_dial_that_crashes_is_an_error_for_one_who_waits_and_keeps_nobody(
    run_proxy: RunProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = await run_proxy()
    client = await proxy.connect()
    proxy.registry.close_all_idle()
    await proxy.registry.until_empty()

    async def crash(make_protocol: object) -> None:
        raise UnicodeError("label too long")

    with monkeypatch.context() as patch:
        patch.setattr(proxy.registry.connector, "open", crash)
        assert (await client.query("select 1")).codes == ["XX000"]
    assert await client.value("select 1") == "1"
    assert proxy.measures.crashes == 1
    proxy.measures.crashes = 0  # this one was wanted


async def test_too_many_connections_is_asked_again_and_never_shown(
    fake_server: FakeServer, run_proxy: RunProxy
) -> None:
    async def full_at_first(session: Session) -> None:
        if session.startup is not None and session.startup.user == "app" and len(fake_server.of("app")) <= 3:
            session.fail("53300", "sorry, too many clients already", "FATAL")
            session.writer.close()
        else:
            session.greet()

    fake_server.on_startup = full_at_first
    proxy = await run_proxy(fake_server.url)
    client = await proxy.connect()
    assert (await client.query("select")).errors == []
    assert proxy.measures.dial_retries == 3


async def test_a_server_that_stays_full_is_told_in_our_words_at_the_end_of_the_wait(
    fake_server: FakeServer, run_proxy: RunProxy
) -> None:
    async def full(session: Session) -> None:
        session.fail("53300", "sorry, too many clients already", "FATAL")
        session.writer.close()

    proxy = await run_proxy(fake_server.url, classes={"all": {"limit": 2, "queue": {"timeout": "100ms"}}})
    fake_server.on_startup = full
    answer = await greeting(proxy, encode_startup({"user": "app", "database": "app"}))
    (error,) = answer.errors
    assert (error.severity, error.code) == ("FATAL", "53300")
    assert "sorry" not in error.message


# -- servers that lie -------------------------------------------------------------------------------------------------


async def _garbage(session: Session) -> None:
    session.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def _hang(session: Session) -> None:
    await session.reader.read()


async def _hang_up(session: Session) -> None:
    session.writer.close()


async def _ready_too_early(session: Session) -> None:
    session.send(messages.ready_for_query(b"I"))


async def _odd_authentication(session: Session) -> None:
    session.send(messages.message(messages.AUTHENTICATION, b"\0\0\0\x63"))


async def _wrong_length(session: Session) -> None:
    session.send(b"R\0\0\0\x01")


@pytest.mark.parametrize(
    ("lie", "codes"),
    [
        (_garbage, {"08006", "08P01"}),
        (_hang, {"08006"}),
        (_hang_up, {"08006"}),
        (_ready_too_early, {"08006", "08P01"}),
        (_odd_authentication, {"08006", "08P01"}),
        (_wrong_length, {"08006", "08P01"}),
    ],
)
async def test_a_server_that_lies_during_login_is_an_error_in_time(
    fake_server: FakeServer, run_proxy: RunProxy, lie: Callable[[Session], object], codes: set[str]
) -> None:
    proxy = await run_proxy(fake_server.url, pool=QUICK)
    fake_server.on_startup = lie  # type: ignore[assignment]
    answer = await greeting(proxy, encode_startup({"user": "app", "database": "app"}))
    severity, code = only_error(answer)
    assert severity == "FATAL"
    assert code in codes
    fake_server.on_startup = FakeServer().on_startup
    await eventually(lambda: proxy.registry.connector.down is None)
    assert (await (await proxy.connect()).query("select")).errors == []


def _answers_with(*parts: bytes) -> Callable[[Session], None]:
    return lambda session: session.send(*parts)


@pytest.mark.parametrize(
    "lie",
    [
        _answers_with(b"\0\0\0\0\0\0\0\0"),
        _answers_with(b"D\0\0\0\x01"),
        _answers_with(b"D\xff\xff\xff\xff"),
        _answers_with(messages.command_complete("SELECT 0"), *[messages.ready_for_query(b"I")] * 2),
        _answers_with(messages.parameter_status("TimeZone", "x")[:-1] + b"y", messages.ready_for_query(b"I")),
        lambda session: session.writer.close(),
        lambda session: (session.rows("1", "2"), session.writer.transport.abort()),
    ],
    ids=["zeroes", "short", "negative", "ready-twice", "broken-parameter", "hangs-up", "dies-in-result"],
)
async def test_a_server_that_lies_in_its_answer_ends_the_connection(
    fake_server: FakeServer, run_proxy: RunProxy, lie: Callable[[Session], object]
) -> None:
    async def answer(session: Session, kind: str, payload: bytes) -> None:
        if payload == b"lie\0":
            lie(session)
        else:
            session.obey(kind, payload)

    fake_server.on_message = answer
    proxy = await run_proxy(fake_server.url, pool=QUICK)
    client, other = await proxy.connect(), await proxy.connect()
    await client.send(query("lie"))
    reply = await client.answer("never")
    liar = next(one for one in fake_server.of("app") if "lie" in one.queries)
    if reply.errors:
        assert only_error(reply) == ("FATAL", "08006")
    assert (await other.query("select")).errors == []
    assert "select" not in liar.queries, "the connection of the liar served another client"


@pytest.mark.parametrize("facts", [[], [("1",)], [("a lot",) * 6], [FACTS, FACTS]], ids=str)
async def test_a_server_that_tells_no_limits_is_asked_again(
    fake_server: FakeServer, run_proxy: RunProxy, facts: list[tuple[str, ...]]
) -> None:
    """It ended the process at its start, and the task that asks again while it ran."""

    async def lie(session: Session, kind: str, payload: bytes) -> None:
        if b"max_connections" in payload:
            session.send(*(messages.data_row(row) for row in facts))
            session.complete()
        else:
            session.obey(kind, payload)

    fake_server.on_message = lie
    proxy = await run_proxy(fake_server.url)
    assert proxy.watch.facts is None
    assert (await (await proxy.connect()).query("select")).status == "I"


async def test_an_idle_connection_that_speaks_out_of_turn_serves_nobody(
    fake_server: FakeServer, run_proxy: RunProxy
) -> None:
    """Whatever it answers next would be one answer late."""
    proxy = await run_proxy(fake_server.url, pool=QUICK)
    client = await proxy.connect()
    await client.query("select")
    (liar,) = fake_server.of("app")
    liar.complete()
    await eventually(lambda: proxy.registry.count < 2)
    assert (await client.query("next")).errors == []
    assert "next" not in liar.queries


async def test_an_error_message_too_long_to_be_held_passes_through(
    fake_server: FakeServer, run_proxy: RunProxy
) -> None:
    async def answer(session: Session, kind: str, payload: bytes) -> None:
        if payload == b"long\0":
            session.fail(text="x" * 200_000)
            session.send(messages.ready_for_query(b"I"))
        else:
            session.obey(kind, payload)

    fake_server.on_message = answer
    proxy = await run_proxy(fake_server.url)
    client = await proxy.connect()
    answer_ = await client.query("long")
    assert (len(answer_.errors[0].message), answer_.status) == (200_000, "I")


# -- servers that freeze ----------------------------------------------------------------------------------------------


async def test_a_server_frozen_while_dialled_is_an_error_in_time_and_used_again_later(
    make_postgres: MakePostgres, run_proxy: RunProxy
) -> None:
    server = await asyncio.to_thread(make_postgres)
    proxy = await run_proxy(server.url("app"), pool=QUICK)
    client = await proxy.connect()
    proxy.registry.close_all_idle()
    await eventually(lambda: proxy.registry.count == 0)
    server.freeze()
    try:
        answer = await client.query("select 1")
        assert (answer.codes, answer.status) == (["08006"], "I")
    finally:
        server.thaw()

    async def served() -> bool:
        return not (await client.query("select 1")).errors

    await eventually(served, within_seconds=10)


async def test_a_backend_that_does_not_end_keeps_being_counted_until_it_is_gone(
    make_postgres: MakePostgres, run_proxy: RunProxy
) -> None:
    """The client has left, the frozen backend has not: closing a socket gives no room on the server."""
    server = await asyncio.to_thread(make_postgres)
    proxy = await run_proxy(server.url("app"), pool=QUICK)
    client = await proxy.connect()
    pid = int(await client.value("select pg_backend_pid()") or 0)
    await client.send(query("select pg_sleep(60)"))
    await eventually(lambda: proxy.linked() == 1)
    os.kill(pid, signal.SIGSTOP)
    try:
        await client.abort()
        await eventually(lambda: any(name.startswith("until backend") for name in proxy.process.tasks.names()))
        for _ in range(20):
            await asyncio.sleep(0.02)
            assert any(one.process_id == pid for one in proxy.registry.connections)
            assert proxy.controller.in_use >= 1
    finally:
        os.kill(pid, signal.SIGCONT)
    await proxy.until_free()


async def test_a_client_is_not_kept_for_ever_where_every_connection_is_frozen(
    fake_server: FakeServer, run_proxy: RunProxy
) -> None:
    """The check of an idle connection got no answer, and there is no room for another one before that is gone."""
    frozen = asyncio.Event()

    async def freeze(session: Session, kind: str, payload: bytes) -> None:
        if frozen.is_set():
            await session.reader.read()
            await asyncio.Event().wait()
        session.obey(kind, payload)

    fake_server.on_message = freeze
    tight = {"budget": {"total": 2}, "classes": {"all": {"limit": 1, "queue": {"timeout": "1s"}}}}
    proxy = await run_proxy(fake_server.url, pool={**QUICK, "check_after": "1ms"}, **tight)
    client = await proxy.connect()
    await client.query("select")
    await asyncio.sleep(0.01)
    frozen.set()
    fake_server.never_closes, fake_server.on_startup = True, _hang
    answer = await client.query("select")
    assert (answer.codes, answer.status) == (["08006"], "I")
    frozen.clear()
    fake_server.never_closes, fake_server.on_startup = False, FakeServer().on_startup
    for session in fake_server.sessions:
        session.writer.transport.abort()
