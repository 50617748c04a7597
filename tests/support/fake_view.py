"""A process that exists only as numbers: what metrics, HTTP, the page and `status` are tested against.

The snapshots come from the real admission core, driven into the state of a bad day, so that their shape cannot drift.
"""

from collections.abc import Mapping, Sequence

from proxy.admission.classes import BudgetSettings, ClassSettings, ClassState, ClientId, with_internal_class
from proxy.admission.controller import Controller
from proxy.admission.holds import NO_BOUNDS, HoldBounds
from proxy.admission.snapshot import Snapshot
from proxy.service.adaptive_state import AdaptiveState, CanaryState
from proxy.service.config.loading import load_config_text
from proxy.service.config.model import Config
from proxy.service.findings import Finding, Severity
from proxy.service.reload_report import ReloadReport
from proxy.service.server_facts import ServerFacts, Strangers
from proxy.service.switchboard import OrderRefused, Override, Switch
from proxy.service.traffic.nested_acquire import Holder, Identity, NestedAcquires, Waiting
from proxy.service.traffic.record import TrafficRecord
from proxy.service.upstream_reading import ServerConnectionCounts, UpstreamReading, budgets_together
from proxy.service.view import (
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
)
from proxy.session.listen_hubs import ListenCounts
from proxy.session.measures import Measures

STARTED = 1_700_000_000.0

SETTINGS = with_internal_class(
    BudgetSettings(
        total=50,
        headroom=4,
        headroom_for=frozenset({"web", "admin"}),
        classes=(
            ClassSettings("admin", priority=0, reserved=3, limit=5),
            ClassSettings("web", priority=1, reserved=30, lendable=20, limit=45),
            ClassSettings(
                "bulk",
                priority=9,
                reserved=2,
                lendable=1,
                limit=30,
                queue_max=40,
                queue_timeout_seconds=20,
                max_clients=5000,
            ),
        ),
    )
)

# The same as it would stand in a file.
CONFIG = """\
upstream: {url: "postgresql://proxy@127.0.0.1/app"}
auth: {method: trust}
budget: {total: 50, keep_free: 5, instances: 1, headroom: {size: 4, for: [web, admin]}}
default_class: bulk
classes:
  admin: {match: [{application_name: psql, user: dba}], priority: 0, reserved: 3, limit: 5,
          pool_mode: session}
  web: {reason: "p95 of a normal hour is 26", match: [{application_name: "web*"}], priority: 1, reserved: 30,
        lendable: 20, limit: 45}
  bulk: {match: [{application_name: "bulk*"}], priority: 9, reserved: 2, lendable: 1, limit: 30,
         queue: {max: 40, timeout: 8s}}
"""


