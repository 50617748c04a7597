"""What Prometheus sees: every metric, its help text and its labels, read from the view when it is scraped.

Owns: all metrics together, and those of upstreams, of connections by state, and of the process.
Does not know: how anything is counted, the text exposition. Nothing is kept here: there is no second number that could
disagree.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from proxy import __version__
from proxy.admission.classes import ClassState
from proxy.admission.snapshot import Snapshot
from proxy.service.adaptive_metrics import adaptive_metrics
from proxy.service.class_metrics import admissions, class_gauges, connects, histograms, refusals
from proxy.service.findings import Severity
from proxy.service.history import History
from proxy.service.metric_shapes import PREFIX
from proxy.service.session_metrics import (
    idle_in_transaction,
    nested_acquires,
    pinned_clients,
    prepared_statements,
    session_counters,
)
from proxy.service.upstream_reading import UpstreamReading
from proxy.service.view import ProcessView, fold_names

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


class PgheadroomCollector(Collector):
    """All metrics of one process. `collect` reads the ledger once; it must be called where the view may be read."""

    def __init__(self, view: ProcessView, history: History) -> None:
        self._view = view
        self._history = history

    def collect(self) -> Iterator[Metric]:
        snapshot = self._view.snapshot()
        yield from _budgets(self._view.upstreams())
        yield _class_info(self._view.upstreams())
        yield from class_gauges(snapshot)
        yield from self._class_counters(snapshot)
        yield from self._orders(snapshot)
        yield from histograms(snapshot, self._view.measures())
        yield from self._connections()
        yield from session_counters(self._view.measures())
        yield from adaptive_metrics(self._view)
        yield from self._about()

    def _class_counters(self, snapshot: Snapshot) -> Iterator[Metric]:
        yield admissions(snapshot)
        yield refusals(snapshot, self._view.refusals_outside_queue())
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
        yield from connects(snapshot, self._view.measures())
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
        yield idle_in_transaction(self._view)
        yield nested_acquires(self._view)
        yield pinned_clients(self._view)
        yield from prepared_statements(self._view)
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
