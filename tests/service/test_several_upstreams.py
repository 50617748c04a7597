"""Several upstreams in the configuration, in the check, and in what is shown."""

from dataclasses import replace
from pathlib import Path

import pytest

from proxy.admission.decisions import RefusalReason
from proxy.service.check import findings, findings_of_upstreams
from proxy.service.config.errors import ConfigError
from proxy.service.config.loading import config_hash, load_config, load_config_text
from proxy.service.config.parts import parts
from proxy.service.config.settable import settable
from proxy.service.findings import Severity
from proxy.service.history import History
from proxy.service.metrics import PgheadroomCollector
from proxy.service.server_facts import ServerFacts
from proxy.service.status import status_document
from proxy.service.upstream_reading import UpstreamReading, budgets_together, readiness
from tests.support.fake_view import bad_day

EXAMPLE = Path(__file__).parents[2] / "config" / "examples" / "replica.yaml"
TEXT = """\
upstreams:
  replica:
    url: postgresql://p@replica/app
    databases: [app_ro]
    budget: {total: 20, headroom: {size: 2, for: [dashboards]}}
    default_class: reports
  primary: {url: postgresql://p@primary/app, budget: {total: 30}, default_class: bulk}
classes:
  web: {upstream: primary, reserved: 20, limit: 25}
  bulk: {limit: 10}
  dashboards: {reserved: 5, limit: 10}
  reports: {limit: 10}
auth: {method: trust}
"""


def load(text=TEXT):
    return load_config_text(text, {}, file="f.yaml")


def mistakes(text):
    with pytest.raises(ConfigError) as caught:
        load(text)
    return [str(finding) for finding in caught.value.findings]


def test_each_class_belongs_to_the_upstream_that_it_names_or_that_names_it():
    owned = {part.name: (list(part.classes), part.default_class, part.budget.total) for part in parts(load())}
    assert owned == {
        "replica": (["dashboards", "reports"], "reports", 20),
        "primary": (["web", "bulk"], "bulk", 30),
    }


def test_the_short_form_is_one_upstream_with_all_classes():
    (part,) = parts(load("upstream: {url: postgresql://h/d}\ndefault_class: b\nclasses: {b: {limit: 1}}\n"))
    assert (part.name, list(part.classes), part.databases) == ("main", ["b"], ("*",))
    assert part.key("budget", "total") == "budget.total"


@pytest.mark.parametrize(
    ("was", "becomes", "told"),
    [
        ("classes:\n", "budget: {total: 3}\nclasses:\n", "f.yaml:8: budget: of several upstreams each has its own"),
        ("classes:\n", "default_class: web\nclasses:\n", "default_class: of several upstreams each has its own"),
        ("classes:\n", "upstream: {url: postgresql://h/d}\nclasses:\n", "f.yaml:8: upstream: stands beside upstreams"),
        ("upstream: primary, ", "", "classes.web.upstream: missing; required where there are several upstreams"),
        (
            "upstream: primary",
            "upstream: primery",
            'allowed: replica, primary; did you mean "primary"?',
        ),
        ("default_class: bulk", "default_class: bulks", "upstreams.primary.default_class: read 'bulks', allowed: web"),
        (
            "default_class: bulk",
            "default_class: reports",
            "upstreams.primary.default_class: read 'reports', allowed: web; it belongs to upstream replica",
        ),
        ("for: [dashboards]", "for: [web]", "upstreams.replica.budget.headroom.for[0]: read 'web'"),
        ("databases:", "database_s:", 'upstreams.replica.database_s: unknown setting; did you mean "databases"?'),
    ],
)
def test_mistakes_name_the_upstream_and_the_fix(was, becomes, told):
    assert any(told in one for one in mistakes(TEXT.replace(was, becomes, 1))), mistakes(TEXT.replace(was, becomes, 1))


def test_a_single_upstream_needs_no_name_in_its_classes():
    text = "upstream: {url: postgresql://h/d}\ndefault_class: b\nclasses: {b: {limit: 1, upstream: other}}\n"
    assert "read 'other', and there is one upstream only: leave it out" in mistakes(text)[0]


def told(text=TEXT, **facts):
    known = {"primary": ServerFacts(100), "replica": ServerFacts(100)} | facts
    return [(str(one.severity), one.key, one.line) for one in findings_of_upstreams(load(text), known)]


def test_each_budget_is_checked_against_its_own_server():
    assert ("error", "upstreams.replica.budget.total", 5) in told(replica=ServerFacts(20))
    assert not any(severity == "error" for severity, *_ in told())


def test_reservations_are_summed_within_one_upstream():
    text = TEXT.replace("reserved: 5, limit: 10", "reserved: 18, limit: 18")
    assert [key for severity, key, _ in told(text) if severity == "error"] == ["upstreams.replica.budget.total"]
    (error,) = [one for one in findings(load(text)) if one.severity is Severity.ERROR]
    assert "upstreams.replica.budget.headroom.size" in error.hint


