"""Adaptive limits, the canary and the lock probe in a running proxy in front of a real server."""

import asyncio
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from structlog.testing import capture_logs

from proxy.admission.overload import Load
from tests.session.fake_server import FakeServer
from tests.support.eventually import eventually
from tests.support.running import Running, RunProxy
from tests.support.wire_client import WireClient

CLASSES = {
    "web": {"match": [{"user": "web"}], "priority": 1, "reserved": 2, "limit": 3, "queue": {"timeout": "20s"}},
    "bulk": {"priority": 9, "limit": 6, "queue": {"timeout": "20s", "max": 100}},
}
# Slower than anybody may wait, so that customers are badly off for as long as it is asked.
SLOW_CANARY = {"interval": "300ms", "timeout": "300ms", "query": "select pg_sleep(0.15)"}
TWO_CLASSES = {"budget": {"total": 10}, "default_class": "bulk", "classes": CLASSES}


def get(proxy: Running, path: str) -> tuple[int, str]:
    try:
        with urlopen(f"http://127.0.0.1:{proxy.process.http.port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


async def metrics(proxy: Running) -> dict[str, float]:
    _, text = await asyncio.to_thread(get, proxy, "/metrics")
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("pgheadroom_")]
    return {name: float(value) for name, value in lines}


async def flood(proxy: Running, clients: int) -> list[asyncio.Task[None]]:
    """So many bulk clients that query for as long as they are let."""

    async def work(client: WireClient) -> None:
        while True:
            await client.query("select pg_sleep(0.05)")

    return [asyncio.create_task(work(await proxy.connect("bulk"))) for _ in range(clients)]


