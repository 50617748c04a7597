"""Windows of time at work: a class changes when its window begins, not before and not by being asked."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import repeat
from typing import Any

import pytest
from structlog.testing import capture_logs

from proxy.admission.classes import ClassState
from tests.support.eventually import eventually
from tests.support.running import Running, RunProxy
from tests.support.wire_client import query

MONDAY_AT_9 = datetime(2026, 11, 30, 9, tzinfo=UTC).timestamp()
OFFICE = {"days": ["mon-fri"], "from": "9:00", "to": "18:00"}


@pytest.fixture
def before_nine(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Puts the clock of orders and schedules so many seconds before Monday at nine; it goes on from there."""
    offset = 0.0

    def put(seconds: float) -> None:
        nonlocal offset
        offset = MONDAY_AT_9 - seconds - time.time()

    monkeypatch.setattr("proxy.service.process.wall_clock", lambda: time.time() + offset)
    return put


def bulk(**window: Any) -> dict[str, Any]:
    return {"all": {"limit": 4, "schedules": [OFFICE | window]}}


def state(proxy: Running) -> ClassState:
    return proxy.controller.state_of("all")


async def test_a_window_pauses_the_class_when_it_begins_and_one_that_is_in_force_from_the_start(
    run_proxy: RunProxy, before_nine: Callable[[float], None]
) -> None:
    before_nine(3600.0)
    proxy = await run_proxy(classes=bulk(state="paused", reason="customers"))
    assert state(proxy) is ClassState.RUNNING
    client = await proxy.connect()
    assert await client.value("select 1") == "1"
    with capture_logs() as lines:
        before_nine(0.2)
        proxy.process.steering.settle()
        assert state(proxy) is ClassState.RUNNING
        await eventually(lambda: state(proxy) is ClassState.PAUSED)
    (line,) = [line for line in lines if line["event"] == "schedule"]
    assert (line["class_name"], line["state"], line["reason"]) == ("all", "paused", "customers")
    assert line["until"] == "2026-11-30T18:00:00+00:00"
    await client.send(query("select 2"))
    await eventually(lambda: proxy.waiting() == 1)
    proxy.process.set_state("all", ClassState.RUNNING, by="test", reason="")
    assert (await client.answer()).value == "2"
    before_nine(-60.0)
    assert state(await run_proxy(classes=bulk(state="paused"))) is ClassState.PAUSED


async def test_a_window_changes_the_limit_and_its_end_changes_it_back(
    run_proxy: RunProxy, before_nine: Callable[[float], None]
) -> None:
    before_nine(-3600.0)
    proxy = await run_proxy(classes=bulk(limit=2))
    assert proxy.controller.snapshot(0.0).of_class("all").limit == 2
    clients = [await proxy.connect() for _ in range(3)]
    await clients[0].query("begin")
    await clients[1].query("begin")
    await clients[2].send(query("select 'at six'"))
    await eventually(lambda: proxy.waiting() == 1)
    before_nine(-9 * 3600 + 0.2)
    proxy.process.steering.settle()
    assert (await clients[2].answer()).value == "at six"
    assert proxy.controller.snapshot(0.0).of_class("all").limit == 4
    for client in clients[:2]:
        await client.query("rollback")


async def test_a_window_that_begins_between_two_looks_at_the_clock_is_not_missed(
    run_proxy: RunProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The timer may fire a hair before nine by the clock on the wall, and the next look at it be a hair after."""
    looks: Iterator[float] = repeat(MONDAY_AT_9 - 3600.0)
    monkeypatch.setattr("proxy.service.process.wall_clock", lambda: next(looks, MONDAY_AT_9 + 1e-6))
    proxy = await run_proxy(classes=bulk(state="paused"))
    looks = iter([MONDAY_AT_9 - 1e-6])
    proxy.process.steering.settle()
    await eventually(lambda: state(proxy) is ClassState.PAUSED)


async def test_a_resume_goes_past_the_window_to_its_end_and_no_further(
    run_proxy: RunProxy, before_nine: Callable[[float], None]
) -> None:
    before_nine(-60.0)
    proxy = await run_proxy(classes=bulk(state="rejecting"))
    assert state(proxy) is ClassState.REJECTING
    switch = proxy.process.set_state("all", ClassState.RUNNING, by="test", reason="")
    assert switch.until == MONDAY_AT_9 + 9 * 3600
    assert state(proxy) is ClassState.RUNNING


async def test_an_order_counts_before_the_window_and_the_window_again_when_it_ends(
    run_proxy: RunProxy, before_nine: Callable[[float], None]
) -> None:
    before_nine(-60.0)
    proxy = await run_proxy(classes=bulk(state="paused"))
    steering = proxy.process.steering
    steering.switch("all", ClassState.REJECTING, by="test", reason="", seconds=0.2)
    assert state(proxy) is ClassState.REJECTING
    await eventually(lambda: state(proxy) is ClassState.PAUSED)


async def test_a_reload_brings_other_windows(run_proxy: RunProxy, before_nine: Callable[[float], None]) -> None:
    before_nine(-60.0)
    proxy = await run_proxy(classes=bulk(state="paused", limit=1))
    proxy.reload(classes=bulk(limit=2))
    assert state(proxy) is ClassState.RUNNING
    assert proxy.controller.snapshot(0.0).of_class("all").limit == 2
    proxy.reload(classes={"all": {"limit": 3}})
    assert proxy.controller.snapshot(0.0).of_class("all").limit == 3
