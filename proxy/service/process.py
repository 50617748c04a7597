"""The running process: built from a configuration, started, reloaded, drained.

Owns: the order of start and end, and what a new configuration changes.
Does not know: the budget of an upstream (`running_upstream`), how configuration is read, signals and exit codes
(`cli.serve`), what HTTP answers.
"""

import asyncio
from collections.abc import Mapping
from time import time as wall_clock

import structlog

from proxy.admission.classes import BudgetSettings, ClassState
from proxy.service.check import findings
from proxy.service.config.loading import config_hash
from proxy.service.config.model import Config
from proxy.service.findings import Finding, Severity
from proxy.service.http import HttpServer, HttpSettings, SwitchesFrom
from proxy.service.running_upstream import RunningUpstream
from proxy.service.running_view import RunningView
from proxy.service.server_facts import ServerUnreachable
from proxy.service.steering import Steering, SteeringFiles
from proxy.service.switchboard import Switch
from proxy.service.traffic.watch import TrafficWatch
from proxy.service.wiring import numbers_of, session_settings, upstream_settings_of
from proxy.session import clock, refusals
from proxy.session.frontdesk import Frontdesk
from proxy.session.listener import Listener
from proxy.session.measures import Measures
from proxy.session.tasks import TaskGroup

log = structlog.get_logger("pgheadroom")


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
        self.config = config
        self.config_hash = config_hash(config)
        self.in_force = config  # with what orders and windows of time change
        self.measures = Measures()
        self.tasks = TaskGroup(loop, self.measures)
        self.desk = Frontdesk(session_settings(config), self.measures, self.tasks, loop)
        self.upstreams = [RunningUpstream(config, self.desk)]
        self.listener = Listener(self.desk)
        switches = config.switches
        files = SteeringFiles(switches.dir, switches.state_file, switches.audit_file)
        self.steering = Steering(self, files, self.tasks, loop, wall_clock)
        self.traffic = TrafficWatch(self.desk, config.traffic.keep, config.traffic.file)
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

    # -- start --------------------------------------------------------------------------------------------------------

    async def start(self) -> list[Finding]:
        """Ask the server, check the budget, listen. Returns the warnings.

        Raises BudgetCannotHold, CannotListen, OSError. A server that does not answer is no reason to fail: the process
        runs, is not ready, and asks again.
        """
        self._refuse_impossible(findings(self.config, None))
        problems = [problem for upstream in self.upstreams for problem in await self._first_look(upstream)]
        self.steering.start()
        await self.listener.start()
        await self.http.start()
        for upstream in self.upstreams:
            upstream.start()
        self.tasks.spawn(self.traffic.run(), name="traffic watch")
        return problems

    async def _first_look(self, upstream: RunningUpstream) -> list[Finding]:
        try:
            await upstream.watch.ask()
        except ServerUnreachable as unreachable:
            log.warning("server_not_reachable_at_start", why=str(unreachable))
        return self._refuse_impossible(findings(self.config, upstream.watch.facts))

    @staticmethod
    def _refuse_impossible(found: list[Finding]) -> list[Finding]:
        errors = [one for one in found if one.severity is Severity.ERROR]
        if errors:
            raise BudgetCannotHold(errors)
        return found

    # -- reload -------------------------------------------------------------------------------------------------------

    def reload(self, config: Config) -> list[str]:
        """Take over a new configuration whole. Returns what changed, a line per class.

        Raises BudgetCannotHold, ConfigError and TlsFilesUnusable, and then nothing has changed. Addresses to listen on
        and the upstream's hosts are kept until a restart; certificates are read again on both legs.
        """
        settings, upstream_settings = session_settings(config), upstream_settings_of(config)
        for upstream in self.upstreams:
            self._refuse_impossible(findings(config, upstream.watch.facts))
        in_force = self.steering.in_force(config)
        changes: list[str] = []
        for upstream in self.upstreams:
            changes += _changes(upstream.controller.settings, upstream.budget_of(in_force))
        self.config, self.config_hash = config, config_hash(config)
        self.in_force = in_force
        self.desk.adopt(numbers_of(in_force, settings))
        for upstream in self.upstreams:
            upstream.adopt(in_force, upstream_settings)
        self.traffic.adopt(config.traffic.keep, config.traffic.file)
        self.steering.classes_changed()
        self.desk.reclassify()
        return changes

    def upstream_with(self, class_name: str) -> RunningUpstream:
        """The one whose slots the class gets. Raises StopIteration for a class that does not exist."""
        return next(upstream for upstream in self.upstreams if upstream.controller.has_class(class_name))

    # -- switches -----------------------------------------------------------------------------------------------------

    def set_state(self, class_name: str, state: ClassState, *, by: str, reason: str) -> Switch:
        """An order from inside. Raises OrderRefused."""
        return self.steering.switch(class_name, state, by=by, reason=reason)

    def adopt_numbers(self, config: Config) -> None:
        """Numbers that orders or windows of time have changed; asked for by `steering`."""
        self.in_force = config
        self.desk.settings = numbers_of(config, self.desk.settings)
        for upstream in self.upstreams:
            upstream.adopt_numbers(config)

    def check(self, config: Config) -> list[Finding]:
        """What the start-up check says, with what the server has told."""
        found = [finding for upstream in self.upstreams for finding in findings(config, upstream.watch.facts)]
        return list(dict.fromkeys(found))

    def state_of(self, class_name: str) -> ClassState:
        return self.upstream_with(class_name).controller.state_of(class_name)

    def apply_state(self, class_name: str, state: ClassState) -> None:
        """The state that orders have come to; asked for by `steering`."""
        upstream = self.upstream_with(class_name)
        upstream.gate.deliver(upstream.controller.set_state(class_name, state, clock.now()))

    # -- the end ------------------------------------------------------------------------------------------------------

    async def drain_and_stop(self) -> None:
        """No new clients; running work may finish within `shutdown.drain_timeout`; then everybody is told."""
        if self.draining:
            return
        self.draining = True
        await self.listener.stop()
        await self.desk.drain(self.in_force.shutdown.drain_timeout)
        for upstream in self.upstreams:
            upstream.refuse_all_waiting()
        for client in list(self.desk.clients):
            client.end(refusals.shutting_down_idle())
        for upstream in self.upstreams:
            upstream.close_idle()
        await asyncio.gather(*(upstream.until_gone() for upstream in self.upstreams))
        await self.http.stop()
        await self.steering.close()
        for upstream in self.upstreams:
            upstream.close()
        await self.tasks.cancel_all()
        await self.traffic.save()
        log.info("stopped", server_connections_left=sum(upstream.registry.count for upstream in self.upstreams))


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
