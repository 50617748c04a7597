"""Who is next where several wait for a connection that is being made: the most urgent first, then the oldest.

Owns: the order among those who hold a slot already. When a burst wakes, forty dials are under way at once, and the
first that is finished belongs to a customer, not to whoever happened to ask first.
Does not know: slots, who may have one; what a connection is.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, Generic, Protocol, TypeVar

NOBODY: Final = float("inf")


class Urgent(Protocol):
    """`urgency` is the priority of the class: 0 comes first."""

    @property
    def urgency(self) -> int: ...


T = TypeVar("T", bound=Urgent)


class UrgentQueue(Generic[T]):
    """A queue per urgency; their number is that of the classes' priorities."""

    def __init__(self) -> None:
        self._queues: dict[int, deque[T]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, item: T) -> None:
        queue = self._queues.get(item.urgency)
        if queue is None:
            queue = self._queues[item.urgency] = deque()
        queue.append(item)
        self._count += 1

    def most_urgent(self) -> float:
        """The urgency of the next item, NOBODY where there is none."""
        return min(self._queues, default=NOBODY)

    def first(self) -> T:
        """The next item, left where it is. The queue is not empty."""
        return self._queues[min(self._queues)][0]

    def popleft(self) -> T:
        urgency = min(self._queues)
        queue = self._queues[urgency]
        item = queue.popleft()
        self._count -= 1
        if not queue:
            del self._queues[urgency]
        return item

    def remove_if_there(self, item: T) -> None:
        for urgency, queue in self._queues.items():
            if item in queue:
                queue.remove(item)
                self._count -= 1
                if not queue:
                    del self._queues[urgency]
                return


class Turns:
    """At most `count` at once, like a semaphore, but a turn that becomes free goes to the most urgent who waits."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = count  # below 0 while more turns are taken than there are now
        self._waiting: list[tuple[Callable[[], float], asyncio.Future[None]]] = []

    @asynccontextmanager
    async def turn(self, urgency: Callable[[], float]) -> AsyncIterator[None]:
        """`urgency` is asked whenever a turn becomes free: it may change while waiting."""
        await self._take(urgency)
        try:
            yield
        finally:
            self._give_back()

    def change_count(self, count: int) -> None:
        """More turns are given to those who wait at once; fewer take none away."""
        more, self._count = count - self._count, count
        self._free += more
        while self._waiting and self._free > 0:
            self._free -= 1
            self._call_next()

    async def _take(self, urgency: Callable[[], float]) -> None:
        if self._free > 0:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (urgency, turn)
        self._waiting.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give_back()
            elif entry in self._waiting:
                self._waiting.remove(entry)
            raise

    def _give_back(self) -> None:
        if not self._waiting or self._free < 0:
            self._free += 1
        else:
            self._call_next()

    def _call_next(self) -> None:
        entry = min(self._waiting, key=lambda waiting: waiting[0]())
        self._waiting.remove(entry)
        entry[1].set_result(None)
