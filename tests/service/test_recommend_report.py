"""What is recommended from a record of traffic, and that the block it prints can be used as it stands."""

from random import Random

import pytest
import yaml

from proxy.service.check import findings
from proxy.service.config.loading import load_config_text
from proxy.service.config.parts import parts
from proxy.service.findings import Severity
from proxy.service.server_facts import ServerFacts
from proxy.service.traffic.likely_class import likely_class
from proxy.service.traffic.record import ApplicationReading, ClassReading, TrafficRecord
from proxy.service.traffic.report import Question, TooLittleSeen, report
from proxy.service.view import UnmatchedName
from tests.service.test_recommendation import drawn

HEAD = """\
upstream: {url: "postgresql://proxy@127.0.0.1/app"}
auth: {method: scram, users: {web: secret}}
"""
CONFIG = (
    HEAD
    + """\
budget:
  total: auto
  instances: 1
  keep_free: {value: 5, reason: "a shell past the proxy"}
  headroom: {size: 4, for: [web, admin]}
default_class: other
classes:
  admin: {match: [{application_name: psql, user: "dba_*"}], priority: 0, reserved: 3, limit: 5, pool_mode: session}
  web:
    reason: "customers; who pays $${much} comes first"
    match: [{application_name: "web*"}]
    priority: 2
    reserved: 10
    lendable: 5
    limit: {value: 70, reason: "what the disks bear"}
    queue: {timeout: 2s, max: 500}
    lend_memory: 250ms
  reports: {match: [{application_name: "report*"}], priority: 8, reserved: 4, limit: 50, pinned_limit: 4, weight: 2.5}
  other: {priority: 9, reserved: 2, lendable: 1, limit: 5}
"""
)
FACTS = ServerFacts(100)
NOW = 1_700_000_000.0


