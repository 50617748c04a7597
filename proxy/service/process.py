"""The running process: built from a configuration, started, reloaded, drained.

Owns: the order of start and end, and what a new configuration changes.
Does not know: how configuration is read, signals and exit codes (`cli.serve`), what HTTP answers.
"""

import asyncio
from collections.abc import Mapping
from time import time as wall_clock

import structlog

from proxy.admission.classes import BudgetSettings, ClassState
from proxy.admission.controller import Controller
from proxy.admission.decisions import RefusalReason
from proxy.admission.places import ClientPlaces
from proxy.service.budget import budget_settings, classifier, usable_total
from proxy.service.check import findings
from proxy.service.config.loading import config_hash
from proxy.service.config.model import Config
from proxy.service.findings import Finding, Severity
from proxy.service.host_watch import HostWatch
from proxy.service.http import HttpServer, HttpSettings, SwitchesFrom
from proxy.service.running_view import RunningView
from proxy.service.server_facts import ServerFacts, ServerUnreachable
from proxy.service.server_watch import ServerWatch
from proxy.service.steering import Steering, SteeringFiles
from proxy.service.switchboard import Switch
from proxy.service.wiring import session_settings
from proxy.session import clock, refusals
from proxy.session.connector import Connector
from proxy.session.frontdesk import Frontdesk
from proxy.session.gate import Door, Gate
from proxy.session.listener import Listener
from proxy.session.measures import Measures
from proxy.session.pool import Pool
from proxy.session.registry import Registry
from proxy.session.tasks import TaskGroup

log = structlog.get_logger("pgheadroom")

_GOODBYE_SECONDS = 2.0  # for server connections to end after the last client has left


