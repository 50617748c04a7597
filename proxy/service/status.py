"""The state of the process as one JSON document: what /status answers, the live page draws and `status` prints.

Owns: the keys of that document. They are the words of the design, the same as in metrics and logs.
Does not know: HTTP, how it is displayed.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict

from proxy import __version__
from proxy.admission.snapshot import Snapshot
from proxy.service.adaptive_state import AdaptiveState, CanaryState, worst_canary, worst_load
from proxy.service.class_status import Document, by_state, class_document
from proxy.service.findings import Finding
from proxy.service.history import History
from proxy.service.reload_report import ReloadReport
from proxy.service.server_facts import ServerFacts
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
    IdentityUse,
    OverrideNow,
    PinKey,
    ProcessView,
    RefusedIdentity,
    UnmatchedName,
    fold_names,
    fold_pins,
    readable_name,
    readable_text,
    top_identities,
)

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
            "strangers": [
                one | {"upstream": upstream.name}
                for upstream in upstreams
                for one in _strangers(view.server_facts(upstream.name))
            ],
            "overcommitted_slots": sum_or_none(one.overcommitted_slots for one in upstreams),
        },
        "identities": [_identity_use(one) for one in top_identities(view.identities())],
        "nested_acquires": [_suspect(one) for one in view.nested_acquires().suspects[:_SUSPECTS_SHOWN]],
        "budget_problems": [_problem(one) for upstream in upstreams for one in upstream.problems],
        "server_connections": _server_connections(servers_together(upstreams)),
        "listening": asdict(listening_together(upstreams)),
        "upstreams": [_upstream_document(one, view, now) for one in upstreams],
        "adaptive": _adaptive(worst_load(view.adaptive().values())),
        "lock_waits": sum_or_none(view.lock_waits().get(one.name) for one in upstreams),
        "canary": _canary(worst_canary(view.canary().values(), now), now),
        "clients": by_state(clients.items()),
        "pins": [{"clients": count} | _pin_document(key) for key, count in fold_pins(view.pins()).items()],
        "prepared_statements": asdict(view.prepared_statements()),
        "classes": [class_document(one, view, history, of_class.get(one.name, {})) for one in snapshot.classes],
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


def _refused_identity(one: RefusedIdentity) -> Document:
    return {"class": one.class_name, "identity": one.identity, "refusals": one.refusals}


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


def _by_class(clients: Mapping[ClientKey, int]) -> dict[str, dict[ClientKey, int]]:
    groups: defaultdict[str, dict[ClientKey, int]] = defaultdict(dict)
    for key, count in clients.items():
        groups[key.class_name][key] = count
    return groups


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


def _upstream_document(reading: UpstreamReading, view: ProcessView, now: float) -> Document:
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
        "adaptive": _adaptive(view.adaptive().get(reading.name)),
        "lock_waits": view.lock_waits().get(reading.name),
        "canary": _canary(view.canary().get(reading.name), now),
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
