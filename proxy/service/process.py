"""The running process: built from a configuration, started, reloaded, drained.

Owns: the order of start and end, and what a new configuration changes.
Does not know: the budget of an upstream (`running_upstream`), how configuration is read, signals and exit codes
(`cli.serve`), what HTTP answers.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from time import time as wall_clock

import structlog

from proxy.admission.classes import ClassState, renamed_classes
from proxy.service.check import findings, findings_of_upstreams
from proxy.service.config.errors import ConfigError
from proxy.service.config.loading import config_hash, load_config
from proxy.service.config.model import Config
from proxy.service.config.parts import UpstreamPart, parts
from proxy.service.config_watch import ConfigWatch
from proxy.service.findings import BudgetCannotHold, Finding, Reporter, Severity
from proxy.service.http import HttpServer, HttpSettings, SwitchesFrom
from proxy.service.reload_report import Change, ReloadReport, compare, still_as_started
from proxy.service.running_upstream import RunningUpstream
from proxy.service.running_view import RunningView
from proxy.service.server_facts import ServerUnreachable
from proxy.service.steering import Steering, SteeringFiles, notes_of
from proxy.service.switchboard import Switch
from proxy.service.tls import TlsFilesUnusable
from proxy.service.traffic.watch import TrafficWatch
from proxy.service.wiring import numbers_of, session_settings, upstream_settings_of
from proxy.session import clock, refusals
from proxy.session.crashes import count_crashes
from proxy.session.frontdesk import Frontdesk
from proxy.session.listener import Listener
from proxy.session.measures import Measures
from proxy.session.tasks import TaskGroup

log = structlog.get_logger("pgheadroom")


class Process:
    """One proxy. `start`, then `drain_and_stop`; `reload` in between. Must be made while its loop runs."""

    def __init__(self, config: Config, read: Callable[[], Config] | None = None) -> None:
        """`read` reads the configuration again, at a reload; else its file is read.

        Raises ConfigError and TlsFilesUnusable for files the configuration names.
        """
        self._read = read or (lambda: load_config(config.file))
        loop = asyncio.get_running_loop()
        self.config = self._started_with = config
        self.config_hash = config_hash(config)
        self.in_force = config  # with what orders and windows of time change
        self.measures = Measures()
        self.tasks = TaskGroup(loop, self.measures)
        self.desk = Frontdesk(session_settings(config), self.measures, self.tasks, loop)
        self.upstreams = [RunningUpstream(part, self.desk) for part in parts(config)]
        self.listener = Listener(self.desk)
        switches = config.switches
        files = SteeringFiles(switches.dir, switches.state_file, switches.audit_file)
        self.steering = Steering(self, files, self.tasks, loop, wall_clock)
        self.traffic = TrafficWatch(self.desk, config.traffic.keep, config.traffic.file)
        self.draining = False
        self.view = RunningView(self)
        self.http = HttpServer(self.view, http_settings(config))
        self.config_watch = ConfigWatch(self._reload_watched, loop, config)

    # -- start --------------------------------------------------------------------------------------------------------

    async def start(self) -> list[Finding]:
        """Ask the servers, check their budgets, listen. Returns the warnings.

        Raises BudgetCannotHold, CannotListen. A server that does not answer is no reason to fail: the process runs, is
        not ready, and asks again.
        """
        count_crashes(asyncio.get_running_loop(), self.measures)
        self._refuse_impossible(findings(self.config, None))
        await asyncio.gather(*map(self._first_look, self.upstreams))
        problems = self._refuse_impossible(self.check(self.config))
        self.steering.start()
        await self.listener.start()
        await self.http.start()
        self.config_watch.adopt(self.in_force)
        for upstream in self.upstreams:
            upstream.start()
        self.tasks.spawn(self.traffic.run(), name="traffic watch")
        return problems

    @staticmethod
    async def _first_look(upstream: RunningUpstream) -> None:
        try:
            await upstream.watch.ask()
        except ServerUnreachable as unreachable:
            log.warning("server_not_reachable_at_start", upstream=upstream.name, why=str(unreachable))

    @staticmethod
    def _refuse_impossible(found: list[Finding]) -> list[Finding]:
        errors = [one for one in found if one.severity is Severity.ERROR]
        if errors:
            raise BudgetCannotHold(errors)
        return found

    # -- reload -------------------------------------------------------------------------------------------------------

    def plan(self, config: Config) -> ReloadReport:
        """What a reload would change. Raises BudgetCannotHold where it would be refused. Changes nothing."""
        self._refuse_impossible(self._other_upstreams(config))
        self._refuse_impossible(self.check(config))
        renamed = self._renamed(config)
        beside = self.steering.beside(config, renamed)
        changes, notes = compare(self.in_force, beside.in_force, renamed, self._in_use())
        for upstream, part in self._parts_of(beside.in_force):
            before, after = upstream.registry.total, upstream.budget_of(part).total
            if before != after and part.budget.total == upstream.part.budget.total:
                words = f"gains {after - before}" if after > before else f"loses {before - after}"
                where = "" if part.is_only else f"upstreams.{part.name}"
                changes.insert(0, Change(where, "slots", str(before), str(after), words))
        notes += [*notes_of(config, beside), *still_as_started(self._started_with, self.in_force, config)]
        return ReloadReport(tuple(changes), tuple(notes), config_hash(config))

    def _renamed(self, config: Config) -> dict[str, str]:
        budgets = (upstream.budget_of(part) for upstream, part in self._parts_of(config))
        return {old: new for budget in budgets for old, new in renamed_classes(budget, self.config.classes).items()}

    def _in_use(self) -> dict[str, int]:
        return {
            one.name: one.used
            for upstream in self.upstreams
            for one in upstream.controller.snapshot(clock.now()).classes
        }

    def reload(self, config: Config) -> ReloadReport:
        """Take over a new configuration whole. Returns what changed.

        Raises BudgetCannotHold, ConfigError and TlsFilesUnusable, and then nothing has changed. Addresses to listen on
        and the upstreams' hosts are kept until a restart, and so is which upstreams there are; certificates are read
        again on both legs.
        """
        report, renamed = self.plan(config), self._renamed(config)
        settings = session_settings(config)
        for part in parts(config):
            upstream_settings_of(part)  # what the next start could not use is refused now
        upstream_settings = {part.name: upstream_settings_of(part) for _, part in self._parts_of(config)}
        in_force = self.steering.beside(config, renamed).in_force
        parts_in_force = self._parts_of(in_force)
        self.config, self.config_hash, self.in_force = config, report.config_hash, in_force
        self.desk.adopt(numbers_of(in_force, settings))
        for upstream, part in parts_in_force:
            upstream.adopt(part, upstream_settings[part.name])
        self.traffic.adopt(in_force.traffic.keep, in_force.traffic.file)
        self.http.adopt(http_settings(in_force))
        self.steering.classes_changed(renamed)
        self.desk.reclassify()
        self.config_watch.adopt(self.in_force)
        return report

    def reload_file(self, *, by: str, source: str, reason: str = "", dry_run: bool = False) -> ReloadReport:
        """Read the file again and take it over. Raises what `reload` raises, with a line in the log."""
        self.config_watch.about_to_read()
        try:
            config = self._read()
            report = self.plan(config) if dry_run else self.reload(config)
        except (ConfigError, TlsFilesUnusable, BudgetCannotHold) as mistake:
            facts = {"by": by, "reason": reason, "source": source, "dry_run": dry_run}
            log.error("reload_refused", why=str(mistake), **facts)  # noqa: TRY400
            raise
        if not dry_run:
            self.steering.audit.note(
                "reloaded",
                at=wall_clock(),
                changes=report.lines(),
                by=by,
                reason=reason,
                source=source,
                config_hash=report.config_hash,
            )
        return report

    def _reload_watched(self) -> None:
        # What is wrong stands in the log.
        with suppress(ConfigError, TlsFilesUnusable, BudgetCannotHold):
            self.reload_file(by="reload.watch", source=self.config.file)

    def _other_upstreams(self, config: Config) -> list[Finding]:
        """Servers come and go with a restart: their clients, pools and budgets would have to come and go too."""
        names, running = {part.name for part in parts(config)}, {upstream.name for upstream in self.upstreams}
        report = Reporter(config)
        if names == running and (config.upstream is None) is not (self.config.upstream is None):
            form = "upstream" if config.upstream is not None else "upstreams"
            text = f"the running proxy was started with the {'long' if form == 'upstream' else 'short'} form of it"
            report.error((form,), text, "restart the proxy, or write it as before")
        for name in sorted(names ^ running):
            text = f"{name} is {'new' if name in names else 'gone'}, and upstreams do not come or go by a reload"
            report.error(("upstreams",), text, "restart the proxy, or put it back")
        return report.findings

    def _parts_of(self, config: Config) -> list[tuple[RunningUpstream, UpstreamPart]]:
        """Each with the URL that it dials: another one, with all that it says of TLS and times, takes a restart."""
        by_name = {part.name: part for part in parts(config)}
        return [(upstream, upstream.as_dialled(by_name[upstream.name])) for upstream in self.upstreams]

    def upstream_with(self, class_name: str) -> RunningUpstream:
        """The one whose slots the class gets. Raises StopIteration for a class that does not exist."""
        return next(upstream for upstream in self.upstreams if class_name in upstream.part.classes)

    # -- switches -----------------------------------------------------------------------------------------------------

    def set_state(self, class_name: str, state: ClassState, *, by: str, reason: str) -> Switch:
        """An order from inside. Raises OrderRefused."""
        return self.steering.switch(class_name, state, by=by, reason=reason)

    def adopt_numbers(self, config: Config) -> None:
        """Numbers and words that orders or windows of time have changed; asked for by `steering`."""
        before = self.desk.settings
        self.in_force = config
        self.desk.adopt(numbers_of(config, before))
        for upstream, part in self._parts_of(config):
            upstream.adopt_numbers(part)
        self.traffic.adopt(config.traffic.keep, config.traffic.file)
        self.config_watch.watch(config.reload.watch)
        after = self.desk.settings
        if (before.classes, before.tags) != (after.classes, after.tags):
            self.desk.reclassify()  # holds and modes are kept at each client

    def check(self, config: Config) -> list[Finding]:
        """What the start-up check says, with what the server has told."""
        return findings_of_upstreams(config, {upstream.name: upstream.watch.facts for upstream in self.upstreams})

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
        self.config_watch.close()
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


def http_settings(config: Config) -> HttpSettings:
    return HttpSettings(
        host=config.http.host,
        port=config.http.port,
        switches_from=SwitchesFrom(config.http.switches_from),
        trusted_hosts=frozenset(config.http.trusted_hosts),
        switch_token=config.http.switch_token,
    )
