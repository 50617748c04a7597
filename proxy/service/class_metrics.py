"""Metrics by class: slots, queues, decisions and times, of one snapshot of the ledger.

Owns: their names, help texts and label sets.
Does not know: how anything is counted, who the clients are, the text exposition.
"""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from proxy.admission.classes import ClassState
from proxy.admission.decisions import RefusalReason
from proxy.admission.snapshot import ClassSnapshot, Snapshot
from proxy.service.metric_shapes import PREFIX, cumulative
from proxy.service.view import configured_limit_of, pinned_limit_of
from proxy.session.measures import Measures

# Gauges whose one label is `class`: name, help, how it is read.
CLASS_GAUGES: tuple[tuple[str, str, Callable[[ClassSnapshot], float]], ...] = (
    ("class_reserved_slots", "Slots reserved for the class, as far as the budget allows now.", lambda c: c.reserved),
    ("class_limit_slots", "The most slots the class may use (limit).", configured_limit_of),
    (
        "class_adaptive_limit_slots",
        "The limit in force now; below class_limit_slots while the class is held back.",
        lambda c: c.limit,
    ),
    ("class_held_slots", "Slots kept for the class now: its reservation less what it lends.", lambda c: c.held),
    ("class_used_slots", "Slots the class uses now, from dialling until closing is over.", lambda c: c.used),
    ("class_borrowed_slots", "Slots the class uses beyond its reservation.", lambda c: c.borrowed),
    ("class_lent_slots", "Idle slots of the reservation that others use now.", lambda c: c.lent),
    ("class_pinned_slots", "Used slots tied to one client by its session state.", lambda c: c.pinned),
    ("class_pinned_limit_slots", "The most slots that may be pinned (pinned_limit).", pinned_limit_of),
    ("class_waiting_clients", "Clients in the queue of the class.", lambda c: c.waiting),
    (
        "class_oldest_wait_seconds",
        "How long the oldest client in the queue has waited; 0 with an empty queue.",
        lambda c: c.oldest_wait_seconds,
    ),
    (
        "class_paused",
        "1 while the class gets no new slots: paused, draining or rejecting.",
        lambda c: float(c.state is not ClassState.RUNNING),
    ),
)


def class_gauges(snapshot: Snapshot) -> Iterator[Metric]:
    for name, text, read in CLASS_GAUGES:
        gauge = GaugeMetricFamily(f"{PREFIX}{name}", text, labels=["class"])
        for reading in snapshot.classes:
            gauge.add_metric([reading.name], read(reading))
        yield gauge
    yield _expected_waits(snapshot)


def _expected_waits(snapshot: Snapshot) -> Metric:
    """Without a sample while it is not known, rather than a zero that would lie."""
    gauge = GaugeMetricFamily(
        f"{PREFIX}class_expected_wait_seconds",
        "How long a client that asks now will wait, at the pace of late; 0 with an empty queue.",
        labels=["class"],
    )
    for reading in snapshot.classes:
        if reading.expected_wait_seconds is not None:
            gauge.add_metric([reading.name], reading.expected_wait_seconds)
    return gauge


def admissions(snapshot: Snapshot) -> Metric:
    family = CounterMetricFamily(
        f"{PREFIX}class_admissions",
        "Slots granted; queued: after a wait; borrowed: beyond the reservation.",
        labels=["class", "queued", "borrowed"],
    )
    for reading in snapshot.classes:
        for queued, borrowed in ((False, False), (False, True), (True, False), (True, True)):
            labels = [reading.name, _yes_no(queued), _yes_no(borrowed)]
            family.add_metric(labels, reading.admissions.get((queued, borrowed), 0))
    return family


def refusals(snapshot: Snapshot, outside_queue: Mapping[tuple[str, str], int]) -> Metric:
    family = CounterMetricFamily(f"{PREFIX}class_refusals", "Refusals by reason.", labels=["class", "reason"])
    # Every reason of every class from the start: rate() cannot see a series that appears with its first refusal.
    for reading in snapshot.classes:
        for reason in RefusalReason:
            count = reading.refusals.get(reason, 0) + outside_queue.get((reading.name, reason.value), 0)
            family.add_metric([reading.name, reason.value], count)
    return family


def connects(snapshot: Snapshot, measures: Measures) -> Iterator[Metric]:
    for name, text, counts in (
        ("class_connects", "Clients that proved who they are, let in or refused.", measures.connects),
        ("class_refusals_late", "Refusals told late to an identity that was refused before.", measures.refusals_late),
    ):
        family = CounterMetricFamily(f"{PREFIX}{name}", text, labels=["class"])
        for reading in snapshot.classes:
            family.add_metric([reading.name], counts[reading.name])
        yield family


def histograms(snapshot: Snapshot, measures: Measures) -> Iterator[Metric]:
    wait = _histogram_family("class_wait_seconds", "Time from asking for a slot to the answer.", "outcome")
    hold = _histogram_family("class_hold_seconds", "Time a slot was held without a break.")
    transaction = _histogram_family(
        "class_transaction_seconds",
        "From asking for a slot to the end of the transaction, the wait included: what an application sees.",
    )
    for reading in snapshot.classes:
        name, own = reading.name, measures.of(reading.name)
        for outcome, histogram in (
            ("granted", own.wait_granted),
            ("refused", own.wait_refused),
            ("left", own.wait_left),
        ):
            wait.add_metric([name, outcome], cumulative(histogram), histogram.sum)
        hold.add_metric([name], cumulative(own.hold), own.hold.sum)
        transaction.add_metric([name], cumulative(own.transaction), own.transaction.sum)
    yield from (wait, hold, transaction)
    yield from _warnings(snapshot, measures)


def _warnings(snapshot: Snapshot, measures: Measures) -> Iterator[Metric]:
    """Of classes in `mode: warn`; every reason from the start, as with refusals."""
    refuse = CounterMetricFamily(
        f"{PREFIX}class_would_refuse",
        "What a class that only warns would have refused, by reason.",
        labels=["class", "reason"],
    )
    queue = CounterMetricFamily(
        f"{PREFIX}class_would_queue", "Slots that such a class gave at once above its limit.", labels=["class"]
    )
    for reading in snapshot.classes:
        if reading.would_queue is None:
            continue
        queue.add_metric([reading.name], reading.would_queue)
        for reason in RefusalReason:
            outside = measures.would_refuse_outside_queue[reading.name, reason.value]
            refuse.add_metric([reading.name, reason.value], reading.would_refuse.get(reason, 0) + outside)
    yield from (refuse, queue)


def _histogram_family(name: str, text: str, *more_labels: str) -> HistogramMetricFamily:
    return HistogramMetricFamily(f"{PREFIX}{name}", text, labels=["class", *more_labels])


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"
