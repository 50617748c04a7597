"""The text that Prometheus reads, written in small steps.

Owns: the exposition and its pace; the metrics every process has.
Does not know: what our metrics mean.
"""

import asyncio
from collections.abc import Iterable, Iterator
from copy import copy
from itertools import chain

from prometheus_client import CollectorRegistry, Metric, ProcessCollector, generate_latest
from prometheus_client.registry import Collector

SAMPLES_PER_STEP = 200  # about 2 ms
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _OneFamily(Collector):
    """Lets `generate_latest` write one metric family."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        return (self._family,)


def process_registry() -> CollectorRegistry:
    """CPU, memory and descriptors of this process under the names every exporter uses."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


async def render(collector: Collector, process: CollectorRegistry) -> bytes:
    """The text exposition of everything.

    Queries pass through the same thread: many classes and names take tens of milliseconds, so the loop gets its turn
    after every few hundred samples. The slots of all classes are nevertheless those of one moment; what is written
    later may be a little younger.
    """
    chunks = []
    for family in chain(collector.collect(), process.collect()):
        for chunk in _written(family):
            chunks.append(chunk)
            await asyncio.sleep(0)
    return b"".join(chunks)


def _written(family: Metric) -> Iterator[bytes]:
    """The text of one family in pieces; only the first keeps the HELP and TYPE lines."""
    for start in range(0, max(1, len(family.samples)), SAMPLES_PER_STEP):
        piece = copy(family)
        piece.samples = family.samples[start : start + SAMPLES_PER_STEP]
        text = generate_latest(_OneFamily(piece))
        yield text if start == 0 else text.split(b"\n", 2)[2]
