"""One class as it stands in the status document: its slots, who waits, what it has decided, who says so.

Owns: the keys of that part of the document.
Does not know: what the rest of the document says (status.py), how it is displayed.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any, Final

from proxy.admission.holds import Bound
from proxy.admission.snapshot import ClassSnapshot
from proxy.service.history import History
from proxy.service.schedule import Effect
from proxy.service.switchboard import Switch
from proxy.service.view import (
    ClientKey,
    ClientState,
    ProcessView,
    ScheduleNow,
    configured_limit_of,
    pinned_limit_of,
    readable_name,
)

# JSON has no better type; the keys are listed in the functions below.
Document = dict[str, Any]

_HOLDS_ENDED_SHOWN: Final = 10


def switch_document(switch: Switch) -> Document:
    return {
        "class": switch.class_name,
        "state": switch.state.value,
        "by": switch.by,
        "reason": switch.reason,
        "at": switch.at,
        "until": switch.until,
        "source": switch.source,
    }


def class_document(
    reading: ClassSnapshot, view: ProcessView, history: History, clients: Mapping[ClientKey, int]
) -> Document:
    schedule, adaptive = view.schedule(reading.name), view.adaptive().get(view.upstream_of_class(reading.name) or "")
    refused = {reason.value: count for reason, count in reading.refusals.items()}
    bounds, tagged = view.hold_bounds(reading.name), view.measures().tagged_units
    last, in_force = view.last_switch(reading.name), view.switch_in_force(reading.name)
    return {
        "name": reading.name,
        "upstream": view.upstream_of_class(reading.name),
        "priority": reading.settings.priority,
        "state": reading.state.value,
        "used": reading.used,
        "held": reading.held,
        "floor": reading.floor,
        "reserved": reading.reserved,
        "lendable": reading.settings.lendable,
        "limit": configured_limit_of(reading),
        "adaptive_limit": reading.limit,
        "adaptive_target": None if adaptive is None else adaptive.limits.get(reading.name, reading.settings.limit),
        "slow_start_limit": reading.slow_start_limit,
        "borrowed": reading.borrowed,
        "lent": reading.lent,
        "pinned": reading.pinned,
        "pinned_limit": pinned_limit_of(reading),
        **_bounds(reading),
        "waiting": reading.waiting,
        "oldest_wait_seconds": reading.oldest_wait_seconds,
        "expected_wait_seconds": reading.expected_wait_seconds,
        "admissions_total": sum(reading.admissions.values()),
        "refusals_total": _with_those_outside(refused, view.refusals_outside_queue(), reading.name),
        "mode": "enforce" if reading.trial_limit is None else "warn",
        "warns": _warns(reading, view),
        "hold_bounds": {one.value: getattr(bounds, one) for one in Bound if isfinite(getattr(bounds, one))},
        "holds_ended": _holds_ended(view, reading.name),
        "tagged_units_total": {how: count for (owner, how), count in tagged.items() if owner == reading.name},
        "retry_amplification": history.retry_amplification(reading.name),
        "clients": by_state(clients.items()),
        "applications": _applications(clients),
        "reason": view.class_reasons().get(reading.name, ""),
        "decided_by": _decided_by(in_force, schedule),
        "schedule": None if schedule is None else _schedule_document(schedule),
        "switch": None if in_force is None else switch_document(in_force),
        "last_switch": None if last is None else switch_document(last),
    }


def _bounds(reading: ClassSnapshot) -> Document:
    """What a client of the class meets besides the limit of slots; None where nothing bounds it, as in mode warn."""
    settings, decides = reading.settings, reading.trial_limit is None
    return {
        "max_clients": settings.max_clients if decides else None,
        "max_clients_per_identity": settings.max_clients_per_identity if decides else None,
        "queue_max": settings.queue_max if decides else None,
        "queue_timeout_seconds": settings.queue_timeout_seconds if decides else None,
    }


def _warns(reading: ClassSnapshot, view: ProcessView) -> Document | None:
    """What a class that only warns would have done so far; None where it decides."""
    if reading.trial_limit is None:
        return None
    refused = {reason.value: count for reason, count in reading.would_refuse.items()}
    outside = view.measures().would_refuse_outside_queue
    return {
        "limit": reading.trial_limit,
        "would_queue_total": reading.would_queue,
        "would_refuse_total": _with_those_outside(refused, outside, reading.name),
    }


def _holds_ended(view: ProcessView, class_name: str) -> list[Document]:
    """Who reached which bound, the most frequent first."""
    ended = [
        (count, bound, readable_name(application))
        for (owner, application, bound), count in view.measures().holds_ended.items()
        if owner == class_name
    ]
    ended.sort(key=lambda one: (-one[0], *one[1:]))
    return [
        {"application_name": name, "bound": bound, "count": count} for count, bound, name in ended[:_HOLDS_ENDED_SHOWN]
    ]


def _decided_by(order: Switch | None, schedule: ScheduleNow | None) -> str:
    """Who says what state the class is in."""
    if order is not None:
        return "switch"
    return "configuration" if schedule is None or schedule.now.state is None else "schedule"


def _schedule_document(schedule: ScheduleNow) -> Document:
    return {
        "now": _effect_document(schedule.now),
        "next_change_at": schedule.next_change_at,
        "then": _effect_document(schedule.then),
    }


def _effect_document(effect: Effect) -> Document:
    return {
        "limit": effect.limit,
        "state": None if effect.state is None else effect.state.value,
        "reason": effect.reason,
        "windows": [window.text for window in effect.windows],
    }


def _with_those_outside(
    inside: Mapping[str, int], outside: Mapping[tuple[str, str], int], class_name: str
) -> dict[str, int]:
    """Counts of one class by reason; a reason that never happened is absent."""
    counts = {reason: count for reason, count in inside.items() if count}
    for (owner, reason), count in outside.items():
        if owner == class_name and count:
            counts[reason] = counts.get(reason, 0) + count
    return counts


def by_state(clients: Iterable[tuple[ClientKey, int]]) -> dict[str, int]:
    counts = dict.fromkeys((state.value for state in ClientState), 0)
    for key, count in clients:
        counts[key.state.value] += count
    return counts | {"total": sum(counts.values())}


def _applications(clients: Mapping[ClientKey, int]) -> list[Document]:
    """The application names of one class, the one with most connections first."""
    by_name: defaultdict[str, list[tuple[ClientKey, int]]] = defaultdict(list)
    for key, count in clients.items():
        by_name[key.application_name].append((key, count))
    rows = [{"application_name": name} | by_state(counts) for name, counts in by_name.items()]
    return sorted(rows, key=lambda row: (-row["total"], row["application_name"]))
