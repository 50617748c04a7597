"""What metrics, HTTP and `status` may read of the running process, and the orders they may give it.

Owns: the shape of that view (`ProcessView`), and how many application names one class may show.
Does not know: sockets, the event loop, who implements the view, how anything is displayed.

Every call is synchronous, cheap and free of side effects except the orders: a scrape happens between two
events of the proxy and sees one consistent moment.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from heapq import nsmallest
from typing import NamedTuple, Protocol

from proxy.admission.classes import ClassState
from proxy.admission.holds import HoldBounds
from proxy.admission.snapshot import ClassSnapshot, Snapshot
from proxy.service.adaptive_state import AdaptiveState, CanaryState
from proxy.service.config.model import Config
from proxy.service.reload_report import ReloadReport
from proxy.service.schedule import Effect
from proxy.service.server_facts import ServerFacts
from proxy.service.switchboard import Override, Switch
from proxy.service.traffic.nested_acquire import Identity, NestedAcquires
from proxy.service.upstream_reading import UpstreamReading
from proxy.session.measures import OTHER, Measures

# Application names are chosen by clients, so their number is not ours to trust: the rest is folded into OTHER.
NAMES_SHOWN_PER_CLASS = 50
SHOWN_IDENTITIES = 10
MAX_NAME_LENGTH = 63  # NAMEDATALEN - 1


class ClientState(StrEnum):
    """What a client connection does now; the words are those of the design."""

    IDLE = "idle"
    WAITING = "waiting"
    LINKED = "linked"


class ClientKey(NamedTuple):
    """Client connections are counted per class, application name and state."""

    class_name: str
    application_name: str
    state: ClientState


@dataclass(frozen=True, slots=True)
class IdentityUse:
    """The connections of one identity in one class: all of them, those that hold a slot, those that wait for one."""

    identity: Identity
    connections: int
    slots: int
    waiting: int


@dataclass(frozen=True, slots=True)
class UnmatchedName:
    """An application name that matched no class of an upstream, and when it was first seen (Unix seconds)."""

    application_name: str
    clients_total: int
    first_seen: float
    upstream: str = "main"


@dataclass(frozen=True, slots=True)
class Unmatched:
    """Clients that fell into the default class. `names` is bounded by whoever collects it."""

    clients_total: int = 0
    names: tuple[UnmatchedName, ...] = ()


class PinKey(NamedTuple):
    """Why clients of one application hold their server connections: the reason as in `class_pins_total`."""

    class_name: str
    application_name: str
    reason: str


@dataclass(frozen=True, slots=True)
class RefusedIdentity:
    """Clients alike that were refused while connecting, and how often lately (`refusals.forget_after`)."""

    class_name: str
    identity: str
    refusals: int


@dataclass(frozen=True, slots=True)
class PreparedStatements:
    """Statements of the protocol: different ones that somebody knows, the bytes of their texts, parsed on servers."""

    shared: int = 0
    bytes: int = 0
    on_servers: int = 0


@dataclass(frozen=True, slots=True)
class ScheduleNow:
    """The windows of time of one class: what they change now, until when, and what they change then."""

    now: Effect
    next_change_at: float | None
    then: Effect


@dataclass(frozen=True, slots=True)
class OverrideNow:
    """A number that was set beside the file, and what schedule and file say instead; values as they are written."""

    order: Override
    value: str
    configured: str


class ProcessView(Protocol):
    """The running process, as far as people and Prometheus may see it."""

    def upstreams(self) -> Sequence[UpstreamReading]:
        """Each upstream with its budget, in the order of the configuration; there is one at least."""

    def snapshot(self) -> Snapshot:
        """All budgets together: every class once, those of each upstream in the order of the configuration."""

    def measures(self) -> Measures:
        """What the session layer counts. The object is live: read it, never keep or change it."""

    def refusals_outside_queue(self) -> Mapping[tuple[str, str], int]:
        """(class, reason) of refusals that the snapshot does not count: those for a place (`max_clients`) and such."""

    def late_answers(self) -> Mapping[str, int]:
        """Answers that wait now, by kind: failed logins (`login_failure`) and refused ones (`refusal`)."""

    def refused_identities(self) -> Sequence[RefusedIdentity]:
        """Those that were refused most often lately while connecting, at most SHOWN_IDENTITIES of them."""

    def class_reasons(self) -> Mapping[str, str]:
        """The configured `reason` of each class that has one."""

    def hold_bounds(self, class_name: str) -> HoldBounds:
        """How long its clients may go on in one way; infinity is no bound."""

    def upstream_of_class(self, class_name: str) -> str | None:
        """Whose slots it gets; None for `internal` where there are several, each with one of its own."""

    def client_counts(self) -> Mapping[ClientKey, int]:
        """Client connections now. May hold any number of names: readers fold them with `fold_names`."""

    def idle_in_transaction(self) -> Mapping[ClientKey, int]:
        """Those of the linked clients whose transaction waits for them and not for the server."""

    def pins(self) -> Mapping[PinKey, int]:
        """Clients that are pinned now; one with two reasons counts for each. Readers fold them with `fold_pins`."""

    def prepared_statements(self) -> PreparedStatements: ...

    def adaptive(self) -> Mapping[str, AdaptiveState]:
        """What adaptive limits make of this moment, by upstream; none where they are off."""

    def lock_waits(self) -> Mapping[str, int]:
        """Server processes that wait for locks, by upstream; not where nobody asks, or the server does not tell."""

    def canary(self) -> Mapping[str, CanaryState]:
        """How the canary of each upstream fares; none where there is none."""

    def unmatched(self) -> Unmatched: ...

    def identities(self) -> Sequence[IdentityUse]:
        """Each (user, address, application) of each class that holds a slot or waits for one, and those with most
        connections. Readers take the top."""

    def nested_acquires(self) -> NestedAcquires:
        """Who probably waits for itself, and how often that was. Live: read it, never change it."""

    def server_facts(self, upstream: str) -> ServerFacts | None:
        """What the server of that upstream has told of itself; None while it has not been asked."""

    def traffic(self) -> Sequence[tuple[int, bytes]]:
        """The hours of the record of traffic, for `traffic.record.hours_of`."""

    @property
    def config(self) -> Config:
        """The configuration in force. It holds secrets: nothing of it is shown but what is made for that."""

    @property
    def config_hash(self) -> str:
        """A short hash of the configuration in force; changes at a reload."""

    def ready(self) -> tuple[bool, str]:
        """Whether new clients are served, and a sentence that says so or why not. No secrets: anybody may read it."""

    def last_switch(self, class_name: str) -> Switch | None:
        """The last order for this class since the process started, or one from before that is in force."""

    def switch_in_force(self, class_name: str) -> Switch | None:
        """The order that decides what the class does now; None where the configuration does."""

    def schedule(self, class_name: str) -> ScheduleNow | None:
        """None where the class has no windows of time."""

    def order_switch(
        self, class_name: str, state: ClassState, *, by: str, reason: str, seconds: float | None, source: str
    ) -> Switch:
        """Pause, drain, reject or resume a class, for `seconds` or until the next order. Raises OrderRefused."""

    def overrides(self) -> Sequence[OverrideNow]:
        """What is set beside the file."""

    def order_set(
        self, settings: Mapping[str, object], *, by: str, reason: str, seconds: float | None, source: str
    ) -> tuple[Sequence[OverrideNow], Sequence[str]]:
        """Set numbers beside the file, all or none; returns warnings with them. Raises OrderRefused."""

    def order_unset(self, keys: Sequence[str], *, by: str, reason: str, source: str) -> Sequence[OverrideNow]:
        """What schedule and file say holds again; returns what was set. Raises OrderRefused."""

    def order_reload(self, *, by: str, reason: str, source: str, dry_run: bool) -> ReloadReport:
        """Read the file again and take it over, or only say what that would change. Raises OrderRefused."""

    async def orders_saved(self) -> str | None:
        """Wait until what was ordered would survive a restart. Returns a sentence where it would not."""


def configured_limit_of(reading: ClassSnapshot) -> int:
    """What the operator wrote, or a window of time says: `limit` is what is left of it by adaptive limits."""
    return 0 if reading.retired else reading.settings.limit


def pinned_limit_of(reading: ClassSnapshot) -> int:
    """How many slots of the class may be pinned; without a setting of its own it is the limit."""
    limit = reading.settings.pinned_limit
    return reading.limit if limit is None else min(limit, reading.limit)


def fold_names(counts: Mapping[ClientKey, int], shown: int = NAMES_SHOWN_PER_CLASS) -> dict[ClientKey, int]:
    """Keep the `shown` most frequent application names of each class; add up the others under OTHER."""
    readable = _added_up((_renamed(key, readable_name(key.application_name)), n) for key, n in counts.items())
    kept = _frequent_names(readable, shown)
    folded: dict[ClientKey, int] = {}
    others: defaultdict[tuple[str, ClientState], int] = defaultdict(int)
    for key, count in readable.items():  # thousands of names, where each client has its own
        if key.application_name in kept[key.class_name]:
            folded[key] = count
        else:
            others[key.class_name, key.state] += count
    return folded | {ClientKey(name, OTHER, state): count for (name, state), count in others.items()}


IDENTITIES_SHOWN = 10  # of each order


def top_identities(uses: Sequence[IdentityUse], shown: int = IDENTITIES_SHOWN) -> list[IdentityUse]:
    """Those with most slots, those with most waiting, and those with most connections, the first of these first."""
    orders: tuple[Callable[[IdentityUse], int], ...] = (
        lambda one: one.slots,
        lambda one: one.waiting,
        lambda one: one.connections,
    )
    top: dict[Identity, IdentityUse] = {}
    for order in orders:
        best = sorted(uses, key=lambda one: (-order(one), -one.connections, _sortable(one)))[:shown]
        top.update({one.identity: one for one in best if order(one)})
    return sorted(top.values(), key=lambda one: (-one.slots, -one.waiting, -one.connections, _sortable(one)))


def _sortable(one: IdentityUse) -> tuple[str, ...]:
    return tuple(part or "" for part in one.identity)


def fold_pins(pins: Mapping[PinKey, int], shown: int = NAMES_SHOWN_PER_CLASS) -> dict[PinKey, int]:
    """The same for pins, the most frequent first: of each class `shown` names are kept, the others are OTHER."""
    totals: defaultdict[tuple[str, str], int] = defaultdict(int)
    for key, count in pins.items():
        totals[key.class_name, readable_name(key.application_name)] += count
    ranked = sorted(totals, key=lambda one: (-totals[one], one))
    kept: defaultdict[str, set[str]] = defaultdict(set)
    for class_name, name in ranked:
        if len(kept[class_name]) < shown:
            kept[class_name].add(name)
    sums: defaultdict[PinKey, int] = defaultdict(int)
    for key, count in pins.items():
        name = readable_name(key.application_name)
        sums[key._replace(application_name=name if name in kept[key.class_name] else OTHER)] += count
    return dict(sorted(sums.items(), key=lambda item: (-item[1], item[0])))


def _renamed(key: ClientKey, name: str) -> ClientKey:
    return key if name == key.application_name else ClientKey(key.class_name, name, key.state)


def readable_name(name: str) -> str:
    """The name as the server would keep it: cut at NAMEDATALEN, and only what can be printed.

    It is shown on terminals, where a client could otherwise send escape sequences to the operator.
    """
    if name.isprintable() and len(name) <= MAX_NAME_LENGTH:
        return name
    return "".join(c if c.isprintable() else "?" for c in name[:MAX_NAME_LENGTH])


def readable_text(text: str) -> str:
    """The same for a sentence that may hold such names."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _added_up(counts: Iterable[tuple[ClientKey, int]]) -> dict[ClientKey, int]:
    sums: defaultdict[ClientKey, int] = defaultdict(int)
    for key, count in counts:
        sums[key] += count
    return dict(sums)


def _frequent_names(counts: Mapping[ClientKey, int], shown: int) -> dict[str, set[str]]:
    totals: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    for key, count in counts.items():
        totals[key.class_name][key.application_name] += count
    return {class_name: set(_top(names.items(), shown)) for class_name, names in totals.items()}


def _top(names: Iterable[tuple[str, int]], shown: int) -> list[str]:
    # By name among equals, so that a series does not flicker between two scrapes.
    ranked = nsmallest(shown, (name for name in names if name[0] != OTHER), key=lambda name: (-name[1], name[0]))
    return [name for name, _ in ranked]