class FakeView:
    """A ProcessView over a real Controller and a clock that stands where it is put."""

    def __init__(self, settings: BudgetSettings = SETTINGS) -> None:
        self.now = 100.0
        self.controller = Controller(settings, now=0.0)
        self.counts: dict[ClientKey, int] = {}
        self.pinned: dict[PinKey, int] = {}
        self.statements = PreparedStatements()
        self.servers = ServerConnectionCounts()
        self.others: tuple[UpstreamReading, ...] = ()
        self.listening = ListenCounts()
        self.external: int | None = None
        self.max_connections: int | None = None
        self.adapting: AdaptiveState | None = None
        self.locks: int | None = None
        self.canary_state: CanaryState | None = None
        self.seen_measures = Measures()
        self.outside: dict[tuple[str, str], int] = {}
        self.late = {"login_failure": 0, "refusal": 0}
        self.refused: list[RefusedIdentity] = []
        self.readiness = (True, "new clients are served")
        self.seen_unmatched = Unmatched()
        self.config_text = CONFIG
        self.reasons: dict[str, str] = {}
        self.bounds: dict[str, HoldBounds] = {}
        self.switches: dict[str, Switch] = {}
        self.schedules: dict[str, ScheduleNow] = {}
        self.set: dict[str, OverrideNow] = {}
        self.warnings: list[str] = []
        self.reloads: list[tuple[str, bool]] = []
        self.report: ReloadReport | OrderRefused = ReloadReport((), (), "3f9c2a71d04e")
        self.not_saved: str | None = None
        self.problems: list[Finding] = []
        self.uses: list[IdentityUse] = []
        self.nested = NestedAcquires()
        self.overcommitted: int | None = None
        self.strangers: tuple[Strangers, ...] = ()
        self.record = TrafficRecord(keep_hours=168)
        self._next_client = 1

    def ask(self, class_name: str, clients: int, *, waited: float = 0.0) -> list[ClientId]:
        """As many clients ask for a slot, `waited` seconds before now; returns them, granted or not."""
        asked = []
        for _ in range(clients):
            client = ClientId(self._next_client)
            self._next_client += 1
            self.controller.request(client, class_name, flow=client, now=self.now - waited)
            asked.append(client)
        return asked

    # What ProcessView asks for.

    def upstreams(self) -> tuple[UpstreamReading, ...]:
        is_ready, why = self.readiness
        first = UpstreamReading(
            "main",
            self.controller.snapshot(self.now),
            self.servers,
            self.listening,
            "" if is_ready else why,
            self.external,
            self.max_connections,
            self.overcommitted,
            tuple(self.problems),
        )
        return (first, *self.others)

    def snapshot(self) -> Snapshot:
        return budgets_together([one.budget for one in self.upstreams()])

    def upstream_of_class(self, class_name: str) -> str | None:
        holders = [one.name for one in self.upstreams() if any(each.name == class_name for each in one.budget.classes)]
        return holders[0] if len(holders) == 1 else None

    def measures(self) -> Measures:
        return self.seen_measures

    def class_reasons(self) -> Mapping[str, str]:
        return self.reasons

    def hold_bounds(self, class_name: str) -> HoldBounds:
        return self.bounds.get(class_name, NO_BOUNDS)

    def refusals_outside_queue(self) -> Mapping[tuple[str, str], int]:
        return self.outside

    def late_answers(self) -> Mapping[str, int]:
        return self.late

    def refused_identities(self) -> Sequence[RefusedIdentity]:
        return self.refused

    def client_counts(self) -> Mapping[ClientKey, int]:
        return self.counts

    def idle_in_transaction(self) -> Mapping[ClientKey, int]:
        return {key: 1 for key in self.counts if key.state is ClientState.LINKED}

    def pins(self) -> Mapping[PinKey, int]:
        return self.pinned

    def prepared_statements(self) -> PreparedStatements:
        return self.statements

    def adaptive(self) -> Mapping[str, AdaptiveState]:
        return {} if self.adapting is None else {"main": self.adapting}

    def lock_waits(self) -> Mapping[str, int]:
        return {} if self.locks is None else {"main": self.locks}

    def canary(self) -> Mapping[str, CanaryState]:
        return {} if self.canary_state is None else {"main": self.canary_state}

    def unmatched(self) -> Unmatched:
        return self.seen_unmatched

    def identities(self) -> Sequence[IdentityUse]:
        return self.uses

    def nested_acquires(self) -> NestedAcquires:
        return self.nested

    def server_facts(self, upstream: str) -> ServerFacts | None:
        """Strangers are on the first server."""
        if self.max_connections is None:
            return None
        return ServerFacts(self.max_connections, strangers=self.strangers if upstream == "main" else ())

    def traffic(self) -> Sequence[tuple[int, bytes]]:
        return self.record.frozen()

    @property
    def config(self) -> Config:
        return load_config_text(self.config_text, {})

    @property
    def config_hash(self) -> str:
        return "3f9c2a71d04e"

    def ready(self) -> tuple[bool, str]:
        return self.readiness

    def last_switch(self, class_name: str) -> Switch | None:
        return self.switches.get(class_name)

    def switch_in_force(self, class_name: str) -> Switch | None:
        switch = self.switches.get(class_name)
        return None if switch is None or switch.state is ClassState.RUNNING else switch

    def schedule(self, class_name: str) -> ScheduleNow | None:
        return self.schedules.get(class_name)

    def order_switch(
        self,
        class_name: str,
        state: ClassState,
        *,
        by: str,
        reason: str = "",
        seconds: float | None = None,
        source: str = "",
    ) -> Switch:
        names = [one.name for one in self.snapshot().classes]
        if class_name not in names:
            raise OrderRefused(f'there is no class "{class_name}"; the classes are {", ".join(names)}', is_unknown=True)
        self.controller.set_state(class_name, state, self.now)
        at = STARTED + self.now
        switch = Switch(class_name, state, by, reason, at, None if seconds is None else at + seconds, source)
        self.switches[class_name] = switch
        return switch

    def overrides(self) -> Sequence[OverrideNow]:
        return list(self.set.values())

    def order_set(
        self,
        settings: Mapping[str, object],
        *,
        by: str,
        reason: str = "",
        seconds: float | None = None,
        source: str = "",
    ) -> tuple[Sequence[OverrideNow], Sequence[str]]:
        if any("limti" in key for key in settings):
            raise OrderRefused('there is no setting "limti"', is_unknown=True)
        until = None if seconds is None else STARTED + seconds
        new = {
            key: OverrideNow(Override(key, str(value), by, reason, STARTED, until, source), str(value), "30")
            for key, value in settings.items()
        }
        self.set |= new
        return list(new.values()), self.warnings

    def order_unset(self, keys: Sequence[str], *, by: str, reason: str = "", source: str = "") -> Sequence[OverrideNow]:
        return [self.set.pop(key) for key in keys]

    def order_reload(self, *, by: str, reason: str, source: str, dry_run: bool) -> ReloadReport:
        self.reloads.append((by, dry_run))
        if isinstance(self.report, OrderRefused):
            raise self.report
        return self.report

    async def orders_saved(self) -> str | None:
        return self.not_saved


