"""What the session layer counts: plain integers and histograms, read at scrape time.

Owns: the counters of one process.
Does not know: metric names, Prometheus, how a number came about. Slots and refusals are counted by the admission core.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from proxy.session.histogram import Histogram

# Application names are chosen by clients, so their number is not ours to trust: the rest of a class is OTHER together.
APPLICATIONS_COUNTED_PER_CLASS: Final = 200
OTHER: Final = "other"


class ApplicationMeasures:
    """The clients of one application in one class. What they add is shown for the class, too, and costs once."""

    __slots__ = ("_at_once", "_queued_hold", "_queued_transaction", "_total_hold", "_unqueued", "name", "owner")

    def __init__(self, owner: "ClassMeasures", name: str) -> None:
        self.owner = owner
        self.name = name
        # What nearly every unit adds, told apart for the hot path: no wait, so that the two times are one.
        self._at_once = 0
        self._unqueued = Histogram()
        self._queued_hold = Histogram()
        self._queued_transaction = Histogram()
        self._total_hold = Histogram()

    def granted_at_once(self) -> None:
        self._at_once += 1

    def held(self, hold_seconds: float, transaction_seconds: float) -> None:
        """A slot was given back."""
        if hold_seconds == transaction_seconds:
            self._unqueued.observe(hold_seconds)
        else:
            self._queued_hold.observe(hold_seconds)
            self._queued_transaction.observe(transaction_seconds)

    @property
    def hold(self) -> Histogram:
        """Seconds a slot was held by these clients."""
        self.owner.settle_one(self)
        return self._total_hold

    def take_at_once(self) -> int:
        """How many were granted without a wait since the last look."""
        count, self._at_once = self._at_once, 0
        return count

    def settle_into(self, hold: Histogram, transaction: Histogram) -> None:
        """What was observed since the last look goes to the class, and to the sum of this application."""
        for held in (self._unqueued, self._queued_hold):
            hold.add(held)
            self._total_hold.add(held)
        transaction.add(self._unqueued)
        transaction.add(self._queued_transaction)
        for histogram in (self._unqueued, self._queued_hold, self._queued_transaction):
            histogram.clear()


class ClassMeasures:
    """One class: seconds waited by outcome, seconds a slot was held, seconds from request to end of a unit."""

    __slots__ = ("_hold", "_transaction", "_wait_granted", "applications", "wait_left", "wait_refused")

    def __init__(self) -> None:
        self._wait_granted = Histogram()
        self.wait_refused = Histogram()
        self.wait_left = Histogram()
        self._hold = Histogram()
        self._transaction = Histogram()
        self.applications: dict[str, ApplicationMeasures] = {}

    def of_application(self, name: str) -> ApplicationMeasures:
        """Where a client of this name counts, for as long as it lives; late comers beyond the bound are one."""
        measures = self.applications.get(name)
        if measures is None:
            if len(self.applications) >= APPLICATIONS_COUNTED_PER_CLASS and name != OTHER:
                return self.of_application(OTHER)
            measures = self.applications[name] = ApplicationMeasures(self, name)
        return measures

    @property
    def wait_granted(self) -> Histogram:
        for application in self.applications.values():
            self._wait_granted.observe_zeros(application.take_at_once())
        return self._wait_granted

    @property
    def hold(self) -> Histogram:
        self.settle()
        return self._hold

    @property
    def transaction(self) -> Histogram:
        self.settle()
        return self._transaction

    def settle(self) -> None:
        for application in self.applications.values():
            application.settle_into(self._hold, self._transaction)

    def settle_one(self, application: ApplicationMeasures) -> None:
        """One of them alone: whoever looks at each of many must not settle all of them each time."""
        application.settle_into(self._hold, self._transaction)


@dataclass(slots=True)
class Measures:
    """Everything counted outside the admission core."""

    classes: dict[str, ClassMeasures] = field(default_factory=dict)
    protocol_violations: Counter[str] = field(default_factory=Counter)  # by side: client, server, startup
    login_failures: Counter[str] = field(default_factory=Counter)  # by LoginFailure
    auth_queries: int = 0
    auth_query_failures: int = 0
    passthrough_logins: int = 0  # passwords tried at the server
    login_timeouts: int = 0
    client_tls_failures: int = 0
    logins: int = 0
    dials: int = 0
    dial_failures: int = 0
    dial_retries: int = 0  # the server said "too many connections" and was asked again
    dial_timeouts: int = 0  # the server did not finish a login in time
    upstream_moves: int = 0  # dials go to another host or address than before
    servers_lost_linked: int = 0
    servers_lost_idle: int = 0
    cancels_forwarded: int = 0
    cancels_of_waiting: int = 0
    cancels_unknown: int = 0
    parameters_reapplied: int = 0
    parameters_asked: int = 0  # times the server was asked what a SET of an unreported parameter came to
    parameters_failed: int = 0
    pins: Counter[tuple[str, str]] = field(default_factory=Counter)  # by (class, reason)
    refusals_outside_queue: Counter[tuple[str, str]] = field(default_factory=Counter)  # by (class, reason)
    connects: Counter[str] = field(default_factory=Counter)  # authenticated, by class
    refusals_late: Counter[str] = field(default_factory=Counter)  # told late while connecting, by class
    would_refuse_outside_queue: Counter[tuple[str, str]] = field(default_factory=Counter)  # by (class, reason)
    tagged_units: Counter[tuple[str, str]] = field(default_factory=Counter)  # by (class of the client, outcome)
    holds_ended: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # by (class, application, bound)
    listen_gaps: int = 0  # losses of a shared LISTEN connection while somebody listened
    notifications_received: int = 0  # over shared connections
    notifications_dropped: int = 0  # for one client each: busy or not reading for too long
    crashes: int = 0

    def of(self, class_name: str) -> ClassMeasures:
        measures = self.classes.get(class_name)
        if measures is None:
            measures = self.classes[class_name] = ClassMeasures()
        return measures