class BudgetCannotHold(Exception):  # noqa: N818 - says what is
    """The numbers cannot be kept with this server; `problems` are the findings that say why."""

    def __init__(self, problems: list[Finding]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = problems


class Process:
    """One proxy. `start`, then `drain_and_stop`; `reload` in between. Must be made while its loop runs."""

    def __init__(self, config: Config) -> None:
        """Raises ConfigError and TlsFilesUnusable for files the configuration names."""
        loop = asyncio.get_running_loop()
        settings = session_settings(config)
        self.config = config
        self.config_hash = config_hash(config)
        self.measures = Measures()
        self.tasks = TaskGroup(loop, self.measures)
        self.in_force = config  # with what windows of time change
        budget = budget_settings(config, usable_total(config, None) or 1)
        self.controller = Controller(budget, now=clock.now())
        self.places = ClientPlaces(budget, now=clock.now())
        self.gate = Gate(self.controller, self.measures, loop)
        self.door = Door(self.places, loop)
        connector = Connector(settings.upstream, settings.pool, loop)
        self.registry = Registry(connector, settings.pool, self.measures, self.tasks, loop, Pool)
        self.desk = Frontdesk(
            settings, classifier(config), self.gate, self.door, self.registry, self.measures, self.tasks, loop
        )
        self.desk.listen_hubs.count_changed = self._listens_over
        self.listener = Listener(self.desk)
        self.watch = ServerWatch(self.desk, self._learnt)
        self.host_watch = HostWatch(self.desk, self._upstream_moved)
        switches = config.switches
        files = SteeringFiles(switches.dir, switches.state_file, switches.audit_file)
        self.steering = Steering(self, files, self.tasks, loop, wall_clock)
        self.budget_is_known = config.budget.total != "auto"
        self.draining = False
        self.view = RunningView(self)
        self.http = HttpServer(
            self.view,
            HttpSettings(
                host=config.http.host,
                port=config.http.port,
                switches_from=SwitchesFrom(config.http.switches_from),
                trusted_hosts=frozenset(config.http.trusted_hosts),
                switch_token=config.http.switch_token,
            ),
        )
        self.registry.set_total(budget.total)

    # -- start --------------------------------------------------------------------------------------------------------

    async def start(self) -> list[Finding]:
        """Ask the server, check the budget, listen. Returns the warnings.

        Raises BudgetCannotHold, CannotListen, OSError. A server that does not answer is no reason to fail: the process
        runs, is not ready, and asks again.
        """
        problems = self._refuse_impossible(findings(self.config, None))
        try:
            await self.watch.ask()
        except ServerUnreachable as unreachable:
            log.warning("server_not_reachable_at_start", why=str(unreachable))
        else:
            problems = self._refuse_impossible(findings(self.config, self.watch.facts))
        self.steering.start()
        await self.listener.start()
        await self.http.start()
        self.tasks.spawn(self.watch.run(), name="server watch")
        self.tasks.spawn(self.host_watch.run(), name="host watch")
        return problems

    @staticmethod
    def _refuse_impossible(found: list[Finding]) -> list[Finding]:
        errors = [one for one in found if one.severity is Severity.ERROR]
        if errors:
            raise BudgetCannotHold(errors)
        return found

    def _upstream_moved(self) -> None:
        """Another server may have other limits."""
        self.tasks.spawn(self.watch.ask_and_log(), name="facts of another server")

    def _learnt(self, facts: ServerFacts) -> None:
        """The server has told its limits: with `total: auto` they make the budget."""
        total = usable_total(self.in_force, facts)
        if total is None or total < 1:
            return
        self.budget_is_known = True
        if total != self.registry.total:
            log.info("budget", total=total, max_connections=facts.max_connections)
            self._adopt(self._budget(self.in_force, total))

    def _listens_over(self, _connections: int) -> None:
        """A connection that listens is held for long: what `internal` has reserved for its queries stays free."""
        self._adopt(self._budget(self.in_force, self.registry.total))

    def _budget(self, config: Config, total: int) -> BudgetSettings:
        return budget_settings(config, total, listening=len(self.desk.listen_hubs))

    def _adopt(self, budget: BudgetSettings) -> None:
        now = clock.now()
        # Room first where it grows, last where it shrinks: a grant never meets a registry that has less.
        if budget.total > self.registry.total:
            self.registry.set_total(budget.total)
        self.gate.deliver(self.controller.reconfigure(budget, now))
        self.door.deliver(self.places.reconfigure(budget, now))
        self.registry.set_total(budget.total)

    # -- reload -------------------------------------------------------------------------------------------------------

    def reload(self, config: Config) -> list[str]:
        """Take over a new configuration whole. Returns what changed, a line per class.

        Raises BudgetCannotHold, ConfigError and TlsFilesUnusable, and then nothing has changed. Addresses to listen on
        and the upstream's hosts are kept until a restart; certificates are read again on both legs.
        """
        settings = session_settings(config)
        self._refuse_impossible(findings(config, self.watch.facts))
        total = usable_total(config, self.watch.facts) or self.registry.total
        self.in_force = self.steering.in_force(config)
        changes = _changes(self.controller.settings, self._budget(self.in_force, total))
        self.config, self.config_hash = config, config_hash(config)
        self.desk.adopt(settings, classifier(config))
        self.registry.connector.adopt_tls(settings.upstream.tls)
        self._adopt(self._budget(self.in_force, total))
        self.steering.classes_changed()
        self.desk.reclassify()
        return changes

    # -- switches -----------------------------------------------------------------------------------------------------

    def set_state(self, class_name: str, state: ClassState, *, by: str, reason: str) -> Switch:
        """An order from inside. Raises SwitchRefused."""
        return self.steering.switch(class_name, state, by=by, reason=reason)

    def adopt_numbers(self, config: Config) -> None:
        """Numbers that orders or windows of time have changed; asked for by `steering`."""
        self.in_force = config
        self._adopt(self._budget(config, usable_total(config, self.watch.facts) or self.registry.total))

    def state_of(self, class_name: str) -> ClassState:
        return self.controller.state_of(class_name)

    def apply_state(self, class_name: str, state: ClassState) -> None:
        """The state that orders have come to; asked for by `steering`."""
        self.gate.deliver(self.controller.set_state(class_name, state, clock.now()))

    # -- the end ------------------------------------------------------------------------------------------------------

    async def drain_and_stop(self) -> None:
        """No new clients; running work may finish within `shutdown.drain_timeout`; then everybody is told."""
        if self.draining:
            return
        self.draining = True
        await self.listener.stop()
        await self.desk.drain(self.config.shutdown.drain_timeout)
        self.gate.refuse_all_waiting(RefusalReason.SHUTTING_DOWN)
        for client in list(self.desk.clients):
            client.end(refusals.shutting_down_idle())
        self.desk.listen_hubs.close()
        self.registry.close_all_idle()
        await self._wait_until_gone()
        await self.http.stop()
        await self.steering.close()
        self.gate.close()
        self.door.close()
        await self.tasks.cancel_all()
        log.info("stopped", server_connections_left=self.registry.count)

    async def _wait_until_gone(self) -> None:
        """Server connections end by themselves once told; a backend that does not is left behind, and counted."""
        try:
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await self.registry.until_empty()
        except TimeoutError:
            log.warning("server_connections_left", count=self.registry.count)


def _changes(old: BudgetSettings, new: BudgetSettings) -> list[str]:
    """What a reload changes, in words: who gains and who loses."""
    changes = [f"budget.total: {old.total} -> {new.total}"] if old.total != new.total else []
    if old.headroom != new.headroom:
        changes.append(f"budget.headroom.size: {old.headroom} -> {new.headroom}")
    before, after = ({one.name: one for one in budget.classes} for budget in (old, new))
    for name in dict.fromkeys((*before, *after)):
        if name not in after:
            changes.append(f"{name}: removed; its clients move to the default class")
        elif name not in before:
            changes.append(f"{name}: new, reserved {after[name].reserved}, limit {after[name].limit}")
        else:
            changes += _differences(name, _fields(before[name]), _fields(after[name]))
    return changes


def _differences(name: str, before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    return [f"{name}.{key}: {before[key]} -> {after[key]}" for key in before if before[key] != after[key]]


def _fields(settings: object) -> dict[str, object]:
    """The fields of a slotted dataclass."""
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}  # type: ignore[attr-defined]
