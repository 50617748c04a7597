"""The canary: a query asked as a customer would ask it, through the admission of the customers' class.

Owns: the rhythm of asking, what the last one came to, the counts.
Does not know: how it is shown; what adaptive limits make of it.

It waits in the queue of its class like anybody, and counts there. One at a time, and `canary.timeout` bounds it whole.
"""

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from proxy.service.adaptive_settings import canary_class
from proxy.service.adaptive_state import CanaryResult, CanaryState
from proxy.service.config.parts import UpstreamPart
from proxy.session import clock
from proxy.session.histogram import Histogram
from proxy.session.internal import InternalSlot, NoInternalSlot, own_pool
from proxy.session.own_query import OwnQuery, OwnQueryFailed
from proxy.session.tasks import TaskGroup
from proxy.session.upstream import Upstream

log = structlog.get_logger("pgheadroom.canary")

_KEPT_RESULTS: Final = 10  # for adaptive limits, which look every second


@dataclass(frozen=True, slots=True)
class CanarySettings:
    """What is asked, of which class, how often, and how long it may take; times in seconds."""

    class_name: str
    query: str
    interval_seconds: float
    timeout_seconds: float


def canary_settings(part: UpstreamPart) -> CanarySettings | None:
    """None where no canary is asked for."""
    name, canary = canary_class(part), part.canary
    if not canary.interval or name is None:
        return None
    return CanarySettings(name, canary.query, canary.interval, canary.timeout)


class Canary:
    """Asks while there are settings; without any there is neither task nor timer."""

    def __init__(self, upstream: Upstream, tasks: TaskGroup) -> None:
        self._upstream = upstream
        self._tasks = tasks
        self._task: asyncio.Task[None] | None = None
        self._unread: deque[float] = deque(maxlen=_KEPT_RESULTS)
        self._settings: CanarySettings | None = None
        self._last: CanaryResult | None = None
        self._seconds = Histogram()
        self._outcomes: Counter[str] = Counter()

    def adopt(self, settings: CanarySettings | None) -> None:
        if settings == self._settings:
            return
        self.close()
        self._settings, self._last = settings, None
        if settings is not None:
            self._task = self._tasks.spawn(self._run(settings), name="canary")

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def state(self) -> CanaryState | None:
        """None where there is no canary."""
        settings = self._settings
        if settings is None:
            return None
        return CanaryState(
            settings.class_name,
            settings.interval_seconds,
            settings.timeout_seconds,
            self._last,
            self._outcomes,
            self._seconds,
        )

    def take_results(self) -> Sequence[float]:
        """Seconds of those that were over since the last call; infinite where one did not get its answer."""
        results = tuple(self._unread)
        self._unread.clear()
        return results

    async def _run(self, settings: CanarySettings) -> None:
        while True:
            began = clock.now()
            outcome, why = await self._ask(settings)
            self._note(CanaryResult(time.time(), clock.now() - began, outcome, why), settings.class_name)
            await asyncio.sleep(max(0.0, began + settings.interval_seconds - clock.now()))

    async def _ask(self, settings: CanarySettings) -> tuple[str, str]:
        upstream, timeout = self._upstream, settings.timeout_seconds
        pool = own_pool(upstream.registry, upstream.settings)
        try:
            async with asyncio.timeout(timeout), InternalSlot(upstream, settings.class_name):
                query = OwnQuery(pool, settings.query, timeout_seconds=timeout, canceller=upstream.canceller)
                await query.run()
        except TimeoutError:
            return "timeout", f"no answer within {timeout:g} s"
        except NoInternalSlot as refusal:
            return "refused", str(refusal)
        except OwnQueryFailed as failure:
            return "failed", failure.fields.message
        return "answered", ""

    def _note(self, result: CanaryResult, class_name: str) -> None:
        was_well = self._last is None or self._last.outcome == "answered"
        if was_well and result.outcome != "answered":
            log.warning("canary_failed", class_name=class_name, outcome=result.outcome, why=result.why)
        elif not was_well and result.outcome == "answered":
            log.info("canary_answered_again", class_name=class_name, seconds=round(result.seconds, 4))
        self._last = result
        self._outcomes[result.outcome] += 1
        self._seconds.observe(result.seconds)
        self._unread.append(result.seconds if result.outcome == "answered" else math.inf)
