"""Whatever either side says, it is read or it is a protocol violation: no exception, no slot lost, nothing of others.

The proxy runs on a loop in a thread of its own, so that Hypothesis may draw and shrink what is sent to it.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from proxy.wire import messages
from proxy.wire.messages import ErrorFields
from proxy.wire.startup import encode_cancel_request, encode_ssl_request, encode_startup
from tests.session.fake_server import FakeServer, Session
from tests.session.mutations import cut, cuts, harmed
from tests.support.eventually import eventually
from tests.support.running import Running, running_proxy
from tests.support.servers import Postgres
from tests.support.wire_client import (
    COPY_DONE,
    COPY_FAIL,
    FLUSH,
    SYNC,
    TERMINATE,
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

T = TypeVar("T")
# Nothing is made smaller: an example that leaves a slot behind spoils those after it, and each costs seconds.
fuzz = settings(
    max_examples=int(os.environ.get("PGHEADROOM_FUZZ_EXAMPLES", "60")),
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
SMALL: dict[str, Any] = {
    "budget": {"total": 3},
    "classes": {"all": {"limit": 2, "queue": {"timeout": "5s", "max": 50}, "pinned_limit": 2}},
    "limits": {"max_inspected_bytes": 1000, "max_waiting_bytes": 1000, "max_message_bytes": 100_000},
    "pool": {"gone_timeout": "2s", "dial_timeout": "1s"},
}


class Background:
    """A loop in a thread, and what runs on it."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@pytest.fixture
def background() -> Iterator[Background]:
    loop = Background()
    yield loop
    loop.close()


async def all_is_given_back(proxy: Running) -> None:
    """And a client that comes next is served with what is its own."""
    await eventually(lambda: not (proxy.controller.in_use or proxy.desk.clients), but=proxy.leftovers)
    assert not proxy.broken, proxy.broken[0]
    assert proxy.measures.crashes == 0


# -- clients -----------------------------------------------------------------------------------------------------------

FROM_CLIENTS = [
    query("select 'client'"),
    query("begin"),
    query("rollback"),
    query(""),
    query("select 1/0"),
    query("copy (select 1) to stdout"),
    query("copy pg_temp.fuzz from stdin"),
    query("create temp table if not exists fuzz (n int)"),
    query("set work_mem = '1MB'"),
    query("discard all"),
    query("listen fuzz"),
    parse("select $1::text"),
    parse("begin", name="s"),
    bind("client"),
    bind(statement="s"),
    describe(),
    describe("S"),
    execute(),
    execute(rows=1),
    close("S", "s"),
    close("P"),
    run("select 'client'"),
    SYNC,
    SYNC,
    FLUSH,
    copy_data(b"1\n"),
    COPY_DONE,
    COPY_FAIL,
    function_call(1598),
    TERMINATE,
]
STARTUPS = [
    encode_startup({"user": "app", "database": "app"}),
    encode_startup({"user": "app", "database": "app", "options": "-c work_mem=1MB", "_pq_.x": "1"}, 7),
    encode_ssl_request(),
    encode_cancel_request(1, b"1234"),
    messages.password_message("secret"),
    query("select 1"),
]


async def say(proxy: Running, client: WireClient, pieces: list[bytes], how_it_ends: str) -> None:
    """Say it, look at some of the answer, and be gone."""
    try:
        for piece in pieces:
            await client.send(piece)
            await asyncio.sleep(0)
        if how_it_ends == "half-close":
            client.stop_sending()
        if how_it_ends != "abort":
            async with asyncio.timeout(0.05):
                await client.reader.read()
    except (ConnectionError, TimeoutError):
        pass
    await client.abort()


async def probe(proxy: Running) -> None:
    steady = await proxy.connect()
    answer = await steady.query("select 'probe', txid_current_if_assigned(), current_setting('work_mem')")
    assert answer.rows == [("probe", None, "4MB")]
    assert answer.status == "I"
    await steady.leave()


endings = st.sampled_from(("abort", "half-close", "wait"))


@pytest.fixture
def in_front_of_postgres(background: Background, postgres: Postgres, tmp_path: Path) -> Iterator[Running]:
    proxying = running_proxy(postgres.url("app"), tmp_path, **SMALL)
    running = background.run(proxying.__aenter__())
    yield running
    background.run(proxying.__aexit__(None, None, None))


def test_what_clients_say_after_login(background: Background, in_front_of_postgres: Running) -> None:
    proxy = in_front_of_postgres

    @fuzz
    @given(stream=harmed(FROM_CLIENTS), shares=cuts, ends=endings)
    def throw(stream: bytes, shares: list[float], ends: str) -> None:
        async def example() -> None:
            client = await proxy.connect()
            await say(proxy, client, cut(stream, shares), ends)
            await all_is_given_back(proxy)
            await probe(proxy)

        background.run(example())

    throw()


