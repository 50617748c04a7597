"""Checks of classes: the numbers of one by itself, and of one beside those that are more important.

Owns: the rules about a class's bounds, the patience of its clients, its holds, its rank, the default class.
Does not know: what the budget leaves for it (check_budget.py), who falls into it.
"""

from proxy.service.config.model import Holds, PriorityClass
from proxy.service.config.parts import UpstreamPart
from proxy.service.config.units import show_seconds
from proxy.service.customers import customer_class
from proxy.service.findings import Reporter

# How long the pools of clients wait by default before they give up, in seconds. Sources: the manuals of each.
# node-postgres (connectionTimeoutMillis 0), asyncpg's acquire, Django and database/sql wait for ever.
CLIENT_PATIENCE_SECONDS = {
    "Prisma pool_timeout": 10,
    "SQLAlchemy pool_timeout": 30,
    "psycopg_pool timeout": 30,
    "HikariCP connectionTimeout": 30,
    "sqlx acquire_timeout": 30,
    "postgres.js connect_timeout": 30,
    "Knex acquireConnectionTimeout": 60,
    "Sequelize pool.acquire": 60,
    "asyncpg connect timeout": 60,
}

# A default class that reserves more than this part of the budget lets any new fleet take what others need.
_LARGE_DEFAULT_SHARE = 0.25


# One class by itself


def report_class(report: Reporter, name: str, one: PriorityClass) -> None:
    here = ("classes", name)
    if one.reserved > one.limit:
        text = f"{one.reserved} slots are reserved, but limit is {one.limit}"
        report.error((*here, "reserved"), text, f"raise classes.{name}.limit or lower reserved")
    if one.lendable > one.reserved:
        text = f"{one.lendable} slots are lendable, but only {one.reserved} are reserved"
        report.error((*here, "lendable"), text, f"set classes.{name}.lendable to at most {one.reserved}")
    if one.pinned_limit is not None and one.pinned_limit > one.limit:
        text = f"pinned_limit is {one.pinned_limit}, but limit is {one.limit}, and a pinned client counts against both"
        report.error((*here, "pinned_limit"), text, f"set classes.{name}.pinned_limit to at most {one.limit}")
    if one.max_clients is not None and one.max_clients < one.limit:
        text = f"limit {one.limit} is never reached by {one.max_clients} clients"
        report.warning((*here, "limit"), text, f"set classes.{name}.limit to {one.max_clients}")
    of_identity = one.max_clients_per_identity
    if of_identity is not None and one.max_clients is not None and of_identity > one.max_clients:
        text = f"{of_identity} clients of one identity, but max_clients is {one.max_clients} for all of them together"
        hint = f"set classes.{name}.max_clients_per_identity below {one.max_clients}, or leave it out"
        report.warning((*here, "max_clients_per_identity"), text, hint)
    if one.mode == "warn":
        text = "nobody is protected from this class by its own bounds: they only tell what they would have decided"
        hint = f"set classes.{name}.mode to enforce once the warnings are those you expect"
        report.warning((*here, "mode"), text, hint)
    _report_patience(report, name, one)
    _report_holds(report, name, one.holds)


def _report_holds(report: Reporter, name: str, holds: Holds) -> None:
    """A bound behind another one that ends the same thing is never reached."""
    for key, before in (("borrowed_idle_in_transaction", "idle_in_transaction"), ("query", "transaction")):
        longer, shorter = getattr(holds, key), getattr(holds, before)
        if longer is not None and shorter is not None and longer >= shorter:
            text = f"{show_seconds(longer)} is never reached: {before} ends the client after {show_seconds(shorter)}"
            report.warning(("classes", name, "holds", key), text, f"set it below classes.{name}.holds.{before}")


def _report_patience(report: Reporter, name: str, one: PriorityClass) -> None:
    wait = one.queue.timeout
    earlier = [f"{pool} {patience}s" for pool, patience in CLIENT_PATIENCE_SECONDS.items() if wait >= patience]
    if not earlier or one.queue.max == 0:
        return
    text = (
        f"clients may wait {show_seconds(wait)}, and their own pools give up first by default: {', '.join(earlier)}; "
        "the application then reports a full pool instead of the class that is full"
    )
    shortest = min(CLIENT_PATIENCE_SECONDS.values())
    hint = f"stay below the clients' own timeout (below {shortest}s suits all of these), or raise theirs"
    report.warning(("classes", name, "queue", "timeout"), text, hint)


# Importance


def report_order(report: Reporter, part: UpstreamPart) -> None:
    first = customer_class(part)
    if first is None:
        return
    customers = part.classes[first]
    for name, one in part.classes.items():
        for key, theirs, ours in (
            ("limit", one.limit, customers.limit),
            ("reserved", one.reserved, customers.reserved),
        ):
            if one.priority > customers.priority and theirs > ours:
                text = (
                    f"{theirs}, more than the {ours} of class {first}, which is more important "
                    f"(priority {customers.priority} before {one.priority})"
                )
                report.warning(("classes", name, key), text, f"lower it, or raise classes.{first}.{key}")


def report_default_class(report: Reporter, part: UpstreamPart, total: int | None) -> None:
    name = part.default_class
    one = part.classes[name]
    if len(part.classes) == 1:
        return
    where = ("default_class",)
    everything = total if total is not None and total > 0 else sum(each.reserved for each in part.classes.values())
    if one.reserved > _LARGE_DEFAULT_SHARE * everything:
        text = f"whoever matches nothing falls into {name}, where {one.reserved} of {everything} slots are reserved"
        report.warning(
            where, text, "make it a small class of its own, so that a new fleet cannot take what others need"
        )
    customers = customer_class(part)
    first = min(each.priority for other, each in part.classes.items() if other != name)
    early = one.priority < first or (customers is not None and one.priority <= part.classes[customers].priority)
    if early or name in part.budget.headroom.for_classes:
        text = f"whoever matches nothing falls into {name}, which is served as early as customers, or has headroom"
        report.warning(where, text, "choose a class with a larger priority number and without headroom")
