"""After a pause and after an outage: who waits is served one after the other, with real clients."""

import asyncio
from time import monotonic

from proxy.admission.classes import ClassState
from tests.session.fake_server import FakeServer
from tests.support.eventually import eventually
from tests.support.running import Running, RunProxy
from tests.support.wire_client import WireClient, query

QUICK = {"retry_min": "20ms", "retry_max": "50ms", "dial_timeout": "500ms"}


def slowly(**of_class: object) -> dict[str, object]:
    return {"classes": {"all": {"limit": 4, "slow_start": "900ms", **of_class}}}


async def begins(client: WireClient) -> float:
    """A transaction that goes on; when it has begun."""
    answer = await client.query("begin")
    assert answer.errors == []
    return monotonic()


async def moments_of_four(proxy: Running, clients: list[WireClient]) -> list[float]:
    begun = await asyncio.gather(*(begins(client) for client in clients))
    assert proxy.linked() == 4
    for client in clients:
        await client.query("commit")
    return sorted(begun)


async def test_those_who_waited_through_a_pause_are_served_one_after_the_other(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**slowly())
    clients = [await proxy.connect() for _ in range(4)]
    proxy.process.set_state("all", ClassState.PAUSED, by="test", reason="")
    working = asyncio.create_task(moments_of_four(proxy, clients))
    await eventually(lambda: proxy.waiting() == 4)
    resumed_at = monotonic()
    proxy.process.set_state("all", ClassState.RUNNING, by="test", reason="")
    assert 0.85 < (await working)[-1] - resumed_at < 4.0


async def test_what_is_reserved_is_served_at_once(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**slowly(reserved=4, slow_start="1m"))
    clients = [await proxy.connect() for _ in range(4)]
    proxy.process.set_state("all", ClassState.PAUSED, by="test", reason="")
    working = asyncio.create_task(moments_of_four(proxy, clients))
    await eventually(lambda: proxy.waiting() == 4)
    resumed_at = monotonic()
    proxy.process.set_state("all", ClassState.RUNNING, by="test", reason="")
    assert (await working)[-1] - resumed_at < 10.0


async def test_when_the_server_is_back_nobody_storms_it(fake_server: FakeServer, run_proxy: RunProxy) -> None:
    proxy = await run_proxy(fake_server.url, pool=QUICK, **slowly(slow_start="1m"))
    clients = [await proxy.connect() for _ in range(4)]
    await fake_server.stop()
    await eventually(lambda: proxy.registry.count == 0)
    assert {error.code for client in clients for error in (await client.query("select")).errors} == {"08006"}
    await fake_server.start()
    await eventually(lambda: proxy.registry.connector.down is None)
    for client in clients:
        await client.send(query("begin"))
    await eventually(lambda: proxy.waiting() == 3)
    assert proxy.controller.in_use == 1
    assert proxy.process.view.snapshot().of_class("all").slow_start_limit == 1
