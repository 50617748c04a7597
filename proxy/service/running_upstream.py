"""One upstream while it runs: built from the configuration, its budget learnt from the server, reloaded, ended.

Owns: the admission core in front of one server, whoever watches that server, and how its budget becomes another.
Does not know: clients and their logins, sockets that are listened on, what HTTP answers (`process`).
"""

import asyncio
import random
from dataclasses import replace

import structlog

from proxy.admission.classes import BudgetSettings, removed_classes
from proxy.admission.connect_rate import ConnectRate
from proxy.admission.controller import Controller
from proxy.admission.decisions import RefusalReason
from proxy.admission.places import ClientPlaces
from proxy.admission.removal import NO_MOVES
from proxy.service.adaptive_limits import AdaptiveLimits
from proxy.service.adaptive_settings import adaptive_settings
from proxy.service.budget import budget_settings, classifier, overcommitted_slots, total_in_force, usable_total
from proxy.service.canary import Canary, canary_settings
from proxy.service.check_budget import budget_findings
from proxy.service.config.parts import UpstreamPart
from proxy.service.findings import Finding
from proxy.service.host_watch import HostWatch
from proxy.service.lock_probe import LockProbe
from proxy.service.server_facts import ServerFacts
from proxy.service.server_watch import ServerWatch
from proxy.service.wiring import pool_settings, upstream_settings_of
from proxy.session import clock
from proxy.session.connector import Connector
from proxy.session.frontdesk import Frontdesk
from proxy.session.gate import Door, Gate
from proxy.session.pool import Pool
from proxy.session.registry import Registry
from proxy.session.settings import UpstreamSettings
from proxy.session.upstream import Upstream

log = structlog.get_logger("pgheadroom")

_GOODBYE_SECONDS = 2.0  # for server connections to end after the last client has left


