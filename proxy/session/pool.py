"""Server connections: one pool per (database, user), and the physical budget over all of them.

Owns: idle connections, who dials and for whom, eviction, lifetimes, and the count that never exceeds the budget.
Does not know: classes and queues (whoever asks here holds a slot already), what clients send.

The slot says who may use a server connection; the registry says how many may exist. A granted client takes an idle
connection, or a new one is dialled; where the budget is full of idle connections of other pools, the coldest of them
is closed first and counts until it is gone.
"""

import asyncio
import random
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Final, Protocol

import structlog

from proxy.session import clock
from proxy.session.connector import Connector, DialFailed, Route
from proxy.session.idle import IdleConnections
from proxy.session.measures import Measures
from proxy.session.parameters import Settings, SettingsTable
from proxy.session.quirks import is_full_pooler
from proxy.session.server import ServerConnection, ServerState
from proxy.session.settings import PoolSettings
from proxy.session.statements import StatementTable
from proxy.session.tasks import TaskGroup
from proxy.session.urgency import UrgentQueue
from proxy.wire.errors import ProtocolViolation
from proxy.wire.login import Credentials
from proxy.wire.messages import ErrorFields
from proxy.wire.server_login import ServerLogin

log = structlog.get_logger()

TOO_MANY_CONNECTIONS: Final = "53300"
# The server as a whole is not to be used: starting up, shutting down, crashed, unreachable.
_OUTAGE_CODES: Final = frozenset({"57P03", "57P01", "57P02", "08006", "08001", "08004"})
_RETRY_SECONDS: Final = (0.05, 1.0)  # between dials that the server answered with "too many connections"


_DIAL_CRASHED: Final = ErrorFields(
    "FATAL", "XX000", "the proxy failed to open a server connection", "reason=server_unavailable", "see the proxy's log"
)


class Granted(Protocol):
    """A holder of a slot that waits here for its server connection."""

    @property
    def settings(self) -> Settings | None: ...

    @property
    def class_name(self) -> str: ...

    @property
    def urgency(self) -> int: ...

    def server_ready(self, server: ServerConnection) -> None: ...

    def server_failed(self, error: ErrorFields) -> None: ...

    def gives_up_at(self) -> float:
        """Until when (loop time) a full server is asked again."""


