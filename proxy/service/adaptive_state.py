"""What adaptive limits and the canary show of themselves.

Owns: these shapes, and the sentence that says how the canary fares.
Does not know: how they come about, who shows them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from proxy.admission.adaptive import Step
from proxy.admission.overload import Load, Verdict
from proxy.session.histogram import Histogram

OUTCOMES: Final = ("answered", "refused", "failed", "timeout")


@dataclass(frozen=True, slots=True)
class TimedStep:
    """A step and when it was made, or would have been; Unix seconds."""

    at: float
    step: Step


@dataclass(frozen=True, slots=True)
class AdaptiveState:
    """What adaptive limits make of this moment. `limits` are those of the classes that are, or would be, held back.

    `steps` are counted by class, direction and cause since the start.
    """

    mode: str
    reference_class: str
    verdict: Verdict
    usual_hold_seconds: float | None
    limits: Mapping[str, int]
    steps: Mapping[tuple[str, str, str], int]
    last_steps: tuple[TimedStep, ...]


def worst_load(states: Iterable[AdaptiveState]) -> AdaptiveState | None:
    """Of several upstreams the one that is overloaded; None where limits adapt nowhere."""
    return min(states, key=lambda state: state.verdict.load is not Load.OVERLOADED, default=None)


@dataclass(frozen=True, slots=True)
class CanaryResult:
    """One canary: `at` in Unix seconds when it was over, what it took, and what was wrong where it did not answer."""

    at: float
    seconds: float
    outcome: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class CanaryState:
    """The last canary and all before it. `seconds` is live: read it, never keep or change it."""

    class_name: str
    interval_seconds: float
    timeout_seconds: float
    last: CanaryResult | None
    outcomes: Mapping[str, int]
    seconds: Histogram

    def told(self, now: float) -> tuple[bool, str]:
        """Whether a customer would have been served just now, in a sentence without secrets."""
        last = self.last
        if last is None:
            return False, f"no canary for {self.class_name} is over yet"
        ago = max(0.0, now - last.at)
        if ago > 2 * (self.interval_seconds + self.timeout_seconds):
            return False, f"no canary for {self.class_name} was over for {ago:.0f} s"
        if last.outcome != "answered":
            return False, f"the canary for {self.class_name}, {ago:.0f} s ago: {last.outcome}: {last.why}"
        return True, f"{self.class_name} was served in {last.seconds * 1000:.1f} ms, {ago:.0f} s ago"


def worst_canary(states: Iterable[CanaryState], now: float) -> CanaryState | None:
    """Of several upstreams the one whose customers are not served; None where there is no canary."""
    return min(states, key=lambda state: state.told(now)[0], default=None)
