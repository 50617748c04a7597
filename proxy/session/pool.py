"""Server connections of one database and user.

Owns: which of them idle, who waits for one, how many dials that takes, and what a failed dial means for who waits.
Does not know: classes and queues (whoever asks here holds a slot already), how many connections there may be
(`registry`), the steps of a dial (`new_connection`), what clients send.
"""

import asyncio
import random
from collections.abc import Iterator, Mapping
from typing import Final, Protocol

import structlog

from proxy.session import clock
from proxy.session.idle import IdleConnections
from proxy.session.new_connection import NewConnection
from proxy.session.parameters import Settings, SettingsTable
from proxy.session.refusals import TOO_MANY_CONNECTIONS
from proxy.session.registry import Registry
from proxy.session.routes import DialFailed
from proxy.session.server import ServerConnection
from proxy.session.server_leg import ServerState
from proxy.session.statements import StatementTable
from proxy.session.urgency import UrgentQueue
from proxy.wire.errors import ProtocolViolation
from proxy.wire.login import NO_CREDENTIALS, Credentials
from proxy.wire.messages import ErrorFields

log = structlog.get_logger()

_NO_PARAMETERS: Final[Mapping[str, str]] = {}  # shared connections begin with what the server has by default
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
        has_own = self.tries_while_down and self.credentials != NO_CREDENTIALS
        if self.credentials is None or (credentials != NO_CREDENTIALS and not has_own):
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
            server = await self._dialled()
        except DialFailed as failure:
            await self._after_failure(failure)
        except BaseException:
            self._after_crash()
            raise
        else:
            self._asked -= 1
            self.registry.begin_life(server)
            self.put_idle(server, is_new=True)

    async def _dialled(self) -> ServerConnection:
        try:
            return await self._connect()
        finally:
            self._dialling -= 1

    async def _connect(self) -> ServerConnection:
        return await NewConnection(self, _NO_PARAMETERS).logged_in()

    def _after_crash(self) -> None:
        """A bug of ours, or the end of the process: nobody else makes this connection."""
        self._asked -= 1
        if self._wanting:
            self._wanting.popleft().server_failed(_DIAL_CRASHED)

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
            name, error = connector.upstream.name, failure.fields
            log.warning("server_unavailable", upstream=name, error=error.message, code=error.code)
        connector.went_down(failure.fields)

    async def _worth_another_try(self) -> bool:
        """The server is full although the budget is not. Wait and ask again while somebody waits for it."""
        self.registry.measures.dial_retries += 1
        self.registry.dials_refused += 1
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
