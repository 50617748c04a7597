"""The random numbers of a simulation: the same arrivals and the same holds for every policy.

Owns: arrival times, and which generator a draw comes from. Each source and each worker has generators of its own, so
what a policy does to one job cannot shift the draws of the next (common random numbers).
Does not know: policies, what becomes of an arrival.
"""

import heapq
import math
from collections.abc import Iterator, Sequence
from random import Random

from proxy.admission.simulation.durations import Draw, Duration
from proxy.admission.simulation.traffic import Burst, ConstantRate, Poisson, Source, Traffic

# Seconds of arrival, number of the source, seconds of holding the slot.
Arrival = tuple[float, int, float]


def generator(seed: int, *names: str | int) -> Random:
    """A generator of its own for whatever the names name; the same for the same seed, on any machine."""
    return Random("/".join(map(str, (seed, *names))))  # noqa: S311 - it draws traffic, not secrets


def open_arrivals(traffic: Traffic, seed: int) -> Iterator[Arrival]:
    """The arrivals of all poisson and constant sources, in order of time, drawn as they are asked for."""
    streams = [_arrivals_of(traffic, number, seed) for number in range(len(traffic.sources))]
    return heapq.merge(*streams)


def _arrivals_of(traffic: Traffic, number: int, seed: int) -> Iterator[Arrival]:
    source = traffic.sources[number]
    hold = source.hold.drawn_from(generator(seed, source.name, "hold"))
    stop = min(source.stop_seconds, traffic.duration_seconds)
    for at in _arrival_times(source, generator(seed, source.name, "arrivals")):
        if at >= stop:
            return
        yield at, number, hold()


def _arrival_times(source: Source, random: Random) -> Iterator[float]:
    match source.arrivals:
        case Poisson(rate):
            return _poisson_times(source.start_seconds, rate, random)
        case ConstantRate(rate):
            return _even_times(source.start_seconds, rate)
        case _:
            return iter(())


def _poisson_times(at: float, rate: float, random: Random) -> Iterator[float]:
    uniform, log = random.random, math.log
    while True:
        at -= log(1.0 - uniform()) / rate
        yield at


def _even_times(start: float, rate: float) -> Iterator[float]:
    number = 0
    while True:
        yield start + number / rate
        number += 1


def burst_times(source: Source, burst: Burst, duration_seconds: float) -> Sequence[float]:
    """When the burst begins, again and again where it declares `every`, between start and stop."""
    stop = min(source.stop_seconds, duration_seconds)
    occurrences = math.ceil((stop - burst.at_seconds) / burst.every_seconds) if burst.every_seconds else 1
    times = (burst.at_seconds + number * burst.every_seconds for number in range(occurrences))
    return [at for at in times if source.start_seconds <= at < stop]


def worker_draws(
    seed: int, source: Source, think: Duration, burst_number: int, worker_number: int
) -> tuple[Draw, Draw]:
    """What a worker draws its holds and its pauses from: the same row of numbers whatever happened to it before."""
    return (
        source.hold.drawn_from(generator(seed, source.name, "hold", burst_number, worker_number)),
        think.drawn_from(generator(seed, source.name, "think", burst_number, worker_number)),
    )
