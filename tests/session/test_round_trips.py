"""On a long wire to the server nothing is asked twice: as many turns through the proxy as straight at the server.

A turn (see `slow_link`) is bytes towards the server that waited for bytes from it. The wire has a length also where
turns are counted alone: what the proxy writes one after the other is then under way together, as it is in earnest.
"""

import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import psycopg
import pytest

from proxy.demo.postgres import DATABASE, password_of
from tests.support.eventually import eventually
from tests.support.running import Running, RunProxy
from tests.support.servers import Postgres
from tests.support.slow_link import SlowLink, slow_link
from tests.support.wire_client import SYNC, Answer, WireClient, bind, describe, execute, parse, query, run

pytestmark = pytest.mark.once

OpenWire = Callable[[float], Awaitable[SlowLink]]
Work = Callable[[], Awaitable[object]]

COUNTED_AT_SECONDS = 0.01
ROUND_TRIPS = pytest.mark.parametrize("round_trip_seconds", [0.0, 0.005, 0.033], ids=["0ms", "5ms", "33ms"])
REPEATS = 9


def slots(count: int) -> dict[str, Any]:
    """As many for clients as `count`, and one for the proxy's own questions."""
    return {
        "budget": {"total": count + 1},
        "classes": {"all": {"limit": count, "queue": {"timeout": "20s"}, "pinned_limit": count}},
    }


@pytest.fixture
async def wire_to_server(postgres: Postgres) -> AsyncIterator[OpenWire]:
    """Wires to the server of the tests, each with the time that a question and its answer take on it."""
    async with AsyncExitStack() as stack:

        async def make(round_trip_seconds: float) -> SlowLink:
            wire = slow_link(postgres.host, postgres.port, round_trip_seconds=round_trip_seconds)
            return await stack.enter_async_context(wire)

        yield make


def url(wire: SlowLink) -> str:
    return f"postgresql://app:{password_of('app')}@127.0.0.1:{wire.port}/{DATABASE}?sslmode=disable"


class Turns:
    """The turns on all server connections of the proxy: `await turns.of(work)`."""

    def __init__(self, proxy: Running, wire: SlowLink) -> None:
        self.proxy = proxy
        self.wire = wire

    def all_so_far(self) -> int:
        ports = [server.transport.get_extra_info("sockname")[1] for server in self.proxy.registry.connections]
        return sum(self.wire.link_of(port).turns for port in ports)

    async def of(self, work: Work) -> int:
        """All that are taken up to when the slot is free again: what the proxy does behind the answer counts too."""
        dials, before = self.proxy.measures.dials, self.all_so_far()
        await work()
        await self.proxy.until_free()
        assert self.proxy.measures.dials == dials, "the connections were not warm"
        return self.all_so_far() - before


async def warm(run_proxy: RunProxy, wire_to_server: OpenWire, *, connections: int = 1) -> tuple[Running, Turns]:
    """A proxy whose clients have that many server connections, each of which has served."""
    wire = await wire_to_server(COUNTED_AT_SECONDS)
    proxy = await run_proxy(url(wire), **slots(connections))
    clients = [await proxy.connect() for _ in range(connections)]
    for statement in ("begin", "commit"):
        for client in clients:
            assert (await client.query(statement)).errors == []
    for client in clients:
        await client.leave()
    await eventually(lambda: not proxy.desk.clients)
    await proxy.until_free()
    return proxy, Turns(proxy, wire)


async def run_prepared(client: WireClient, name: str, *values: str) -> Answer:
    await client.send(bind(*values, statement=name), describe(), execute(), SYNC)
    return await client.answer()


async def prepare(client: WireClient, name: str, sql: str) -> None:
    await client.send(parse(sql, name), SYNC)
    assert (await client.answer()).kinds == "1Z"


async def test_a_plain_and_an_extended_query_take_one_turn(run_proxy: RunProxy, wire_to_server: OpenWire) -> None:
    proxy, turns = await warm(run_proxy, wire_to_server)
    client = await proxy.connect()
    assert await turns.of(partial(client.query, "select 1")) == 1
    assert await turns.of(partial(client.extended, "select $1", "1")) == 1


