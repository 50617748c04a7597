"""Drawn hours of adaptive limits, with every rule that must hold checked beside each step.

Owns: what a script draws (classes, loads, overloads), and the rules in words.
Does not know: how the control comes to its steps. The rules keep a record of their own.
"""

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from proxy.admission.adaptive import AdaptiveControl, AdaptiveSettings, Cause, Direction, Relearnt, Step
from proxy.admission.distribution import SECONDS, Distribution
from proxy.admission.overload import Load
from proxy.admission.signals import ClassReading, Sample

WINDOW = 4  # samples in half of which a class must have had waiters


def times(seconds: float, count: int) -> Distribution:
    """So many times of the same length."""
    one = Distribution()
    one.counts[sum(bound < seconds for bound in SECONDS)] = float(count)
    one.seconds = seconds * count
    return one


@dataclass(frozen=True, slots=True)
class Work:
    """One class of a script: its hold times are all alike, so that their median is known."""

    name: str
    priority: int
    floor: int
    limit: int
    hold_seconds: float


def drawn_classes(random: Random) -> list[Work]:
    below = [
        Work(f"bulk{number}", random.randint(2, 9), floor := random.randint(1, 5), floor + random.randint(0, 40), hold)
        for number in range(random.randint(1, 3))
        for hold in (random.choice((0.03, 0.3, 4.0, 20.0)),)
    ]
    beside = [Work("admin", 0, 3, 5, 1.0), Work("internal", 0, 1, 2, 0.01), Work("twin", 1, 2, 20, 0.02)]
    return [Work("web", 1, 10, 40, random.choice((0.004, 0.04, 0.4))), *beside, *below]


@dataclass(eq=False, slots=True)
class Script:
    """One drawn hour: calm, overloaded by a drawn cause, calm again, and so on; use is anything up to the limit."""

    seed: int
    seconds: int = 600
    complaints: list[str] = field(default_factory=list)
    steps: list[tuple[float, Step]] = field(default_factory=list)

    def run(self) -> "Script":
        random = Random(self.seed)
        classes = drawn_classes(random)
        control = AdaptiveControl(
            AdaptiveSettings("web", frozenset({"web", "twin", "admin"}), observes=random.random() < 0.3)
        )
        rules = Rules(classes)
        for sample in self._samples(random, classes, control):
            usual_before = control.usual_hold_seconds
            events = control.look(sample)
            rules.check(sample, control, events, usual_before)
            self.steps += [(sample.at, event) for event in events if isinstance(event, Step)]
        self.complaints = rules.complaints
        return self

    def _samples(self, random: Random, classes: list[Work], control: AdaptiveControl) -> Iterator[Sample]:
        at, cause, until = 0.0, "none", 60.0
        busy = {one.name: random.random() for one in classes}
        while at < self.seconds:
            seconds = random.choice((1.0, 1.0, 1.0, 1.3, 2.0))
            at += seconds
            if at > until:
                cause = random.choice(("none", "none", "holds", "a little", "refusals", "waits", "canary"))
                until = at + random.choice((2, 10, 30, 90))
                busy = {one.name: random.random() for one in classes}
            readings = tuple(self._reading(random, one, cause, busy[one.name], control) for one in classes)
            canary = {"canary": (9.0,), "none": (0.002,)}.get(cause, ())
            yield Sample(at, seconds, readings, 3 if cause == "refusals" else 0, canary)

    @staticmethod
    def _reading(random: Random, one: Work, cause: str, busy: float, control: AdaptiveControl) -> ClassReading:
        limit = control.limits.get(one.name, one.limit)
        hold = (
            one.hold_seconds * {"holds": 6.0, "a little": 1.6}.get(cause, 1.0)
            if one.name == "web"
            else one.hold_seconds
        )
        waits_long = cause == "waits" and one.name == "web"
        used = min(limit, round(busy * one.limit)) if one.name != "web" else 5
        return ClassReading(
            one.name,
            one.priority,
            one.floor,
            one.limit,
            used=used,
            waiting=random.randint(0, 2) if used >= limit else 0,
            oldest_wait_seconds=0.4 if waits_long else 0.0,
            running=random.random() < 0.98,
            holds=times(hold, random.randint(40, 60) if one.name == "web" else random.randint(0, 3)),
            waits=times(0.4 if waits_long else 0.0, 50),
        )


