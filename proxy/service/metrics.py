"""What Prometheus sees: every metric, its help text and its labels, read from the view when it is scraped.

Owns: metric names, help texts, label sets; the text exposition, written in small steps.
Does not know: how anything is counted. Nothing is kept here: there is no second number that could disagree.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import astuple
from itertools import chain

from prometheus_client import CollectorRegistry, Metric, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from proxy import __version__
from proxy.admission.classes import ClassState
from proxy.admission.decisions import RefusalReason
from proxy.admission.snapshot import ClassSnapshot, Snapshot
from proxy.service.adaptive_metrics import adaptive_metrics
from proxy.service.findings import Severity
from proxy.service.history import History
from proxy.service.metric_shapes import PREFIX, cumulative
from proxy.service.upstream_reading import UpstreamReading
from proxy.service.view import (
    ClientKey,
    ClientState,
    ProcessView,
    configured_limit_of,
    fold_names,
    fold_pins,
    pinned_limit_of,
    readable_name,
)
from proxy.session.measures import Measures

SAMPLES_PER_STEP = 200  # about 2 ms
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

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

# Gauges whose one label is `upstream`: name, help, how it is read; None is not known.
UPSTREAM_GAUGES: tuple[tuple[str, str, Callable[[UpstreamReading], float | None]], ...] = (
    ("budget_slots", "All slots: the most server connections.", lambda u: u.budget.total),
    ("used_slots", "Slots in use by all classes.", lambda u: u.budget.in_use),
    ("headroom_slots", "Slots only some classes may use.", lambda u: u.budget.headroom),
    ("headroom_left_slots", "Headroom not in use now.", lambda u: u.budget.headroom_left),
    ("upstream_ready", "1 while somebody can log in to the server.", lambda u: float(not u.not_ready)),
    ("external_connections", "Connections on the server that are not ours.", lambda u: u.external_connections),
    ("server_max_connections", "max_connections of the server.", lambda u: u.max_connections),
    (
        "budget_overcommitted_slots",
        "Slots of the budget that the server could not give if all were asked for: it is smaller, or others have them.",
        lambda u: u.overcommitted_slots,
    ),
    (
        "listen_connections",
        "Server connections over which clients listen together.",
        lambda u: u.listening.connections,
    ),
    ("listen_channels", "Channels that are listened to over them.", lambda u: u.listening.channels),
    ("listen_clients", "Clients that listen over them.", lambda u: u.listening.clients),
)

# Counters without labels: name, help, how it is read.
PLAIN_COUNTERS: tuple[tuple[str, str, Callable[[Measures], float]], ...] = (
    ("logins", "Clients that logged in.", lambda m: m.logins),
    ("upstream_moves", "Changes of the host or address that is dialled.", lambda m: m.upstream_moves),
    (
        "client_tls_failures",
        "TLS handshakes of clients that came to nothing.",
        lambda m: m.client_tls_failures,
    ),
    ("auth_queries", "Users looked up on the server with auth_query.", lambda m: m.auth_queries),
    ("auth_query_failures", "Lookups of users that failed; their logins with them.", lambda m: m.auth_query_failures),
    ("passthrough_logins", "Passwords of clients that were tried at the server.", lambda m: m.passthrough_logins),
    ("login_timeouts", "Clients that did not finish their login in time.", lambda m: m.login_timeouts),
    ("dials", "Server connections dialled.", lambda m: m.dials),
    ("dial_failures", "Server connections that could not be opened.", lambda m: m.dial_failures),
    (
        "dial_retries",
        'Times the server said "too many connections" and was asked again; clients never see it.',
        lambda m: m.dial_retries,
    ),
    ("dial_timeouts", "Server connections that the server did not let in in time.", lambda m: m.dial_timeouts),
    (
        "parameters_reapplied",
        "Session parameters set again on another server connection.",
        lambda m: m.parameters_reapplied,
    ),
    (
        "parameters_asked",
        "Times the server was asked what a SET of a parameter that it does not report came to.",
        lambda m: m.parameters_asked,
    ),
    (
        "parameters_failed",
        "Session parameters the server refused when they were set again.",
        lambda m: m.parameters_failed,
    ),
    (
        "listen_gaps",
        "Losses of a shared LISTEN connection while clients listened; each of them was told.",
        lambda m: m.listen_gaps,
    ),
    ("listen_notifications", "Notifications heard over shared connections.", lambda m: m.notifications_received),
    (
        "listen_dropped",
        "Notifications dropped for one client that was busy or did not read; it was told.",
        lambda m: m.notifications_dropped,
    ),
    ("crashes", "Errors of our own; each ended one connection and left a traceback in the log.", lambda m: m.crashes),
)

# Counters with one label: name, help, label, how it is read.
LABELLED_COUNTERS: tuple[tuple[str, str, str, Callable[[Measures], Mapping[str, int]]], ...] = (
    ("protocol_violations", "Peers that broke the protocol.", "side", lambda m: m.protocol_violations),
    ("login_failures", "Logins refused, by reason.", "reason", lambda m: m.login_failures),
    (
        "server_connections_lost",
        "Server connections that ended by themselves; the loss of an idle one no client notices.",
        "state",
        lambda m: {"linked": m.servers_lost_linked, "idle": m.servers_lost_idle},
    ),
    (
        "cancels",
        "Cancel requests: forwarded to the server, answered for a waiting client, or with an unknown key.",
        "outcome",
        lambda m: {"forwarded": m.cancels_forwarded, "waiting": m.cancels_of_waiting, "unknown": m.cancels_unknown},
    ),
)


class PgheadroomCollector(Collector):
    """All metrics of one process. `collect` reads the ledger once; it must be called where the view may be read."""

    def __init__(self, view: ProcessView, history: History) -> None:
        self._view = view
        self._history = history

    def collect(self) -> Iterator[Metric]:
        snapshot = self._view.snapshot()
        yield from _budgets(self._view.upstreams())
        yield _class_info(self._view.upstreams())
        yield from _class_gauges(snapshot)
        yield from self._class_counters(snapshot)
        yield from self._orders(snapshot)
        yield from _histograms(snapshot, self._view.measures())
        yield from self._connections()
        yield from _session_counters(self._view.measures())
        yield from adaptive_metrics(self._view)
        yield from self._about()

    def _class_counters(self, snapshot: Snapshot) -> Iterator[Metric]:
        yield _admissions(snapshot)
        yield _refusals(snapshot, self._view.refusals_outside_queue())
        amplification = GaugeMetricFamily(
            f"{PREFIX}retry_amplification",
            "Attempts to get a slot per admission over the last minute: granted, refused (connects too) or left before"
            " the answer. 1 says that nobody had to ask twice.",
            labels=["class"],
        )
        for reading in snapshot.classes:
            name = reading.name
            amplification.add_metric([name], self._history.retry_amplification(name))
        yield amplification
        yield from _connects(snapshot, self._view.measures())
        late = GaugeMetricFamily(
            f"{PREFIX}late_answers",
            "Logins that failed or were refused again, whose answer waits.",
            labels=["kind"],
        )
        for kind, count in self._view.late_answers().items():
            late.add_metric([kind], count)
        yield late

    def _orders(self, snapshot: Snapshot) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            f"{PREFIX}overrides", "Numbers set beside the configuration file.", value=len(self._view.overrides())
        )
        scheduled = GaugeMetricFamily(
            f"{PREFIX}class_paused_by_schedule",
            "1 while a window of time, and nobody's order, gives the class no new slots.",
            labels=["class"],
        )
        for reading in snapshot.classes:
            name, schedule = reading.name, self._view.schedule(reading.name)
            stops = schedule is not None and schedule.now.state not in {None, ClassState.RUNNING}
            scheduled.add_metric([name], float(stops and self._view.switch_in_force(name) is None))
        yield scheduled

    def _connections(self) -> Iterator[Metric]:
        clients = GaugeMetricFamily(
            f"{PREFIX}client_connections",
            'Client connections by state: idle, waiting, linked. Rare application names are added up as "other".',
            labels=["class", "application_name", "state"],
        )
        for key, count in fold_names(self._view.client_counts()).items():
            clients.add_metric(list(key), count)
        yield clients
        yield _idle_in_transaction(self._view)
        yield _nested_acquires(self._view)
        yield _pinned_clients(self._view)
        yield from _prepared_statements(self._view)
        yield _server_connections(self._view.upstreams())
        yield _budget_problems(self._view.upstreams())

    def _about(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            f"{PREFIX}unmatched_clients",
            "Clients that matched no class and fell into the default one.",
            value=self._view.unmatched().clients_total,
        )
        ready, _ = self._view.ready()
        yield GaugeMetricFamily(f"{PREFIX}ready", "1 while new clients are served.", value=float(ready))
        yield InfoMetricFamily(
            f"{PREFIX}config",
            "The configuration in force and the version that runs it.",
            value={"hash": self._view.config_hash, "version": __version__},
        )


def _budgets(upstreams: Sequence[UpstreamReading]) -> Iterator[Metric]:
    for name, text, read in UPSTREAM_GAUGES:
        gauge = GaugeMetricFamily(f"{PREFIX}{name}", text, labels=["upstream"])
        for one in upstreams:
            # What a server has to tell has no sample while it has not: a zero would lie.
            if (value := read(one)) is not None:
                gauge.add_metric([one.name], value)
        yield gauge


def _class_info(upstreams: Sequence[UpstreamReading]) -> Metric:
    """Joins what is told by class with what is told by upstream. `internal` is in each."""
    info = GaugeMetricFamily(
        f"{PREFIX}class_info",
        "1 for each class: the upstream whose slots it gets, and whether it decides (enforce) or only warns (warn).",
        labels=["class", "upstream", "mode"],
    )
    for one in upstreams:
        for reading in one.budget.classes:
            if not reading.retired:
                info.add_metric([reading.name, one.name, "enforce" if reading.would_queue is None else "warn"], 1.0)
    return info


def _class_gauges(snapshot: Snapshot) -> Iterator[Metric]:
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


def _admissions(snapshot: Snapshot) -> Metric:
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


def _refusals(snapshot: Snapshot, outside_queue: Mapping[tuple[str, str], int]) -> Metric:
    family = CounterMetricFamily(f"{PREFIX}class_refusals", "Refusals by reason.", labels=["class", "reason"])
    # Every reason of every class from the start: rate() cannot see a series that appears with its first refusal.
    for reading in snapshot.classes:
        for reason in RefusalReason:
            count = reading.refusals.get(reason, 0) + outside_queue.get((reading.name, reason.value), 0)
            family.add_metric([reading.name, reason.value], count)
    return family


def _connects(snapshot: Snapshot, measures: Measures) -> Iterator[Metric]:
    for name, text, counts in (
        ("class_connects", "Clients that proved who they are, let in or refused.", measures.connects),
        ("class_refusals_late", "Refusals told late to an identity that was refused before.", measures.refusals_late),
    ):
        family = CounterMetricFamily(f"{PREFIX}{name}", text, labels=["class"])
        for reading in snapshot.classes:
            family.add_metric([reading.name], counts[reading.name])
        yield family


def _histograms(snapshot: Snapshot, measures: Measures) -> Iterator[Metric]:
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


def _idle_in_transaction(view: ProcessView) -> Metric:
    family = GaugeMetricFamily(
        f"{PREFIX}idle_in_transaction_clients",
        'Clients that hold a slot in a transaction and send nothing. Rare application names are added up as "other".',
        labels=["class", "application_name"],
    )
    for key, count in fold_names(view.idle_in_transaction()).items():
        family.add_metric([key.class_name, key.application_name], count)
    return family


def _nested_acquires(view: ProcessView) -> Metric:
    family = CounterMetricFamily(
        f"{PREFIX}nested_acquire_suspects",
        "Waits of clients whose own identity holds a slot and does nothing: probably they wait for themselves.",
        labels=["class", "application_name"],
    )
    counts = view.nested_acquires().counts
    folded = fold_names({ClientKey(*key, ClientState.WAITING): count for key, count in counts.items()})
    for key, count in folded.items():
        family.add_metric([key.class_name, key.application_name], count)
    return family


def _pinned_clients(view: ProcessView) -> Metric:
    family = GaugeMetricFamily(
        f"{PREFIX}pinned_clients",
        'Clients that hold a server connection for their session state, by what did it. Rare names count as "other".',
        labels=["class", "application_name", "reason"],
    )
    for key, count in fold_pins(view.pins()).items():
        family.add_metric(list(key), count)
    return family


def _prepared_statements(view: ProcessView) -> Iterator[Metric]:
    counts = view.prepared_statements()
    texts = "Different prepared statements of the protocol that a client or a server connection knows."
    yield GaugeMetricFamily(f"{PREFIX}prepared_statements", texts, value=counts.shared)
    yield GaugeMetricFamily(
        f"{PREFIX}prepared_statement_bytes", "Bytes of the texts of these, each held once.", value=counts.bytes
    )
    parsed = "Prepared statements on all server connections; each has at most pool.max_prepared_statements."
    yield GaugeMetricFamily(f"{PREFIX}server_prepared_statements", parsed, value=counts.on_servers)


def _server_connections(upstreams: Sequence[UpstreamReading]) -> Metric:
    family = GaugeMetricFamily(
        f"{PREFIX}server_connections",
        "Server connections by state: dialling, in_use, idle, closing. Their sum is what the server sees of us.",
        labels=["upstream", "state"],
    )
    for one in upstreams:
        for state, count in zip(("dialling", "in_use", "idle", "closing"), astuple(one.servers), strict=True):
            family.add_metric([one.name, state], count)
    return family


def _budget_problems(upstreams: Sequence[UpstreamReading]) -> Metric:
    family = GaugeMetricFamily(
        f"{PREFIX}budget_problems",
        "Numbers of the budget that do not hold (error) or will hurt (warning) with the server as it is now.",
        labels=["upstream", "severity"],
    )
    for one in upstreams:
        for severity in Severity:
            found = sum(problem.severity is severity for problem in one.problems)
            family.add_metric([one.name, severity.value], found)
    return family


def _session_counters(measures: Measures) -> Iterator[Metric]:
    for name, text, read in PLAIN_COUNTERS:
        yield CounterMetricFamily(f"{PREFIX}{name}", text, value=read(measures))
    for name, text, label, read_by_label in LABELLED_COUNTERS:
        family = CounterMetricFamily(f"{PREFIX}{name}", text, labels=[label])
        for value, count in read_by_label(measures).items():
            family.add_metric([value], count)
        yield family
    pins = CounterMetricFamily(
        f"{PREFIX}class_pins", "Slots tied to a client, by what did it.", labels=["class", "reason"]
    )
    for (class_name, reason), count in measures.pins.items():
        pins.add_metric([class_name, reason], count)
    yield pins
    tagged = CounterMetricFamily(
        f"{PREFIX}class_tagged_units",
        "Units of work with a tag in a comment, by the client's own class: followed, not_lower, or unknown to us.",
        labels=["class", "outcome"],
    )
    for (class_name, outcome), count in measures.tagged_units.items():
        tagged.add_metric([class_name, outcome], count)
    yield tagged
    holds = CounterMetricFamily(
        f"{PREFIX}class_holds_ended",
        "Queries cancelled, and clients ended, because a bound of their class (holds) was reached.",
        labels=["class", "application_name", "bound"],
    )
    for (class_name, application, bound), count in measures.holds_ended.items():
        holds.add_metric([class_name, readable_name(application), bound], count)
    yield holds


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"


class _OneFamily(Collector):
    """Lets `generate_latest` write one metric family."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        return (self._family,)


def process_registry() -> CollectorRegistry:
    """CPU, memory and descriptors of this process under the names every exporter uses."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


async def render(collector: PgheadroomCollector, process: CollectorRegistry) -> bytes:
    """The text exposition of everything.

    Queries pass through the same thread: many classes and names take tens of milliseconds, so the loop gets its turn
    after every few hundred samples. The slots of all classes are nevertheless those of one moment; what is written
    later may be a little younger.
    """
    chunks = []
    for family in chain(collector.collect(), process.collect()):
        for chunk in _written(family):
            chunks.append(chunk)
            await asyncio.sleep(0)
    return b"".join(chunks)


def _written(family: Metric) -> Iterator[bytes]:
    """The text of one family in pieces; only the first keeps the HELP and TYPE lines."""
    for start in range(0, max(1, len(family.samples)), SAMPLES_PER_STEP):
        piece = copy(family)
        piece.samples = family.samples[start : start + SAMPLES_PER_STEP]
        text = generate_latest(_OneFamily(piece))
        yield text if start == 0 else text.split(b"\n", 2)[2]
