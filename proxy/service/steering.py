"""Carries out orders: in force at once, over when their time is, written down, told in the audit.

Owns: the switchboard of the running process, the timer of the next end, the look at the flag files, saving.
Does not know: what a paused class is (the admission core does), HTTP, commands.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

import structlog

from proxy.admission.classes import ClassState
from proxy.service.audit import Audit, shown_time
from proxy.service.budget import windows, with_limits
from proxy.service.config.model import Config
from proxy.service.config.settable import Number, settable, shown, value_at, with_values
from proxy.service.findings import Finding
from proxy.service.flag_files import LOOK_EVERY_SECONDS, FlagDirectory, FlagFile
from proxy.service.order_store import OrdersUnreadable, put_aside, read_orders, write_orders
from proxy.service.overrides import check_values, read_again, read_all, those_that_hold
from proxy.service.schedule import Effect, Window, effect_at, next_change, next_change_of_state
from proxy.service.switchboard import STATES, Order, OrderRefused, Override, Switch, Switchboard, moved_to
from proxy.service.view import OverrideNow, ScheduleNow
from proxy.session.tasks import TaskGroup

log = structlog.get_logger("pgheadroom")

# Timers of the loop stand still while a machine sleeps and know nothing of a clock that is set: looked at again.
_LONGEST_TIMER_SECONDS: Final = 60.0
_ORDER_OF: Final = {state: order for order, state in STATES.items()}


class Steered(Protocol):
    """What orders act on."""

    config: Config  # as the file says

    def adopt_numbers(self, config: Config) -> None:
        """These numbers are in force from now on."""

    def check(self, config: Config) -> list[Finding]:
        """What the start-up check says about a configuration."""

    def state_of(self, class_name: str) -> ClassState: ...

    def apply_state(self, class_name: str, state: ClassState) -> None: ...


@dataclass(frozen=True, slots=True)
class SteeringFiles:
    """Files that the configuration names."""

    flags: Path | None = None
    state: Path | None = None
    audit: Path | None = None


@dataclass(frozen=True, slots=True)
class Beside:
    """Numbers that stay set beside a configuration, those that do not, and all that is in force together."""

    in_force: Config
    kept: Mapping[str, Override]
    dropped: list[tuple[Override, str]]


class Steering:
    """`start` once, `close` once; in between orders may come from anywhere in the loop."""

    def __init__(
        self,
        steered: Steered,
        files: SteeringFiles,
        tasks: TaskGroup,
        loop: asyncio.AbstractEventLoop,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.board = Switchboard()
        self.audit = Audit(files.audit)
        self._steered = steered
        self._state_file = files.state
        self._flags = FlagDirectory(files.flags) if files.flags is not None else None
        self._flag_problem: str | None = None
        self._flag_files: list[FlagFile] = []
        self._strangers: frozenset[Path] = frozenset()
        self._windows: dict[str, tuple[Window, ...]] = {}
        self.effects: dict[str, Effect] = {}  # of the windows of time, for every class
        self._applied: tuple[dict[str, Number], dict[str, int]] = ({}, {})
        self._tasks = tasks
        self._loop = loop
        self._now = wall_clock
        self._end_timer: asyncio.TimerHandle | None = None
        self._flag_timer: asyncio.TimerHandle | None = None
        self._saving: asyncio.Task[None] | None = None
        self._is_unsaved = False
        self.save_problem: str | None = None

    # -- the beginning and the end ------------------------------------------------------------------------------------

    def start(self) -> None:
        """What was in force before a restart is so again, but for what ended meanwhile. Reads files."""
        if self._state_file is not None:
            self._restore(self._state_file)
        self._read_schedules()
        self.settle()
        self._look_at_flags()

    async def close(self) -> None:
        """No order after this. What was ordered is on the disk."""
        for timer in (self._end_timer, self._flag_timer):
            if timer is not None:
                timer.cancel()
        await self.saved()

    def _restore(self, path: Path) -> None:
        try:
            stored = read_orders(path)
        except OrdersUnreadable as problem:
            self._put_aside(path, problem)
            return
        for sentence in stored.problems:
            log.error("order_not_restored", why=sentence)
        names, now = self._names(), self._now()
        for switch in stored.switches:
            name = names.get(switch.class_name)
            if name is None:
                log.warning("order_not_restored", why=f'there is no class "{switch.class_name}" any more')
            elif switch.until is not None and switch.until <= now:
                log.info("switch_ended_meanwhile", class_name=name, until=shown_time(switch.until))
            else:
                self.board.give(replace(switch, class_name=name))
                log.warning("switch_restored", **_facts(self.board.switches[name]))
        overrides = [one for one in stored.overrides if one.until is None or one.until > now]
        self._restore_overrides([moved_to(one, names) for one in overrides])

    def _names(self) -> dict[str, str]:
        """What every class is called now, by its name and by the one before it: what was ordered, and what a file in
        the directory says, goes on for a class with another name."""
        classes = self._steered.config.classes
        before = {one.renamed_from: name for name, one in classes.items() if one.renamed_from is not None}
        return before | {name: name for name in classes}

    def _restore_overrides(self, overrides: list[Override]) -> None:
        readable = []
        for one in overrides:
            try:
                readable.append(read_again(self._steered.config, one))
            except OrderRefused as problem:
                log.error("order_not_restored", why=str(problem))  # noqa: TRY400 (no bug of ours)
        for override in self._keep_what_holds(readable).values():
            log.warning("override_restored", **_override_facts(override))

    @staticmethod
    def _put_aside(path: Path, problem: OrdersUnreadable) -> None:
        """The proxy serves without its orders rather than not at all, and nobody is told a lie about them."""
        try:
            kept_as: str | None = str(put_aside(path))
        except OSError:
            kept_as = None
        log.error("orders_unreadable", why=str(problem), kept_as=kept_as, now="no switch is in force")

    # -- orders -------------------------------------------------------------------------------------------------------

    def switch(
        self,
        class_name: str,
        state: ClassState,
        *,
        by: str,
        reason: str,
        seconds: float | None = None,
        source: str = "",
    ) -> Switch:
        """Carry out an order; it is in force when this returns. Raises OrderRefused, and then nothing has changed."""
        names = self._steered.config.classes
        if class_name not in names:
            raise OrderRefused(f'there is no class "{class_name}"; the classes are {", ".join(names)}', is_unknown=True)
        flag = self.board.flags.get(class_name)
        if flag is not None:
            raise OrderRefused(f'class "{class_name}" is {flag.state} by a file; remove {flag.source}')
        now = self._now()
        until = self._end_of_window(class_name, state, now) if seconds is None else now + seconds
        switch = Switch(class_name, state, by, reason, now, until, source)
        self.board.give(switch)
        self._note(switch)
        self._changed()
        return switch

    def settle(self) -> None:
        """Bring every class into the state that is in force, and wake up when the next order ends."""
        at = self._see_the_time()
        for class_name in self._steered.config.classes:
            order = self.board.in_force(class_name)
            state = self.effects[class_name].state if order is None else order.state
            if (state or ClassState.RUNNING) is not self._steered.state_of(class_name):
                self._steered.apply_state(class_name, state or ClassState.RUNNING)
        self._set_timer(at)

    def set(
        self, written: Mapping[str, object], *, by: str, reason: str, seconds: float | None = None, source: str = ""
    ) -> tuple[list[OverrideNow], list[str]]:
        """Set numbers beside the file, all or none. Returns them, and the warnings that they cause.

        Raises OrderRefused, with the sentences of a reload, and then nothing has changed.
        """
        config, now = self._steered.config, self._now()
        values = read_all(config, written)
        warnings = check_values(config, self.board.values() | values, self._steered.check)
        until = None if seconds is None else now + seconds
        orders = [Override(key, value, by, reason, now, until, source) for key, value in values.items()]
        for order in orders:
            before = value_at(self.in_force(config), settable(config)[order.key])
            self.audit.note("set", at=now, before=before, **_override_facts(order))
        self.board.overrides |= {order.key: order for order in orders}
        self._changed()
        return [self._now_of(order) for order in orders], warnings

    def unset(self, keys: Collection[str], *, by: str, reason: str, source: str = "") -> list[OverrideNow]:
        """What the schedule and the file say holds again for these keys. Raises OrderRefused."""
        for key in keys:
            if key not in self.board.overrides:
                known = ", ".join(self.board.overrides) or "nothing is set"
                raise OrderRefused(f'"{key}" is not set beside the file; set are: {known}', is_unknown=True)
        left = {key: one.value for key, one in self.board.overrides.items() if key not in keys}
        check_values(self._steered.config, left, self._steered.check)
        over = [self.board.overrides.pop(key) for key in keys]
        for one in over:
            facts = {"key": one.key, "by": by, "reason": reason, "source": source}
            self.audit.note("unset", at=self._now(), was=one.value, was_set_by=one.by, **facts)
        self._changed()
        return [self._now_of(one) for one in over]

    def overrides(self) -> list[OverrideNow]:
        """What is set beside the file, the oldest first."""
        return [self._now_of(one) for one in self.board.overrides.values()]

    def _now_of(self, override: Override) -> OverrideNow:
        config = self._steered.config
        effects = _limits(self.effects, {})
        configured = value_at(with_limits(config, effects), settable(config)[override.key])
        return OverrideNow(
            override, shown(config, override.key, override.value), shown(config, override.key, configured)
        )

    def _keep_what_holds(self, overrides: Collection[Override]) -> dict[str, Override]:
        """Other numbers are in the file, or some that were set are over: the rest still has to hold."""
        kept, dropped = those_that_hold(self._steered.config, overrides, self._steered.check)
        for override, why in dropped:
            self.audit.note("set_ended", at=self._now(), why=why, **_override_facts(override))
        self.board.overrides = kept
        return kept

    def beside(self, config: Config, renamed: Mapping[str, str]) -> "Beside":
        """What stays set beside another configuration, and what would be in force with it. Changes nothing."""
        moved = [moved_to(one, renamed) for one in self.board.overrides.values()]
        kept, dropped = those_that_hold(config, moved, self._steered.check)
        return Beside(self._with(config, {key: one.value for key, one in kept.items()}), kept, dropped)

    def classes_changed(self, renamed: Mapping[str, str]) -> None:
        """Other classes are configured: orders for those that left are over, and follow those with another name."""
        left = self.board.keep_classes(self._steered.config.classes, renamed)
        for switch in left:
            self._note_end(switch, why="the class left the configuration")
        before = self.board.overrides
        kept = self._keep_what_holds(before.values())
        self._read_schedules()
        self._see_flags()  # the directory has not changed, and what its files are about has
        self.settle()
        if left or renamed or kept != before:
            self._save()

    def _changed(self) -> None:
        self.settle()
        self._save()

    def _note(self, switch: Switch) -> None:
        self.audit.note("switch", at=switch.at, order=_ORDER_OF[switch.state], **_facts(switch))

    def _note_end(self, order: Order, *, why: str) -> None:
        if isinstance(order, Override):
            self.audit.note("set_ended", at=self._now(), why=why, **_override_facts(order))
            return
        switch = order
        facts = {"class_name": switch.class_name, "was": switch.state.value, "by": switch.by, "reason": switch.reason}
        self.audit.note("switch_ended", at=self._now(), why=why, **facts)

    # -- windows of time ----------------------------------------------------------------------------------------------

    def _read_schedules(self) -> None:
        classes = self._steered.config.classes
        self._windows = {name: windows(one) for name, one in classes.items()}
        self.effects = {name: effect for name, effect in self.effects.items() if name in classes}

    def in_force(self, config: Config) -> Config:
        """The configuration with what its windows of time change now, and what is set beside both."""
        return self._with(config, self.board.values())

    def _with(self, config: Config, values: Mapping[str, Number]) -> Config:
        at = self._now()
        effects = {name: effect_at(windows(one), at) for name, one in config.classes.items()}
        return with_limits(with_values(config, values), _limits(effects, values))

    def schedule(self, class_name: str) -> ScheduleNow | None:
        """What the windows of the class change now and next; None where it has none."""
        windows = self._windows.get(class_name)
        if not windows:
            return None
        change_at = next_change(windows, self._now())
        then = Effect() if change_at is None else effect_at(windows, change_at)
        return ScheduleNow(self.effects[class_name], change_at, then)

    def _see_the_time(self) -> float:
        """Windows that began or ended are told, and their limits are in force.

        Returns the moment that was seen. What comes next comes after that moment: asked of the clock again, a window
        that begins between the two would be missed.
        """
        before, at = self.effects, self._now()
        self.effects = {name: effect_at(windows, at) for name, windows in self._windows.items()}
        for name, effect in self.effects.items():
            if not effect.is_same(before.get(name, Effect())):
                self._note_window(name, effect, at)
        values = self.board.values()
        applied = values, _limits(self.effects, values)
        if applied != self._applied:
            self._applied = applied
            self._steered.adopt_numbers(with_limits(with_values(self._steered.config, values), applied[1]))
        return at

    def _note_window(self, class_name: str, effect: Effect, at: float) -> None:
        """A window is nobody's order, and changes as much as one."""
        self.audit.note(
            "schedule",
            at=at,
            class_name=class_name,
            limit=effect.limit,
            state=effect.state,
            reason=effect.reason,
            windows=[window.text for window in effect.windows],
            until=shown_time(next_change(self._windows[class_name], at)),
        )

    def _end_of_window(self, class_name: str, state: ClassState, at: float) -> float | None:
        """A resume goes past the window that stops the class now, and no further: the next one counts again."""
        effect = effect_at(self._windows[class_name], at)
        if state is ClassState.RUNNING and effect.state not in (None, ClassState.RUNNING):
            return next_change_of_state(self._windows[class_name], at)
        return None

    # -- time ---------------------------------------------------------------------------------------------------------

    def _set_timer(self, at: float) -> None:
        """`at` is the moment whose windows are in force."""
        if self._end_timer is not None:
            self._end_timer.cancel()
            self._end_timer = None
        ends = [self.board.next_end(), *(next_change(windows, at) for windows in self._windows.values())]
        end = min((end for end in ends if end is not None), default=None)
        if end is not None:
            seconds = min(max(0.0, end - self._now()), _LONGEST_TIMER_SECONDS)
            self._end_timer = self._loop.call_later(seconds, self._look_at_the_time)

    def _look_at_the_time(self) -> None:
        over = self.board.expire(self._now())
        for order in over:
            self._note_end(order, why="its time is over")
        if any(isinstance(order, Override) for order in over):
            self._keep_what_holds(self.board.overrides.values())
        self.settle()
        if over:
            self._save()

    # -- flag files ---------------------------------------------------------------------------------------------------

    def _look_at_flags(self) -> None:
        if self._flags is None:
            return
        files = self._flags.read_if_changed(self._now())
        if self._flags.problem != self._flag_problem:
            self._flag_problem = self._flags.problem
            if self._flag_problem is not None:
                log.error("switch_files_unreadable", why=self._flag_problem)
        if files is not None:
            self._flag_files = files
            if self._see_flags():
                self.settle()
        self._flag_timer = self._loop.call_later(LOOK_EVERY_SECONDS, self._look_at_flags)

    def _see_flags(self) -> bool:
        """What the files say of the classes that there are now. Returns whether that is something else than before.

        A file is about the class that was called so before, too: a rename must not resume what somebody has paused.
        """
        classes, names = self._steered.config.classes, self._names()
        strangers = frozenset(file.path for file in self._flag_files if file.class_name not in names)
        for path in strangers - self._strangers:
            log.error("switch_file_of_no_class", path=str(path), classes=sorted(classes))
        self._strangers = strangers
        files = [file for file in self._flag_files if file.class_name in names]
        # A file under the name of today counts before one under that of before.
        files.sort(key=lambda file: file.class_name in classes)
        flags = {names[file.class_name]: _flag(file, names[file.class_name]) for file in files}
        changes = self.board.see_flags(flags, self._now())
        for change in changes:
            self._note(change)
        return bool(changes)

    # -- saving -------------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        self._is_unsaved = self._state_file is not None
        if self._is_unsaved and self._saving is None:
            self._saving = self._tasks.spawn(self._save_all(), name="orders")

    async def _save_all(self) -> None:
        """In a thread: a disk may take long to say that it has written, and clients must not wait for it."""
        assert self._state_file is not None, "nothing is saved without a file"
        try:
            while self._is_unsaved:
                self._is_unsaved = False
                orders = list(self.board.switches.values()), list(self.board.overrides.values())
                await asyncio.to_thread(write_orders, self._state_file, *orders)
                self.save_problem = None
        except OSError as problem:
            self.save_problem = f"{self._state_file} cannot be written: {problem.strerror}"
            log.error("orders_not_saved", why=self.save_problem)  # noqa: TRY400 (no bug of ours)
        finally:
            self._saving = None

    async def saved(self) -> str | None:
        """Wait until the orders are on the disk. Returns why they are not."""
        while self._saving is not None:
            await asyncio.wait([self._saving])
        return self.save_problem


