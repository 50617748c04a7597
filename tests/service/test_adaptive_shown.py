"""What metrics, /status, /canary and `status` show of adaptive limits and the canary."""

import time

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.parser import text_string_to_metric_families

from proxy.admission.adaptive import Cause, Direction, Step
from proxy.admission.overload import Load, Verdict
from proxy.cli.status_lines import lines_beneath
from proxy.service.adaptive_state import AdaptiveState, CanaryResult, CanaryState, TimedStep
from proxy.service.exposition import process_registry, render
from proxy.service.history import History
from proxy.service.http import HttpSettings, build_application
from proxy.service.metrics import PgheadroomCollector
from proxy.service.status import status_document
from proxy.session.histogram import Histogram
from tests.support.fake_view import FakeView, bad_day

WHY = "web holds a slot for 41 ms, usually for 8 ms"


def adapting(mode: str = "on") -> AdaptiveState:
    step = Step("bulk", Direction.CUT, Cause.HOLD_TIME, 30, 12, 30, WHY)
    verdict = Verdict(Load.OVERLOADED, Cause.HOLD_TIME, WHY, 5.1)
    steps = {("bulk", "cut", "hold_time"): 2, ("bulk", "raise", "recovered"): 1}
    return AdaptiveState(mode, "web", verdict, 0.008, {"bulk": 12}, steps, (TimedStep(1_700_000_000.0, step),))


def canary(last: CanaryResult | None) -> CanaryState:
    seconds = Histogram()
    seconds.observe(0.003)
    return CanaryState("web", 5.0, 2.0, last, {"answered": 4, "timeout": 1}, seconds)


@pytest.fixture
def view() -> FakeView:
    """Bulk is held back to 12 of its 30 slots."""
    view = bad_day()
    view.controller.set_adaptive_limit("bulk", 12, view.now)
    view.adapting, view.locks = adapting(), 7
    view.canary_state = canary(CanaryResult(time.time() - 1, 0.0034, "answered"))
    return view


async def samples(view: FakeView) -> dict[tuple[str, ...], float]:
    text = (await render(PgheadroomCollector(view, History()), process_registry())).decode()
    return {
        (sample.name.removeprefix("pgheadroom_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_the_limit_in_force_stands_beside_the_configured_one(view: FakeView) -> None:
    seen = await samples(view)
    assert (seen["class_limit_slots", "bulk"], seen["class_adaptive_limit_slots", "bulk"]) == (30, 12)
    assert seen["class_adaptive_target_slots", "bulk"] == 12
    assert seen["class_adaptive_target_slots", "web"] == seen["class_limit_slots", "web"] == 45


async def test_what_is_only_observed_is_a_target_and_no_limit(view: FakeView) -> None:
    view.controller.set_adaptive_limit("bulk", None, view.now)
    view.adapting = adapting("observe")
    seen = await samples(view)
    assert (seen["class_adaptive_limit_slots", "bulk"], seen["class_adaptive_target_slots", "bulk"]) == (30, 12)


async def test_steps_are_counted_by_class_direction_and_cause(view: FakeView) -> None:
    seen = await samples(view)
    assert seen["class_adaptive_steps_total", "hold_time", "bulk", "cut"] == 2
    assert seen["class_adaptive_steps_total", "recovered", "bulk", "raise"] == 1


async def test_an_overload_its_slowdown_and_lock_waits(view: FakeView) -> None:
    seen = await samples(view)
    assert (seen["adaptive_overloaded", "main"], seen["lock_waits", "main"]) == (1, 7)
    assert (seen["adaptive_slowdown_ratio", "web"], seen["adaptive_usual_hold_seconds", "web"]) == (5.1, 0.008)


async def test_the_canary_as_a_metric(view: FakeView) -> None:
    seen = await samples(view)
    assert seen["canary_up", "web"] == 1
    assert (seen["canary_runs_total", "web", "answered"], seen["canary_runs_total", "web", "failed"]) == (4, 0)
    assert (seen["canary_seconds_count", "web"], seen["canary_seconds_bucket", "web", "0.005"]) == (1, 1)


async def test_what_is_off_has_no_metric() -> None:
    names = {key[0] for key in await samples(bad_day())}
    assert not {name for name in names if name.startswith(("canary", "adaptive", "lock_waits"))}
    assert "class_adaptive_target_slots" not in names


def test_the_status_says_what_is_lowered_and_why(view: FakeView) -> None:
    document = status_document(view, History(), now=time.time())
    bulk = document["classes"][-1]
    assert (bulk["limit"], bulk["adaptive_limit"], bulk["adaptive_target"]) == (30, 12, 12)
    assert (document["adaptive"]["load"], document["adaptive"]["why"]) == ("overloaded", WHY)
    assert document["adaptive"]["last_steps"][0]["limit"] == 12
    lines = lines_beneath(document)
    assert f"adaptive limits (on): overloaded: {WHY}; lowered: bulk 12" in lines
    assert "canary: web was served in 3.4 ms, 1 s ago" in lines


def test_the_status_says_nothing_of_what_is_off() -> None:
    document = status_document(bad_day(), History(), now=time.time())
    assert (document["adaptive"], document["canary"], document["lock_waits"]) == (None, None, None)
    assert document["classes"][-1]["adaptive_target"] is None
    assert not any("adaptive" in line or "canary" in line for line in lines_beneath(document))


# The endpoint


async def canary_of(view: FakeView) -> tuple[int, str]:
    async with TestClient(TestServer(build_application(view, HttpSettings()))) as client:
        answer = await client.get("/canary")
        return answer.status, (await answer.text()).strip()


@pytest.mark.parametrize(
    ("last", "status", "sentence"),
    [
        (CanaryResult(-1.0, 0.0034, "answered"), 200, "web was served in 3.4 ms, 1 s ago"),
        (CanaryResult(-1.0, 2.0, "timeout", "no answer within 2 s"), 503, "the canary for web, 1 s ago: timeout: no"),
        (CanaryResult(-60.0, 0.003, "answered"), 503, "no canary for web was over for 60 s"),
        (None, 503, "no canary for web is over yet"),
    ],
)
async def test_the_endpoint_says_whether_customers_are_served(last, status, sentence) -> None:
    view = bad_day()
    now = time.time()
    shifted = None if last is None else CanaryResult(now + last.at, last.seconds, last.outcome, last.why)
    view.canary_state = canary(shifted)
    answered, text = await canary_of(view)
    assert answered == status
    assert text.startswith(sentence)


async def test_an_endpoint_without_a_canary_says_how_to_get_one() -> None:
    status, text = await canary_of(bad_day())
    assert (status, "set canary.interval" in text) == (404, True)
