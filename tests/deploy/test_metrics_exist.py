"""Every metric and label that the dashboard and the alerts name exists: in a scrape of numbers, and of a real proxy."""

import asyncio
from urllib.request import urlopen

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.demo.postgres import password_of
from proxy.service.adaptive_state import CanaryResult, CanaryState
from proxy.service.history import History
from proxy.service.metrics import PgheadroomCollector, process_registry, render
from proxy.session.histogram import Histogram
from tests.deploy.artifacts import LABELS_OF_PROMETHEUS, all_queries, metrics_and_labels
from tests.support.eventually import eventually_sync
from tests.support.fake_view import bad_day

# Counted by what happened: without a sample in a process to which it has not happened yet.
AFTER_THE_FIRST_TIME = {
    "pgheadroom_login_failures_total": "reason",
    "pgheadroom_protocol_violations_total": "side",
    "pgheadroom_class_pins_total": "class reason",
    "pgheadroom_nested_acquire_suspects_total": "class application_name",
    "pgheadroom_class_holds_ended_total": "class application_name bound",
}


def labels_by_name(text):
    names = {}
    for family in text_string_to_metric_families(text):
        if family.type == "counter" and not family.samples:
            names.setdefault(f"{family.name}_total", set())
        for sample in family.samples:
            names.setdefault(sample.name, set()).update(sample.labels)
    return names


def scrape_of_numbers(_request):
    view = bad_day()
    view.canary_state = CanaryState("web", 5.0, 2.0, CanaryResult(0.0, 0.003, "answered"), {}, Histogram())
    collector = PgheadroomCollector(view, History())
    return asyncio.run(render(collector, process_registry())).decode()


def scrape_of_a_running_proxy(request):
    """A proxy in front of a real server, after one transaction, once the server has told its facts."""
    postgres = request.getfixturevalue("postgres")
    proxy = request.getfixturevalue("make_proxy")(postgres, canary={"interval": "1s", "timeout": "1s"})
    url = proxy.url("web", password_of("web"), "app")
    with psycopg.connect(url, application_name="web-1") as connection:
        connection.execute("SELECT 1")

        def facts_are_known():
            with urlopen(f"{proxy.http_url}/metrics") as answer:
                text = answer.read().decode()
            return text if "\npgheadroom_external_connections{" in text and "\npgheadroom_canary_up{" in text else None

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


def test_the_check_itself_sees_a_wrong_name_and_a_wrong_label():
    assert metrics_and_labels('sum by (class) (rate(pgheadroom_nothing_total{state="x"}[5m]))') == [
        ("pgheadroom_nothing_total", {"class", "state"})
    ]