class RunningUpstream:
    """A server with its budget. `start`, then `refuse_and_close` and `until_gone`; `adopt` in between."""

    def __init__(self, part: UpstreamPart, desk: Frontdesk) -> None:
        """Raises TlsFilesUnusable for files the URL names."""
        settings, pool, loop = upstream_settings_of(part), pool_settings(part), desk.loop
        self.name = part.name
        self.part = part  # in force: with what orders and windows of time change
        self._url = part.upstream.url
        budget = budget_settings(part, usable_total(part, None) or 1)
        self.controller = Controller(budget, now=clock.now(), draw=random.random)
        self.places = ClientPlaces(budget, now=clock.now(), draw=random.random)
        self.gate = Gate(self.controller, desk.measures, loop)
        self.door = Door(self.places, loop)
        self.registry = Registry(Connector(settings, pool, loop), pool, desk.measures, desk.tasks, loop, Pool)
        self.registry.set_total(budget.total)
        self.problems: tuple[Finding, ...] = ()  # where the budget does not hold with the server as it is
        connect_rate = ConnectRate(budget, draw=random.random)
        self.upstream = Upstream(desk, settings, classifier(part), self.gate, self.door, connect_rate, self.registry)
        self.upstream.listen_hubs.count_changed = self._listens_over
        self.registry.connector.came_back = self._server_is_back
        self.watch = ServerWatch(self.upstream, self._learnt)
        self._host_watch = HostWatch(self.upstream, self._moved)
        self.canary = Canary(self.upstream, desk.tasks)
        self.locks = LockProbe(self.upstream, desk.tasks)
        self.adaptive = AdaptiveLimits(self.upstream, self.canary, self.locks)
        self._watches = False
        self._tasks = desk.tasks
        desk.upstreams.append(self.upstream)
        self.budget_is_known = part.budget.total != "auto"

    def start(self) -> None:
        """Watch the server from now on."""
        self._tasks.spawn(self.watch.run(), name="server watch")
        self._tasks.spawn(self._host_watch.run(), name="host watch")
        self._watches = True
        self._adopt_watching(self.part)

    def _adopt_watching(self, part: UpstreamPart) -> None:
        """What looks after how customers fare, where the configuration asks for it."""
        self.canary.adopt(canary_settings(part))
        self.locks.adopt(part.adaptive.lock_probe)
        self.adaptive.adopt(adaptive_settings(part))

    def _server_is_back(self) -> None:
        self.gate.deliver(self.controller.server_is_back(clock.now()))

    # -- the budget ---------------------------------------------------------------------------------------------------

    def _moved(self) -> None:
        """Another server may have other limits."""
        self._tasks.spawn(self.watch.ask_and_log(), name="facts of another server")

    def _learnt(self, facts: ServerFacts) -> None:
        """The server has told its limits: with `total: auto` they make the budget."""
        self._check_again(facts)
        total = total_in_force(self.part, facts)
        if total is None or total < 1:
            return
        self.budget_is_known = True
        if total != self.registry.total:
            log.info("budget", upstream=self.name, total=total, max_connections=facts.max_connections)
            self._adopt_budget(self._budget(self.part, total))

    def _check_again(self, facts: ServerFacts) -> None:
        """Where the numbers stop to hold while running, or hold again, that is told once."""
        before = {(one.severity, one.key) for one in self.problems}
        self.problems = tuple(budget_findings(self.part, facts))
        missing = overcommitted_slots(self.part, facts)
        for one in self.problems:
            if (one.severity, one.key) not in before:
                keys = {"overcommitted_slots": missing, "external_connections": facts.external_connections}
                log.warning(
                    "budget_does_not_hold",
                    upstream=self.name,
                    finding=str(one),
                    total_in_force=self.registry.total,
                    **keys,
                )
        if before and not self.problems:
            log.info("budget_holds_again", upstream=self.name, external_connections=facts.external_connections)

    def _listens_over(self, _connections: int) -> None:
        """A connection that listens is held for long: what `internal` has reserved for its queries stays free."""
        self._adopt_budget(self._budget(self.part, self.registry.total))

    def _budget(self, part: UpstreamPart, total: int) -> BudgetSettings:
        return budget_settings(part, total, listening=len(self.upstream.listen_hubs))

    def _adopt_budget(self, budget: BudgetSettings) -> None:
        now = clock.now()
        # Room first where it grows, last where it shrinks: a grant never meets a registry that has less.
        if budget.total > self.registry.total:
            self.registry.set_total(budget.total)
        gone = removed_classes(budget, self.controller.settings)
        moves = self.upstream.reclassify_all() if gone else NO_MOVES
        self.gate.deliver(self.controller.reconfigure(budget, now, moves))
        self.door.deliver(self.places.reconfigure(budget, now, moves))
        self.upstream.connect_rate.adopt(budget)
        self.registry.set_total(budget.total)

    # -- reload -------------------------------------------------------------------------------------------------------

    def budget_of(self, part: UpstreamPart) -> BudgetSettings:
        """What the admission core would be told under another configuration."""
        return self._budget(part, total_in_force(part, self.watch.facts) or self.registry.total)

    def as_dialled(self, part: UpstreamPart) -> UpstreamPart:
        """The part with the URL of the start."""
        return replace(part, upstream=part.upstream.model_copy(update={"url": self._url}))

    def adopt(self, part: UpstreamPart, settings: UpstreamSettings) -> None:
        """A new configuration is in force, for clients too; the hosts are kept until a restart."""
        self.upstream.adopt(settings, pool_settings(part), classifier(part))
        self._adopt_part(part)

    def adopt_numbers(self, part: UpstreamPart) -> None:
        """Of this configuration only numbers and words are new: orders or windows of time have changed them."""
        self.upstream.adopt_numbers(pool_settings(part))
        self._adopt_part(part)

    def _adopt_part(self, part: UpstreamPart) -> None:
        self.part = part
        self._adopt_budget(self.budget_of(part))
        if self._watches:
            self._adopt_watching(part)

    # -- the end ------------------------------------------------------------------------------------------------------

    def refuse_all_waiting(self) -> None:
        self._watches = False
        self.gate.refuse_all_waiting(RefusalReason.SHUTTING_DOWN)
        for one in (self.adaptive, self.canary, self.locks):
            one.close()

    def close_idle(self) -> None:
        """Of the proxy's own connections those that listen, of the others those that idle."""
        self.upstream.listen_hubs.close()
        self.registry.close_all_idle()

    async def until_gone(self) -> None:
        """Server connections end by themselves once told; a backend that does not is left behind, and counted."""
        try:
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await self.registry.until_empty()
        except TimeoutError:
            log.warning("server_connections_left", upstream=self.name, count=self.registry.count)

    def close(self) -> None:
        self.gate.close()
        self.door.close()
