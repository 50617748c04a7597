"""From a plan and a number of slots to a `budget:` and `classes:` block to start from.

Owns: the division of the slots.
Does not know: the traffic. The block is a start that passes the check; observed numbers are better.

The first service of the plan is taken for customer traffic: it gets half of what can be reserved, and lends half of
that. The others share a quarter by size; the last quarter belongs to whoever needs it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from proxy.service.config.model import ClassName
from proxy.service.plan import PlanFile

ADMIN: Final = "admin"
OTHER: Final = "other"
_INTERNAL_RESERVED: Final = 1
_ADMIN_RESERVED: Final = 3
_OTHER_RESERVED: Final = 2


@dataclass(frozen=True, slots=True)
class SuggestedClass:
    name: ClassName
    reason: str
    priority: int
    reserved: int
    lendable: int
    limit: int
    queue_timeout: str
    queue_max: int


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A budget of `total` slots; `classes` are those of the plan, customers first; admin and other come on top."""

    total: int
    headroom: int
    admin_limit: int
    classes: tuple[SuggestedClass, ...]
    other: SuggestedClass


class TooFewSlots(ValueError):  # noqa: N818 - says what is, not what went wrong
    """The sentence says how many would do."""


def suggest(plan: PlanFile, total: int) -> Suggestion:
    """Divide `total` slots among the plan's classes. Raises TooFewSlots."""
    wanted = _wanted(plan)
    headroom = max(1, total // 20)
    free = total - headroom - _INTERNAL_RESERVED - _ADMIN_RESERVED - _OTHER_RESERVED
    if free < 2 * len(wanted) + 2:
        raise TooFewSlots(
            f"{total} slots are too few to divide among {len(wanted)} classes; {_least(len(wanted))} would do"
        )
    reserved = _reservations(wanted, free)
    first = next(iter(wanted))
    floors = {name: slots - slots // 2 if name == first else 1 for name, slots in reserved.items()}
    floors |= {"internal": _INTERNAL_RESERVED, ADMIN: _ADMIN_RESERVED, OTHER: 1}

    def reach(name: str) -> int:
        kept = sum(slots for other, slots in floors.items() if other != name)
        return total - kept - (0 if name == first else headroom)

    limits = {name: max(reserved[name], min(wanted[name], reach(name), reach(first))) for name in wanted}
    limits[first] = reach(first)
    classes = tuple(
        SuggestedClass(
            name=name,
            reason=f"{wanted[name]} connections in the plan: {_services(plan, name)}",
            priority=position,
            reserved=reserved[name],
            lendable=reserved[name] - floors[name],
            limit=limits[name],
            queue_timeout="2s" if name == first else "8s",
            queue_max=500 if name == first else 2000,
        )
        for position, name in enumerate(wanted, start=1)
    )
    kept_by_reserved = _INTERNAL_RESERVED + _OTHER_RESERVED + sum(reserved.values())
    return Suggestion(
        total=total,
        headroom=headroom,
        admin_limit=max(_ADMIN_RESERVED, min(5, total - kept_by_reserved)),
        classes=classes,
        other=_other(min(_OTHER_RESERVED, reserved[first]), priority=len(wanted) + 1),
    )


def _other(reserved: int, priority: int) -> SuggestedClass:
    return SuggestedClass(
        name=OTHER,
        reason="matches nothing above: a new fleet starts small",
        priority=priority,
        reserved=reserved,
        lendable=reserved - 1,
        limit=4,
        queue_timeout="8s",
        queue_max=500,
    )


def _least(classes: int) -> int:
    """The smallest total that can be divided."""
    fixed = _INTERNAL_RESERVED + _ADMIN_RESERVED + _OTHER_RESERVED + 2 * classes + 2
    total = fixed + 1
    while total - max(1, total // 20) < fixed:
        total += 1
    return total


def _wanted(plan: PlanFile) -> dict[str, int]:
    """Connections by class, in the order of the plan."""
    wanted: dict[str, int] = {}
    for name, service in plan.services.items():
        where = service.class_name or name
        wanted[where] = wanted.get(where, 0) + service.connections()
    return wanted


def _services(plan: PlanFile, class_name: str) -> str:
    return ", ".join(
        f"{name} {service.formula()}"
        for name, service in plan.services.items()
        if (service.class_name or name) == class_name
    )


def _reservations(wanted: Mapping[str, int], free: int) -> dict[str, int]:
    first, *others = wanted
    reserved = {first: max(1, min(wanted[first], free // 2))}
    together = sum(wanted[name] for name in others) or 1
    for name in others:
        share = free // 4 * wanted[name] // together
        reserved[name] = max(1, min(share, wanted[name], reserved[first]))
    return reserved


def as_yaml(suggestion: Suggestion, keep_free: int) -> str:
    """The block as it would stand in a configuration file."""
    first = suggestion.classes[0].name
    lines = [
        "budget:",
        f"  total: {suggestion.total}",
        f"  keep_free: {keep_free}",
        "  instances: 1",
        f"  headroom: {{size: {suggestion.headroom}, for: [{first}, {ADMIN}]}}",
        f"default_class: {OTHER}",
        "classes:",
        f"  {ADMIN}:",
        '    reason: "a shell in an incident"',
        '    match: [{application_name: psql, user: "dba_*"}] # your own administrators',
        "    priority: 0",
        f"    reserved: {_ADMIN_RESERVED}",
        f"    limit: {suggestion.admin_limit}",
        "    pool_mode: session",
    ]
    names = [one.name for one in suggestion.classes]
    # The first match wins, and "web*" would also take the clients of a class web-jobs.
    by_match = sorted(suggestion.classes, key=lambda one: -sum(one.name.startswith(name) for name in names))
    for one in (*by_match, suggestion.other):
        lines += _class_lines(one)
    return "\n".join(lines) + "\n"


def _class_lines(one: SuggestedClass) -> list[str]:
    match = [] if one.name == OTHER else [f'    match: [{{application_name: "{one.name}*"}}]']
    return [
        f"  {one.name}:",
        f'    reason: "{one.reason}"',
        *match,
        f"    priority: {one.priority}",
        f"    reserved: {one.reserved}",
        f"    lendable: {one.lendable}",
        f"    limit: {one.limit}",
        f"    queue: {{timeout: {one.queue_timeout}, max: {one.queue_max}}}",
    ]
