"""The running process as metrics, HTTP and `status` see it.

Owns: reading the parts of the process into the shapes of `view`.
Does not know: how those shapes are shown.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from proxy.admission.classes import ClassState
from proxy.admission.snapshot import Snapshot
from proxy.service.adaptive_state import AdaptiveState, CanaryState
from proxy.service.budget import overcommitted_slots
from proxy.service.config.errors import ConfigError
from proxy.service.config.model import Config
from proxy.service.findings import BudgetCannotHold, Finding
from proxy.service.reload_report import ReloadReport
from proxy.service.server_facts import ServerFacts
from proxy.service.switchboard import OrderRefused, Switch
from proxy.service.tls import TlsFilesUnusable
from proxy.service.traffic.nested_acquire import Identity, NestedAcquires
from proxy.service.view import (
    SHOWN_IDENTITIES,
    ClientKey,
    ClientState,
    IdentityUse,
    OverrideNow,
    PinKey,
    PreparedStatements,
    RefusedIdentity,
    ScheduleNow,
    ServerConnectionCounts,
    Unmatched,
    UnmatchedName,
    readable_name,
)
from proxy.session import clock
from proxy.session.client import Phase
from proxy.session.listen_hubs import ListenCounts
from proxy.session.measures import Measures
from proxy.session.server_leg import ServerState

if TYPE_CHECKING:
    from proxy.service.process import Process

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

    def snapshot(self) -> Snapshot:
        process = self._process
        return process.upstreams[0].controller.snapshot(clock.now())

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

    def client_counts(self) -> Mapping[ClientKey, int]:
        counts: Counter[ClientKey] = Counter()
        for client in self._process.desk.clients:
            state = _STATES.get(client.phase)
            if state is not None:
                counts[ClientKey(client.class_name, client.identity.application_name, state)] += 1
        return counts

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

    def prepared_statements(self) -> PreparedStatements:
        registry = self._process.upstreams[0].registry
        shared = [one for pool in registry.pools.values() for one in pool.statements]
        on_servers = sum(len(server.statements) for server in registry.connections)
        return PreparedStatements(len(shared), sum(len(one.tail) for one in shared), on_servers)

    def server_connection_counts(self) -> ServerConnectionCounts:
        registry = self._process.upstreams[0].registry
        states = Counter(server.state for server in registry.connections)
        return ServerConnectionCounts(
            dialling=registry.dialling + states[ServerState.LOGIN],
            in_use=states[ServerState.LINKED],
            idle=states[ServerState.IDLE],
            closing=states[ServerState.CLOSING],
        )

    def listen_counts(self) -> ListenCounts:
        return self._process.upstreams[0].upstream.listen_hubs.counts()

    def external_connections(self) -> int | None:
        facts = self._process.upstreams[0].watch.facts
        return None if facts is None else facts.external_connections

    def server_max_connections(self) -> int | None:
        facts = self._process.upstreams[0].watch.facts
        return None if facts is None else facts.max_connections

    def adaptive(self) -> AdaptiveState | None:
        return self._process.upstreams[0].adaptive.state()

    def lock_waits(self) -> int | None:
        return self._process.upstreams[0].locks.lock_waits

    def canary(self) -> CanaryState | None:
        return self._process.upstreams[0].canary.state()

    def unmatched(self) -> Unmatched:
        desk = self._process.desk
        names = (UnmatchedName(name, times, seen) for name, (times, seen) in desk.unmatched.items())
        return Unmatched(desk.unmatched_clients, tuple(names))

    def identities(self) -> Sequence[IdentityUse]:
        desk = self._process.desk
        waits = {one.id for one in desk.waiting_clients(desk.settings.classes)}
        counts: dict[tuple[str, str, str | None, str], list[int]] = {}
        for client in desk.clients:
            who = client.identity
            key = (client.class_name, who.user, who.address, client.application)
            use = counts.get(key)
            if use is None:
                use = counts[key] = [0, 0, 0]
            use[0] += 1
            use[1] += client.holds_slot
            use[2] += client.id in waits
        return [IdentityUse(Identity(*key), *use) for key, use in counts.items()]

    def nested_acquires(self) -> NestedAcquires:
        return self._process.traffic.nested

    def budget_problems(self) -> Sequence[Finding]:
        return self._process.upstreams[0].problems

    def overcommitted_slots(self) -> int | None:
        facts = self._process.upstreams[0].watch.facts
        return None if facts is None else overcommitted_slots(self._process.config, facts)

    def server_facts(self) -> ServerFacts | None:
        return self._process.upstreams[0].watch.facts

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
        process = self._process
        if process.draining:
            return False, "shutting down"
        if process.upstreams[0].registry.connector.down is not None:
            return False, "no server login is possible"
        if not process.upstreams[0].budget_is_known:
            return False, "the server has not told its limits yet, and budget.total is auto"
        return True, "ready"

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

    def order_reload(self, *, by: str, source: str, dry_run: bool) -> ReloadReport:
        try:
            return self._process.reload_file(by=by, source=source, dry_run=dry_run)
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
