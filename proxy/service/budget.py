"""From the configuration and the server's facts to the numbers that the admission core works with.

Owns: how many slots `total: auto` is, what an empty `pinned_limit` means, the order of matching.
Does not know: sockets, whether the numbers are wise (check.py says so).

Every number in the configuration is that of one instance. `total: auto` is what the server can give, less `keep_free`,
divided by `instances`.
"""

from collections.abc import Collection, Mapping

from proxy.admission.classes import (
    INTERNAL_LIMIT,
    BudgetSettings,
    ClassSettings,
    ClassState,
    ConnectSettings,
    Mode,
    with_internal_class,
)
from proxy.admission.classification import Classifier, MatchEntry
from proxy.service.config.model import Config, Connects, Match, PriorityClass, Schedule
from proxy.service.config.parts import UpstreamPart
from proxy.service.config.units import show_time_of_day
from proxy.service.schedule import DAYS, MINUTES_PER_DAY, Window
from proxy.service.server_facts import ServerFacts


def server_capacity(max_connections: int, superuser_reserved: int, reserved: int = 0) -> int:
    """Connections an ordinary user can get: the last ones are kept for superusers and for pg_use_reserved_connections.

    Source: PostgreSQL manual, "Connections and Authentication" (runtime-config-connection).
    """
    return max(0, max_connections - superuser_reserved - reserved)


def capacity(facts: ServerFacts) -> int:
    """As server_capacity, less what a limit of the URL's database takes away."""
    usable = server_capacity(facts.max_connections, facts.superuser_reserved_connections, facts.reserved_connections)
    limit = facts.database_connection_limit
    return usable if limit is None else min(usable, limit)


def usable_total(part: UpstreamPart, facts: ServerFacts | None) -> int | None:
    """Slots of this instance; None where `total: auto` has no server to ask. Zero or less means that none are left."""
    total = part.budget.total
    if total != "auto":
        return total
    return None if facts is None else (capacity(facts) - part.budget.keep_free) // part.budget.instances


def total_in_force(part: UpstreamPart, facts: ServerFacts | None) -> int | None:
    """As usable_total, and never more than the server can give, which may have become less since the check.

    Where a pooler answers its own limit decides, and nobody knows that better than the configuration.
    """
    total = usable_total(part, facts)
    if total is None or facts is None or facts.is_behind_pooler:
        return total
    return min(total, max(1, capacity(facts) // part.budget.instances))


def overcommitted_slots(part: UpstreamPart, facts: ServerFacts) -> int:
    """Slots of the budget that the server could not give now, if all of them were asked for: others have them."""
    total = usable_total(part, facts)
    if total is None or facts.is_behind_pooler:
        return 0
    promised, limit = total * part.budget.instances, facts.database_connection_limit
    usable = server_capacity(facts.max_connections, facts.superuser_reserved_connections, facts.reserved_connections)
    missing = max(promised, total + facts.external_connections) - usable
    if limit is not None:
        missing = max(missing, promised - limit, total + facts.external_in_database - limit)
    return max(0, missing)


def budget_settings(part: UpstreamPart, total: int, *, listening: int = 0) -> BudgetSettings:
    """What the admission core is told, with the class of the proxy's own connections in it.

    `listening` of these are shared LISTEN connections: each brings its own reservation while it lives.
    """
    headroom = part.budget.headroom
    return with_internal_class(
        BudgetSettings(
            total=total,
            headroom=headroom.size,
            headroom_for=frozenset(headroom.for_classes),
            classes=tuple(_class_settings(name, one) for name, one in part.classes.items()),
        ),
        limit=INTERNAL_LIMIT + (part.auth.passthrough_dials if part.auth.uses("passthrough") else 0),
        listening=listening,
    )


def _class_settings(name: str, one: PriorityClass) -> ClassSettings:
    return ClassSettings(
        name,
        limit=one.limit,
        priority=one.priority,
        reserved=one.reserved,
        lendable=one.lendable,
        weight=one.weight,
        queue_max=one.queue.max,
        queue_timeout_seconds=one.queue.timeout,
        refuse_hopeless=one.queue.refuse_hopeless,
        pinned_limit=pinned_limit(one),
        max_clients=one.max_clients,
        max_clients_per_identity=one.max_clients_per_identity,
        lend_memory_seconds=one.lend_memory,
        notify_after_seconds=one.notify_after,
        renamed_from=one.renamed_from,
        connects=_connect_settings(one.connects),
        slow_start_seconds=one.slow_start,
        mode=Mode(one.mode),
    )


def _connect_settings(connects: Connects) -> ConnectSettings:
    of_identity = connects.per_identity
    return ConnectSettings(connects.rate or None, connects.burst, of_identity.rate or None, of_identity.burst)


def windows(one: PriorityClass) -> tuple[Window, ...]:
    """The windows of time of a class."""
    return tuple(map(_window, one.schedules))


def _window(one: Schedule) -> Window:
    days = frozenset(day for group in one.days for day in group)
    return Window(
        days or frozenset(range(len(DAYS))),
        one.start,
        one.end if one.end > one.start else one.end + MINUTES_PER_DAY,
        one.time_zone,
        one.limit,
        None if one.state is None else ClassState(one.state),
        one.reason or "",
        _window_text(one, days),
    )


def _window_text(one: Schedule, days: Collection[int]) -> str:
    """As people say it: "mon,tue 9:00-18:00 Europe/Berlin"."""
    names = ",".join(name for day, name in enumerate(DAYS) if day in days)
    hours = f"{show_time_of_day(one.start)}-{show_time_of_day(one.end)}"
    return f"{names or 'daily'} {hours} {one.time_zone.key}"


def with_limits(config: Config, limits: Mapping[str, int]) -> Config:
    """The configuration with other limits of classes; pins never go above them."""
    if not limits:
        return config
    classes = {
        name: one.model_copy(update=_limited(one, limits[name])) if name in limits else one
        for name, one in config.classes.items()
    }
    return config.model_copy(update={"classes": classes})


def _limited(one: PriorityClass, limit: int) -> dict[str, int | None]:
    return {"limit": limit, "pinned_limit": None if one.pinned_limit is None else min(one.pinned_limit, limit)}


def pinned_limit(one: PriorityClass) -> int:
    """Slots of a class that may be held from one transaction to the next; all of them where nothing is written."""
    return one.limit if one.pinned_limit is None else one.pinned_limit


def classifier(part: UpstreamPart) -> Classifier:
    """Finds the class of a client of this upstream, in the order of the configuration."""
    rules = [(name, [_match_entry(entry) for entry in one.match]) for name, one in part.classes.items()]
    return Classifier(rules, part.default_class)


def _match_entry(entry: Match) -> MatchEntry:
    return MatchEntry(
        application_name=entry.application_name, user=entry.user, database=entry.database, address=entry.address
    )
