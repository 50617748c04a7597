"""Who is in the simulation: jobs, the workers that do them one after the other, bursts, sources while they run.

Owns: what each of them remembers between two events.
Does not know: policies, the event loop, percentiles.
"""

import enum
import math
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

from proxy.admission.classes import ClientId
from proxy.admission.simulation.durations import Draw
from proxy.admission.simulation.tally import ClassTally
from proxy.admission.simulation.traffic import Source


class Place(enum.Enum):
    """Where a job is."""

    ARRIVED = "arrived"
    IN_APPLICATION = "in_application"  # all connections of its source are busy
    WAITING = "waiting"  # in the policy's queue
    BACKING_OFF = "backing_off"  # refused, will ask again
    IN_SERVICE = "in_service"
    OVER = "over"


@dataclass(eq=False, slots=True)
class BurstRun:
    """One occurrence of a declared burst; drained when none of its jobs is left, served or not."""

    source: Source
    began_at: float
    jobs_left: int
    drained_at: float = math.inf


@dataclass(eq=False, slots=True)
class Worker:
    """A client that does its jobs one after the other on one connection."""

    client: ClientId
    draw_hold: Draw
    draw_think: Draw
    jobs_left: float
    burst: BurstRun | None


@dataclass(eq=False, slots=True)
class SourceRun:
    """A source while it runs. `free_clients` is infinite where the declaration sets no bound."""

    source: Source
    tally: ClassTally
    unbounded: bool
    free_clients: float
    flows: tuple[Hashable, ...]
    draw_jitter: Draw
    in_application: deque["Job"] = field(default_factory=deque)

    def flow(self, client: ClientId) -> Hashable:
        """The identity of a client of this source."""
        return self.flows[client % len(self.flows)]


class Job:
    """One unit of work: one slot for `hold` seconds. Not a dataclass: a million are made, and this is faster."""

    __slots__ = ("arrived_at", "asked_at", "attempts", "client", "hold", "in_burst", "place", "run", "worker")

    def __init__(
        self, run: SourceRun, client: ClientId, hold: float, arrived_at: float, in_burst: bool, worker: Worker | None
    ) -> None:
        self.run = run
        self.client = client
        self.hold = hold
        self.arrived_at = arrived_at
        self.in_burst = in_burst
        self.worker = worker
        self.asked_at = arrived_at
        self.attempts = 0
        self.place = Place.ARRIVED
