"""How many server processes wait for a lock, asked now and then.

Owns: the query, the rhythm, the last answer.
Does not know: what is made of it.

Sessions of other users can be seen by a member of pg_monitor, or of pg_read_all_stats, only.
Source: PostgreSQL manual, "The Cumulative Statistics System" (monitoring-stats), pg_stat_activity.
"""

import asyncio
from typing import Final

import structlog

from proxy.session import clock
from proxy.session.internal import InternalSlot, NoInternalSlot, own_pool
from proxy.session.own_query import OwnQuery, OwnQueryFailed
from proxy.session.tasks import TaskGroup
from proxy.session.upstream import Upstream

log = structlog.get_logger("pgheadroom.server")

_TIMEOUT_SECONDS: Final = 5.0
_SQL: Final = "select count(*) from pg_catalog.pg_stat_activity where wait_event_type = 'Lock'"


class LockProbe:
    """Asks every `interval_seconds`; with 0 there is neither task nor timer, and nothing is known."""

    def __init__(self, upstream: Upstream, tasks: TaskGroup) -> None:
        self._upstream = upstream
        self._tasks = tasks
        self._interval_seconds = 0.0
        self._task: asyncio.Task[None] | None = None
        self.lock_waits: int | None = None

    def adopt(self, interval_seconds: float) -> None:
        if interval_seconds == self._interval_seconds:
            return
        self.close()
        self._interval_seconds, self.lock_waits = interval_seconds, None
        if interval_seconds:
            self._task = self._tasks.spawn(self._run(interval_seconds), name="lock probe")

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self, interval_seconds: float) -> None:
        is_known = True
        while True:
            began = clock.now()
            try:
                self.lock_waits = await self._ask()
                is_known = True
            except (OwnQueryFailed, NoInternalSlot, ValueError, TimeoutError) as failure:
                self.lock_waits = None
                if is_known:
                    log.warning("lock_waits_not_known", why=str(failure))
                is_known = False
            await asyncio.sleep(max(0.0, began + interval_seconds - clock.now()))

    async def _ask(self) -> int:
        upstream = self._upstream
        pool = own_pool(upstream.registry, upstream.settings)
        async with asyncio.timeout(_TIMEOUT_SECONDS), InternalSlot(upstream):
            query = OwnQuery(pool, _SQL, timeout_seconds=_TIMEOUT_SECONDS, canceller=upstream.canceller)
            ((count,),) = await query.run()
        return int(count or 0)
