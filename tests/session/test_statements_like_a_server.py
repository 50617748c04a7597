"""Whatever a client does with prepared statements, the proxy answers as a server of its own would.

Two clients send drawn units by turns, a third one holds a server connection now and then so that they have to change
theirs; each sends the same to a server connection without the proxy, and must be answered the same.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.demo.postgres import DATABASE, EmbeddedPostgres
from tests.support.eventually import eventually
from tests.support.running import RunProxy
from tests.support.wire_client import FLUSH, SYNC, Answer, WireClient, bind, close, describe, execute, parse, query

NAMES = ("a", "b", "")
TEXTS = (
    "select 'one'",
    "select $1::text",
    "select generate_series(1, 3)",
    "select 1/0",
    "select nothing",
    "begin",
    "commit",
    "rollback",
    "savepoint s",
    "rollback to s",
    "",
    "set local timezone = 'Asia/Tokyo'",
)
QUERIES = (
    "select 'q'",
    "begin",
    "commit",
    "rollback",
    "deallocate all",
    "select 1/0",
    "discard all",
    "",
)

names = st.sampled_from(NAMES)
messages = st.one_of(
    st.builds(parse, st.sampled_from(TEXTS), names),
    st.builds(lambda name: bind(statement=name), names),
    st.builds(lambda name: bind("v", statement=name), names),
    st.builds(lambda name: describe("S", name), names),
    st.just(describe()),
    st.builds(lambda rows: execute(rows=rows), st.sampled_from((0, 1))),
    st.builds(lambda name: close("S", name), names),
    st.just(close("P", "")),
    st.builds(query, st.sampled_from(QUERIES)),
    st.just(FLUSH),
    st.just(SYNC),
)


@dataclass(frozen=True)
class Turn:
    """One client sends `parts` and a Sync, cut into two pieces at `cut` (a share of all bytes)."""

    client: int
    parts: Sequence[bytes]
    cut: float
    held: bool  # a connection is held meanwhile

    @property
    def stream(self) -> bytes:
        return b"".join(self.parts) + SYNC


turns = st.lists(
    st.builds(
        Turn, st.sampled_from((0, 1)), st.lists(messages, min_size=1, max_size=8), st.floats(0, 1), st.booleans()
    ),
    min_size=1,
    max_size=8,
)


def seen(answer: Answer) -> tuple[object, ...]:
    errors = [(error.code, error.message) for error in answer.errors]
    return answer.kinds, answer.rows, answer.tags, errors, answer.status


MARK = query("select 'mark'")


async def answers(client: WireClient, turn: Turn) -> list[tuple[object, ...]]:
    """All answers up to that of a mark behind them."""
    stream, cut = turn.stream, round(turn.cut * len(turn.stream))
    await client.send(stream[:cut])
    await asyncio.sleep(0)
    await client.send(stream[cut:], MARK)
    found = []
    while True:
        answer = await client.answer()
        assert answer.status, "the connection has ended"
        if answer.rows == [("mark",)]:
            return found
        found.append(seen(answer))


async def play(clients: Sequence[WireClient], holder: WireClient | None, script: Sequence[Turn]) -> list[object]:
    told: list[object] = []
    for turn in script:
        client = clients[turn.client]
        if holder is not None and turn.held:
            await holder.query("begin")
        # A transaction that was left open or failed ends before the mark, which has to succeed.
        closed = Turn(turn.client, [*turn.parts, SYNC, query("rollback")], turn.cut, turn.held)
        told.append(await answers(client, closed))
        if holder is not None and turn.held:
            await holder.query("rollback")
    return told


async def directly(postgres: EmbeddedPostgres) -> WireClient:
    client = await WireClient.open(postgres.host, postgres.port)
    await client.log_in("app", DATABASE)
    return client


async def test_it_answers_as_a_server_of_one_s_own(
    run_proxy: RunProxy, make_postgres: Callable[..., EmbeddedPostgres]
) -> None:
    postgres = make_postgres(18, auth="trust")
    proxy = await run_proxy(postgres.url("app"), classes={"all": {"limit": 2, "pinned_limit": 2}}, budget={"total": 3})
    loop = asyncio.get_running_loop()

    async def compare(script: Sequence[Turn]) -> None:
        """Everybody is new: what went wrong in one example must not be met in the next."""
        async with asyncio.timeout(10):
            straight = [await directly(postgres), await directly(postgres)]
            through = [await proxy.connect(), await proxy.connect()]
            holder = await proxy.connect()
            expected = await play(straight, None, script)
            found = await play(through, holder, script)
            await eventually(lambda: proxy.controller.in_use == 0)
        for client in (*straight, *through, holder):
            await client.leave()
        assert found == expected

    def run_one(script: Sequence[Turn]) -> None:
        asyncio.run_coroutine_threadsafe(compare(script), loop).result(15)

    drawn = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))(
        given(turns)(run_one)
    )
    await asyncio.to_thread(drawn)
