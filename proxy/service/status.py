"""The state of the process as one JSON document: what /status answers, the live page draws and `status` prints.

Owns: the keys of that document. They are the words of the design, the same as in metrics and logs.
Does not know: HTTP, how it is displayed.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from proxy import __version__
from proxy.admission.snapshot import ClassSnapshot, Snapshot
from proxy.service.adaptive_state import AdaptiveState, CanaryState, worst_canary, worst_load
from proxy.service.findings import Finding
from proxy.service.history import History
from proxy.service.reload_report import ReloadReport
from proxy.service.schedule import Effect
from proxy.service.server_facts import ServerFacts
from proxy.service.switchboard import Switch
from proxy.service.traffic.nested_acquire import Identity, Suspect
from proxy.service.upstream_reading import (
    ServerConnectionCounts,
    UpstreamReading,
    listening_together,
    servers_together,
    sum_or_none,
)
from proxy.service.view import (
    ClientKey,
    ClientState,
    IdentityUse,
    OverrideNow,
    PinKey,
    ProcessView,
    RefusedIdentity,
    ScheduleNow,
    UnmatchedName,
    configured_limit_of,
    fold_names,
    fold_pins,
    pinned_limit_of,
    readable_name,
    readable_text,
    top_identities,
)

# JSON has no better type; the keys are listed in the functions below.
Document = dict[str, Any]

_SUSPECTS_SHOWN = 10


def status_document(view: ProcessView, history: History, *, now: float) -> Document:
    """Everything at one moment; `now` in Unix seconds."""
    snapshot = view.snapshot()
    clients = fold_names(view.client_counts())
    of_class = _by_class(clients)
    ready, readiness = view.ready()
    upstreams = view.upstreams()
    return {
        "version": __version__,
        "config_hash": view.config_hash,
        "at": now,
        "ready": ready,
        "readiness": readiness,
        "budget": _budget(snapshot),
        "server": {
            "max_connections": sum_or_none(one.max_connections for one in upstreams),
            "external_connections": sum_or_none(one.external_connections for one in upstreams),
            "strangers": [one for upstream in upstreams for one in _strangers(view.server_facts(upstream.name))],
            "overcommitted_slots": sum_or_none(one.overcommitted_slots for one in upstreams),
        },
        "identities": [_identity_use(one) for one in top_identities(view.identities())],
        "nested_acquires": [_suspect(one) for one in view.nested_acquires().suspects[:_SUSPECTS_SHOWN]],
        "budget_problems": [_problem(one) for upstream in upstreams for one in upstream.problems],
        "server_connections": _server_connections(servers_together(upstreams)),
        "listening": asdict(listening_together(upstreams)),
        "upstreams": [_upstream_document(one) for one in upstreams],
        "adaptive": _adaptive(worst_load(view.adaptive().values())),
        "lock_waits": sum_or_none(view.lock_waits().get(one.name) for one in upstreams),
        "canary": _canary(worst_canary(view.canary().values(), now), now),
        "clients": _by_state(clients.items()),
        "pins": [{"clients": count} | _pin_document(key) for key, count in fold_pins(view.pins()).items()],
        "prepared_statements": asdict(view.prepared_statements()),
        "classes": [_class_document(one, view, history, of_class.get(one.name, {})) for one in snapshot.classes],
        "overrides": [override_document(one) for one in view.overrides()],
        "unmatched": _unmatched(view),
        "late_answers": dict(view.late_answers()),
        "refused_identities": [_refused_identity(one) for one in view.refused_identities()],
    }


def history_document(history: History) -> Document:
    """The samples in columns, so that ten minutes of many classes stay small."""
    samples = history.samples()
    return {
        "at": [s.at for s in samples],
        "server_total": [s.server_total for s in samples],
        "server_active": [s.server_active for s in samples],
        "server_idle": [s.server_idle for s in samples],
        "waiting": [s.waiting for s in samples],
    }


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


def report_document(report: ReloadReport) -> Document:
    return {
        "changes": [asdict(one) for one in report.changes],
        "notes": list(report.notes),
        "config_hash": report.config_hash,
    }


def override_document(one: OverrideNow) -> Document:
    order = one.order
    return {
        "key": order.key,
        "value": one.value,
        "configured": one.configured,
        "by": order.by,
        "reason": order.reason,
        "at": order.at,
        "until": order.until,
        "source": order.source,
    }


def _class_document(
    reading: ClassSnapshot, view: ProcessView, history: History, clients: Mapping[ClientKey, int]
) -> Document:
    schedule, adaptive = view.schedule(reading.name), view.adaptive().get(view.upstream_of_class(reading.name) or "")
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
        "waiting": reading.waiting,
        "oldest_wait_seconds": reading.oldest_wait_seconds,
        "expected_wait_seconds": reading.expected_wait_seconds,
        "admissions_total": sum(reading.admissions.values()),
        "refusals_total": _refusals(reading, view.refusals_outside_queue()),
        "retry_amplification": history.retry_amplification(reading.name),
        "clients": _by_state(clients.items()),
        "applications": _applications(clients),
        "reason": view.class_reasons().get(reading.name, ""),
        "decided_by": _decided_by(in_force, schedule),
        "schedule": None if schedule is None else _schedule_document(schedule),
        "switch": None if in_force is None else switch_document(in_force),
        "last_switch": None if last is None else switch_document(last),
    }


def _refused_identity(one: RefusedIdentity) -> Document:
    return {"class": one.class_name, "identity": one.identity, "refusals": one.refusals}


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


def _adaptive(state: AdaptiveState | None) -> Document | None:
    if state is None:
        return None
    return {
        "mode": state.mode,
        "reference_class": state.reference_class,
        "load": state.verdict.load.value,
        "cause": state.verdict.cause,
        "why": state.verdict.why,
        "slowdown": state.verdict.slowdown,
        "usual_hold_seconds": state.usual_hold_seconds,
        "limits": dict(state.limits),
        "last_steps": [{"at": timed.at} | asdict(timed.step) for timed in state.last_steps],
    }


def _canary(state: CanaryState | None, now: float) -> Document | None:
    if state is None:
        return None
    up, sentence = state.told(now)
    last = None if state.last is None else asdict(state.last)
    return {"class": state.class_name, "up": up, "sentence": sentence, "last": last}


def _pin_document(key: PinKey) -> Document:
    return {"class": key.class_name, "application_name": key.application_name, "reason": key.reason}


def _refusals(reading: ClassSnapshot, outside_queue: Mapping[tuple[str, str], int]) -> dict[str, int]:
    """Refusals of one class by reason; a reason that never happened is absent."""
    counts = {reason.value: count for reason, count in reading.refusals.items() if count}
    for (class_name, reason_name), count in outside_queue.items():
        if class_name == reading.name and count:
            counts[reason_name] = counts.get(reason_name, 0) + count
    return counts


def _by_class(clients: Mapping[ClientKey, int]) -> dict[str, dict[ClientKey, int]]:
    groups: defaultdict[str, dict[ClientKey, int]] = defaultdict(dict)
    for key, count in clients.items():
        groups[key.class_name][key] = count
    return groups


def _by_state(clients: Iterable[tuple[ClientKey, int]]) -> dict[str, int]:
    counts = dict.fromkeys((state.value for state in ClientState), 0)
    for key, count in clients:
        counts[key.state.value] += count
    return counts | {"total": sum(counts.values())}


def _applications(clients: Mapping[ClientKey, int]) -> list[Document]:
    """The application names of one class, the one with most connections first."""
    by_name: defaultdict[str, list[tuple[ClientKey, int]]] = defaultdict(list)
    for key, count in clients.items():
        by_name[key.application_name].append((key, count))
    rows = [{"application_name": name} | _by_state(counts) for name, counts in by_name.items()]
    return sorted(rows, key=lambda row: (-row["total"], row["application_name"]))


def _identity(identity: Identity) -> Document:
    return {
        "class": identity.class_name,
        "application_name": readable_name(identity.application_name),
        "user": readable_name(identity.user),
        "address": identity.address or "unix",
    }


def _identity_use(one: IdentityUse) -> Document:
    return _identity(one.identity) | {"connections": one.connections, "slots": one.slots, "waiting": one.waiting}


def _suspect(one: Suspect) -> Document:
    counts = {"holding": one.holding, "waiting": one.waiting, "waited_seconds": round(one.waited_seconds, 1)}
    return _identity(one.identity) | counts


def _strangers(facts: ServerFacts | None) -> list[Document]:
    """Who connects past the proxy, the most frequent first. What they call themselves is theirs to choose."""
    return [
        asdict(one) | {"application_name": readable_name(one.application_name), "user": readable_name(one.user)}
        for one in (facts.strangers if facts is not None else ())
    ]


def _problem(one: Finding) -> Document:
    return {"severity": one.severity.value, "key": one.key, "text": readable_text(one.text), "hint": one.hint}


def _upstream_document(reading: UpstreamReading) -> Document:
    """One upstream by itself; what stands above it in the document is that of all of them together."""
    return {
        "name": reading.name,
        "ready": not reading.not_ready,
        "readiness": reading.not_ready or "ready",
        "budget": _budget(reading.budget),
        "server": {
            "max_connections": reading.max_connections,
            "external_connections": reading.external_connections,
            "overcommitted_slots": reading.overcommitted_slots,
        },
        "budget_problems": [_problem(one) for one in reading.problems],
        "server_connections": _server_connections(reading.servers),
        "listening": asdict(reading.listening),
    }


def _budget(snapshot: Snapshot) -> Document:
    return {
        "total": snapshot.total,
        "in_use": snapshot.in_use,
        "waiting": snapshot.waiting,
        "headroom": snapshot.headroom,
        "headroom_left": snapshot.headroom_left,
    }


def _server_connections(counts: ServerConnectionCounts) -> dict[str, int]:
    return asdict(counts) | {"total": counts.total}


def _unmatched(view: ProcessView) -> Document:
    unmatched = view.unmatched()
    return {"clients_total": unmatched.clients_total, "names": [_unmatched_name(one) for one in unmatched.names]}


def _unmatched_name(one: UnmatchedName) -> Document:
    return asdict(one) | {"application_name": readable_name(one.application_name)}
