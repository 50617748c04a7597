"""Tasks that are named and kept, and whose crash is logged and counted.

Owns: the set of running tasks.
Does not know: what they do.
"""

import asyncio
from collections.abc import Coroutine

import structlog

from proxy.session.measures import Measures

log = structlog.get_logger()


class TaskGroup:
    """Background work of the process. A crash ends that task alone."""

    def __init__(self, loop: asyncio.AbstractEventLoop, measures: Measures) -> None:
        self._loop = loop
        self._measures = measures
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def names(self) -> list[str]:
        return sorted(task.get_name() for task in self._tasks)

    def spawn(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        task = self._loop.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        crash = task.exception()
        if crash is not None:
            self._measures.crashes += 1
            log.error("task_crashed", task=task.get_name(), exc_info=crash)

    async def cancel_all(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
