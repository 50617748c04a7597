"""Do customers feel that the server has too much to do? A verdict on each sample, with its cause.

Owns: the signals, what is usual (the baseline), and how long a signal has to last.
Does not know: limits, what is done about it.

No signal decides by itself at one moment: it has to stand in two samples that follow each other. Between what counts as
overloaded and what counts as calm there is a band in which nothing is to be done, so that no verdict flickers.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from proxy.admission.distribution import Distribution, certainly_longer, times_longer
from proxy.admission.signals import Sample

WINDOW_SECONDS: Final = 3.0
# A class with few transactions is judged over as many of the last samples as it takes, up to this.
MOST_SAMPLES: Final = 60
LONGEST_SAMPLE_SECONDS: Final = 5.0
SAMPLES_IN_A_ROW: Final = 2
# Calm is what stays below this part of what is tolerated: of a slowdown as a factor, 1.41 where 2 is tolerated.
CALM_PART: Final = 0.5

# How unlikely a false alarm has to be, in standard deviations of the mean: 6 is one in a thousand million looks.
CERTAINTY: Final = 6.0
FEWEST_HOLDS: Final = 10
# A slowdown that adds less than this is none that a customer feels, however many times it is.
LEAST_ADDED_SECONDS: Final = 0.002

# What is usual is forgotten by half with so much later traffic: a server that fills up in half an hour is noticed.
BASELINE_HALF_LIFE_SECONDS: Final = 1800.0
# Sooner where holds have become so much shorter as they may become longer: an overload that had become usual is over.
FASTER_HALF_LIFE_SECONDS: Final = 60.0
BASELINE_NEEDS_SECONDS: Final = 30.0
BASELINE_NEEDS_HOLDS: Final = 30

# Of the requests of an important class, so many have to wait beyond the target.
WAITING_SHARE: Final = 0.1
FEWEST_LONG_WAITS: Final = 5
FEWEST_REFUSALS: Final = 2
FEWEST_LOCK_WAITS: Final = 3
LOCK_WAITS_SHARE: Final = 0.33


class Cause(StrEnum):
    """Why a limit was changed. The values are the words of metrics and logs."""

    QUEUE_WAIT = "queue_wait"
    SERVER_REFUSALS = "server_refusals"
    HOLD_TIME = "hold_time"
    CANARY = "canary"
    LOCK_WAITS = "lock_waits"
    RECOVERED = "recovered"


class Load(StrEnum):
    CALM = "calm"
    UNCLEAR = "unclear"  # neither a reason to cut nor one to give back
    OVERLOADED = "overloaded"


@dataclass(frozen=True, slots=True)
class AdaptiveSettings:
    """`waits_of` are the classes whose queue counts: the reference class and those as important.

    `tolerance` is how many times as long as usual a hold, or a canary, may take. An instance that `observes` goes by
    lock waits as well: those say as much of the application as of the server, so they never decide.
    """

    reference_class: str
    waits_of: frozenset[str]
    tolerance: float = 2.0
    wait_target_seconds: float = 0.1
    observes: bool = False

    def calm_slowdown(self) -> float:
        return math.pow(self.tolerance, CALM_PART)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`slowdown` is how many times as long as usual the reference class holds a slot, where that is known."""

    load: Load
    cause: Cause | None = None
    why: str = ""
    slowdown: float | None = None


CALM: Final = Verdict(Load.CALM)


class Baseline:
    """What is usual. It learns from samples that were no overload, and late, when nothing has come of them."""

    def __init__(self) -> None:
        self.usual = Distribution()
        self.seconds = 0.0

    @property
    def is_known(self) -> bool:
        return self.seconds >= BASELINE_NEEDS_SECONDS and self.usual.count >= BASELINE_NEEDS_HOLDS

    def learn(self, holds: Distribution, seconds: float, half_life_seconds: float = BASELINE_HALF_LIFE_SECONDS) -> None:
        if not holds.count:
            return  # a night without traffic makes nothing usual
        self.usual.fade(0.5 ** (seconds / half_life_seconds))
        self.usual.add(holds)
        self.seconds += seconds


