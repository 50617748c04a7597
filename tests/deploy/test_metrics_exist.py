"""Every metric and label that the dashboard and the alerts name exists: in a scrape of numbers, and of a real proxy."""

import asyncio
import re
from dataclasses import replace
from urllib.request import urlopen

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.admission.classes import ClassSettings, Mode
from proxy.admission.overload import Cause, Load, Verdict
from proxy.demo.postgres import password_of
from proxy.service.adaptive_state import AdaptiveState, CanaryResult, CanaryState
from proxy.service.exposition import process_registry, render
from proxy.service.history import History
from proxy.service.metrics import PgheadroomCollector
from proxy.session.histogram import Histogram
from tests.deploy.artifacts import LABELS_OF_PROMETHEUS, all_queries, dashboard_queries, metrics_and_labels
from tests.support.eventually import eventually_sync
from tests.support.fake_view import SETTINGS, bad_day
from tests.support.proxies import PLAIN_CLASSES

# Counted by what happened: without a sample in a process to which it has not happened yet.
AFTER_THE_FIRST_TIME = {
    "pgheadroom_login_failures_total": "reason",
    "pgheadroom_protocol_violations_total": "side",
    "pgheadroom_class_pins_total": "class reason",
    "pgheadroom_nested_acquire_suspects_total": "class application_name",
    "pgheadroom_class_holds_ended_total": "class application_name bound",
    "pgheadroom_class_tagged_units_total": "class outcome",
    "pgheadroom_class_adaptive_steps_total": "class direction cause",
    "pgheadroom_adaptive_slowdown_ratio": "class",
    "pgheadroom_adaptive_usual_hold_seconds": "class",
    "pgheadroom_pinned_clients": "class application_name reason",
    "pgheadroom_idle_in_transaction_clients": "class application_name",
}


def labels_by_name(text):
    names = {}
    for family in text_string_to_metric_families(text):
        if not family.samples:
            names.setdefault(f"{family.name}_total" if family.type == "counter" else family.name, set())
        for sample in family.samples:
            names.setdefault(sample.name, set()).update(sample.labels)
    return names


# What is exported and on no panel, and why. Keep it short.
NOT_ON_THE_DASHBOARD = {
    "process_virtual_memory_bytes": "address space says nothing of what is used: resident memory is shown",
}


def scrape_of_numbers(_request):
    only_warns = ClassSettings("new", limit=5, mode=Mode.WARN)
    view = bad_day(replace(SETTINGS, classes=(*SETTINGS.classes, only_warns)))
    view.locks = 2
    view.adapting = AdaptiveState(
        "observe", "web", Verdict(Load.OVERLOADED, Cause.HOLD_TIME, "slow", 3.0), 0.01, {"bulk": 12}, {}, ()
    )
    view.canary_state = CanaryState("web", 5.0, 2.0, CanaryResult(0.0, 0.003, "answered"), {}, Histogram())
    collector = PgheadroomCollector(view, History())
    return asyncio.run(render(collector, process_registry())).decode()


def scrape_of_a_running_proxy(request):
    """A proxy in front of a real server, after one transaction, once the server has told its facts. All is on."""
    postgres = request.getfixturevalue("postgres")
    proxy = request.getfixturevalue("make_proxy")(
        postgres,
        canary={"interval": "1s", "timeout": "1s"},
        adaptive={"mode": "observe", "lock_probe": "1s"},
        classes=PLAIN_CLASSES | {"new": {"match": [{"application_name": "new*"}], "limit": 2, "mode": "warn"}},
    )
    told_later = ("external_connections", "canary_up", "lock_waits")
    url = proxy.url("web", password_of("web"), "app")
    with psycopg.connect(url, application_name="web-1") as connection:
        connection.execute("SELECT 1")

        def facts_are_known():
            with urlopen(f"{proxy.http_url}/metrics") as answer:
                text = answer.read().decode()
            return text if all(f"\npgheadroom_{name}{{" in text for name in told_later) else None

        return eventually_sync(facts_are_known, within_seconds=15)


@pytest.fixture(params=[scrape_of_numbers, scrape_of_a_running_proxy], ids=["numbers", "running"])
def scraped(request):
    return labels_by_name(request.param(request))


def test_every_query_names_metrics_and_labels_that_exist(scraped):
    unknown = []
    for where, expression in all_queries():
        named = metrics_and_labels(expression)
        assert named or "up{" in expression, f"{where}: names no metric: {expression}"
        for metric, labels in named:
            known = scraped.get(metric)
            happened = set(AFTER_THE_FIRST_TIME.get(metric, "").split())
            if known is None or labels - known - happened - LABELS_OF_PROMETHEUS - {"le"}:
                unknown.append((where, metric, labels))

    assert unknown == []


def test_every_metric_is_on_the_dashboard_or_left_out_for_a_reason(scraped):
    """Whoever exports a number says where an operator sees it."""
    shown = {family(name) for _, query in dashboard_queries() for name, _ in metrics_and_labels(query)}
    exported = {family(name) for name in scraped if not name.endswith("_created")}

    assert sorted(exported - shown - NOT_ON_THE_DASHBOARD.keys()) == []
    assert sorted(NOT_ON_THE_DASHBOARD.keys() & shown) == []
    assert sorted(NOT_ON_THE_DASHBOARD.keys() - exported) == []


def family(name):
    """The name without what a histogram adds."""
    return re.sub(r"_(bucket|count|sum)$", "", name)


def test_the_check_itself_sees_a_wrong_name_and_a_wrong_label():
    assert metrics_and_labels('sum by (class) (rate(pgheadroom_nothing_total{state="x"}[5m]))') == [
        ("pgheadroom_nothing_total", {"class", "state"})
    ]