async def stop(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def bulk_limit(proxy: Running) -> int:
    return proxy.controller.snapshot(0.0).of_class("bulk").limit


async def test_bulk_gets_less_while_customers_fare_badly_and_its_limit_back_with_the_reload(
    run_proxy: RunProxy,
) -> None:
    with capture_logs() as lines:
        proxy = await run_proxy(adaptive="on", canary=SLOW_CANARY, **TWO_CLASSES)
        tasks = await flood(proxy, 12)
        await eventually(lambda: bulk_limit(proxy) <= 3, within_seconds=10)
        await eventually(lambda: proxy.controller.snapshot(0.0).of_class("bulk").used <= 3)
        seen = await metrics(proxy)
        assert seen['pgheadroom_class_adaptive_limit_slots{class="bulk"}'] <= 3
        assert seen['pgheadroom_class_limit_slots{class="bulk"}'] == 6
        assert seen['pgheadroom_class_adaptive_steps_total{cause="canary",class="bulk",direction="cut"}'] >= 1
        proxy.reload(adaptive={"mode": "off"})
        assert bulk_limit(proxy) == 6
        await eventually(lambda: proxy.controller.snapshot(0.0).of_class("bulk").used == 6)
        await stop(tasks)
    (step, *_) = [line for line in lines if line["event"] == "adaptive_step"]
    assert (step["mode"], step["class_name"], step["direction"], step["cause"]) == ("on", "bulk", "cut", "canary")
    assert (step["was"], step["configured"]) == (6, 6)
    assert "the canary takes" in step["why"]


async def test_observing_says_what_it_would_do_and_does_not_do_it(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(adaptive="observe", canary=SLOW_CANARY, **TWO_CLASSES)
    tasks = await flood(proxy, 12)
    limits = proxy.process.upstreams[0].adaptive
    await eventually(lambda: (state := limits.state()) is not None and state.limits.get("bulk") == 1, within_seconds=20)
    seen = await metrics(proxy)
    assert seen['pgheadroom_class_adaptive_target_slots{class="bulk"}'] == 1
    assert seen['pgheadroom_class_adaptive_limit_slots{class="bulk"}'] == 6 == bulk_limit(proxy)
    await stop(tasks)


async def test_a_server_that_does_not_let_in_in_time_is_a_sign(fake_server: FakeServer, run_proxy: RunProxy) -> None:
    proxy = await run_proxy(
        fake_server.url, pool={"dial_timeout": "200ms", "retry_max": "300ms"}, adaptive="on", **TWO_CLASSES
    )

    async def silent(session: object) -> None:
        await asyncio.sleep(0)

    fake_server.on_startup = silent
    before = proxy.registry.dials_refused
    client = await proxy.connect_or_error("bulk")
    assert not isinstance(client, WireClient)
    assert proxy.registry.dials_refused > before
    assert proxy.measures.dial_timeouts == proxy.registry.dials_refused


async def test_without_any_of_it_nothing_runs_and_nothing_is_shown(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**TWO_CLASSES)
    upstream = proxy.process.upstreams[0]
    assert (upstream.adaptive.state(), upstream.canary.state(), upstream.locks.lock_waits) == (None, None, None)
    assert not {"canary", "lock probe"} & set(proxy.process.tasks.names())
    assert upstream.adaptive._timer is None
    assert not [name for name in await metrics(proxy) if "canary" in name or "adaptive_steps" in name]
    status, text = await asyncio.to_thread(get, proxy, "/canary")
    assert (status, "set canary.interval" in text) == (404, True)


# The canary


async def canary_says(proxy: Running, words: str, status: int) -> None:
    for _ in range(200):
        answer = await asyncio.to_thread(get, proxy, "/canary")
        if answer[0] == status and words in answer[1]:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"the canary said {answer}")


async def test_the_canary_is_served_as_customers_are(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(canary={"interval": "200ms", "timeout": "150ms"}, **TWO_CLASSES)
    await canary_says(proxy, "web was served in", 200)
    seen = await metrics(proxy)
    assert seen['pgheadroom_canary_up{class="web"}'] == 1
    assert seen['pgheadroom_canary_runs_total{class="web",outcome="answered"}'] >= 1
    assert proxy.controller.snapshot(0.0).of_class("web").released >= 1


async def test_a_canary_waits_where_customers_wait_and_says_so(run_proxy: RunProxy) -> None:
    """The database is well, and every slot of the class is in use: customers are not served."""
    proxy = await run_proxy(canary={"interval": "200ms", "timeout": "150ms"}, **TWO_CLASSES)
    await canary_says(proxy, "web was served in", 200)
    holders = [await proxy.connect("web") for _ in range(3)]
    await asyncio.gather(*(holder.query("begin") for holder in holders))
    await canary_says(proxy, "timeout: no answer within 0.15 s", 503)
    assert (await metrics(proxy))['pgheadroom_canary_up{class="web"}'] == 0
    await asyncio.gather(*(holder.query("rollback") for holder in holders))
    await canary_says(proxy, "web was served in", 200)


async def test_a_canary_of_a_class_that_refuses_says_why(run_proxy: RunProxy) -> None:
    classes = {**CLASSES, "web": {**CLASSES["web"], "limit": 1, "reserved": 1, "queue": {"max": 0}}}
    settings = {**TWO_CLASSES, "classes": classes}
    proxy = await run_proxy(**settings)
    holder = await proxy.connect("web")
    assert (await holder.query("begin")).errors == []
    proxy.reload(canary={"interval": "200ms", "timeout": "150ms"})
    await canary_says(proxy, 'refused: class "web" has no slot: limit', 503)
    await holder.query("rollback")


async def test_a_query_that_is_late_is_ended_on_the_server_and_one_that_fails_tells_its_error(
    run_proxy: RunProxy,
) -> None:
    proxy = await run_proxy(
        canary={"interval": "300ms", "timeout": "200ms", "query": "select pg_sleep(60)"}, **TWO_CLASSES
    )
    await canary_says(proxy, "timeout: no answer within 0.2 s", 503)
    proxy.reload(canary={"query": "select nonsense"})
    await canary_says(proxy, 'failed: column "nonsense" does not exist', 503)
    await eventually(lambda: proxy.controller.in_use == 0)


async def test_a_canary_over_internal_asks_no_class(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(canary={"interval": "200ms", "timeout": "150ms", "class": "internal"}, **TWO_CLASSES)
    await canary_says(proxy, "internal was served in", 200)
    assert proxy.controller.snapshot(0.0).of_class("web").released == 0


async def test_a_reload_begins_and_ends_the_canary(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**TWO_CLASSES)
    proxy.reload(canary={"interval": "200ms", "timeout": "150ms"})
    await canary_says(proxy, "web was served in", 200)
    proxy.reload(canary={"interval": 0})
    await eventually(lambda: "canary" not in proxy.process.tasks.names())


# Locks


async def test_server_processes_that_wait_for_locks_are_counted(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(adaptive={"lock_probe": "100ms"}, **TWO_CLASSES)
    locks = proxy.process.upstreams[0].locks
    await eventually(lambda: locks.lock_waits == 0)
    holder, waiter = await proxy.connect("app"), await proxy.connect("app")
    await holder.query("begin; select pg_advisory_xact_lock(4711)")
    waiting = asyncio.create_task(waiter.query("begin; select pg_advisory_xact_lock(4711); rollback"))
    await eventually(lambda: locks.lock_waits == 1)
    assert (await metrics(proxy))['pgheadroom_lock_waits{upstream="main"}'] == 1
    await holder.query("rollback")
    await waiting
    await eventually(lambda: locks.lock_waits == 0)


@pytest.mark.parametrize("mode", ["on", "observe"])
async def test_what_adaptive_limits_make_of_the_moment_is_in_the_status(run_proxy: RunProxy, mode: str) -> None:
    proxy = await run_proxy(adaptive=mode, **TWO_CLASSES)
    state = proxy.process.upstreams[0].adaptive.state()
    assert state is not None
    assert (state.mode, state.reference_class, state.verdict.load, dict(state.limits)) == (mode, "web", Load.CALM, {})
    _, text = await asyncio.to_thread(get, proxy, "/status")
    assert f'"mode": "{mode}"' in text