class HoldTime:
    """The hold time of the reference class against its baseline."""

    def __init__(self, settings: AdaptiveSettings) -> None:
        self._settings = settings
        self.baseline = Baseline()
        self.slowdown: float | None = None
        self._doubtful: deque[Sample] = deque()

    def judge(self, recent: Sequence[Sample]) -> Verdict:
        """`recent`: the samples to go by, the newest first; there is one at least."""
        self.slowdown = None
        if not self.baseline.is_known:
            return CALM
        holds, seconds = self._enough_of(recent)
        usual = self.baseline.usual
        if holds.count < FEWEST_HOLDS:
            return CALM
        self.slowdown = times_longer(holds, usual)
        added_seconds = holds.typical() - usual.typical()
        if self.slowdown <= self._settings.calm_slowdown() or added_seconds < LEAST_ADDED_SECONDS:
            return CALM
        is_enough = seconds >= WINDOW_SECONDS and holds.count >= self._holds_needed()
        tolerance = self._settings.tolerance
        is_slow = is_enough and self.slowdown > tolerance and certainly_longer(holds, usual, tolerance)
        if not is_slow or self._is_over(recent[0]):
            return Verdict(Load.UNCLEAR)
        return Verdict(Load.OVERLOADED, Cause.HOLD_TIME, self._words(holds))

    def _is_over(self, newest: Sample) -> bool:
        """Whether the last sample alone, where it holds enough, is calm again: a bad second goes by itself."""
        reading = newest.of_class(self._settings.reference_class)
        if reading is None or reading.holds.count < FEWEST_HOLDS:
            return False
        return times_longer(reading.holds, self.baseline.usual) <= self._settings.calm_slowdown()

    def learn(self, sample: Sample, *, is_frozen: bool) -> None:
        """What was no overload becomes usual once a window has passed and it still was none."""
        if is_frozen:
            self._doubtful.clear()
            return
        self._doubtful.append(sample)
        # A sample of a time in which nobody had to look is not in doubt.
        while self._doubtful[0].at - self._doubtful[0].seconds <= sample.at - LONGEST_SAMPLE_SECONDS:
            old = self._doubtful.popleft()
            reading = old.of_class(self._settings.reference_class)
            if reading is not None:
                self.baseline.learn(reading.holds, old.seconds, self._half_life_seconds())
            if not self._doubtful:
                break

    def relearn(self) -> None:
        self.baseline = Baseline()
        self._doubtful.clear()
        self.slowdown = None

    def _half_life_seconds(self) -> float:
        is_faster = self.slowdown is not None and self.slowdown < 1 / self._settings.tolerance
        return FASTER_HALF_LIFE_SECONDS if is_faster else BASELINE_HALF_LIFE_SECONDS

    def _enough_of(self, recent: Sequence[Sample]) -> tuple[Distribution, float]:
        """The holds of as many of the last samples as it takes to be sure, and how long those lasted."""
        holds, seconds, needed = Distribution(), 0.0, self._holds_needed()
        for sample in recent:
            reading = sample.of_class(self._settings.reference_class)
            if reading is not None and reading.holds.seconds:
                holds.add(reading.holds)
            seconds += sample.seconds
            if seconds >= WINDOW_SECONDS and holds.count >= needed:
                break
        return holds, seconds

    def _holds_needed(self) -> float:
        """So many that a mean this far from the usual one comes about by chance hardly ever, however wide they vary."""
        wide = self.baseline.usual.log_spread()
        return max(FEWEST_HOLDS, (CERTAINTY * wide / math.log(self._settings.tolerance)) ** 2)

    def _words(self, holds: Distribution) -> str:
        now, usual = holds.typical() * 1000, self.baseline.usual.typical() * 1000
        return f"{self._settings.reference_class} holds a slot for {now:.3g} ms, usually for {usual:.3g} ms"


class CanaryTime:
    """What the last canaries took: two in a row that failed, or took longer than usual and than may be waited."""

    def __init__(self, settings: AdaptiveSettings) -> None:
        self._settings = settings
        self._baseline = Baseline()
        self._last: deque[float] = deque(maxlen=SAMPLES_IN_A_ROW)

    def judge(self, sample: Sample) -> Verdict:
        for seconds in sample.canary:
            self._last.append(seconds)
            if not self._is_slow(seconds):
                self._baseline.learn(_one(seconds), BASELINE_NEEDS_SECONDS)
        slow = [one for one in self._last if self._is_slow(one)]
        if len(slow) == SAMPLES_IN_A_ROW:
            took = "fails" if math.isinf(slow[-1]) else f"takes {slow[-1] * 1000:.3g} ms"
            return Verdict(Load.OVERLOADED, Cause.CANARY, f"the canary {took}")
        return Verdict(Load.UNCLEAR) if slow else CALM

    def relearn(self) -> None:
        self._baseline = Baseline()
        self._last.clear()

    def _is_slow(self, seconds: float) -> bool:
        usual = self._baseline.usual.typical()
        return seconds > max(self._settings.wait_target_seconds, self._settings.tolerance * usual)


def _one(seconds: float) -> Distribution:
    one = Distribution()
    one.counts[sum(bound < seconds for bound in one.bounds)] = 1.0
    one.seconds = seconds
    return one