def seen(seconds: int = 7200, **demand: int) -> TrafficRecord:
    """So long the same demand, but for web, which needs a third of it half of the time."""
    record = TrafficRecord(keep_hours=168)
    for second in range(seconds):
        at = NOW - seconds + second
        classes = {name: ClassReading(slots, 0, False) for name, slots in demand.items()}
        applications = {("web", f"web-{n}"): ApplicationReading(demand.get("web", 0) // (n + 1), 0) for n in range(2)}
        if second % 2:
            classes["web"] = ClassReading(demand.get("web", 0) // 3, 0, False)
        record.hour_at(at).observe(classes, applications, 1.0)
    record.hour_at(NOW - 1).add_holds("web", None, {3: 900, 9: 100}, 25.0)
    record.hour_at(NOW - 1).add_holds("web", "web-0", {3: 500}, 2.0)
    return record


def ask(record: TrafficRecord, config: str = CONFIG, total: int = 92, **more: object) -> dict[str, object]:
    loaded = load_config_text(config, {})
    return report(Question(parts(loaded)[0], total, FACTS, record.frozen(), more.pop("unmatched", ()), NOW, **more))  # type: ignore[arg-type]


def check(text: str) -> list[str]:
    return [str(finding) for finding in findings(load_config_text(text, {}), FACTS)]


def test_the_numbers_come_with_their_sums():
    document = ask(seen(web=33, reports=60))
    suggestion = document["suggestion"]
    web = next(one for one in suggestion["classes"] if one["class"] == "web")
    assert web["reserved"] == {"value": 40, "sum": "p95 33 x 1.2 = 40"}
    assert web["lendable"] == {"value": 29, "sum": "reserved 40 - p50 11 = 29"}
    assert web["was"]["reserved"] == 10
    assert suggestion["total"] == {"value": 92, "sum": "auto: (97 that the server gives - 5 keep_free) / 1 instances"}
    assert suggestion["sum"] == (
        "admin 3 + web 40 + reports 4 + other 1 + headroom 1 + internal 1 = 50 of 92 slots, 42 for whoever needs them"
    )


def test_demand_and_holds_by_class_and_application():
    document = ask(seen(web=30))
    web = next(one for one in document["classes"] if one["class"] == "web")
    assert web["demand"] == {"p50": 10, "p95": 30, "most": 30, "busiest_hour_p95": 30}
    assert web["holds"] == {"count": 1000, "mean_seconds": 0.025, "p95_seconds": 0.5}
    assert web["mean_slots"] == pytest.approx(20.0)
    names = [(one["application_name"], one["demand"]["p95"]) for one in document["applications"]]
    assert names == [("web-0", 30), ("web-1", 15)]
    assert document["observed"]["length"] == "2 h"


def test_the_block_passes_the_check_and_keeps_what_it_does_not_suggest():
    text = HEAD + ask(seen(web=33, reports=60))["yaml"]
    assert check(text) == []
    config = load_config_text(text, {})
    before = load_config_text(CONFIG, {})
    web = config.classes["web"]
    assert (web.reserved, web.lendable, web.limit) == (40, 29, 70)
    assert web.reason == "customers; who pays ${much} comes first"
    assert (web.queue, web.lend_memory, web.match) == (
        before.classes["web"].queue,
        0.25,
        before.classes["web"].match,
    )
    assert config.reason_of(("classes", "web", "reserved")) == "p95 33 x 1.2 = 40; 2 h observed"
    assert config.reason_of(("budget", "keep_free")) == "a shell past the proxy"
    assert config.classes["reports"].weight == 2.5
    assert all(one.reason for one in config.classes.values())
    assert list(config.classes) == list(before.classes)


def test_too_little_is_refused_with_how_much_was_seen():
    with pytest.raises(TooLittleSeen, match=r"10 min of traffic were seen, and at least 1 h are asked for.*--at-least"):
        ask(seen(600, web=3))
    assert ask(seen(600, web=3), at_least_seconds=600.0)["suggestion"] is not None


def test_only_the_last_hours_where_that_is_asked():
    record = seen(7200, web=3)
    busy = TrafficRecord(keep_hours=168)
    busy.hour_at(NOW - 10 * 3600).observe({"web": ClassReading(50, 0, False)}, {}, 3000.0)
    busy.restore([*busy.frozen(), *record.frozen()])
    assert ask(busy, at_least_seconds=600.0)["total"]["most"] == 50
    assert ask(busy, at_least_seconds=600.0, hours=4)["total"]["most"] == 3


def test_unmatched_names_are_told_where_they_might_belong():
    unmatched = (UnmatchedName("reports-v2", 5, 1.0), UnmatchedName("etl", 1, 2.0))
    told = ask(seen(web=3), unmatched=unmatched)["unmatched"]
    assert (told[0]["likely_class"], told[0]["clients_total"]) == ("reports", 5)
    assert (told[1]["likely_class"], told[1]["why"]) == (
        None,
        "no class has a name like it: give it one of its own",
    )


TWO = (
    "auth: {method: trust}\n"
    """\
upstreams:
  replica:
    url: postgresql://p@replica/app
    databases: [app_ro]
    budget: {total: 20, headroom: {size: 2, for: [pages]}}
    default_class: reports
  primary: {url: postgresql://p@primary/app, budget: {total: 60}, default_class: bulk}
classes:
  web: {upstream: primary, match: [{application_name: "web*"}], priority: 1, reserved: 5, limit: 40}
  bulk: {limit: 20, priority: 9}
  pages: {match: [{application_name: "web*"}], priority: 1, reserved: 2, limit: 15}
  reports: {limit: 10, priority: 9}
"""
)


def ask_both(record: TrafficRecord, unmatched=()):
    totals = {"replica": 20, "primary": 60}
    return {
        part.name: report(Question(part, totals[part.name], None, record.frozen(), unmatched, NOW))
        for part in parts(load_config_text(TWO, {}))
    }


def seen_on_both(**demand: int) -> TrafficRecord:
    record = TrafficRecord(keep_hours=9)
    classes = {name: ClassReading(slots, 0, False) for name, slots in demand.items()}
    applications = {(name, f"{name}-1"): ApplicationReading(slots, 0) for name, slots in demand.items()}
    of_upstreams = {"replica": ["pages", "reports"], "primary": ["web", "bulk"]}
    record.hour_at(NOW).observe(classes, applications, 3600.0, of_upstreams)
    return record


def test_of_two_upstreams_each_has_its_own_figures_and_its_own_budget():
    documents = ask_both(seen_on_both(web=20, bulk=7, pages=5, reports=1))
    for name, classes, total, most in (("replica", ["pages", "reports"], 20, 6), ("primary", ["web", "bulk"], 60, 27)):
        document = documents[name]
        assert document["upstream"] == name
        assert [one["class"] for one in document["classes"]] == classes
        assert {one["class"] for one in document["applications"]} == set(classes)
        assert document["total"]["most"] == most
        assert [one["class"] for one in document["suggestion"]["classes"]] == classes
        assert document["suggestion"]["total"] == {
            "value": total,
            "sum": f"upstreams.{name}.budget.total as configured",
        }
        assert f"of {total} slots" in document["suggestion"]["sum"]
    reserved = {one["class"]: one["reserved"]["value"] for one in documents["replica"]["suggestion"]["classes"]}
    assert reserved["pages"] == 6
    assert [name for name in documents if documents[name]["suggestion"]["headroom"]["value"]] == ["replica"]


def test_too_few_slots_are_told_of_the_upstream_that_has_them_and_of_no_other():
    documents = ask_both(seen_on_both(web=5, bulk=5, pages=15, reports=9))
    told = {name: [note for note in document["notes"] if "asked for" in note] for name, document in documents.items()}
    assert told["primary"] == []
    assert told["replica"][0].startswith("all classes together asked for 24 slots at p95, and there are 20")


def test_what_was_seen_before_there_were_two_has_no_total_for_either():
    record = TrafficRecord(keep_hours=9)
    record.hour_at(NOW).observe({"web": ClassReading(90, 0, False)}, {}, 3600.0)
    assert [document["total"] for document in ask_both(record).values()] == [None, None]


def test_a_name_that_no_class_knows_is_told_where_it_came_to():
    unmatched = (UnmatchedName("etl", 5, 1.0, "replica"), UnmatchedName("cron", 1, 2.0, "primary"))
    documents = ask_both(seen_on_both(web=1, bulk=0, pages=0, reports=0), unmatched)
    names = {name: [one["application_name"] for one in document["unmatched"]] for name, document in documents.items()}
    assert names == {"replica": ["etl"], "primary": ["cron"]}


def test_what_has_to_be_known_before_believing_it():
    record = TrafficRecord(keep_hours=9)
    record.hour_at(NOW).observe({"web": ClassReading(70, 60, True)}, {}, 3600.0)
    notes = " / ".join(ask(record)["notes"])
    assert "asked for 130 slots at p95, and there are 92" in notes
    assert "web was at its limit for 100% of the time while clients waited" in notes
    assert "less than a day was seen" in notes


def test_a_budget_without_room_gives_the_figures_and_says_why_nothing_is_suggested():
    document = ask(seen(web=3), total=4)
    assert document["suggestion"] is None
    assert "5 would give each of them one" in document["why_no_suggestion"]
    assert document["classes"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("report-builder", "reports"),
        ("webshop", "web"),
        ("web", "web"),
        ("psql 17", "admin"),
        ("x", None),
        ("", None),
        ("nightly-reports", "reports"),
    ],
)
def test_the_likely_class(name, expected):
    patterns = {"admin": ["psql"], "web": ["web*"], "reports": ["report*"], "bulk": ["*"]}
    found = likely_class(name, patterns)
    assert (found and found[0]) == expected


NUMBERS = (
    ".reserved",
    ".lendable",
    ".limit",
    ".pinned_limit",
    "headroom.size",
    "budget.total",
    "pool.listen_connections",
)


def test_over_drawn_classes_and_demand_the_block_passes_the_check():
    """Nothing that is refused, and no warning about a number that was suggested."""
    for seed in range(60):
        given, needs = drawn(Random(seed))
        classes = {}
        for one in given.classes:
            classes[one.name] = {
                "priority": one.priority,
                "pool_mode": "transaction" if one.is_shared else "session",
                "match": [{"application_name": f"{one.name}*"}] if one.is_matched else [],
                "reserved": one.reserved,
                "lendable": one.lendable,
                "limit": one.limit,
                "pinned_limit": one.pinned_limit,
                "max_clients": one.max_clients,
            }
        budget = {"total": given.total, "instances": 1}
        if given.headroom_for:
            budget["headroom"] = {"size": 1, "for": sorted(given.headroom_for)}
        default = next(one.name for one in given.classes if one.is_default)
        config = {"budget": budget, "default_class": default, "classes": classes}
        record = TrafficRecord(keep_hours=1)
        hour = record.hour_at(NOW)
        for name, need in needs.items():
            for slots, seconds in ((need.demand.p50, 2000.0), (need.demand.p95, 1500.0), (need.demand.most, 100.0)):
                limited = need.limited_share > 0.1
                hour.observe({name: ClassReading(slots, 0, limited)}, {}, seconds)
        hour.seconds = 3600.0
        document = ask(record, HEAD + yaml.safe_dump(config, sort_keys=False), total=given.total)
        loaded = load_config_text(HEAD + document["yaml"], {})
        wrong = [
            str(finding)
            for finding in findings(loaded, ServerFacts(given.total + 8))
            if (finding.severity is Severity.ERROR or finding.key.endswith(NUMBERS))
            # With a slot for each class and no more there is none for those that listen.
            and (finding.key != "pool.listen_connections" or given.total > len(given.classes) + 2)
        ]
        assert wrong == [], (seed, document["yaml"])