def test_an_upstream_behind_one_that_takes_every_database_is_told():
    text = TEXT.replace("[app_ro]", '["*"]')
    assert ("warning", "upstreams.primary.databases", 7) in told(text)
    assert not any(key.endswith("databases") for _, key, _ in told())


def test_two_budgets_on_one_server_are_told():
    assert ("warning", "upstreams.primary.url", 7) in told(TEXT.replace("@replica/", "@primary/"))


def test_only_budgets_in_force_can_be_set_beside_the_file():
    keys = set(settable(load()))
    assert "upstreams.replica.budget.total" in keys
    assert not any(key.startswith("budget.") or key.endswith("check_hosts") for key in keys)


def test_the_hash_follows_each_upstream_and_shows_no_password():
    hashes = {config_hash(load()), config_hash(load(TEXT.replace("total: 20", "total: 21")))}
    hashes.add(config_hash(load(TEXT.replace("@replica/", "@elsewhere/"))))
    assert len(hashes) == 3
    secret = TEXT.replace("p@replica", "p:hush@replica")
    assert config_hash(load(secret)) == config_hash(load(secret.replace("hush", "another")))


def test_the_example_leads_reads_to_the_replica(tmp_path):
    environ = {
        "PGHEADROOM_REPLICA_URL": "postgresql://p@127.0.0.1:5433/app",
        "PGHEADROOM_UPSTREAM_URL": "postgresql://p@127.0.0.1/app",
    }
    replica, primary = parts(load_config(EXAMPLE, environ))
    assert (replica.databases, replica.database, list(replica.classes)) == (
        ("app_ro", "reports*"),
        "app",
        ["web_reads", "reports"],
    )
    assert list(primary.classes) == ["web", "bulk"]


# What is shown


def two():
    view = bad_day()
    (first,) = view.upstreams()
    view.others = (replace(first, name="replica", not_ready="no server login is possible", external_connections=None),)
    return view


def test_budget_metrics_say_which_upstream_and_classes_stand_once():
    families = {one.name: one for one in PgheadroomCollector(two(), History()).collect()}
    slots = {sample.labels["upstream"]: sample.value for sample in families["pgheadroom_budget_slots"].samples}
    assert slots == {"main": 50, "replica": 50}
    ready = {sample.labels["upstream"]: sample.value for sample in families["pgheadroom_upstream_ready"].samples}
    assert ready == {"main": 1, "replica": 0}
    external = [sample.labels["upstream"] for sample in families["pgheadroom_external_connections"].samples]
    assert external == ["main"], "what a server has not told has no sample"
    internal = [s for s in families["pgheadroom_class_reserved_slots"].samples if s.labels["class"] == "internal"]
    assert [sample.value for sample in internal] == [2]


def test_one_metric_says_whose_slots_a_class_gets():
    families = {one.name: one for one in PgheadroomCollector(two(), History()).collect()}
    samples = [sample.labels for sample in families["pgheadroom_class_info"].samples]
    assert {one["upstream"] for one in samples if one["class"] == "internal"} == {"main", "replica"}
    assert {"class": "web", "upstream": "replica", "mode": "enforce"} in samples


def test_the_status_document_has_each_upstream_and_all_together():
    document = status_document(two(), History(), now=0.0)
    assert [one["name"] for one in document["upstreams"]] == ["main", "replica"]
    assert document["budget"]["total"] == sum(one["budget"]["total"] for one in document["upstreams"]) == 100
    assert document["server"]["external_connections"] is None


def reading(name, not_ready=""):
    return UpstreamReading(name, bad_day().snapshot(), not_ready=not_ready)


def test_ready_while_one_upstream_is_and_the_lost_ones_are_named():
    lost = reading("replica", "no server login is possible")
    assert readiness([reading("primary"), reading("replica")]) == (True, "ready")
    assert readiness([reading("primary"), lost]) == (True, "upstream replica: no server login is possible")
    assert readiness([lost]) == (False, "no server login is possible")
    assert not readiness([lost, reading("primary", "silent")])[0]


def test_a_class_that_was_moved_keeps_what_it_would_have_done():
    """A counter that falls is a restart to Prometheus."""
    (one,) = bad_day().upstreams()
    bulk = replace(
        one.budget.of_class("bulk"), trial_limit=3, would_queue=5, would_refuse={RefusalReason.QUEUE_FULL: 2}
    )
    before, now = replace(bulk, retired=True), replace(bulk, would_queue=1, would_refuse={})
    together = budgets_together([replace(one.budget, classes=(each,)) for each in (before, now)]).of_class("bulk")
    assert (together.would_queue, together.would_refuse[RefusalReason.QUEUE_FULL]) == (6, 2)
