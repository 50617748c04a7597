"""Adaptive limits: while customers feel an overload, the least important work gets less; afterwards it gets it back.

Owns: the limits that should be in force, which class is cut or raised next, by how much, and when.
Does not know: whether its steps are carried out (`observe` carries out none), the clock, who takes the samples.

A cut is multiplicative, of the least important class that uses more than its floor, and comes at most once per median
hold of that class: before that its effect cannot be seen. Recovery is additive, in the reverse order of cutting, while
all is calm, and only for a class that had waiters in half of the window: a limit nobody needs is not raised. Each time
that a raise is followed by a cut the next raises take twice as long.

A baseline that no longer fits would hold the least important work down for ever (the customers' own queries became
slower): where no step is left that could help, for RELEARN_AFTER_SECONDS on end, what is becomes usual.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from proxy.admission.classes import INTERNAL_CLASS
from proxy.admission.distribution import Distribution
from proxy.admission.overload import AdaptiveSettings, Cause, Load, Overload, Verdict
from proxy.admission.signals import ClassReading, Sample

__all__ = ["AdaptiveControl", "AdaptiveSettings", "Cause", "Direction", "Relearnt", "Step"]

# What a cut leaves of what a class uses above its floor: more of it the smaller the slowdown is.
LEAST_LEFT: Final = 0.3
MOST_LEFT: Final = 0.7
LEFT: Final = 0.5  # where the cause says nothing of how bad it is

RAISES_TO_RECOVER: Final = 8
RAISE_EVERY_SECONDS: Final = 3.0
LONGEST_RAISE_PAUSE_SECONDS: Final = 300.0
RAISE_WINDOW_SAMPLES: Final = 4
# Nothing held back for so long: the next overload is a new one.
FORGET_AFTER_SECONDS: Final = 60.0

RELEARN_AFTER_SECONDS: Final = 300.0
# Holds older than that hardly count for what a median hold is.
HOLDS_HALF_LIFE_SECONDS: Final = 60.0
USE_WINDOW_SAMPLES: Final = 3


class Direction(StrEnum):
    CUT = "cut"
    RAISE = "raise"


@dataclass(frozen=True, slots=True)
class Step:
    """One change of one limit. `limit` is the new one, `configured` what the operator wrote."""

    class_name: str
    direction: Direction
    cause: Cause
    was: int
    limit: int
    configured: int
    why: str


@dataclass(frozen=True, slots=True)
class Relearnt:
    """What is usual is learnt anew, since no step was left. `usual_seconds` was usual before."""

    class_name: str
    usual_seconds: float


Event = Step | Relearnt


@dataclass(eq=False, slots=True)
class _Course:
    """What is remembered of one class."""

    limit: int | None = None  # None: the configured one
    holds: Distribution = field(default_factory=Distribution)
    used: deque[int] = field(default_factory=lambda: deque(maxlen=USE_WINDOW_SAMPLES))
    wanted: deque[bool] = field(default_factory=lambda: deque(maxlen=RAISE_WINDOW_SAMPLES))

    def note(self, reading: ClassReading, seconds: float, wanted: bool) -> None:
        self.used.append(reading.used)
        self.wanted.append(wanted)
        if reading.holds.count:
            self.holds.fade(0.5 ** (seconds / HOLDS_HALF_LIFE_SECONDS))
            self.holds.add(reading.holds)

    def in_force(self, reading: ClassReading) -> int:
        return reading.limit if self.limit is None else min(self.limit, reading.limit)

    def takes(self, reading: ClassReading) -> int:
        """The most it used lately of what it may."""
        return min(self.in_force(reading), max(self.used, default=reading.used))

    def needs_more(self) -> bool:
        return len(self.wanted) == RAISE_WINDOW_SAMPLES and 2 * sum(self.wanted) >= RAISE_WINDOW_SAMPLES


def cut_to(floor: int, takes: int, left: float) -> int:
    """What is left of the limit of a class that takes so many slots, more than its floor."""
    return floor + math.floor((takes - floor) * left)


def raised_to(floor: int, limit: int, configured: int) -> int:
    return min(configured, limit + max(1, math.ceil((configured - floor) / RAISES_TO_RECOVER)))


class AdaptiveControl:
    """The adaptive limits of one budget. Samples in, steps out."""

    def __init__(self, settings: AdaptiveSettings) -> None:
        self._settings = settings
        self._overload = Overload(settings)
        self._courses: dict[str, _Course] = {}
        self._cut_order: list[str] = []  # classes below their limit, the one that was cut first in front
        self._raise_pause_seconds = RAISE_EVERY_SECONDS
        self._may_raise_at = -math.inf
        self._settles_until = -math.inf
        self._last_direction: Direction | None = None
        self._free_since: float | None = None
        self._stuck_since: float | None = None
        self.verdict = Verdict(Load.CALM)

    @property
    def limits(self) -> Mapping[str, int]:
        """Of the classes that should be held back."""
        limits = {name: self._courses[name].limit for name in self._cut_order}
        return {name: limit for name, limit in limits.items() if limit is not None}

    @property
    def usual_hold_seconds(self) -> float | None:
        """What is usual for the reference class, once that is known."""
        baseline = self._overload.hold_time.baseline
        return baseline.usual.typical() if baseline.is_known else None

    def look(self, sample: Sample) -> Sequence[Event]:
        """Judge the sample, and say what should change. Whoever carries it out does so before the next sample."""
        self._note(sample)
        self.verdict = verdict = self._overload.look(sample, held_back=bool(self._cut_order))
        if sample.at <= self._settles_until:
            return ()
        steps: Sequence[Event] = ()
        if verdict.load is Load.OVERLOADED:
            steps = self._cut(sample, verdict)
        elif verdict.load is Load.CALM:
            steps = self._raise(sample)
        if steps or verdict.load is Load.CALM:
            self._stuck_since = None
            return steps
        return self._relearn_where_stuck(sample.at, verdict)

    # What is

    def _note(self, sample: Sample) -> None:
        """Take in what each class did; forget those that are gone, and limits that hold nobody back."""
        names = {reading.name for reading in sample.classes}
        self._courses = {name: one for name, one in self._courses.items() if name in names}
        for reading in sample.classes:
            course = self._courses.setdefault(reading.name, _Course())
            if course.limit is not None and course.limit >= reading.limit:
                course.limit = None
            course.note(reading, sample.seconds, self._wants(reading, course))
        self._cut_order = [name for name in self._cut_order if name in names and self._courses[name].limit is not None]
        self._note_freedom(sample.at)

    def _note_freedom(self, now: float) -> None:
        if self._cut_order:
            self._free_since = None
        elif self._free_since is None:
            self._free_since = now
        elif now - self._free_since >= FORGET_AFTER_SECONDS:
            self._raise_pause_seconds = RAISE_EVERY_SECONDS
            self._last_direction = None

    def _wants(self, reading: ClassReading, course: _Course) -> bool:
        if not reading.running:
            return False
        would_wait = self._settings.observes and reading.used > course.in_force(reading)
        return bool(reading.waiting) or would_wait

    # Down

    def _cut(self, sample: Sample, verdict: Verdict) -> Sequence[Event]:
        reading = self._least_important_above_its_floor(sample)
        if reading is None:
            return ()
        course = self._courses[reading.name]
        was, takes = course.in_force(reading), course.takes(reading)
        course.limit = cut_to(reading.floor, takes, self._left(verdict))
        if reading.name not in self._cut_order:
            self._cut_order.append(reading.name)
        self._turn(Direction.CUT)
        self._settle(sample.at + course.holds.median())
        cause = verdict.cause
        assert cause is not None, "an overload has a cause"
        return (Step(reading.name, Direction.CUT, cause, was, course.limit, reading.limit, verdict.why),)

    def _least_important_above_its_floor(self, sample: Sample) -> ClassReading | None:
        reference = sample.of_class(self._settings.reference_class)
        if reference is None:
            return None
        candidates = [
            one
            for one in sample.classes
            if one.priority > reference.priority
            and one.name != INTERNAL_CLASS
            and one.running
            and self._courses[one.name].takes(one) > one.floor
        ]
        return max(candidates, key=lambda one: (one.priority, self._courses[one.name].takes(one)), default=None)

    def _left(self, verdict: Verdict) -> float:
        if verdict.cause is not Cause.HOLD_TIME or verdict.slowdown is None:
            return LEFT
        return min(MOST_LEFT, max(LEAST_LEFT, self._settings.tolerance / verdict.slowdown))

    def _relearn_where_stuck(self, now: float, verdict: Verdict) -> Sequence[Event]:
        """Overloaded with nothing to cut, or held back in the band where nothing is to be done: not for ever."""
        usual_seconds = self.usual_hold_seconds
        if usual_seconds is None or (verdict.load is Load.UNCLEAR and not self._cut_order):
            self._stuck_since = None
        elif self._stuck_since is None:
            self._stuck_since = now
        elif now - self._stuck_since >= RELEARN_AFTER_SECONDS:
            self._stuck_since = None
            self._overload.relearn()
            return (Relearnt(self._settings.reference_class, usual_seconds),)
        return ()

    # Up

    def _raise(self, sample: Sample) -> Sequence[Event]:
        if sample.at < self._may_raise_at:
            return ()
        reading = self._last_cut_that_needs_more(sample)
        if reading is None:
            return ()
        course = self._courses[reading.name]
        was = course.in_force(reading)
        limit = raised_to(reading.floor, was, reading.limit)
        course.limit = limit if limit < reading.limit else None
        if course.limit is None:
            self._cut_order.remove(reading.name)
        self._turn(Direction.RAISE)
        self._settle(sample.at)
        why = f"{self._settings.reference_class} is well, and {reading.name} has waited"
        return (Step(reading.name, Direction.RAISE, Cause.RECOVERED, was, limit, reading.limit, why),)

    def _last_cut_that_needs_more(self, sample: Sample) -> ClassReading | None:
        for name in reversed(self._cut_order):
            if self._courses[name].needs_more():
                return sample.of_class(name)
        return None

    # Both

    def _turn(self, direction: Direction) -> None:
        if self._last_direction is Direction.RAISE and direction is Direction.CUT:
            self._raise_pause_seconds = min(LONGEST_RAISE_PAUSE_SECONDS, 2 * self._raise_pause_seconds)
        self._last_direction = direction

    def _settle(self, until: float) -> None:
        """A step was made that shows its effect by then: until then there is no other."""
        self._settles_until = until
        self._may_raise_at = until + self._raise_pause_seconds
        self._overload.ignore_until(until)
        for course in self._courses.values():
            course.wanted.clear()