class Rules:
    """What must hold whatever is drawn."""

    def __init__(self, classes: list[Work]) -> None:
        self.complaints: list[str] = []
        self._classes = {one.name: one for one in classes}
        self._order: list[str] = []
        self._limits = {one.name: one.limit for one in classes}
        self._wanted: defaultdict[str, deque[bool]] = defaultdict(lambda: deque(maxlen=WINDOW))
        self._used: defaultdict[str, deque[int]] = defaultdict(lambda: deque(maxlen=3))
        self._no_cut_before = 0.0

    def check(self, sample: Sample, control: AdaptiveControl, events: object, usual_before: float | None) -> None:
        held_back = bool(self._order)
        for reading in sample.classes:
            self._used[reading.name].append(reading.used)
            # The waiters of one sample, or use beyond a limit that is only observed.
            beyond = reading.used > self._limits[reading.name]
            self._wanted[reading.name].append(reading.running and (reading.waiting > 0 or beyond))
        relearnt = False
        assert isinstance(events, list | tuple)
        for event in events:
            relearnt = relearnt or isinstance(event, Relearnt)
            if isinstance(event, Step):
                self._check_step(event, sample)
        self._check_limits(sample, control)
        is_frozen = control.verdict.load is Load.OVERLOADED or (held_back and control.verdict.load is Load.UNCLEAR)
        if is_frozen and usual_before is not None and not relearnt and control.usual_hold_seconds != usual_before:
            self._say(sample, f"the baseline moved while {control.verdict.load.value}")

    def _check_limits(self, sample: Sample, control: AdaptiveControl) -> None:
        for name, limit in control.limits.items():
            one = self._classes[name]
            if not one.floor <= limit < one.limit:
                self._say(sample, f"{name} has limit {limit}, outside of {one.floor} to {one.limit}")
        wanted = {name: limit for name, limit in self._limits.items() if limit != self._classes[name].limit}
        if dict(control.limits) != wanted:
            self._say(sample, f"the steps make {wanted}, and the limits are {dict(control.limits)}")

    def _check_step(self, step: Step, sample: Sample) -> None:
        if step.was != self._limits[step.class_name]:
            self._say(sample, f"{step} says it was another limit")
        self._limits[step.class_name] = step.limit
        if step.direction is Direction.CUT:
            self._check_cut(step, sample)
        else:
            self._check_raise(step, sample)
        self._wanted.clear()

    def _check_cut(self, step: Step, sample: Sample) -> None:
        one = self._classes[step.class_name]
        if one.priority <= 1 or one.name == "internal":
            self._say(sample, f"{one.name} is as important as web, and was cut")
        if not step.limit < step.was or step.cause is Cause.RECOVERED:
            self._say(sample, f"{step} is no cut")
        if sample.at < self._no_cut_before:
            self._say(sample, f"{one.name} is cut before a median hold is over")
        for other in sample.classes:
            takes = min(self._limits[other.name], max(self._used[other.name]))
            if other.running and other.priority > one.priority and takes > other.floor:
                self._say(sample, f"{one.name} is cut while {other.name}, less important, is above its floor")
        self._no_cut_before = sample.at + max((0.0, *(bound for bound in SECONDS if bound < one.hold_seconds)))
        if one.name not in self._order:
            self._order.append(one.name)

    def _check_raise(self, step: Step, sample: Sample) -> None:
        if not step.was < step.limit or step.cause is not Cause.RECOVERED:
            self._say(sample, f"{step} is no raise")
        if not self._needs_more(step.class_name):
            self._say(sample, f"{step.class_name} is raised, and hardly anybody waited")
        if step.class_name not in self._order:
            self._say(sample, f"{step.class_name} is raised and was never cut")
            return
        later = self._order[self._order.index(step.class_name) + 1 :]
        if any(self._needs_more(name) for name in later):
            self._say(sample, f"{step.class_name} is raised before {later}, cut later")
        if step.limit == self._classes[step.class_name].limit:
            self._order.remove(step.class_name)

    def _needs_more(self, name: str) -> bool:
        wanted = self._wanted[name]
        return len(wanted) == WINDOW and 2 * sum(wanted) >= WINDOW

    def _say(self, sample: Sample, what: str) -> None:
        self.complaints.append(f"at {sample.at:.0f} s: {what}")