async def test_a_prepared_statement_takes_one_turn_to_be_parsed_and_one_each_time_it_runs(
    run_proxy: RunProxy, wire_to_server: OpenWire
) -> None:
    proxy, turns = await warm(run_proxy, wire_to_server)
    client = await proxy.connect()
    assert await turns.of(partial(prepare, client, "s", "select $1::int + 1")) == 1
    for _ in range(2):
        assert await turns.of(partial(run_prepared, client, "s", "41")) == 1


async def test_a_transaction_takes_one_turn_for_each_of_its_queries(
    run_proxy: RunProxy, wire_to_server: OpenWire
) -> None:
    proxy, turns = await warm(run_proxy, wire_to_server)
    client = await proxy.connect()

    async def transaction() -> None:
        for statement in ("begin", "select 1", "select 2", "commit"):
            assert (await client.query(statement)).errors == []

    assert await turns.of(transaction) == 4


async def test_what_a_client_sends_in_one_go_takes_one_turn(run_proxy: RunProxy, wire_to_server: OpenWire) -> None:
    """Several statements of one pipeline up to its Sync."""
    proxy, turns = await warm(run_proxy, wire_to_server)
    client = await proxy.connect()

    async def pipeline() -> None:
        await client.send(run("select 1"), run("select 2"), run("select 3"), SYNC)
        assert (await client.answer()).rows == [("1",), ("2",), ("3",)]

    assert await turns.of(pipeline) == 1


@pytest.mark.parametrize(
    "parameters",
    [
        {"TimeZone": "Asia/Tokyo"},
        {"application_name": "somebody-else"},
        {"TimeZone": "Asia/Tokyo", "application_name": "somebody-else", "options": "-c work_mem=1MB"},
    ],
    ids=["TimeZone", "application_name", "several"],
)
async def test_known_settings_travel_with_the_query(
    run_proxy: RunProxy, wire_to_server: OpenWire, parameters: dict[str, str]
) -> None:
    """Two clients take turns on one server connection, which has the settings of the other each time."""
    proxy, turns = await warm(run_proxy, wire_to_server)
    one, other = await proxy.connect(**parameters), await proxy.connect()
    applied = proxy.measures.parameters_reapplied
    for _ in range(2):
        assert await turns.of(partial(one.query, "select 1")) == 1
        assert await turns.of(partial(other.extended, "select 1")) == 1
    assert proxy.measures.parameters_reapplied >= applied + 3, "the settings differed"


async def test_a_statement_is_parsed_with_its_first_use_on_a_connection_that_does_not_know_it(
    run_proxy: RunProxy, wire_to_server: OpenWire
) -> None:
    proxy, turns = await warm(run_proxy, wire_to_server, connections=2)
    client, holder = await proxy.connect(), await proxy.connect()
    await prepare(client, "s", "select pg_backend_pid()")
    known_to = (await run_prepared(client, "s")).value
    await holder.query("begin")
    assert await holder.value("select pg_backend_pid()") == known_to, "the connection used last is handed out first"
    before = turns.all_so_far()
    assert (await run_prepared(client, "s")).value != known_to
    await eventually(lambda: proxy.linked() == 1)
    assert turns.all_so_far() - before == 1
    await holder.query("commit")


async def test_only_a_value_seen_for_the_first_time_is_asked_about(
    run_proxy: RunProxy, wire_to_server: OpenWire
) -> None:
    """It is tried alone while its client logs in: were it wrong, nothing of the client's may have run. The next client
    that starts up with it logs in without the server."""
    proxy, turns = await warm(run_proxy, wire_to_server)

    async def log_in_and_ask() -> None:
        client = await proxy.connect(TimeZone="Africa/Nairobi")
        assert await client.value("show timezone") == "Africa/Nairobi"

    assert await turns.of(log_in_and_ask) == 2
    assert await turns.of(log_in_and_ask) == 1


async def test_a_set_is_asked_about_once_where_the_server_does_not_report_it(
    run_proxy: RunProxy, wire_to_server: OpenWire
) -> None:
    proxy, turns = await warm(run_proxy, wire_to_server)
    client = await proxy.connect()
    assert await turns.of(partial(client.query, "set timezone = 'Asia/Tokyo'")) == 1
    assert await turns.of(partial(client.query, "set work_mem = '1MB'")) == 2
    assert await turns.of(partial(client.query, "show work_mem")) == 1


