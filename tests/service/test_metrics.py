"""Metrics: names, labels and values, read through the text that Prometheus reads."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from proxy.admission.classes import ClassState
from proxy.admission.decisions import RefusalReason
from proxy.service.exposition import process_registry, render
from proxy.service.history import History
from proxy.service.metrics import PgheadroomCollector
from proxy.service.schedule import Effect
from proxy.service.view import (
    NAMES_SHOWN_PER_CLASS,
    OTHER,
    ClientKey,
    ClientState,
    PinKey,
    ScheduleNow,
    fold_names,
    fold_pins,
)
from tests.support.fake_view import FakeView, bad_day

# The list of the design, with the suffixes of the exposition.
PROMISED = [
    "budget_slots",
    "headroom_slots",
    "class_reserved_slots",
    "class_limit_slots",
    "class_adaptive_limit_slots",
    "class_held_slots",
    "class_used_slots",
    "class_borrowed_slots",
    "class_lent_slots",
    "class_pinned_slots",
    "class_waiting_clients",
    "class_oldest_wait_seconds",
    "class_paused",
    "class_wait_seconds_bucket",
    "class_hold_seconds_bucket",
    "class_transaction_seconds_bucket",
    "class_admissions_total",
    "class_refusals_total",
    "client_connections",
    "server_connections",
    "external_connections",
    "server_max_connections",
    "unmatched_clients_total",
    "retry_amplification",
    "config_info",
]


class Scrape:
    """One scrape: `scrape(name, **labels)` is the value of the one sample that has these labels."""

    def __init__(self, body: str) -> None:
        self.families = list(text_string_to_metric_families(body))
        self.samples = [sample for family in self.families for sample in family.samples]

    def __call__(self, name: str, **labels: str) -> float:
        wanted = labels.items()
        found = [s.value for s in self.samples if s.name == f"pgheadroom_{name}" and wanted <= s.labels.items()]
        assert len(found) == 1, f"{name}{labels}: {len(found)} samples"
        return found[0]

    def has(self, name: str) -> bool:
        return any(s.name == f"pgheadroom_{name}" for s in self.samples)


async def scraped(view: FakeView, history: History | None = None) -> Scrape:
    collector = PgheadroomCollector(view, history or History())
    return Scrape((await render(collector, process_registry())).decode())


@pytest.fixture
async def scrape() -> Scrape:
    return await scraped(bad_day())


@pytest.mark.parametrize("name", PROMISED)
async def test_every_metric_of_the_design_is_there(scrape, name):
    assert scrape.has(name)


async def test_every_metric_explains_itself_and_carries_the_prefix(scrape):
    own = [family for family in scrape.families if not family.name.startswith("process_")]

    assert all(family.name.startswith("pgheadroom_") and family.documentation for family in own)


async def test_counters_end_in_total_and_no_gauge_does(scrape):
    for family in scrape.families:
        names = {sample.name for sample in family.samples}
        assert all(name.endswith("_total") == (family.type == "counter") for name in names), family.name


async def test_the_numbers_of_a_class_are_those_of_the_ledger(scrape):
    assert scrape("class_used_slots", **{"class": "bulk"}) == 30
    assert scrape("class_borrowed_slots", **{"class": "bulk"}) == 28
    assert scrape("class_lent_slots", **{"class": "web"}) == 18
    assert scrape("class_waiting_clients", **{"class": "bulk"}) == 40
    assert scrape("class_oldest_wait_seconds", **{"class": "bulk"}) == pytest.approx(3.2)


async def test_a_class_that_is_not_held_back_shows_its_limit_as_the_adaptive_one(scrape):
    assert scrape("class_adaptive_limit_slots", **{"class": "bulk"}) == 30


async def test_histogram_buckets_add_up_and_the_last_holds_what_is_beyond_all_bounds(scrape):
    def bucket(bound: str) -> float:
        return scrape("class_hold_seconds_bucket", **{"class": "bulk", "le": bound})

    assert [bucket("0.0005"), bucket("0.005"), bucket("2.5"), bucket("300.0"), bucket("+Inf")] == [1, 3, 4, 4, 5]
    assert scrape("class_hold_seconds_count", **{"class": "bulk"}) == 5
    assert scrape("class_hold_seconds_sum", **{"class": "bulk"}) == pytest.approx(402.0082)


async def test_waits_are_told_apart_by_their_outcome(scrape):
    outcomes = {s.labels["outcome"] for s in scrape.samples if s.name == "pgheadroom_class_wait_seconds_count"}

    assert outcomes == {"granted", "refused", "left"}
    assert scrape("class_wait_seconds_count", **{"class": "bulk", "outcome": "refused"}) == 1


async def test_admissions_answer_two_independent_questions(scrape):
    def admissions(queued: str, borrowed: str) -> float:
        return scrape("class_admissions_total", **{"class": "bulk", "queued": queued, "borrowed": borrowed})

    assert [admissions("no", "no"), admissions("no", "yes"), admissions("yes", "no")] == [2, 28, 0]


async def test_refusals_of_the_queue_and_of_places_are_one_metric(scrape):
    def refusals(reason: str) -> float:
        return scrape("class_refusals_total", **{"class": "bulk", "reason": reason})

    assert [refusals("queue_full"), refusals("max_clients")] == [10, 2]


async def test_every_reason_has_a_series_before_it_first_happens():
    """rate() misses an increase from nothing to 1: an alert on the first refusal would stay silent."""
    scrape = await scraped(FakeView())

    assert [scrape("class_refusals_total", **{"class": "web", "reason": r.value}) for r in RefusalReason] == [0] * len(
        RefusalReason
    )


async def test_what_the_server_has_not_told_has_no_sample():
    scrape = await scraped(FakeView())

    assert not scrape.has("external_connections")
    assert not scrape.has("server_max_connections")
    assert not scrape.has("budget_overcommitted_slots")


async def test_waits_that_are_probably_for_oneself_are_counted_by_application(scrape):
    name = "nested_acquire_suspects_total"
    assert scrape(name, **{"class": "bulk", "application_name": "import"}) == 1


async def test_where_the_budget_does_not_hold_is_counted_by_how_bad_it_is(scrape):
    assert scrape("budget_overcommitted_slots") == 2
    assert [scrape("budget_problems", severity=severity) for severity in ("error", "warning")] == [0, 1]


async def test_written_in_pieces_it_is_the_text_that_prometheus_client_writes(monkeypatch):
    """A long family is written in steps; no sample may be lost between them and no header repeated."""
    collector = PgheadroomCollector(bad_day(), History())
    monkeypatch.setattr("proxy.service.exposition.SAMPLES_PER_STEP", 7)

    body = await render(collector, CollectorRegistry())

    assert body == generate_latest(collector)


async def test_a_window_that_stops_a_class_is_told_from_an_order(scrape):
    view = bad_day()
    window = Effect(None, ClassState.PAUSED)
    view.schedules["bulk"] = ScheduleNow(window, None, window)
    by_schedule = await scraped(view)
    view.order_switch("bulk", ClassState.PAUSED, by="anna")
    by_order = await scraped(view)

    assert scrape("class_paused_by_schedule", **{"class": "bulk"}) == 0
    assert by_schedule("class_paused_by_schedule", **{"class": "bulk"}) == 1
    assert by_order("class_paused_by_schedule", **{"class": "bulk"}) == 0


async def test_numbers_beside_the_file_are_counted(scrape):
    view = bad_day()
    view.order_set({"classes.bulk.limit": 20, "classes.web.limit": 9}, by="anna")

    assert (scrape("overrides"), (await scraped(view))("overrides")) == (0, 2)


async def test_a_paused_class_is_one(scrape):
    view = bad_day()
    view.order_switch("bulk", ClassState.PAUSED, by="anna", reason="")

    paused = await scraped(view)

    assert scrape("class_paused", **{"class": "bulk"}) == 0
    assert paused("class_paused", **{"class": "bulk"}) == 1


async def test_the_configuration_in_force_is_named_by_its_hash(scrape):
    assert scrape("config_info", hash="3f9c2a71d04e") == 1


async def test_an_application_name_that_is_no_text_does_not_break_the_scrape():
    view = FakeView()
    view.counts = {ClientKey("web", 'a\udcff"\\\n', ClientState.IDLE): 1}

    scrape = await scraped(view)

    assert scrape("client_connections", **{"class": "web", "state": "idle", "application_name": 'a?"\\?'}) == 1


def test_a_fleet_of_random_names_becomes_fifty_and_other():
    counts = {ClientKey("bulk", f"run-{n}", ClientState.IDLE): n + 1 for n in range(120)}

    folded = fold_names(counts)

    names = {key.application_name for key in folded}
    assert len(names) == NAMES_SHOWN_PER_CLASS + 1
    assert "run-119" in names
    assert "run-0" not in names
    assert sum(folded.values()) == sum(counts.values())


def test_folding_twice_changes_nothing():
    counts = {ClientKey("bulk", f"run-{n}", ClientState.IDLE): 1 for n in range(120)}

    assert fold_names(fold_names(counts)) == fold_names(counts)


def test_the_names_of_one_class_do_not_crowd_out_those_of_another():
    counts = {ClientKey("bulk", f"run-{n}", ClientState.IDLE): 9 for n in range(120)}
    counts[ClientKey("web", "web-1", ClientState.IDLE)] = 1

    assert fold_names(counts)[ClientKey("web", "web-1", ClientState.IDLE)] == 1


def amplification_after(view: FakeView, *, asked: int) -> float:
    history = History()
    history.observe(view, at=0.0)
    view.ask("bulk", asked)
    history.observe(view, at=10.0)
    return history.retry_amplification("bulk")


def test_nobody_sent_away_is_an_amplification_of_one():
    assert amplification_after(FakeView(), asked=10) == 1.0


def test_asking_again_and_again_shows_as_amplification():
    assert amplification_after(bad_day(), asked=60) == 61.0


def test_amplification_forgets_what_is_older_than_a_minute():
    view, history = bad_day(), History()
    history.observe(view, at=0.0)
    view.ask("bulk", 60)
    for at in (100.0, 130.0):
        history.observe(view, at=at)

    assert history.retry_amplification("bulk") == 1.0


def test_pins_of_rare_names_are_added_up_and_of_each_reason():
    counts = {PinKey("web", f"web-{number}", "listen"): 1 for number in range(NAMES_SHOWN_PER_CLASS + 5)}
    counts |= {PinKey("web", "often", reason): 9 for reason in ("listen", "temporary_table")}
    folded = fold_pins(counts)
    assert sum(folded.values()) == sum(counts.values())
    assert next(iter(folded.items())) == (PinKey("web", "often", "listen"), 9)
    assert folded[PinKey("web", OTHER, "listen")] == 6
