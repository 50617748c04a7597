"""Time windows of a class: what they change at a given moment, and when that changes next.

Owns: the meaning of a window, by the clock on the wall of its time zone.
Does not know: the clock (`at` is an argument, in Unix seconds), configuration, what a limit or a state does.

A window begins when that clock first shows `from` (or later) on one of its days, and ends when it first shows `to`. So
where clocks go forward, a time that is left out is the moment of the jump; where they go back, a time that comes twice
counts the first time. Every window is one stretch of time, and none opens twice in a night.

Of several windows in force, the first of the list that says something about the limit decides it, and so for the state.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from typing import Final

from proxy.admission.classes import ClassState

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MINUTES_PER_DAY: Final = 24 * 60

# Windows repeat each week; one may be left out where clocks go forward, and then the next week's is the next.
_DAYS_AHEAD: Final = 15
# A window lasts a day at most and begins on its day: what began two days ago may still last where a day is skipped.
_DAYS_BACK: Final = 2


@dataclass(frozen=True, slots=True)
class Window:
    """`days` are those on which it begins, 0 is Monday; `end_minute` is beyond a day where it ends after midnight."""

    days: frozenset[int]
    start_minute: int
    end_minute: int
    zone: tzinfo
    limit: int | None = None
    state: ClassState | None = None
    reason: str = ""
    text: str = ""

    def stretches(self, at: float, days_ahead: int) -> Iterator[tuple[float, float]]:
        """From when until when it is in force, in order: all that are not over long before `at`."""
        today = datetime.fromtimestamp(at, self.zone).date()
        for ahead in range(-_DAYS_BACK, days_ahead + 1):
            day = today + timedelta(days=ahead)
            if day.weekday() in self.days:
                begin, end = (moment(day, minute, self.zone) for minute in (self.start_minute, self.end_minute))
                if begin < end:
                    yield begin, end

    def is_in_force(self, at: float) -> bool:
        return any(begin <= at < end for begin, end in self.stretches(at, 1))


@dataclass(frozen=True, slots=True)
class Effect:
    """What windows change at one moment; None leaves it as configured. `windows` are those in force."""

    limit: int | None = None
    state: ClassState | None = None
    windows: tuple[Window, ...] = ()

    @property
    def reason(self) -> str:
        return "; ".join(dict.fromkeys(window.reason for window in self.windows if window.reason))

    def is_same(self, other: "Effect") -> bool:
        """Whether both change the same, whichever windows do it."""
        return (self.limit, self.state) == (other.limit, other.state)


def effect_at(windows: Iterable[Window], at: float) -> Effect:
    in_force = tuple(window for window in windows if window.is_in_force(at))
    limits = [window.limit for window in in_force if window.limit is not None]
    states = [window.state for window in in_force if window.state is not None]
    return Effect(limits[0] if limits else None, states[0] if states else None, in_force)


def next_change(
    windows: Sequence[Window], at: float, differ: Callable[[Effect, Effect], bool] = lambda a, b: not a.is_same(b)
) -> float | None:
    """The first moment after `at` at which the effect is another one; None where it never is."""
    now = effect_at(windows, at)
    edges = {edge for window in windows for stretch in window.stretches(at, _DAYS_AHEAD) for edge in stretch}
    return next((edge for edge in sorted(edges) if edge > at and differ(now, effect_at(windows, edge))), None)


def next_change_of_state(windows: Sequence[Window], at: float) -> float | None:
    return next_change(windows, at, lambda a, b: a.state is not b.state)


def overlap(one: Window, other: Window, at: float) -> bool:
    """Whether both are ever in force together, in the year after `at`."""
    ones, others = (iter([*window.stretches(at, 366)]) for window in (one, other))
    a, b = next(ones, None), next(others, None)
    while a is not None and b is not None:
        if a[0] < b[1] and b[0] < a[1]:
            return True
        if a[1] <= b[1]:
            a = next(ones, None)
        else:
            b = next(others, None)
    return False


def moment(day: date, minute: int, zone: tzinfo) -> float:
    """When the clock of the zone first shows this minute of the day, or one after it; whole Unix seconds."""
    wanted = datetime.combine(day, time()) + timedelta(minutes=minute)
    shown = int(wanted.replace(tzinfo=zone).timestamp())
    if _clock(shown, zone) == wanted:
        return shown
    # It is left out: with the offset after the jump it would be before the jump, and the other way round.
    before, after = int(wanted.replace(tzinfo=zone, fold=1).timestamp()), shown
    while after - before > 1:
        middle = (before + after) // 2
        before, after = (before, middle) if _clock(middle, zone) >= wanted else (middle, after)
    return after


def _clock(at: float, zone: tzinfo) -> datetime:
    return datetime.fromtimestamp(at, zone).replace(tzinfo=None, fold=0)
