"""Checks of the budget: what the server can give, what is promised, and how much of the rest each class can reach.

Owns: the rules about the total, reservations and headroom, limits and pins that the budget leaves no room for.
Does not know: what is right for one class by itself (check_classes.py), how the server was asked.
"""

from proxy.admission.classes import INTERNAL_CLASS
from proxy.service.budget import capacity, pinned_limit, usable_total
from proxy.service.config.errors import Path, key_text
from proxy.service.config.model import PriorityClass
from proxy.service.config.parts import UpstreamPart
from proxy.service.findings import Finding, Reporter, Severity
from proxy.service.server_facts import ServerFacts

_INTERNAL_RESERVED = 1
_STRANGERS_NAMED = 3


def report_budget(report: Reporter, part: UpstreamPart, facts: ServerFacts | None) -> None:
    budget = part.budget
    if budget.total == "auto" and "instances" not in budget.model_fields_set:
        text = "auto takes everything the server can give, and does so again in every further instance"
        hint = f"write {part.key('budget', 'instances')}, 1 where it is the only one"
        report.warning(("budget", "instances"), text, hint)
    if budget.keep_free == 0:
        text = "nothing is left for whoever connects past the proxy: a shell, monitoring, backups"
        report.warning(("budget", "keep_free"), text, f"set {part.key('budget', 'keep_free')} to 3 or more")
    _report_headroom(report, part)
    if facts is None:
        if budget.total == "auto":
            text = "auto is not known without the server, so sums are not checked"
            report.warning(("budget", "total"), text, "run the check where the server answers, or write a number")
        return
    _report_server(report, part, facts)


def budget_findings(part: UpstreamPart, facts: ServerFacts) -> list[Finding]:
    """What the server, as it is now, says to the budget: asked again and again while running."""
    report = Reporter(part.config, part)
    _report_server(report, part, facts)
    total = usable_total(part, facts)
    if total is not None and total > 0:
        _report_promises(report, part, total)
    return sorted(report.findings, key=lambda finding: finding.severity is not Severity.ERROR)


def report_sums(report: Reporter, part: UpstreamPart, total: int) -> None:
    spare = _report_promises(report, part, total)
    if spare < 0:
        return
    _report_listening(report, part, spare)
    for name, one in part.classes.items():
        _report_reach(report, part, total, name, one)


# The budget against the server


def _report_server(report: Reporter, part: UpstreamPart, facts: ServerFacts) -> None:
    if facts.is_behind_pooler:
        _report_pooler(report, part)
    elif part.budget.total == "auto":
        _report_auto(report, part, facts)
    else:
        _report_number(report, part, facts, part.budget.total)


def _what_the_server_gives(facts: ServerFacts) -> str:
    kept = f"{facts.max_connections} max_connections - {facts.superuser_reserved_connections} for superusers"
    if facts.reserved_connections:
        kept += f" - {facts.reserved_connections} reserved_connections"
    gives = capacity(facts)
    if facts.database_connection_limit is not None and gives == facts.database_connection_limit:
        return f"{gives}: the database's own CONNECTION LIMIT"
    return f"{gives}: {kept}"


def _who(facts: ServerFacts) -> str:
    """The most frequent of them, in words."""
    if not facts.strangers:
        return ""
    more = ", ..." if len(facts.strangers) > _STRANGERS_NAMED else ""
    return f" ({', '.join(map(str, facts.strangers[:_STRANGERS_NAMED]))}{more})"


def _strangers(part: UpstreamPart, facts: ServerFacts) -> int:
    """Connections past the proxy; unknown, so 0, where other instances are among those the server counts."""
    return facts.external_connections if part.budget.instances == 1 else 0


def _report_pooler(report: Reporter, part: UpstreamPart) -> None:
    """Its limit decides, and it queues what is above: only the person who set it up knows the number."""
    if part.budget.total == "auto":
        where, total = part.key("upstream", "url"), part.key("budget", "total")
        text = f"a pooler answers at {where}, and auto would take what the server behind it allows"
        hint = f"write the pooler's limit (PgBouncer: default_pool_size) as {total}; where it has none, a number"
        report.error(("budget", "total"), text, hint)


def _report_auto(report: Reporter, part: UpstreamPart, facts: ServerFacts) -> None:
    total, budget = usable_total(part, facts), part.budget
    assert total is not None, "auto is known where the server is"
    if total < 1:
        text = (
            f"auto leaves no slot: the server can give {_what_the_server_gives(facts)}, less keep_free "
            f"{budget.keep_free}, for {budget.instances} instances"
        )
        report.error(("budget", "total"), text, f"raise max_connections, or lower {part.key('budget', 'keep_free')}")
    elif _strangers(part, facts) > budget.keep_free:
        text = (
            f"{facts.external_connections} connections are not the proxy's{_who(facts)}, and keep_free is "
            f"{budget.keep_free}"
        )
        hint = f"raise {part.key('budget', 'keep_free')}, or lead those clients through the proxy"
        report.warning(("budget", "keep_free"), text, hint)