def test_what_clients_say_first(background: Background, in_front_of_postgres: Running) -> None:
    proxy = in_front_of_postgres

    @fuzz
    @given(stream=harmed(STARTUPS, most_messages=3), shares=cuts, ends=endings)
    def throw(stream: bytes, shares: list[float], ends: str) -> None:
        async def example() -> None:
            client = await proxy.open()
            await say(proxy, client, cut(stream, shares), ends)
            await all_is_given_back(proxy)

        background.run(example())

    throw()
    background.run(probe(proxy))


# -- servers -----------------------------------------------------------------------------------------------------------

MARK = b"the data of the first client"
OF_THE_FIRST = MARK.decode()
FROM_SERVERS = [
    messages.row_description([OF_THE_FIRST]),
    messages.data_row([OF_THE_FIRST]),
    messages.data_row([OF_THE_FIRST, None]),
    messages.command_complete("SELECT 1"),
    messages.command_complete(OF_THE_FIRST),
    messages.error_response(ErrorFields("ERROR", "XX000", OF_THE_FIRST)),
    messages.error_response(ErrorFields("FATAL", "57P01", OF_THE_FIRST)),
    messages.notice_response(ErrorFields("NOTICE", "00000", OF_THE_FIRST)),
    messages.parameter_status("application_name", "harmless"),
    messages.parameter_status("unheard_of", OF_THE_FIRST),
    messages.message(messages.NOTIFICATION_RESPONSE, b"\0\0\0\1" + MARK + b"\0\0"),
    messages.message(messages.COPY_IN_RESPONSE, b"\0\0\0"),
    messages.message(messages.COPY_OUT_RESPONSE, b"\0\0\0"),
    messages.message(messages.COPY_BOTH_RESPONSE, b"\0\0\0"),
    copy_data(MARK),
    COPY_DONE,
    messages.parse_complete(),
    messages.bind_complete(),
    messages.no_data(),
    messages.empty_query_response(),
    messages.message(messages.PORTAL_SUSPENDED),
    messages.authentication_ok(),
    messages.backend_key_data(1, b"1234"),
    messages.ready_for_query(b"I"),
    messages.ready_for_query(b"I"),
    messages.ready_for_query(b"T"),
    messages.ready_for_query(b"E"),
]


@pytest.fixture
def fake(background: Background) -> Iterator[FakeServer]:
    server = FakeServer()
    background.run(server.start())
    yield server
    background.run(server.stop())


@pytest.fixture
def in_front_of_a_liar(background: Background, fake: FakeServer, tmp_path: Path) -> Iterator[Running]:
    proxying = running_proxy(fake.url, tmp_path, **SMALL)
    running = background.run(proxying.__aenter__())
    yield running
    background.run(proxying.__aexit__(None, None, None))


ASKS = {"one query": query("lie"), "a batch": run("lie") + SYNC, "two queries": query("lie") + query("lie")}


@pytest.mark.parametrize("ask", ASKS.values(), ids=list(ASKS))
def test_what_servers_answer(background: Background, fake: FakeServer, in_front_of_a_liar: Running, ask: bytes) -> None:
    """The client that asked may be told anything; the next one gets an answer of its own or an error."""
    proxy = in_front_of_a_liar

    @fuzz
    @given(stream=harmed(FROM_SERVERS, most_messages=8), shares=cuts, hangs_up=st.booleans())
    def throw(stream: bytes, shares: list[float], hangs_up: bool) -> None:
        lied = asyncio.Event()

        async def lie(session: Session, kind: str, payload: bytes) -> None:
            if lied.is_set() or b"lie" not in payload:
                session.obey(kind, payload)
                return
            lied.set()
            for piece in cut(stream, shares):
                session.send(piece)
                await asyncio.sleep(0)
            if hangs_up:
                session.writer.close()

        async def example() -> None:
            fake.on_message = lie
            first = await proxy.connect()
            await say(proxy, first, [ask], "wait")
            second = await proxy.connect()
            await second.send(query("select"))
            heard = b"".join(payload for _, payload in (await second.answer()).replies)
            assert MARK not in heard
            await second.abort()
            await all_is_given_back(proxy)

        background.run(example())

    throw()


def test_what_servers_say_while_a_client_logs_in(
    background: Background, fake: FakeServer, in_front_of_a_liar: Running
) -> None:
    proxy = in_front_of_a_liar

    @fuzz
    @given(stream=harmed(FROM_SERVERS), shares=cuts, hangs_up=st.booleans())
    def throw(stream: bytes, shares: list[float], hangs_up: bool) -> None:
        async def lie(session: Session) -> None:
            for piece in cut(stream, shares):
                session.send(piece)
                await asyncio.sleep(0)
            session.greet() if not hangs_up else session.writer.close()

        async def example() -> None:
            proxy.registry.close_all_idle()
            fake.on_startup = lie
            client = await proxy.open()
            await say(proxy, client, [encode_startup({"user": "web", "database": "app"}), query("select")], "wait")
            await all_is_given_back(proxy)

        background.run(example())

    throw()