class Registry:
    """All server connections that may exist on the server. `total` is the budget T."""

    def __init__(
        self,
        connector: Connector,
        settings: PoolSettings,
        measures: Measures,
        tasks: TaskGroup,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.connector = connector
        self.settings = settings
        self.measures = measures
        self.tasks = tasks
        self.loop = loop
        self.total = 0
        self.is_over_total = False  # the budget has shrunk below what there is
        self.dialling = 0  # room taken by dials that have no connection yet
        self.connections: set[ServerConnection] = set()
        self.pools: dict[tuple[str, str], Pool] = {}
        self.on_unresponsive: UnresponsiveHandler | None = None
        self.idle_kept_from: IdleKeeper = _keep_nothing
        self.waiting_for_room: list[Pool] = []
        self.evicting: set[ServerConnection] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Event | None = None

    def pool(self, database: str, user: str) -> "Pool":
        pool = self.pools.get((database, user))
        if pool is None:
            pool = self.pools[database, user] = Pool(self, database, user)
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
            pool = min(self.waiting_for_room, key=Pool.most_urgent)
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

    def adopt(self, settings: PoolSettings) -> None:
        """New ages and bounds, from a reload."""
        self.settings = settings
        for pool in self.pools.values():
            pool.check_after_seconds = settings.check_after_seconds
            pool.max_statements = settings.max_prepared_statements

    def set_total(self, total: int) -> None:
        """A new budget: idle connections above it close first; nobody who works is disturbed."""
        self.total = total
        self.is_over_total = self.count > total
        while self.count - len(self.evicting) > total and self._evict_coldest():
            pass
        self.room_given_back()

    def idle(self) -> Iterator[ServerConnection]:
        for pool in self.pools.values():
            yield from pool.idle()

    def _evict_coldest(self) -> bool:
        coldest = min((head for pool in self.pools.values() for head in pool.coldest()), default=None, key=_idle_since)
        if coldest is None:
            return False
        self.evicting.add(coldest)
        self._owner(coldest).close_idle(coldest)
        return True

    @staticmethod
    def _owner(server: ServerConnection) -> "Pool":
        assert isinstance(server.pool, Pool), "registered connections belong to pools"
        return server.pool

    # -- ages -------------------------------------------------------------------------------------------------------

    def watch_ages(self) -> None:
        """Arm the one timer that closes idle connections past their idle time or lifetime."""
        if self._sweep is None:
            self._sweep = self.loop.call_later(self.settings.server_idle_timeout_seconds / 2, self._close_aged)

    def _close_aged(self) -> None:
        self._sweep = None
        now = clock.now()
        oldest = now - self.settings.server_idle_timeout_seconds
        for server in list(self.idle()):
            if server.idle_since < oldest or now > server.retire_at:
                self._owner(server).close_idle(server)
        if next(self.idle(), None) is not None:
            self.watch_ages()

    def close_all_idle(self) -> None:
        for server in list(self.idle()):
            self._owner(server).close_idle(server)
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None


class IdleKeeper(Protocol):
    """How many idle connections a class leaves to more urgent ones among those whose clients use the same pool."""

    def __call__(self, class_name: str, present: Collection[str]) -> int: ...


def _keep_nothing(class_name: str, present: Collection[str]) -> int:
    return 0


class UnresponsiveHandler(Protocol):
    """Called for a connection that did not go away in time: it must be counted until the server says it is gone."""

    def __call__(self, server: ServerConnection) -> None: ...


def _idle_since(server: ServerConnection) -> float:
    return server.idle_since


class Pool:
    """Server connections of one database and user."""

    def __init__(self, registry: Registry, database: str, user: str) -> None:
        self.registry = registry
        self.database = database
        self.user = user
        self.table = SettingsTable()
        self.statements = StatementTable()
        self.max_statements = registry.settings.max_prepared_statements
        self.check_after_seconds = registry.settings.check_after_seconds
        self.credentials: Credentials | None = None
        self.tries_while_down = False  # true for the pool of the proxy's own queries
        self.clients: dict[str, int] = {}  # logged-in clients of this pool by class
        self._idle = IdleConnections()
        self._wanting: UrgentQueue[Granted] = UrgentQueue()
        self._asked = 0  # dials under way or waiting for room; at least one for each that wants
        self._dialling = 0  # of these, those under way

    def learn(self, credentials: Credentials) -> None:
        """A client has logged in with these. The proxy's own queries keep those of the upstream URL: what is listed of
        that user here need not be what the server stores."""
        has_own = self.tries_while_down and self.credentials != Credentials()
        if self.credentials is None or (credentials != Credentials() and not has_own):
            self.credentials = credentials

    # -- handing out and taking back ---------------------------------------------------------------------------------

    def take_idle_or_none(self, settings: Settings, class_name: str) -> ServerConnection | None:
        """The most recently used idle connection, one that already has `settings` where there is one."""
        if self._is_kept_from(class_name):
            return None
        return self._idle.take(settings)

    def needs_check(self, server: ServerConnection, now: float) -> bool:
        """It was idle for so long that it may have died without a word."""
        return now >= server.idle_since + self.check_after_seconds

    def _is_kept_from(self, class_name: str) -> bool:
        """The idle connections are warm ones of more urgent classes, and there is room to dial another.

        Without this a burst of bulk work would take them all at its first moment, and customers would wait for dials.
        """
        if len(self.clients) <= 1 or not self.registry.has_room():
            return False
        return self._idle.count <= self.registry.idle_kept_from(class_name, self.clients)

    def put_idle(self, server: ServerConnection, is_new: bool = False) -> None:
        """A clean connection comes back, or a dial succeeded. The next in need gets it, else it idles."""
        registry = self.registry
        is_retired = server.retire_at < server.idle_since
        # Who wants a connection has asked for a dial: without one, and unless this is its outcome, nobody waits.
        if (is_new or self._asked) and not is_retired and self._gave_to_the_next(server, is_new):
            return
        if is_retired or registry.is_over_total:
            self.close(server)  # where somebody waits, a dial for him is under way
            return
        self._idle.put(server)
        if registry.waiting_for_room:
            registry.make_room()

    def _gave_to_the_next(self, server: ServerConnection, is_new: bool) -> bool:
        wanting = self._wanting
        if not wanting or (not is_new and self._is_kept_from(wanting.first().class_name)):
            return False
        wanting.popleft().server_ready(server)
        return True

    def want(self, granted: Granted) -> None:
        """`granted.server_ready` or `server_failed` is called, possibly before this returns."""
        down = self.registry.connector.down
        if down is None or not self.tries_while_down:  # only a login tells that logins are possible again
            server = self.take_idle_or_none(granted.settings or self.table.neutral, granted.class_name)
            if server is not None:
                granted.server_ready(server)
                return
        if down is not None and not self.tries_while_down:
            granted.server_failed(down)
            return
        self._wanting.append(granted)
        if len(self._wanting) > self._asked:
            self._asked += 1
            self.registry.ask_for_room(self)

    def gave_up(self, granted: Granted) -> None:
        """A client that waited here has left. The dial goes on: its connection will idle or serve another."""
        self._wanting.remove_if_there(granted)

    # -- dialling -----------------------------------------------------------------------------------------------------

    def most_urgent(self) -> float:
        """The urgency of whoever gets the next connection of this pool."""
        return self._wanting.most_urgent()

    def still_wants_dial(self) -> bool:
        """Asked by the registry when room is free. A no takes the request for room back."""
        if len(self._wanting) > self._dialling:
            return True
        self._asked -= 1
        return False

    def dial(self) -> None:
        """There is room for one more connection: dial."""
        self._dialling += 1
        self.registry.tasks.spawn(self._dial(), name=f"dial {self.database}/{self.user}")

    async def _dial(self) -> None:
        try:
            server = await self._connect()
        except DialFailed as failure:
            self._dialling -= 1
            await self._after_failure(failure)
            return
        except BaseException:
            self._dialling -= 1
            self._asked -= 1
            if self._wanting:  # a bug of ours, or the end of the process: nobody else makes this connection
                self._wanting.popleft().server_failed(_DIAL_CRASHED)
            raise
        self._dialling -= 1
        self._asked -= 1
        self._start_life(server)
        self.put_idle(server, is_new=True)

    async def _connect(self) -> ServerConnection:
        """One dial. What its failure means is in the error: there may be other ways to go."""
        connector, account = self.registry.connector, (self.database, self.user)
        route: Route | None = None
        server: ServerConnection | None = None
        is_usable = False
        try:
            async with connector.turns.turn(self.most_urgent):
                self._fail_fast()
                self.registry.measures.dials += 1
                async with asyncio.timeout(self.registry.settings.dial_timeout_seconds):
                    route = await connector.next_route(account)
                    server = await connector.open(self._new_connection, route)
                    self.registry.dial_connected(server)
                    server.route = route
                    await self._log_in(server, route)
            is_usable = True
        except (DialFailed, TimeoutError) as error:
            failure = error if isinstance(error, DialFailed) else self._timed_out()
            raise (failure if route is None else connector.judged(failure, route, account)) from error
        finally:
            if server is None:
                self.registry.dial_ended_without_connection()
            elif not is_usable and server.is_open:
                self.close(server)
        connector.succeeded(route, account)
        return server

    async def _log_in(self, server: ServerConnection, route: Route) -> None:
        error = await server.login_done
        if error is not None:
            if is_full_pooler(error):
                error = replace(error, code=TOO_MANY_CONNECTIONS)
            raise DialFailed(error, is_outage=error.code in _OUTAGE_CODES)
        if server.state is ServerState.IDLE:
            await self.registry.connector.check_role(server, route)
        if server.state is not ServerState.IDLE:
            raise DialFailed(ErrorFields("FATAL", "08006", "the server hung up at the end of a login"), is_outage=True)

    def _fail_fast(self) -> None:
        if self.registry.connector.down is not None and not self.tries_while_down:
            raise DialFailed(self.registry.connector.down, is_outage=False)  # known already

    def _timed_out(self) -> DialFailed:
        seconds = self.registry.settings.dial_timeout_seconds
        text = f"the server did not finish a login within {seconds:g} s"
        return DialFailed(ErrorFields("FATAL", "08006", text, None, "see pool.dial_timeout"), is_outage=True)

    def _new_connection(self, is_encrypted: bool) -> ServerConnection:
        login = ServerLogin(
            self.user,
            self.database,
            self.credentials,
            self._startup_parameters(),
            channel_binding=self.registry.connector.upstream.channel_binding,
            minor=self.registry.connector.upstream.protocol_minor,
        )
        return ServerConnection(self, login, self.registry.loop)

    def _startup_parameters(self) -> dict[str, str]:
        """Shared connections begin with what the server has by default."""
        return {}

    def _start_life(self, server: ServerConnection) -> None:
        lifetime = self.registry.settings.server_lifetime_seconds * random.uniform(0.8, 1.0)  # noqa: S311 (jitter)
        server.retire_at = clock.now() + lifetime
        self.registry.watch_ages()

    async def _after_failure(self, failure: DialFailed) -> None:
        """One dial has failed, so one of those that wait for a connection gets the error, or another try."""
        if failure.goes_on:
            self._go_on()
            return
        self.registry.measures.dial_failures += 1
        if failure.fields.code == TOO_MANY_CONNECTIONS and await self._worth_another_try():
            self.registry.ask_for_room(self)
            return
        self._asked -= 1
        if failure.is_outage:
            self._report_outage(failure)
        if self._wanting:
            self._wanting.popleft().server_failed(_for_client(failure.fields))
        self.registry.forget(self)

    def _go_on(self) -> None:
        """Another host, or the same with TLS or without: this try need not be told to anybody."""
        if self._wanting:
            self.registry.ask_for_room(self)
        else:
            self._asked -= 1
            self.registry.forget(self)

    def _report_outage(self, failure: DialFailed) -> None:
        connector = self.registry.connector
        if connector.down is None:
            log.warning("server_unavailable", error=failure.fields.message, code=failure.fields.code)
        connector.went_down(failure.fields)

    async def _worth_another_try(self) -> bool:
        """The server is full although the budget is not. Wait and ask again while somebody waits for it."""
        self.registry.measures.dial_retries += 1
        await asyncio.sleep(random.uniform(*_RETRY_SECONDS))  # noqa: S311 (jitter)
        return bool(self._wanting) and self._wanting.first().gives_up_at() > clock.now()

    # -- idle connections ---------------------------------------------------------------------------------------------

    def idle(self) -> Iterator[ServerConnection]:
        return iter(self._idle)

    def coldest(self) -> Iterator[ServerConnection]:
        """Some idle connections, the longest idle one among them."""
        return self._idle.coldest()

    @property
    def is_unused(self) -> bool:
        return not (self._idle.count or self._wanting or self._asked or self.table.is_known or self.clients)

    def borrow_idle(self, server: ServerConnection) -> bool:
        """Take this one out, for a question of the proxy's own. Whether it was there; `put_idle` gives it back."""
        return self._idle.remove(server)

    def close_idle(self, server: ServerConnection) -> None:
        self._idle.remove(server)
        self.close(server)

    def close(self, server: ServerConnection) -> None:
        """End a connection. It counts until it is gone; where that takes too long, `on_unresponsive` is told."""
        server.terminate()
        self.registry.loop.call_later(self.registry.settings.gone_timeout_seconds, self._still_there, server)

    def _still_there(self, server: ServerConnection) -> None:
        handler = self.registry.on_unresponsive
        if server.state is not ServerState.GONE and handler is not None:
            handler(server)

    # -- what a server connection tells its pool ----------------------------------------------------------------------

    def gone(self, server: ServerConnection) -> None:
        if self._idle.remove(server):
            self.registry.measures.servers_lost_idle += 1
        self.registry.gone(server)

    def unfit(self, server: ServerConnection, why: str) -> None:
        log.info("idle_server_connection_ends", why=why, database=self.database, user=self.user)
        self.close_idle(server)

    def doubts_role(self) -> None:
        self.registry.connector.hosts.doubt()

    def broke_protocol(self, server: ServerConnection, violation: ProtocolViolation) -> None:
        self.registry.measures.protocol_violations["server"] += 1
        log.warning("server_broke_protocol", violation=str(violation), database=self.database)
        client = server.client
        self._idle.remove(server)
        self.close(server)
        if client is not None:
            client.server_lost(server)


def _for_client(fields: ErrorFields) -> ErrorFields:
    """A server that is full is our business: the client is told what decides, never the server's words."""
    if fields.code != TOO_MANY_CONNECTIONS:
        return fields
    text = "the server has no connection free although the budget has: something else uses them"
    return ErrorFields("FATAL", TOO_MANY_CONNECTIONS, text, "reason=server_unavailable", "raise budget.keep_free")