def _report_number(report: Reporter, part: UpstreamPart, facts: ServerFacts, total: int) -> None:
    budget, gives = part.budget, capacity(facts)
    wanted = total * budget.instances
    asked = f"{budget.instances} instances x {total} = {wanted}" if budget.instances > 1 else f"total {total}"
    fitting = f"set {part.key('budget', 'total')} to at most {max(0, gives - budget.keep_free) // budget.instances}"
    where = ("budget", "total")
    if wanted > gives:
        text = f"{asked}, but the server can give {_what_the_server_gives(facts)}"
        needed = facts.max_connections + wanted - gives
        report.error(where, text, f"{fitting}, or raise max_connections to {needed} or more")
    elif wanted > gives - budget.keep_free:
        text = f"{asked}, and keep_free is {budget.keep_free}, but the server can give {_what_the_server_gives(facts)}"
        report.warning(where, text, fitting)
    elif wanted + _strangers(part, facts) > gives:
        text = (
            f"{asked}, and {facts.external_connections} connections of others are on the server now{_who(facts)}; it "
            f"can give {_what_the_server_gives(facts)}"
        )
        report.warning(where, text, f"{fitting}, or lead those clients through the proxy")


# Sums


def _report_headroom(report: Reporter, part: UpstreamPart) -> None:
    headroom = part.budget.headroom
    if headroom.size and not headroom.for_classes:
        text = f"headroom of {headroom.size} slots that no class may use"
        hint = f"name the classes in {part.key('budget', 'headroom', 'for')}, or set size to 0"
        report.error(("budget", "headroom", "for"), text, hint)


def _report_promises(report: Reporter, part: UpstreamPart, total: int) -> int:
    """Returns what is left of the budget, less than 0 where the promises do not fit."""
    promised = {name: one.reserved for name, one in part.classes.items() if one.reserved}
    terms = [f"{name} {reserved}" for name, reserved in promised.items()]
    headroom = part.budget.headroom.size
    terms += [f"headroom {headroom}"] if headroom else []
    terms.append(f"{INTERNAL_CLASS} {_INTERNAL_RESERVED}")
    needed = sum(promised.values()) + headroom + _INTERNAL_RESERVED
    if needed > total:
        text = (
            f"reservations and headroom are {' + '.join(terms)} = {needed}, more than the {total} slots of the budget"
        )
        hint = f"lower classes.*.reserved or {part.key('budget', 'headroom', 'size')} by {needed - total}"
        report.error(("budget", "total"), text, hint)
    return total - needed


def _report_listening(report: Reporter, part: UpstreamPart, spare: int) -> None:
    """A shared LISTEN connection brings its reservation with it, and somebody gives up as much where nothing is spare.

    One is reckoned with, for nearly every application listens in one database, or as many as the file says.
    """
    wanted = part.pool.listen_connections
    reckoned = wanted if "listen_connections" in part.pool.model_fields_set else min(wanted, 1)
    if reckoned > spare:
        text = (
            f"{reckoned} shared LISTEN connection{'s' * (reckoned != 1)} may take a slot each, and {spare} of the "
            "budget are not reserved: the least important class loses as many of its reservation while clients listen"
        )
        size = part.key("budget", "headroom", "size")
        hint = f"lower classes.*.reserved or {size} by {reckoned - spare}, or pool.listen_connections"
        report.warning(("pool", "listen_connections"), text, hint)


def _reach(part: UpstreamPart, total: int, name: str, *, unbounded: bool) -> int:
    """The most slots a class can hold while all others keep what is never lent to it."""
    kept = _INTERNAL_RESERVED
    for other, one in part.classes.items():
        if other != name:
            kept += one.reserved if unbounded else one.reserved - min(one.lendable, one.reserved)
    headroom = part.budget.headroom
    return total - kept - (0 if name in headroom.for_classes else headroom.size)


def _report_reach(report: Reporter, part: UpstreamPart, total: int, name: str, one: PriorityClass) -> None:
    in_session_mode = one.pool_mode == "session"
    reach = _reach(part, total, name, unbounded=in_session_mode)
    where = ("classes", name, "limit")
    why = "reserved for others" if in_session_mode else "reserved for others and not lent"
    if reach < 1:
        text = f"no slot can ever be given to this class: what is {why} and the headroom take all {total}"
        report.error(where, text, f"reserve a slot in classes.{name}.reserved, or lower the reservations of others")
        return
    limits: dict[Path, int] = {where: one.limit} | {
        ("classes", name, "schedules", position, "limit"): schedule.limit
        for position, schedule in enumerate(one.schedules)
        if schedule.limit is not None
    }
    for place, limit in limits.items():
        if limit > reach:
            kind = "sessions" if in_session_mode else "slots"
            text = f"limit is {limit}, but at most {reach} {kind} fit: the rest of {total} is {why}, or headroom"
            report.warning(place, text, f"set {key_text(place)} to at most {reach}")
    if one.limit <= reach and not in_session_mode:
        _report_pins(report, part, total, name, one)


def _report_pins(report: Reporter, part: UpstreamPart, total: int, name: str, one: PriorityClass) -> None:
    pins, reach = pinned_limit(one), max(0, _reach(part, total, name, unbounded=True))
    if one.pinned_limit is not None and pins > reach:
        text = (
            f"pinned_limit is {pins}, but at most {reach} slots can be pinned: pins never use what others have reserved"
        )
        report.warning(("classes", name, "pinned_limit"), text, f"set classes.{name}.pinned_limit to at most {reach}")