async def what_a_driver_does(connection: psycopg.AsyncConnection[Any]) -> None:
    """Parameters, a statement that the driver comes to prepare, a transaction, an error, a pipeline."""
    for number in range(8):
        assert await (await connection.execute("select %s::int", (number,))).fetchone() == (number,)
    async with connection.transaction():
        await connection.execute("select 1")
        await connection.execute("select 2")
    with pytest.raises(psycopg.errors.DivisionByZero):
        await connection.execute("select 1/0")
    async with connection.pipeline():
        for number in range(5):
            await connection.execute("select %s::int", (number,))


async def test_a_driver_takes_as_many_turns_as_straight_at_the_server(
    run_proxy: RunProxy, wire_to_server: OpenWire
) -> None:
    proxy, turns = await warm(run_proxy, wire_to_server)
    straight = await wire_to_server(COUNTED_AT_SECONDS)
    async with await psycopg.AsyncConnection.connect(url(straight), autocommit=True) as connection:
        (link,) = straight.links
        before = link.turns
        await what_a_driver_does(connection)
        taken = link.turns - before
    async with await proxy.psycopg() as connection:
        assert await turns.of(partial(what_a_driver_does, connection)) == taken


async def seconds_of(work: Work) -> float:
    """The median: the machine may be busy now and then."""
    taken = []
    for _ in range(REPEATS):
        begun = time.monotonic()
        await work()
        taken.append(time.monotonic() - begun)
    return statistics.median(taken)


def is_one_round_trip(seconds: float, round_trip_seconds: float) -> bool:
    """Nobody is faster than the wire, and a second round trip would show."""
    return round_trip_seconds <= seconds < 1.5 * round_trip_seconds + 0.015


@pytest.mark.alone
@ROUND_TRIPS
async def test_a_query_takes_the_time_of_one_round_trip(
    run_proxy: RunProxy, wire_to_server: OpenWire, round_trip_seconds: float
) -> None:
    wire = await wire_to_server(round_trip_seconds)
    proxy = await run_proxy(url(wire), **slots(1))
    client, other = await proxy.connect(), await proxy.connect(TimeZone="Asia/Tokyo")
    await prepare(client, "s", "select 1")

    async def in_turns() -> None:
        await client.query("select 1")
        await other.query("select 1")

    found = {
        "plain": await seconds_of(partial(client.query, "select 1")),
        "extended": await seconds_of(partial(client.extended, "select 1")),
        "prepared": await seconds_of(partial(run_prepared, client, "s")),
        "settings": await seconds_of(in_turns) / 2,
    }
    assert all(is_one_round_trip(seconds, round_trip_seconds) for seconds in found.values()), found


@pytest.mark.alone
@ROUND_TRIPS
async def test_a_driver_waits_as_long_as_straight_at_the_server(
    run_proxy: RunProxy, wire_to_server: OpenWire, round_trip_seconds: float
) -> None:
    wire = await wire_to_server(round_trip_seconds)
    proxy = await run_proxy(url(wire), **slots(1))
    found = {}
    async with (
        await psycopg.AsyncConnection.connect(url(wire), autocommit=True) as straight,
        await proxy.psycopg() as through,
    ):
        for way, connection in (("straight", straight), ("through", through)):
            await connection.execute("select 1")
            found[way] = await seconds_of(partial(connection.execute, "select %s::int", (1,)))
    assert all(is_one_round_trip(seconds, round_trip_seconds) for seconds in found.values()), found


@pytest.mark.alone
async def test_a_second_turn_is_seen_and_costs_its_time(run_proxy: RunProxy, wire_to_server: OpenWire) -> None:
    """The wire tells the difference: two queries, of which the second waits for the answer to the first."""
    proxy, turns = await warm(run_proxy, wire_to_server)
    client = await proxy.connect()

    async def one_after_the_other() -> None:
        await client.query("select 1")
        await client.query("select 1")

    async def together() -> None:
        await client.send(query("select 1; select 1"))
        await client.answer()

    assert await turns.of(one_after_the_other) == 2
    assert await turns.of(together) == 1
    turns.wire.one_way_seconds = 0.02
    assert not is_one_round_trip(await seconds_of(one_after_the_other), 0.04)
    assert is_one_round_trip(await seconds_of(together), 0.04)
