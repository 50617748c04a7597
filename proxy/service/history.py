"""The last minutes in small samples: what the live page draws, and how much clients ask again.

Owns: a ring of samples, and the ratio computed over its end.
Does not know: the clock (time is an argument), who takes the samples, how they are drawn.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from proxy.service.upstream_reading import servers_together
from proxy.service.view import ProcessView

SAMPLE_EVERY_SECONDS = 2.0
KEPT_SAMPLES = 300  # ten minutes
AMPLIFICATION_OVER_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ClassSample:
    """One class at one moment; what was admitted, and what came to nothing, is counted since the process started."""

    used: int
    waiting: int
    admitted: int
    in_vain: int


@dataclass(frozen=True, slots=True)
class Sample:
    """Connections of the whole process and of each class at `at` (Unix seconds)."""

    at: float
    server_total: int
    server_active: int
    server_idle: int
    waiting: int
    classes: Mapping[str, ClassSample]


class History:
    """Append with `observe`; the oldest sample falls out."""

    def __init__(self, kept_samples: int = KEPT_SAMPLES) -> None:
        self._samples: deque[Sample] = deque(maxlen=kept_samples)

    def observe(self, view: ProcessView, at: float) -> None:
        self._samples.append(take_sample(view, at))

    def samples(self) -> tuple[Sample, ...]:
        return tuple(self._samples)

    def retry_amplification(self, class_name: str) -> float:
        """Attempts per admission in the last minute: 1.0 says that nobody had to ask twice.

        An attempt is asking for a slot, granted or in vain: refused (while connecting or later, whatever the reason),
        or left before the answer. Without an admission it is one more than those in vain: it grows and stays finite.
        Counted by attempts and not by identities, since the workers of one host are one identity.
        """
        recent = self._class_samples_of_last_minute(class_name)
        if len(recent) < 2:
            return 1.0
        admitted = recent[-1].admitted - recent[0].admitted
        in_vain = recent[-1].in_vain - recent[0].in_vain
        return 1.0 + in_vain / max(1, admitted)

    def _class_samples_of_last_minute(self, class_name: str) -> list[ClassSample]:
        if not self._samples:
            return []
        since = self._samples[-1].at - AMPLIFICATION_OVER_SECONDS
        return [s.classes[class_name] for s in self._samples if s.at >= since and class_name in s.classes]


def take_sample(view: ProcessView, at: float) -> Sample:
    """Read the view once, now."""
    servers = servers_together(view.upstreams())
    outside = view.refusals_outside_queue()
    measures = view.measures()
    classes = {}
    snapshot = view.snapshot()
    for reading in snapshot.classes:
        name = reading.name
        refused = sum(reading.refusals.values()) + sum(n for (owner, _), n in outside.items() if owner == name)
        in_vain = refused + measures.of(name).wait_left.count
        classes[name] = ClassSample(reading.used, reading.waiting, sum(reading.admissions.values()), in_vain)
    # Dialling and closing ones are open on the server: they are in the total and are neither active nor idle.
    return Sample(at, servers.total, servers.in_use, servers.idle, snapshot.waiting, classes)
