"""The running process as metrics, HTTP and `status` see it.

Owns: reading the parts of the process into the shapes of `view`.
Does not know: how those shapes are shown.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from proxy.admission.classes import ClassState
from proxy.admission.holds import HoldBounds
from proxy.admission.snapshot import Snapshot
from proxy.service.adaptive_state import AdaptiveState, CanaryState
from proxy.service.budget import overcommitted_slots
from proxy.service.config.errors import ConfigError
from proxy.service.config.model import Config
from proxy.service.findings import BudgetCannotHold
from proxy.service.reload_report import ReloadReport
from proxy.service.server_facts import ServerFacts
from proxy.service.switchboard import OrderRefused, Switch
from proxy.service.tls import TlsFilesUnusable
from proxy.service.traffic.nested_acquire import Identity, NestedAcquires
from proxy.service.upstream_reading import ServerConnectionCounts, UpstreamReading, budgets_together, readiness
from proxy.service.view import (
    IDENTITIES_SHOWN,
    SHOWN_IDENTITIES,
    ClientKey,
    ClientState,
    IdentityUse,
    OverrideNow,
    PinKey,
    PreparedStatements,
    RefusedIdentity,
    ScheduleNow,
    Unmatched,
    UnmatchedName,
    readable_name,
)
from proxy.session import clock
from proxy.session.client import Phase
from proxy.session.measures import Measures
from proxy.session.present import who_is
from proxy.session.server_leg import ServerState

if TYPE_CHECKING:
    from proxy.service.process import Process
    from proxy.service.running_upstream import RunningUpstream
    from proxy.session.registry import Registry

_STATES: Final = {
    Phase.ENTERING: ClientState.WAITING,
    Phase.IDLE: ClientState.IDLE,
    Phase.WAITING: ClientState.WAITING,
    Phase.DIALLING: ClientState.LINKED,
    Phase.LINKED: ClientState.LINKED,
    Phase.CLEANING: ClientState.LINKED,
}


class RunningView:
    """Implements `ProcessView` over a `Process`."""

    def __init__(self, process: "Process") -> None:
        self._process = process

    def upstreams(self) -> tuple[UpstreamReading, ...]:
        return tuple(map(_reading, self._process.upstreams))

    def snapshot(self) -> Snapshot:
        now = clock.now()
        return budgets_together([upstream.controller.snapshot(now) for upstream in self._process.upstreams])

    def measures(self) -> Measures:
        return self._process.measures

    def refusals_outside_queue(self) -> Mapping[tuple[str, str], int]:
        return self._process.measures.refusals_outside_queue

    def late_answers(self) -> Mapping[str, int]:
        desk = self._process.desk
        return {"login_failure": desk.failed_logins.held, "refusal": desk.connects.late.held}

    def refused_identities(self) -> Sequence[RefusedIdentity]:
        most_often = self._process.desk.connects.refused_most_often(SHOWN_IDENTITIES)
        return [RefusedIdentity(name, _identity_text(flow), times) for (name, flow), times in most_often]

    def class_reasons(self) -> Mapping[str, str]:
        return {name: one.reason for name, one in self._process.config.classes.items() if one.reason}

    def hold_bounds(self, class_name: str) -> HoldBounds:
        return self._process.desk.behaviour(class_name).holds

    def client_counts(self) -> Mapping[ClientKey, int]:
        desk = self._process.desk
        busy = [(who_is(one), one.phase) for one in desk.clients if one.phase is not Phase.IDLE]
        at_work = Counter(who for who, _ in busy)
        counts: dict[ClientKey, int] = {}
        for who, count in desk.present.items():
            key = ClientKey(who.class_name, who.application, ClientState.IDLE)
            counts[key] = counts.get(key, 0) + count - at_work[who]
        for who, phase in busy:
            if (state := _STATES.get(phase)) is not None:
                key = ClientKey(who.class_name, who.application, state)
                counts[key] = counts.get(key, 0) + 1
        return {key: count for key, count in counts.items() if count}

    def idle_in_transaction(self) -> Mapping[ClientKey, int]:
        counts: Counter[ClientKey] = Counter()
        for client in self._process.desk.clients:
            if client.is_idle_in_transaction:
                counts[ClientKey(client.class_name, client.identity.application_name, ClientState.LINKED)] += 1
        return counts

    def pins(self) -> Mapping[PinKey, int]:
        pins: Counter[PinKey] = Counter()
        for client in self._process.desk.clients:
            for reason in client.pins:
                pins[PinKey(client.class_name, client.identity.application_name, reason.value)] += 1
        return pins

    def upstream_of_class(self, class_name: str) -> str | None:
        upstreams = self._process.upstreams
        if len(upstreams) == 1:
            return upstreams[0].name
        return next((upstream.name for upstream in upstreams if class_name in upstream.part.classes), None)

    def prepared_statements(self) -> PreparedStatements:
        registries = [upstream.registry for upstream in self._process.upstreams]
        shared = [one for registry in registries for pool in registry.pools.values() for one in pool.statements]
        on_servers = sum(len(server.statements) for registry in registries for server in registry.connections)
        return PreparedStatements(len(shared), sum(len(one.tail) for one in shared), on_servers)

    def adaptive(self) -> Mapping[str, AdaptiveState]:
        states = {one.name: one.adaptive.state() for one in self._process.upstreams}
        return {name: state for name, state in states.items() if state is not None}

    def lock_waits(self) -> Mapping[str, int]:
        waits = {one.name: one.locks.lock_waits for one in self._process.upstreams}
        return {name: count for name, count in waits.items() if count is not None}

    def canary(self) -> Mapping[str, CanaryState]:
        states = {one.name: one.canary.state() for one in self._process.upstreams}
        return {name: state for name, state in states.items() if state is not None}

    def unmatched(self) -> Unmatched:
        desk = self._process.desk
        names = (UnmatchedName(name, *counted, upstream) for (upstream, name), counted in desk.unmatched.items())
        return Unmatched(desk.unmatched_clients, tuple(names))

    def identities(self) -> Sequence[IdentityUse]:
        desk = self._process.desk
        present = desk.present
        slots = Counter(who_is(one) for one in desk.clients if one.holds_slot)
        waiting = Counter(map(who_is, desk.waiting_clients(desk.settings.classes)))
        shown = dict.fromkeys((*slots, *waiting, *present.most(IDENTITIES_SHOWN)))
        return [IdentityUse(Identity(*who), present.count(who), slots[who], waiting[who]) for who in shown]

    def nested_acquires(self) -> NestedAcquires:
        return self._process.traffic.nested

    def server_facts(self, upstream: str) -> ServerFacts | None:
        return next(one.watch.facts for one in self._process.upstreams if one.name == upstream)

    def traffic(self) -> Sequence[tuple[int, bytes]]:
        return self._process.traffic.frozen()

    @property
    def config(self) -> Config:
        return self._process.config

    @property
    def config_hash(self) -> str:
        return self._process.config_hash

    def ready(self) -> tuple[bool, str]:
        """Not ready only while nobody can log in to the server; a full class is a metric."""
        if self._process.draining:
            return False, "shutting down"
        return readiness(self.upstreams())

    def last_switch(self, class_name: str) -> Switch | None:
        return self._process.steering.board.last.get(class_name)

    def switch_in_force(self, class_name: str) -> Switch | None:
        return self._process.steering.board.in_force(class_name)

    def schedule(self, class_name: str) -> ScheduleNow | None:
        return self._process.steering.schedule(class_name)

    def order_switch(
        self, class_name: str, state: ClassState, *, by: str, reason: str, seconds: float | None, source: str
    ) -> Switch:
        return self._process.steering.switch(class_name, state, by=by, reason=reason, seconds=seconds, source=source)

    def overrides(self) -> Sequence[OverrideNow]:
        return self._process.steering.overrides()

    def order_set(
        self, settings: Mapping[str, object], *, by: str, reason: str, seconds: float | None, source: str
    ) -> tuple[Sequence[OverrideNow], Sequence[str]]:
        return self._process.steering.set(settings, by=by, reason=reason, seconds=seconds, source=source)

    def order_unset(self, keys: Sequence[str], *, by: str, reason: str, source: str) -> Sequence[OverrideNow]:
        return self._process.steering.unset(keys, by=by, reason=reason, source=source)

    def order_reload(self, *, by: str, reason: str, source: str, dry_run: bool) -> ReloadReport:
        try:
            return self._process.reload_file(by=by, reason=reason, source=source, dry_run=dry_run)
        except ConfigError as mistake:
            raise OrderRefused(f"the configuration cannot be used, and nothing has changed:\n{mistake}") from None
        except BudgetCannotHold as refusal:
            problems = "\n".join(map(str, refusal.problems))
            raise OrderRefused(f"the numbers cannot hold, and nothing has changed:\n{problems}") from None
        except TlsFilesUnusable as mistake:
            raise OrderRefused(f"{mistake}; nothing has changed") from None

    async def orders_saved(self) -> str | None:
        return await self._process.steering.saved()


def _identity_text(flow: Hashable) -> str:
    """User, address and application_name, or what `flow_key` says; None is a unix socket."""
    parts = flow if isinstance(flow, tuple) else (flow,)
    return " ".join("unix" if part is None else readable_name(str(part)) or '""' for part in parts)


def _reading(running: "RunningUpstream") -> UpstreamReading:
    facts = running.watch.facts
    return UpstreamReading(
        running.name,
        running.controller.snapshot(clock.now()),
        _server_connection_counts(running.registry),
        running.upstream.listen_hubs.counts(),
        _why_not_ready(running),
        None if facts is None else facts.external_connections,
        None if facts is None else facts.max_connections,
        None if facts is None else overcommitted_slots(running.part, facts),
        running.problems,
    )


def _server_connection_counts(registry: "Registry") -> ServerConnectionCounts:
    states = Counter(server.state for server in registry.connections)
    return ServerConnectionCounts(
        dialling=registry.dialling + states[ServerState.LOGIN],
        in_use=states[ServerState.LINKED],
        idle=states[ServerState.IDLE],
        closing=states[ServerState.CLOSING],
    )


def _why_not_ready(running: "RunningUpstream") -> str:
    if running.registry.connector.down is not None:
        return "no server login is possible"
    if not running.budget_is_known:
        return f"the server has not told its limits yet, and {running.part.key('budget', 'total')} is auto"
    return ""
