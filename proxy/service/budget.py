"""From the configuration and the server's facts to the numbers that the admission core works with.

Owns: how many slots `total: auto` is, what an empty `pinned_limit` means, the order of matching.
Does not know: sockets, whether the numbers are wise (check.py says so).

Every number in the configuration is that of one instance. `total: auto` is what the server can give, less `keep_free`,
divided by `instances`.
"""

from proxy.admission.classes import INTERNAL_LIMIT, BudgetSettings, ClassSettings, with_internal_class
from proxy.admission.classification import Classifier, MatchEntry
from proxy.service.config.model import Config, Match, PriorityClass
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


def usable_total(config: Config, facts: ServerFacts | None) -> int | None:
    """Slots of this instance; None where `total: auto` has no server to ask. Zero or less means that none are left."""
    total = config.budget.total
    if total != "auto":
        return total
    return None if facts is None else (capacity(facts) - config.budget.keep_free) // config.budget.instances


def budget_settings(config: Config, total: int, *, listening: int = 0) -> BudgetSettings:
    """What the admission core is told, with the class of the proxy's own connections in it.

    `listening` of these are shared LISTEN connections: each brings its own reservation while it lives.
    """
    headroom = config.budget.headroom
    return with_internal_class(
        BudgetSettings(
            total=total,
            headroom=headroom.size,
            headroom_for=frozenset(headroom.for_classes),
            classes=tuple(_class_settings(name, one) for name, one in config.classes.items()),
        ),
        limit=INTERNAL_LIMIT + (config.auth.passthrough_dials if config.auth.uses("passthrough") else 0),
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
        pinned_limit=pinned_limit(one),
        max_clients=one.max_clients,
        max_clients_per_identity=one.max_clients_per_identity,
        lend_memory_seconds=one.lend_memory,
        notify_after_seconds=one.notify_after,
    )


def pinned_limit(one: PriorityClass) -> int:
    """Slots of a class that may be held from one transaction to the next; all of them where nothing is written."""
    return one.limit if one.pinned_limit is None else one.pinned_limit


def classifier(config: Config) -> Classifier:
    """Finds the class of a client, in the order of the configuration."""
    rules = [(name, [_match_entry(entry) for entry in one.match]) for name, one in config.classes.items()]
    return Classifier(rules, config.default_class)


def _match_entry(entry: Match) -> MatchEntry:
    return MatchEntry(
        application_name=entry.application_name, user=entry.user, database=entry.database, address=entry.address
    )