def _limits(effects: Mapping[str, Effect], values: Mapping[str, Number]) -> dict[str, int]:
    """What windows of time say of limits, but for those that somebody has set."""
    return {
        name: effect.limit
        for name, effect in effects.items()
        if effect.limit is not None and f"classes.{name}.limit" not in values
    }


def _flag(file: FlagFile, class_name: str) -> Switch:
    return Switch(class_name, STATES[file.order], file.by, file.reason, file.at, source=str(file.path))


def _facts(switch: Switch) -> dict[str, object]:
    """The keys of an order in the log."""
    return {
        "class_name": switch.class_name,
        "state": switch.state.value,
        "by": switch.by,
        "reason": switch.reason,
        "until": shown_time(switch.until),
        "source": switch.source,
    }


def _override_facts(override: Override) -> dict[str, object]:
    return {
        "key": override.key,
        "value": override.value,
        "by": override.by,
        "reason": override.reason,
        "until": shown_time(override.until),
        "source": override.source,
    }


def notes_of(config: Config, beside: Beside) -> list[str]:
    """What a reload says of numbers that were set: which stay, and which do not and why."""
    notes = []
    for key, one in beside.kept.items():
        says = shown(config, key, value_at(config, settable(config)[key]))
        notes.append(f"{key} stays set to {shown(config, key, one.value)} by {one.by}; the file says {says}")
    notes += [f"{one.key} is no longer set to {one.value}: {why}" for one, why in beside.dropped]
    return notes