def bad_day(settings: BudgetSettings = SETTINGS) -> FakeView:
    """Bulk has flooded: its slots are full, clients queue and some were refused; web goes on undisturbed."""
    view = FakeView(settings)
    view.ask("web", 12)
    view.ask("admin", 1)
    view.ask("bulk", 80, waited=3.2)
    _connect_clients(view)
    _observe(view)
    view.servers = ServerConnectionCounts(dialling=1, in_use=view.snapshot().in_use, idle=3, closing=1)
    view.pinned = {PinKey("bulk", "import", "temporary_table"): 2}
    view.statements = PreparedStatements(12, 3400, 40)
    view.external, view.max_connections = 7, 100
    view.strangers = (Strangers("pgadmin 4", "postgres", "10.0.0.9", 5), Strangers("", "backup", "", 2))
    text = "7 connections are not the proxy's (pgadmin 4 of postgres from 10.0.0.9: 5), and keep_free is 5"
    view.problems = [Finding(Severity.WARNING, "budget.keep_free", text, "raise budget.keep_free")]
    view.overcommitted = 2
    job = Identity("bulk", "app", "10.0.0.7", "import")
    view.uses = [
        IdentityUse(Identity("web", "web", "10.0.0.3", "web-1"), 120, 7, 0),
        IdentityUse(Identity("web", "web", "10.0.0.4", "web-2"), 100, 5, 0),
        IdentityUse(job, 61, 25, 36),
        IdentityUse(Identity("bulk", "app", None, "reports-v2"), 5, 1, 4),
        IdentityUse(Identity("admin", "dba", None, "psql"), 1, 1, 0),
    ]
    for now in (90.0, 100.0):
        view.nested.look([Holder(ClientId(1), job, 80.0)], [Waiting(ClientId(2), job, 85.0)], now)
    view.outside = {("bulk", "max_clients"): 2}
    view.reasons = {"web": "p95 of a normal hour is 26", "bulk": "may always wait", "admin": "a shell in an incident"}
    view.seen_unmatched = Unmatched(5, (UnmatchedName("reports-v2", 5, STARTED + 60),))
    return view


def _connect_clients(view: FakeView) -> None:
    view.counts = {
        ClientKey("web", "web-1", ClientState.LINKED): 7,
        ClientKey("web", "web-1", ClientState.IDLE): 113,
        ClientKey("web", "web-2", ClientState.LINKED): 5,
        ClientKey("web", "web-2", ClientState.IDLE): 95,
        ClientKey("admin", "psql", ClientState.LINKED): 1,
        ClientKey("bulk", "import", ClientState.LINKED): 25,
        ClientKey("bulk", "import", ClientState.WAITING): 36,
        ClientKey("bulk", "reports-v2", ClientState.LINKED): 1,
        ClientKey("bulk", "reports-v2", ClientState.WAITING): 4,
    }


def _observe(view: FakeView) -> None:
    measures = view.seen_measures
    for seconds in (0.0002, 0.004, 0.004, 2.0, 400.0):
        measures.of("bulk").wait_granted.observe(seconds)
        measures.of("bulk").of_application("import").held(seconds, seconds)
        measures.of("web").transaction.observe(seconds)
    measures.of("bulk").wait_refused.observe(20.0)
    measures.protocol_violations["startup"] += 2
    measures.login_failures["28P01"] += 1
    measures.pins["bulk", "listen"] += 1
    measures.logins, measures.dials, measures.dial_retries, measures.cancels_forwarded = 310, 64, 2, 4
