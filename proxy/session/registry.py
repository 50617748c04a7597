"""All server connections of this process, and the physical budget over them.

Owns: the count that never exceeds the budget, room for dials, eviction, lifetimes, which pools there are.
Does not know: classes and queues (whoever asks here holds a slot already), how a pool hands out and dials.

The slot says who may use a server connection; the registry says how many may exist. Where the budget is full of idle
connections of other pools, the coldest of them is closed before another is dialled, and counts until it is gone.
"""

import asyncio
import random
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Protocol

from proxy.session import clock
from proxy.session.connector import Connector
from proxy.session.measures import Measures
from proxy.session.server import ServerConnection
from proxy.session.server_leg import ServerState
from proxy.session.settings import PoolSettings
from proxy.session.tasks import TaskGroup

if TYPE_CHECKING:
    from proxy.session.pool import Pool


class IdleKeeper(Protocol):
    """How many idle connections a class leaves to more urgent ones among those whose clients use the same pool."""

    def __call__(self, class_name: str, present: Collection[str]) -> int: ...


class UnresponsiveHandler(Protocol):
    """Called for a connection that did not go away in time: it must be counted until the server says it is gone."""

    def __call__(self, server: ServerConnection) -> None: ...


class Registry:
    """All server connections that may exist on the server. `total` is the budget T.

    `new_pool` is the class of pools, which know the registry.
    """

    def __init__(
        self,
        connector: Connector,
        settings: PoolSettings,
        measures: Measures,
        tasks: TaskGroup,
        loop: asyncio.AbstractEventLoop,
        new_pool: "Callable[[Registry, str, str], Pool]",
    ) -> None:
        self.connector = connector
        self.settings = settings
        self.measures = measures
        self.tasks = tasks
        self.loop = loop
        self.total = 0
        self.is_over_total = False  # the budget has shrunk below what there is
        self.dialling = 0  # room taken by dials that have no connection yet
        self.dials_refused = 0  # by a server that is full, or that did not answer in time
        self.connections: set[ServerConnection] = set()
        self.pools: dict[tuple[str, str], Pool] = {}
        self.on_unresponsive: UnresponsiveHandler | None = None
        self.idle_kept_from: IdleKeeper = _keep_nothing
        self.waiting_for_room: list[Pool] = []
        self.evicting: set[ServerConnection] = set()
        self._lives: dict[ServerConnection, tuple[float, float]] = {}  # since when, and what part of the lifetime
        self._new_pool = new_pool
        self._sweep: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Event | None = None

    # -- pools --------------------------------------------------------------------------------------------------------

    def pool(self, database: str, user: str) -> "Pool":
        pool = self.pools.get((database, user))
        if pool is None:
            pool = self.pools[database, user] = self._new_pool(self, database, user)
        return pool

    def forget(self, pool: "Pool") -> None:
        """A login failed before any succeeded: names that clients invent must not stay in memory."""
        if pool.is_unused and self.pools.get((pool.database, pool.user)) is pool:
            del self.pools[pool.database, pool.user]

    def keep(self, pool: "Pool", server: ServerConnection) -> None:
        """A connection of a pool of its own: both stay where nobody else of this user is here, else it is closed."""
        if self.pools.setdefault((pool.database, pool.user), pool) is pool:
            pool.put_idle(server)
        else:
            pool.close(server)

    def adopt(self, settings: PoolSettings) -> None:
        """New ages and bounds, for connections that are there too."""
        self.settings = settings
        self.connector.adopt_pool(settings)
        for server in self.connections:
            server.statements.max_statements = settings.max_prepared_statements
            self._set_end_of_life(server)
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
            self._watch_ages()
        for pool in self.pools.values():
            pool.check_after_seconds = settings.check_after_seconds
            pool.max_statements = settings.max_prepared_statements

    # -- room ---------------------------------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        return len(self.connections) + self.dialling

    def has_room(self) -> bool:
        """One more connection may be dialled now."""
        return len(self.connections) + self.dialling < self.total

    def ask_for_room(self, pool: "Pool") -> None:
        """`pool.dial` is called once there is room for one more connection, at once or later."""
        if self.count < self.total:
            self._dial(pool)
            return
        self.waiting_for_room.append(pool)
        self.make_room()

    def make_room(self) -> None:
        """Evict for those who wait for room. Also called when a connection begins to idle: before there was none."""
        if len(self.waiting_for_room) > len(self.evicting):
            self._evict_coldest()

    def room_given_back(self) -> None:
        while self.waiting_for_room and self.count < self.total:
            pool = min(self.waiting_for_room, key=_urgency)
            self.waiting_for_room.remove(pool)
            if pool.still_wants_dial():
                self._dial(pool)

    def _dial(self, pool: "Pool") -> None:
        assert self.count < self.total, "a dial beyond the budget"
        self.dialling += 1
        pool.dial()

    def dial_connected(self, server: ServerConnection) -> None:
        self.dialling -= 1
        if server.state is ServerState.GONE:  # it hung up before the dial was told of the connection
            self.room_given_back()
        else:
            self.connections.add(server)

    def dial_ended_without_connection(self) -> None:
        self.dialling -= 1
        self.room_given_back()

    def gone(self, server: ServerConnection) -> None:
        self.connections.discard(server)
        self._lives.pop(server, None)
        self.evicting.discard(server)
        self.is_over_total = self.count > self.total
        self.room_given_back()
        self.make_room()
        if self._emptied is not None and self.count == 0:
            self._emptied.set()

    async def until_empty(self) -> None:
        """Until the server has closed its side of every connection."""
        self._emptied = asyncio.Event()
        if self.count:
            await self._emptied.wait()

    def set_total(self, total: int) -> None:
        """A new budget: idle connections above it close first; nobody who works is disturbed."""
        self.total = total
        self.is_over_total = self.count > total
        while self.count - len(self.evicting) > total and self._evict_coldest():
            pass
        self.room_given_back()

    def _evict_coldest(self) -> bool:
        heads = [(head, pool) for pool in self.pools.values() for head in pool.coldest()]
        if not heads:
            return False
        coldest, pool = min(heads, key=_idle_since)
        self.evicting.add(coldest)
        pool.close_idle(coldest)
        return True

    # -- ages ---------------------------------------------------------------------------------------------------------

    def idle(self) -> Iterator[ServerConnection]:
        return (server for pool in self.pools.values() for server in pool.idle())

    def begin_life(self, server: ServerConnection) -> None:
        """A new connection is logged in: from now on it ages."""
        self._lives[server] = clock.now(), random.uniform(0.8, 1.0)  # noqa: S311 (jitter)
        self._set_end_of_life(server)
        self._watch_ages()

    def _set_end_of_life(self, server: ServerConnection) -> None:
        if server in self._lives and server.retire_at > 0.0:  # 0: nobody may get it any more, however young it is
            born_at, part = self._lives[server]
            server.retire_at = born_at + self.settings.server_lifetime_seconds * part

    def _watch_ages(self) -> None:
        """Arm the one timer that closes idle connections past their idle time or lifetime."""
        if self._sweep is None:
            self._sweep = self.loop.call_later(self.settings.server_idle_timeout_seconds / 2, self._close_aged)

    def _close_aged(self) -> None:
        self._sweep = None
        now = clock.now()
        oldest = now - self.settings.server_idle_timeout_seconds
        for server, pool in self._idle_of_pools():
            if server.idle_since < oldest or now > server.retire_at:
                pool.close_idle(server)
        if next(self.idle(), None) is not None:
            self._watch_ages()

    def close_all_idle(self) -> None:
        for server, pool in self._idle_of_pools():
            pool.close_idle(server)
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    def _idle_of_pools(self) -> "list[tuple[ServerConnection, Pool]]":
        return [(server, pool) for pool in self.pools.values() for server in pool.idle()]


def _keep_nothing(class_name: str, present: Collection[str]) -> int:
    return 0


def _idle_since(head: "tuple[ServerConnection, Pool]") -> float:
    return head[0].idle_since


def _urgency(pool: "Pool") -> float:
    return pool.most_urgent()
