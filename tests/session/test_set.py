"""Numbers set while clients work: in force at once, over when they are, kept over a restart and a reload."""

import asyncio
import json
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from proxy.admission.classes import ClassState
from proxy.service.switchboard import OrderRefused
from proxy.session.urgency import Turns
from tests.support.eventually import eventually
from tests.support.running import Running, RunProxy
from tests.support.wire_client import query

BUDGET = {"total": 6}


def set_numbers(proxy: Running, seconds: float | None = None, **values: object) -> list[str]:
    settings = {key.replace("__", "."): value for key, value in values.items()}
    _, warnings = proxy.process.steering.set(settings, by="anna", reason="rush", seconds=seconds, source="test")
    return warnings


def limit(proxy: Running) -> int:
    return proxy.controller.snapshot(0.0).of_class("all").limit


async def test_a_higher_limit_serves_who_waits_and_its_end_takes_no_slot_away(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(budget=BUDGET, classes={"all": {"limit": 1}})
    first, second = await proxy.connect(), await proxy.connect()
    await first.query("begin")
    await second.send(query("begin"))
    await eventually(lambda: proxy.waiting() == 1)
    set_numbers(proxy, 0.2, classes__all__limit="2")
    assert (await second.answer()).status == "T"
    await eventually(lambda: limit(proxy) == 1)
    assert proxy.controller.in_use == 2
    assert (await first.query("commit")).tags == ["COMMIT"]
    assert (await second.query("commit")).tags == ["COMMIT"]


async def test_times_and_bounds_are_in_force_as_well(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(budget=BUDGET, classes={"all": {"limit": 1}})
    first, second = await proxy.connect(), await proxy.connect()
    await first.query("begin")
    set_numbers(proxy, classes__all__queue__timeout="50ms", pool__max_dials="7", limits__max_waiting_bytes="2000")
    answer = await second.query("select 1")
    assert "reason=queue_timeout" in ((answer.error and answer.error.detail) or "")
    assert proxy.desk.settings.limits.max_waiting_bytes == 2000
    assert proxy.registry.connector.settings.max_dials == 7
    await first.query("rollback")


async def test_numbers_that_cannot_hold_are_refused_and_nothing_changes(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(budget=BUDGET, classes={"all": {"limit": 2}})
    before = proxy.controller.settings
    with pytest.raises(OrderRefused, match="reservations and headroom"):
        set_numbers(proxy, classes__all__limit=9, classes__all__reserved=6)
    assert proxy.controller.settings == before
    assert proxy.process.steering.overrides() == []


async def test_what_others_stand_on_is_not_taken_away(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(budget=BUDGET, classes={"all": {"limit": 2}})
    set_numbers(proxy, classes__all__limit=3, classes__all__reserved=3)
    with pytest.raises(OrderRefused, match="3 slots are reserved, but limit is 2"):
        proxy.process.steering.unset(["classes.all.limit"], by="ben", reason="")
    assert limit(proxy) == 3
    proxy.process.steering.unset(["classes.all.limit", "classes.all.reserved"], by="ben", reason="")
    assert limit(proxy) == 2


async def test_what_ended_while_the_process_was_down_is_not_set_again(run_proxy: RunProxy, tmp_path: Path) -> None:
    kept = {"state_file": str(tmp_path / "orders.json")}
    first = await run_proxy(budget=BUDGET, switches=kept, classes={"all": {"limit": 2}})
    first.process.steering._now = lambda: 1000.0  # a long time ago
    set_numbers(first, 60, classes__all__limit=3)
    await first.process.drain_and_stop()
    with capture_logs() as lines:
        second = await run_proxy(budget=BUDGET, switches=kept, classes={"all": {"limit": 2}})
    assert limit(second) == 2
    assert not [line for line in lines if line["event"] in ("override_restored", "set_ended")]


async def test_what_is_set_counts_before_the_schedule(run_proxy: RunProxy) -> None:
    classes = {"all": {"limit": 4, "schedules": [{"limit": 2}]}}
    proxy = await run_proxy(budget=BUDGET, classes=classes)
    assert limit(proxy) == 2
    set_numbers(proxy, classes__all__limit=3)
    assert limit(proxy) == 3
    (one,) = proxy.process.steering.overrides()
    assert (one.value, one.configured) == ("3", "2")
    proxy.process.steering.unset(["classes.all.limit"], by="ben", reason="")
    assert limit(proxy) == 2


async def test_an_end_after_which_the_rest_does_not_hold_takes_that_too_and_says_so(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(budget=BUDGET, classes={"all": {"limit": 2}})
    set_numbers(proxy, 0.1, classes__all__limit=4)
    set_numbers(proxy, classes__all__reserved=3)
    with capture_logs() as lines:
        await eventually(lambda: limit(proxy) == 2)
    ended = {line["key"]: line["why"] for line in lines if line["event"] == "set_ended"}
    assert ended["classes.all.limit"] == "its time is over"
    assert "3 slots are reserved, but limit is 2" in ended["classes.all.reserved"]
    assert proxy.controller.snapshot(0.0).of_class("all").settings.reserved == 0


async def test_a_restart_keeps_what_is_set_where_it_still_holds(run_proxy: RunProxy, tmp_path: Path) -> None:
    kept = {"state_file": str(tmp_path / "orders.json")}
    first = await run_proxy(budget=BUDGET, switches=kept, classes={"all": {"limit": 2}})
    set_numbers(first, classes__all__limit=3, classes__all__queue__max=7)
    set_numbers(first, classes__all__reserved=3)
    await first.process.drain_and_stop()
    second = await run_proxy(budget=BUDGET, switches=kept, classes={"all": {"limit": 2}})
    assert limit(second) == 3
    await second.process.drain_and_stop()
    with capture_logs() as lines:
        third = await run_proxy(budget={"total": 3}, switches=kept, classes={"all": {"limit": 2}})
    assert [line["key"] for line in lines if line["event"] == "set_ended"] == ["classes.all.reserved"]
    assert {one.order.key for one in third.process.steering.overrides()} == {
        "classes.all.limit", "classes.all.queue.max",
    }  # fmt: skip


@pytest.mark.parametrize("value", [-7, "x", [3], 1e300, "NaN", None])
async def test_a_stored_number_that_is_none_costs_itself_and_not_the_start(
    run_proxy: RunProxy, tmp_path: Path, value: object
) -> None:
    """A file of orders that somebody has edited: -7 came to the admission core, a text ended the start."""
    path = tmp_path / "orders.json"
    order = {"by": "anna", "reason": "", "at": 1.0, "until": None, "source": ""}
    stored = [{"key": "classes.all.limit", "value": value, **order}, {"key": "classes.all.weight", "value": 3, **order}]
    path.write_text(json.dumps({"version": 1, "switches": [], "overrides": stored}))
    with capture_logs() as lines:
        proxy = await run_proxy(budget=BUDGET, switches={"state_file": str(path)}, classes={"all": {"limit": 2}})
    assert limit(proxy) == 2
    assert [one.order.key for one in proxy.process.steering.overrides()] == ["classes.all.weight"]
    assert [line["event"] for line in lines].count("order_not_restored") == 1


async def test_orders_survive_a_restart_with_which_their_class_gets_another_name(
    run_proxy: RunProxy, tmp_path: Path
) -> None:
    """As they survive a reload with it: the restart would have resumed what was paused."""
    kept = {"state_file": str(tmp_path / "orders.json")}
    first = await run_proxy(budget=BUDGET, switches=kept, classes={"all": {"limit": 2}})
    set_numbers(first, classes__all__limit=3)
    first.process.steering.switch("all", ClassState.PAUSED, by="anna", reason="storm")
    await first.process.drain_and_stop()
    jobs = {"jobs": {"limit": 2, "renamed_from": "all"}}
    second = await run_proxy(budget=BUDGET, switches=kept, default_class="jobs", classes=jobs)
    assert second.controller.state_of("jobs") is ClassState.PAUSED
    assert second.controller.snapshot(0.0).of_class("jobs").limit == 3


async def test_a_reload_keeps_what_is_set(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(budget=BUDGET, classes={"all": {"limit": 2}})
    set_numbers(proxy, classes__all__limit=3)
    proxy.reload(classes={"all": {"limit": 1, "queue": {"max": 9}}})
    assert limit(proxy) == 3
    assert proxy.controller.snapshot(0.0).of_class("all").settings.queue_max == 9
    proxy.process.steering.unset(["classes.all.limit"], by="ben", reason="")
    assert limit(proxy) == 1


async def test_every_change_leaves_a_line(run_proxy: RunProxy, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    proxy = await run_proxy(budget=BUDGET, switches={"audit_file": str(path)}, classes={"all": {"limit": 2}})
    set_numbers(proxy, 600, classes__all__limit=3)
    proxy.process.steering.unset(["classes.all.limit"], by="ben", reason="over")
    first, second = [json.loads(line) for line in path.read_text().splitlines()]
    assert (first["event"], first["key"], first["before"], first["value"], first["by"], first["reason"]) == (
        "set", "classes.all.limit", 2, 3, "anna", "rush",
    )  # fmt: skip
    assert (second["event"], second["was"], second["was_set_by"], second["by"]) == ("unset", 3, "anna", "ben")


async def test_more_dials_at_once_let_waiting_ones_begin_and_fewer_stop_none() -> None:
    turns, done = Turns(1), asyncio.Event()
    running: list[int] = []

    async def dial(number: int) -> None:
        async with turns.turn(lambda: 0.0):
            running.append(number)
            await done.wait()

    dials = [asyncio.create_task(dial(number)) for number in range(5)]
    await eventually(lambda: running == [0])
    turns.change_count(3)
    await eventually(lambda: len(running) == 3)
    turns.change_count(1)
    done.set()
    await asyncio.gather(*dials)
    assert turns._free == 1
    done.clear()
    dials = [asyncio.create_task(dial(number)) for number in range(2)]
    await eventually(lambda: len(running) == 6)
    assert len(turns._waiting) == 1
    done.set()
    await asyncio.gather(*dials)