class Overload:
    """All signals together: the first that says so decides, in the order of how plainly they speak."""

    def __init__(self, settings: AdaptiveSettings) -> None:
        self._settings = settings
        self.hold_time = HoldTime(settings)
        self._canary = CanaryTime(settings)
        self._recent: deque[Sample] = deque(maxlen=MOST_SAMPLES)  # the newest first
        self._ignored_until = -math.inf
        self._in_a_row = 0

    def look(self, sample: Sample, *, held_back: bool) -> Verdict:
        """The verdict on this sample and those before it. What is usual is learnt while nothing is overloaded, and
        while somebody is `held_back` only where all is calm."""
        canary = self._canary.judge(sample)
        if sample.at <= self._ignored_until:
            return Verdict(Load.UNCLEAR, slowdown=self.hold_time.slowdown)
        self._recent.appendleft(sample)
        verdict = self._loudest(sample, canary)
        is_frozen = verdict.load is Load.OVERLOADED or (held_back and verdict.load is Load.UNCLEAR)
        self.hold_time.learn(sample, is_frozen=is_frozen)
        self._in_a_row = self._in_a_row + 1 if verdict.load is Load.OVERLOADED else 0
        if sample.seconds > LONGEST_SAMPLE_SECONDS:
            self._recent.clear()  # nobody looked for a while: a calm hour must not outweigh the seconds that follow
        load = Load.UNCLEAR if 0 < self._in_a_row < SAMPLES_IN_A_ROW else verdict.load
        return Verdict(load, verdict.cause, verdict.why, self.hold_time.slowdown)

    def ignore_until(self, at: float) -> None:
        """A step was made: what has been seen so far, and what is seen until then, says nothing of its effect."""
        self._recent.clear()
        self._in_a_row = 0
        self._ignored_until = at

    def relearn(self) -> None:
        """What is, is usual from now on."""
        self.hold_time.relearn()
        self._canary.relearn()

    def _loudest(self, sample: Sample, canary: Verdict) -> Verdict:
        window = self._window()
        verdicts = (
            self._server_refusals(window),
            self._queue_wait(sample, window),
            self._stalled(sample, window),
            self.hold_time.judge(self._recent),
            canary,
            self._lock_waits(sample),
        )
        for load in (Load.OVERLOADED, Load.UNCLEAR):
            for verdict in verdicts:
                if verdict.load is load:
                    return verdict
        return CALM

    def _window(self) -> list[Sample]:
        """The last samples that make up a window, or what there is of them."""
        window, seconds = [], 0.0
        for sample in self._recent:
            if seconds >= WINDOW_SECONDS:
                break
            window.append(sample)
            seconds += sample.seconds
        return window

    @staticmethod
    def _server_refusals(window: list[Sample]) -> Verdict:
        count = sum(sample.server_refusals for sample in window)
        if count >= FEWEST_REFUSALS:
            why = f"the server refused {count} connections, or did not answer in time"
            return Verdict(Load.OVERLOADED, Cause.SERVER_REFUSALS, why)
        return Verdict(Load.UNCLEAR) if count else CALM

    def _queue_wait(self, sample: Sample, window: list[Sample]) -> Verdict:
        """Waits of a class that is below its own limit, for slots that others have."""
        target = self._settings.wait_target_seconds
        loudest = CALM
        for reading in sample.classes:
            if reading.name not in self._settings.waits_of or not reading.running or reading.used >= reading.limit:
                continue
            waits = Distribution()
            for one in window:
                if (before := one.of_class(reading.name)) is not None:
                    waits.add(before.waits)
            is_long, count = waits.count_above(target), waits.count
            many = is_long >= FEWEST_LONG_WAITS and is_long >= WAITING_SHARE * count
            oldest = reading.oldest_wait_seconds
            if many or oldest > target:
                who = f"{is_long:.0f} of {count:.0f} requests" if many else f"a client for {oldest * 1000:.0f} ms"
                why = f"{reading.name} waits below its limit: {who}, and {target * 1000:.0f} ms are the target"
                return Verdict(Load.OVERLOADED, Cause.QUEUE_WAIT, why)
            if is_long > CALM_PART * WAITING_SHARE * count or oldest > CALM_PART * target:
                loudest = Verdict(Load.UNCLEAR)
        return loudest

    def _stalled(self, sample: Sample, window: list[Sample]) -> Verdict:
        """The reference class uses its whole limit, more wait, and nothing comes back: no hold ends to be timed."""
        name, baseline = self._settings.reference_class, self.hold_time.baseline
        readings = [one for before in window if (one := before.of_class(name)) is not None]
        if not readings or not baseline.is_known or sum(one.seconds for one in window) < WINDOW_SECONDS:
            return CALM
        is_full = all(one.running and one.used >= one.limit and one.waiting for one in readings)
        if not is_full or any(one.holds.count for one in readings):
            return CALM
        if baseline.usual.typical() * self._settings.tolerance > WINDOW_SECONDS:
            return CALM
        return Verdict(Load.OVERLOADED, Cause.HOLD_TIME, f"{name} uses all its slots and gives none back")

    def _lock_waits(self, sample: Sample) -> Verdict:
        if not self._settings.observes or sample.lock_waits is None:
            return CALM
        used = sum(one.used for one in sample.classes)
        if sample.lock_waits < max(FEWEST_LOCK_WAITS, LOCK_WAITS_SHARE * used):
            return CALM
        return Verdict(Load.OVERLOADED, Cause.LOCK_WAITS, f"{sample.lock_waits} server processes wait for locks")
