"""How long things last: the distributions that traffic declares for holding a slot and for thinking.

Owns: the shapes, their means, and how a value is drawn from a given generator.
Does not know: what the duration is of, files, the clock.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

Draw = Callable[[], float]

# The 99th percentile of the standard normal distribution.
NORMAL_P99 = 2.3263478740408408


@dataclass(frozen=True, slots=True)
class Constant:
    """Always the same."""

    seconds: float

    def mean_seconds(self) -> float:
        return self.seconds

    def drawn_from(self, random: Random) -> Draw:
        seconds = self.seconds
        return lambda: seconds

    def problems(self) -> list[str]:
        return [] if self.seconds >= 0 else [f"constant is {self.seconds} s, it cannot be negative"]


@dataclass(frozen=True, slots=True)
class Exponential:
    """Memoryless: many short ones, few long ones."""

    mean: float

    def mean_seconds(self) -> float:
        return self.mean

    def drawn_from(self, random: Random) -> Draw:
        rate, uniform, log = -1.0 / self.mean, random.random, math.log
        return lambda: log(1.0 - uniform()) / rate

    def problems(self) -> list[str]:
        return [] if self.mean > 0 else [f"exponential.mean is {self.mean} s, it must be above 0"]


@dataclass(frozen=True, slots=True)
class Lognormal:
    """What transactions look like: a median that is felt, and a tail that hurts. Both in seconds."""

    median: float
    p99: float

    @property
    def sigma(self) -> float:
        return math.log(self.p99 / self.median) / NORMAL_P99

    def mean_seconds(self) -> float:
        return self.median * math.exp(self.sigma**2 / 2)

    def drawn_from(self, random: Random) -> Draw:
        mu, sigma, gauss, exp = math.log(self.median), self.sigma, random.gauss, math.exp
        return lambda: exp(gauss(mu, sigma))

    def problems(self) -> list[str]:
        if self.median <= 0:
            return [f"lognormal.median is {self.median} s, it must be above 0"]
        return (
            [] if self.p99 >= self.median else [f"lognormal.p99 ({self.p99} s) is below its median ({self.median} s)"]
        )


Duration = Constant | Exponential | Lognormal
