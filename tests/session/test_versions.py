"""Protocol 3.0, 3.2 and what is not known yet: how long keys are, and what is answered to more than is spoken."""

import asyncio

import psycopg
import pytest

from proxy.demo.postgres import EmbeddedPostgres
from proxy.session.client import Phase
from proxy.wire import messages
from proxy.wire.startup import encode_startup
from tests.session.fake_server import FakeServer, Session
from tests.support.eventually import eventually
from tests.support.running import Running, RunProxy
from tests.support.wire_client import WireClient, query

SLOW = "select pg_sleep(60)"


async def greeted(proxy: Running, minor: int, **parameters: str) -> WireClient:
    """A client that is greeted, whatever comes before the first ReadyForQuery."""
    client = await proxy.open()
    await client.log_in("app", "app", minor=minor, **parameters)
    return client


def negotiated(client: WireClient) -> list[tuple[int, list[str]]]:
    """(minor version, options that are not known) of each NegotiateProtocolVersion."""
    told = []
    for payload in client.greeting.payloads("v"):
        newest, count = int.from_bytes(payload[:4], "big"), int.from_bytes(payload[4:8], "big")
        names = payload[8:].split(b"\0")[:-1]
        assert (newest >> 16, len(names)) == (3, count)
        told.append((newest & 0xFFFF, [name.decode() for name in names]))
    return told


@pytest.mark.parametrize(
    ("asked", "options", "told", "key_bytes"),
    [
        (0, {}, [], 4),
        (1, {}, [], 4),
        (2, {}, [], 32),
        (3, {}, [(2, [])], 32),
        (9999, {"_pq_.test_protocol_negotiation": ""}, [(2, ["_pq_.test_protocol_negotiation"])], 32),
        (0, {"_pq_.first": "1", "_pq_.second": ""}, [(0, ["_pq_.first", "_pq_.second"])], 4),
    ],
)
async def test_more_than_is_spoken_is_answered_with_what_is(
    run_proxy: RunProxy, asked: int, options: dict[str, str], told: list[tuple[int, list[str]]], key_bytes: int
) -> None:
    proxy = await run_proxy()
    client = await greeted(proxy, asked, **options)
    assert negotiated(client) == told
    assert len(client.secret_key) == key_bytes
    assert client.greeting.kinds.startswith("vR" if told else "R"), "it comes before anything is asked for"
    assert await client.value("select 1") == "1"


async def test_it_is_the_answer_of_the_server_itself(
    run_proxy: RunProxy, embedded_postgres_18: EmbeddedPostgres
) -> None:
    """What a client reads is what PostgreSQL 18 would have sent it, byte by byte."""
    proxy = await run_proxy(embedded_postgres_18.url("app"))
    startup = encode_startup({"user": "app", "database": "app", "_pq_.unheard_of": "1"}, 7)
    through, straight = await proxy.open(), await WireClient.open("127.0.0.1", embedded_postgres_18.port)
    answers = []
    for client in (through, straight):
        await client.send(startup)
        answers.append((await client.answer("R")).payloads("v"))
    straight.writer.close()
    assert answers[0] == answers[1] != []


@pytest.mark.parametrize(
    ("server", "version", "key_bytes"),
    [
        ("embedded_postgres_18", "3.0", 4),
        ("embedded_postgres_18", "3.2", 32),
        ("embedded_postgres_18", "latest", 32),
        ("embedded_postgres_16", "latest", 4),
    ],
)
async def test_a_cancel_carries_the_key_the_server_gave_however_long(
    request: pytest.FixtureRequest, run_proxy: RunProxy, server: str, version: str, key_bytes: int
) -> None:
    """max_protocol_version of the upstream decides; a server that is too old for it says so, and is used."""
    upstream: EmbeddedPostgres = request.getfixturevalue(server)
    proxy = await run_proxy(f"{upstream.url('app')}?max_protocol_version={version}")
    client = await proxy.connect()
    await client.send(query(SLOW))
    await eventually(lambda: proxy.phases() == [Phase.LINKED] and upstream.psql(_SLEEPING) == "1")
    keys = [len(one.secret_key) for one in proxy.registry.connections]
    assert set(keys) == {key_bytes}
    await client.ask_to_cancel()
    assert (await client.answer()).codes == ["57014"]


@pytest.mark.parametrize("version", ["3.0", "3.2", "latest"])
async def test_libpq_cancels_with_the_key_of_its_version(run_proxy: RunProxy, version: str) -> None:
    proxy = await run_proxy()
    async with await proxy.psycopg(max_protocol_version=version) as connection:
        work = asyncio.create_task(connection.execute(SLOW))
        await eventually(lambda: proxy.phases() == [Phase.LINKED])
        await connection.cancel_safe()
        with pytest.raises(psycopg.errors.QueryCanceled):
            await work


_SLEEPING = f"select count(*) from pg_stat_activity where state = 'active' and query = '{SLOW}'"


@pytest.mark.parametrize("length", [5, 255, 256])
async def test_keys_of_any_length_are_carried(fake_server: FakeServer, run_proxy: RunProxy, length: int) -> None:
    """A server, or another proxy in its place, chooses its own length up to 256 bytes."""
    key, busy = bytes(range(256))[:length], asyncio.Event()

    async def greet(session: Session) -> None:
        ready = messages.backend_key_data(session.process_id, key) + messages.ready_for_query(b"I")
        session.send(messages.authentication_ok(), ready)

    async def work(session: Session, kind: str, payload: bytes) -> None:
        if payload == b"slow\0":
            await busy.wait()
        session.obey(kind, payload)

    async def cancelled(_: int) -> None:
        busy.set()

    fake_server.on_startup, fake_server.on_message, fake_server.on_cancel = greet, work, cancelled
    proxy = await run_proxy(f"{fake_server.url}&max_protocol_version=3.2")
    client = await proxy.connect()
    await client.send(query("slow"))
    await eventually(lambda: "slow" in fake_server.queries())
    await client.ask_to_cancel()
    await client.answer()
    assert fake_server.cancel_keys == [key]
    startup = fake_server.of("app")[0].startup
    assert startup is not None
    assert startup.minor == 2
