"""Looks at the running process once a second and counts what it sees; keeps the record over a restart.

Owns: the rhythm, what is read of the process, the file of the record.
Does not know: what is made of the figures (report.py).

A look costs nothing on the way of a query: the counts are those the core has anyway, and the clients that hold a slot
or wait are walked over. What is held for how long is counted where it ends, and read here.
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog

from proxy.admission.classes import INTERNAL_CLASS, ClassState
from proxy.admission.snapshot import ClassSnapshot, Snapshot
from proxy.service.traffic.nested_acquire import (
    SUSPECTED_AFTER_SECONDS,
    Holder,
    Identity,
    NestedAcquires,
    Waiting,
)
from proxy.service.traffic.record import (
    HOUR_SECONDS,
    ApplicationReading,
    ClassReading,
    Hour,
    TrafficRecord,
    UnreadableRecord,
    from_text,
    to_text,
)
from proxy.service.traffic.report import SAMPLED_EVERY_SECONDS
from proxy.session import clock
from proxy.session.client import ClientConnection
from proxy.session.frontdesk import Frontdesk
from proxy.session.histogram import Histogram
from proxy.session.replication import ReplicationConnection

log = structlog.get_logger("pgheadroom.traffic")

SAVE_EVERY_SECONDS: Final = 300.0
# A loop that was busy, or a machine that slept: what was between two looks is not known.
_LONGEST_LOOK_SECONDS: Final = 3 * SAMPLED_EVERY_SECONDS


class TrafficWatch:
    """`run` in a task; `save` once more at the end. `unix_time` tells the hours apart."""

    def __init__(
        self, desk: Frontdesk, keep_seconds: float, file: Path | None, unix_time: Callable[[], float] = time.time
    ) -> None:
        self._desk = desk
        self._unix_time = unix_time
        self.record = TrafficRecord(1)
        self.file: Path | None = None
        self.adopt(keep_seconds, file)
        self.nested = NestedAcquires()
        self._looked_at = clock.now()
        self._saved_at = clock.now()
        self._is_restored = False  # before that, what is known is less than what the file holds
        self._told = ""  # why the record could not be written, as long as that lasts
        self._held: dict[tuple[str, str | None], tuple[list[int], float]] = {}

    def adopt(self, keep_seconds: float, file: Path | None) -> None:
        """At the start and at a reload. Another file is read at the next start only."""
        self.record.keep_hours = max(1, round(keep_seconds / HOUR_SECONDS))
        self.file = file

    async def run(self) -> None:
        await self._restore()
        self._is_restored = True
        while True:
            await asyncio.sleep(SAMPLED_EVERY_SECONDS)
            self.look({one.settings.name: one.gate.controller.snapshot(clock.now()) for one in self._desk.upstreams})
            if clock.now() - self._saved_at >= SAVE_EVERY_SECONDS:
                await self.save()

    # -- looking ------------------------------------------------------------------------------------------------------

    def look(self, budgets: Mapping[str, Snapshot]) -> None:
        """At the budgets of all upstreams, as they are now."""
        now = clock.now()
        seconds = min(now - self._looked_at, _LONGEST_LOOK_SECONDS)
        self._looked_at = now
        of_upstreams = {
            upstream: [one for one in budget.classes if one.name != INTERNAL_CLASS]
            for upstream, budget in budgets.items()
        }
        readings = [one for of_one in of_upstreams.values() for one in of_one]
        classes = {one.name: _reading(one) for one in readings}
        busy = any(budget.in_use or budget.waiting for budget in budgets.values())
        self._look_for_nested_acquires(readings, now)
        applications = self._applications(classes) if busy else {}
        self._hour().observe(classes, applications, seconds, _several(of_upstreams))

    def _look_for_nested_acquires(self, readings: Sequence[ClassSnapshot], now: float) -> None:
        """Walks over clients only while a class is at its limit and somebody has waited there for long."""
        full = {
            one.name
            for one in readings
            if one.used >= one.limit and one.oldest_wait_seconds >= SUSPECTED_AFTER_SECONDS and one.waiting
        }
        if not full:
            self.nested.nobody_waits()
            return
        holders = [
            Holder(one.id, _identity(one), one.granted_at)
            for one in self._desk.clients
            if one.holds_slot and one.class_name in full and one.is_quiet_holder
        ]
        names = {one.identity.application_name for one in holders}
        waiting = [
            Waiting(one.id, _identity(one), one.asked_at)
            for one in self._desk.waiting_clients(full)
            if one.application in names
        ]
        for new in self.nested.look(holders, waiting, now):
            who, suspect = new.suspect.identity, new.suspect
            log.warning(
                "nested_acquire_suspected",
                class_name=who.class_name,
                user=who.user,
                application_name=who.application_name,
                address=who.address or "unix",
                holding=suspect.holding,
                waiting=suspect.waiting,
                waited_seconds=round(suspect.waited_seconds, 1),
                times=new.times,
                why="it holds slots and does nothing while another connection of it waits: probably for itself",
            )

    def _hour(self) -> Hour:
        """The current hour. What was held up to here belongs to the one before it, where that is over."""
        at = self._unix_time()
        current = self.record.current_index
        if current is not None and current != int(at // HOUR_SECONDS):
            self._take_holds(self.record.hour_at(current * HOUR_SECONDS))
        return self.record.hour_at(at)

    def _applications(self, classes: dict[str, ClassReading]) -> dict[tuple[str, str], ApplicationReading]:
        holding = Counter((one.class_name, one.application) for one in self._desk.clients if one.holds_slot)
        counting = {name for name, reading in classes.items() if reading.waiting_that_count}
        waiting = Counter((one.class_name, one.application) for one in self._desk.waiting_clients(counting))
        return {key: ApplicationReading(holding[key], waiting[key]) for key in (*holding, *waiting)}

    def frozen(self) -> tuple[tuple[int, bytes], ...]:
        """Everything up to now, to be read by whoever needs long for it."""
        self._take_holds(self._hour())
        return self.record.frozen()

    # -- holds --------------------------------------------------------------------------------------------------------

    def _take_holds(self, hour: Hour) -> None:
        """What has ended since the last time, of each class and of each application."""
        for class_name, of_class in self._desk.measures.classes.items():
            self._take(hour, class_name, None, of_class.hold)
            for name, of_application in of_class.applications.items():
                self._take(hour, class_name, name, of_application.hold)

    def _take(self, hour: Hour, class_name: str, application: str | None, holds: Histogram) -> None:
        counts, total = holds.counts, holds.sum
        had, had_total = self._held.get((class_name, application), ([0] * len(counts), 0.0))
        if counts != had:
            ended = {bucket: count - had[bucket] for bucket, count in enumerate(counts) if count != had[bucket]}
            hour.add_holds(class_name, application, ended, total - had_total)
            self._held[class_name, application] = counts, total

    # -- the file -----------------------------------------------------------------------------------------------------

    async def _restore(self) -> None:
        if self.file is None:
            return
        try:
            hours = await asyncio.to_thread(_read, self.file)
        except FileNotFoundError:
            return
        except (OSError, UnreadableRecord) as problem:
            self._set_aside(self.file, problem)
            return
        self.record.restore(hours)
        log.info("traffic_restored", hours=len(hours), file=str(self.file))

    @staticmethod
    def _set_aside(file: Path, problem: Exception) -> None:
        """Somebody may want it: it is not written over."""
        aside = file.with_name(f"{file.name}.unreadable")
        try:
            file.replace(aside)
        except OSError as failure:
            log.warning("traffic_file_unreadable", file=str(file), why=str(problem), kept=str(failure))
        else:
            log.warning("traffic_file_unreadable", file=str(file), why=str(problem), kept=str(aside))

    async def save(self) -> None:
        """What cannot be written is told once; the next try comes by itself."""
        self._saved_at = clock.now()
        if self.file is None or not self._is_restored:
            return
        try:
            await asyncio.to_thread(_write, self.file, self.frozen())
        except OSError as problem:
            if str(problem) != self._told:
                log.warning("traffic_file_not_written", setting="traffic.file", file=str(self.file), why=str(problem))
            self._told = str(problem)
        else:
            self._told = ""


def _identity(client: ClientConnection | ReplicationConnection) -> Identity:
    return Identity(client.class_name, client.identity.user, client.identity.address, client.application)


def _several(of_upstreams: Mapping[str, Sequence[ClassSnapshot]]) -> dict[str, list[str]]:
    """The names of the classes of each; nothing where there is one upstream. A moved class is in its new one."""
    if len(of_upstreams) == 1:
        return {}
    return {upstream: [one.name for one in classes if not one.retired] for upstream, classes in of_upstreams.items()}


def _reading(one: ClassSnapshot) -> ClassReading:
    is_running = one.state is ClassState.RUNNING
    is_below = one.used < one.limit
    waits = one.waiting if is_running else 0
    return ClassReading(one.used, waits if is_below else 0, is_limited=bool(waits) and not is_below)


def _read(file: Path) -> list[tuple[int, bytes]]:
    try:
        return from_text(file.read_text(encoding="ascii"))
    except UnicodeDecodeError:
        raise UnreadableRecord("it is no record of traffic") from None


def _write(file: Path, frozen: tuple[tuple[int, bytes], ...]) -> None:
    """Whole or not at all: a crash leaves the file before."""
    new = file.with_name(f"{file.name}.new")
    with new.open("w", encoding="ascii") as opened:
        opened.write(to_text(frozen))
        opened.flush()
        os.fsync(opened.fileno())
    new.replace(file)
