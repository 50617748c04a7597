"""The server connection over which the clients of one database listen.

Owns: this connection and its slot of the class `internal`, which channels the server has been asked for, bringing both
back after a loss, handing notifications to those who listen.
Does not know: what clients send, how one is told (`listening`), how many hubs there may be (`listen_hubs`).
Source: PostgreSQL manual, pages sql-listen, sql-notify; "Asynchronous Operations" (protocol-flow).

    NEW -> WAITING -> SETTING_UP -> UP -> LEAVING -> OVER
              ^            |         |        |
              +---- PAUSE <+---------+--------+     the connection is lost or did not come about

A channel is WANTED until the server is asked, ASKED until it has answered, then ACTIVE; UNWANTED when its last listener
has left, LEFT while the server is told. What is notified once LISTEN is answered is heard, so a client gets its answer
only when its channels are ACTIVE.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import TYPE_CHECKING, Final

import structlog

from proxy.admission.classes import INTERNAL_CLASS, ClientId
from proxy.admission.decisions import Grant, RefusalReason, Refuse, StillWaiting
from proxy.session import clock, refusals
from proxy.session.parameters import Settings
from proxy.session.pool import Pool
from proxy.session.server import Holder, ServerConnection
from proxy.wire import messages
from proxy.wire.framing import server_cursor
from proxy.wire.messages import ErrorFields
from proxy.wire.sql_listen import ListenCommand

if TYPE_CHECKING:
    from proxy.session.listening import Listening
    from proxy.session.upstream import Upstream

log = structlog.get_logger("pgheadroom.listen")

_WANTED: Final = bytes((messages.NOTIFICATION_RESPONSE, messages.ERROR_RESPONSE, messages.READY_FOR_QUERY))
_MAX_BATCH: Final = 200  # statements in one query
_TOLD_AT_ONCE: Final = 200  # listeners told in one turn of the loop: about a millisecond
_MAX_QUEUED: Final = 1000  # notifications being handed out, above which the server is not read
_LINGER_SECONDS: Final = 1.0  # without listeners: drivers parse LISTEN first and execute it a moment later
_KEEPALIVE_SECONDS: Final = 60.0  # after so long the loss of a peer that fell silent is noticed (`transports`)
# What a session timeout of the server ended would be a gap each time. From PostgreSQL 14 on.
_SET_UP: Final = b"""
select pg_catalog.set_config('client_encoding', 'UTF8', false),
       pg_catalog.set_config('application_name', 'pgheadroom listen', false);
select pg_catalog.set_config(name, '0', false) from pg_catalog.pg_settings where name = 'idle_session_timeout'
"""
_OF_THE_SERVER_AS_A_WHOLE: Final = ("08", "53", "57", "XX")  # classes of SQLSTATE that say nothing about this login


class HubState(Enum):
    NEW = "new"
    WAITING = "waiting"
    SETTING_UP = "setting_up"
    UP = "up"
    LEAVING = "leaving"
    PAUSE = "pause"
    OVER = "over"


class ChannelState(Enum):
    WANTED = "wanted"
    ASKED = "asked"
    ACTIVE = "active"
    UNWANTED = "unwanted"
    LEFT = "left"


class Channel:
    """One channel of the database: who listens, in the order of asking, and what the server knows of it."""

    __slots__ = ("listeners", "name", "spelled", "state")

    def __init__(self, command: ListenCommand) -> None:
        self.name = command.channel
        self.spelled = command.spelled
        self.listeners: dict[Listening, None] = {}
        self.state = ChannelState.WANTED


class ListenHub(Holder):
    """One per database that is listened to. `over` is called once, when slot and connection are given back."""

    def __init__(self, upstream: "Upstream", database: str, pool: Pool, over: Callable[["ListenHub"], None]) -> None:
        desk = upstream.desk
        self.transport = self
        self.id: ClientId = desk.next_client_id()
        self.settings: Settings | None = None
        self.class_name = INTERNAL_CLASS
        self.urgency = 0
        self.database = database
        self.channels: dict[bytes, Channel] = {}
        self._desk = desk
        self._upstream = upstream
        self._pool = pool
        self._over = over
        self._state = HubState.NEW
        self._server: ServerConnection | None = None
        self._cursor = server_cursor(_WANTED)
        self._holds_slot = False
        self._asking: dict[Listening, set[Channel]] = {}  # who waits for what
        self._todo: deque[Channel] = deque()
        self._in_flight: list[Channel] = []
        self._singly = 0  # statements still to be sent one by one, after a query of several has failed
        self._error: ErrorFields | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._backoff_seconds = 0.0
        self._heard_at = 0.0
        self._lost_at: float | None = None  # of the gap that is not told yet, in Unix seconds
        self._missed: dict[Listening, None] = {}
        self._is_interruption_told = False
        self._telling: deque[tuple[bytes, bool, Iterator[Listening], Channel]] = deque()
        desk.loop.call_soon(self._open)

    # -- who listens --------------------------------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        return self._state is HubState.UP

    @property
    def listeners(self) -> set["Listening"]:
        return {one for channel in self.channels.values() for one in channel.listeners}

    def join(self, listening: "Listening", commands: Iterable[ListenCommand]) -> bool:
        """Listen for `listening`. False: `asked` of it is called later, once the server has confirmed all of it."""
        missing = set()
        for command in commands:
            channel = self.channels.get(command.channel)
            if channel is None:
                channel = self.channels[command.channel] = Channel(command)
                self._todo.append(channel)
            elif channel.state is ChannelState.UNWANTED:
                channel.state = ChannelState.ACTIVE  # it stands in `_todo` and is skipped there
            channel.listeners[listening] = None
            if channel.state is not ChannelState.ACTIVE:
                missing.add(channel)
        if self.is_up and not missing:
            self._look_for_work()
            return True
        self._asking[listening] = missing
        self._look_for_work()
        return False

    def withdraw(self, listening: "Listening") -> None:
        """It waits no longer for what it asked; channels are left by `leave`."""
        self._asking.pop(listening, None)
        self._look_for_work()

    def leave(self, listening: "Listening", names: Iterable[bytes]) -> None:
        for name in names:
            channel = self.channels.get(name)
            if channel is not None and channel.listeners.pop(listening, listening) is None and not channel.listeners:
                self._last_has_left(channel)
        self._look_for_work()

    def _last_has_left(self, channel: Channel) -> None:
        if channel.state is ChannelState.WANTED:
            del self.channels[channel.name]
        elif channel.state is ChannelState.ACTIVE:
            channel.state = ChannelState.UNWANTED
            self._todo.append(channel)

    # -- the slot -----------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        if self._state is HubState.OVER:
            return
        self._state = HubState.WAITING
        # Held for as long as somebody listens, so never out of what is only lent.
        self._upstream.gate.request(self, INTERNAL_CLASS, "listen", unbounded=True)

    def granted(self, grant: Grant) -> None:
        self._holds_slot = True
        self._dial()

    def refused(self, refusal: Refuse) -> None:
        if refusal.reason is RefusalReason.SHUTTING_DOWN or not self._is_of_use():
            self._fail_all(refusals.refused(refusal, "ERROR"))
            self._end()
        else:
            self._open()  # those who wait have their own patience

    def still_waiting(self, event: StillWaiting) -> None: ...

    def _is_of_use(self) -> bool:
        return bool(self._asking or self.channels)

    # -- the connection -----------------------------------------------------------------------------------------------

    def _dial(self) -> None:
        self._state = HubState.WAITING
        self._pool.want(self)

    def gives_up_at(self) -> float:
        return clock.now() + self._upstream.registry.settings.dial_timeout_seconds

    def server_ready(self, server: ServerConnection) -> None:
        self._server = server
        self._cursor = server_cursor(_WANTED)
        server.link(self)
        self._state = HubState.SETTING_UP
        self._send(_SET_UP)

    def server_failed(self, error: ErrorFields) -> None:
        if not self._is_of_use():
            self._end()
        elif self._is_for_good(error):
            self._upstream.listen_hubs.refused_by_server(self.database, error)
            for listening in self._take_asking():
                listening.asked_in_vain()
            self._end()
        else:
            self._tell_interruption(error)
            self._pause()

    def _is_for_good(self, error: ErrorFields) -> bool:
        """The server does not want this login, and nobody depends on it yet."""
        is_outage = self._upstream.registry.connector.down is not None or error.code[:2] in _OF_THE_SERVER_AS_A_WHOLE
        return self._lost_at is None and not is_outage

    def _pause(self) -> None:
        """Dial again, each time later."""
        self._state = HubState.PAUSE
        bounds = self._upstream.registry.settings
        self._backoff_seconds = min(bounds.retry_max_seconds, self._backoff_seconds * 2 or bounds.retry_min_seconds)
        seconds = self._backoff_seconds * random.uniform(0.5, 1.0)  # noqa: S311 (jitter)
        self._set_timer(seconds, self._dial_again)

    def _dial_again(self) -> None:
        self._timer = None
        if self._is_of_use():
            self._dial()
        else:
            self._end()

    def server_lost(self, server: ServerConnection) -> None:
        self._server = None
        self._lost()

    def _lost(self) -> None:
        """The connection is gone. What was ACTIVE may miss notifications from now on, and whoever listens is told."""
        self._stop_timer()
        missed = [
            one
            for channel in self.channels.values()
            if channel.state is ChannelState.ACTIVE
            for one in channel.listeners
            if channel.name in one.channels
        ]
        if missed:
            self._begin_gap(missed)
        self._in_flight, self._error, self._singly = [], None, 0
        self.channels = {name: channel for name, channel in self.channels.items() if channel.listeners}
        for channel in self.channels.values():
            channel.state = ChannelState.WANTED
        self._todo = deque(self.channels.values())
        was_up, self._state = self._state is HubState.UP, HubState.PAUSE
        if not self._is_of_use():
            self._end()
        elif was_up:
            self._dial()  # at once: most often one backend was ended and the server is there
        else:
            self._pause()

    def _begin_gap(self, missed: Iterable["Listening"]) -> None:
        if self._lost_at is None:
            now = time.time()
            self._lost_at = max(self._heard_at, now - _KEEPALIVE_SECONDS)
            self._desk.measures.listen_gaps += 1
            log.warning("shared_listen_connection_lost", database=self.database, channels=len(self.channels))
        self._missed.update(dict.fromkeys(missed))

    def _tell_interruption(self, error: ErrorFields) -> None:
        """It does not come back at once. A gap that lasts must not be silent until its end."""
        if self._lost_at is None or self._is_interruption_told:
            return
        self._is_interruption_told = True
        log.warning("shared_listen_connection_stays_away", database=self.database, error=error.message, code=error.code)
        self._tell_missed(refusals.notifications_interrupted(self._lost_at))

    def _tell_missed(self, fields: ErrorFields) -> None:
        notice = messages.notice_response(fields)
        for listening in self._missed:
            if listening.channels:
                listening.tell(notice, is_ascii=True)

    def _end_gap(self) -> None:
        """Everything is listened to again."""
        assert self._lost_at is not None, "a gap has begun"
        now = time.time()
        log.info("shared_listen_connection_is_back", database=self.database, seconds=round(now - self._lost_at, 3))
        self._tell_missed(refusals.notifications_missed(self._lost_at, now))
        self._lost_at, self._missed, self._is_interruption_told = None, {}, False

    # -- what is sent -------------------------------------------------------------------------------------------------

    def _look_for_work(self) -> None:
        """Send what is to be sent, or begin to leave where there is nothing to stay for."""
        if self._state is not HubState.UP or self._in_flight or self._server is None or self._server.awaiting:
            return
        statements = self._next_statements()
        if statements:
            self._stop_timer()
            self._send(b";".join(statements))
            return
        self._singly = 0
        if self._lost_at is not None:
            self._end_gap()
        if not self._is_of_use() and self._timer is None:
            self._set_timer(_LINGER_SECONDS, self._leave)

    def _next_statements(self) -> list[bytes]:
        statements: list[bytes] = []
        room = 1 if self._singly else _MAX_BATCH
        while self._todo and len(statements) < room:
            channel = self._todo.popleft()
            if channel.state is ChannelState.WANTED and channel.listeners:
                channel.state = ChannelState.ASKED
                statements.append(b"LISTEN " + channel.spelled)
            elif channel.state is ChannelState.UNWANTED:
                channel.state = ChannelState.LEFT
                statements.append(b"UNLISTEN " + channel.spelled)
            else:
                continue
            self._in_flight.append(channel)
        self._singly = max(0, self._singly - len(statements))
        return statements

    def _send(self, sql: bytes) -> None:
        assert self._server is not None, "something is sent over a connection"
        self._server.send_one(messages.query(sql), messages.QUERY)
        self._set_timer(self._upstream.registry.settings.dial_timeout_seconds, self._no_answer)

    def _no_answer(self) -> None:
        self._timer = None
        server, self._server = self._server, None
        if server is not None:
            self._pool.close(server)
        self._lost()

    def _leave(self) -> None:
        self._timer = None
        if self._is_of_use() or self._state is not HubState.UP:
            return
        self._state = HubState.LEAVING
        self._send(b"DISCARD ALL")

    # -- what the server sends ----------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        self._heard_at = time.time()
        buffer, facts = self._cursor.feed(data)
        for kind, start, end in facts:
            if kind == messages.NOTIFICATION_RESPONSE:
                self._notified(buffer, start, end)
            elif kind == messages.ERROR_RESPONSE:
                self._error = messages.parse_error_fields(buffer[start + 5 : end])
            else:
                self._answered()

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def unit_may_be_over(self) -> None:
        if self._state is HubState.LEAVING:
            self._left()
        else:
            self._look_for_work()

    def _answered(self) -> None:
        """In the order of the stream: a notification behind this answer is for those who asked as well."""
        self._stop_timer()
        error, self._error = self._error, None
        if self._state is HubState.SETTING_UP:
            self._set_up(error)
        elif self._state is HubState.UP:
            done, self._in_flight = self._in_flight, []
            if error is None:
                self._confirm(done)
            else:
                self._failed(done, error)
        elif error is not None:
            self._no_answer()  # DISCARD ALL failed: nobody else may have this connection

    def _set_up(self, error: ErrorFields | None) -> None:
        if error is not None:
            self._close_server()
            self.server_failed(error)
            return
        self._state = HubState.UP
        self._backoff_seconds = 0.0
        self._tell_whoever_has_all([one for one, missing in self._asking.items() if not missing])

    def _confirm(self, done: list[Channel]) -> None:
        for channel in done:
            if channel.state is ChannelState.ASKED:
                channel.state = ChannelState.ACTIVE
                if not channel.listeners:
                    self._last_has_left(channel)  # and so it is not among the confirmed below
            elif channel.listeners:
                channel.state = ChannelState.WANTED  # asked for again while it was being left
                self._todo.append(channel)
            else:
                del self.channels[channel.name]
        confirmed = [channel for channel in done if channel.state is ChannelState.ACTIVE]
        concerned = {one: None for channel in confirmed for one in channel.listeners if one in self._asking}
        for listening in concerned:
            self._asking[listening].difference_update(confirmed)
        self._tell_whoever_has_all(concerned)

    def _tell_whoever_has_all(self, candidates: Iterable["Listening"]) -> None:
        for listening in candidates:
            missing = self._asking.get(listening)
            if missing is not None and not missing:
                del self._asking[listening]
                listening.asked(None)

    def _failed(self, done: list[Channel], error: ErrorFields) -> None:
        """A query of several statements has done nothing: each is sent alone, to find out which one is at fault."""
        if len(done) > 1:
            for channel in done:
                is_asked = channel.state is ChannelState.ASKED
                channel.state = ChannelState.WANTED if is_asked else ChannelState.UNWANTED
            self._todo.extendleft(reversed(done))
            self._singly = len(done)
            return
        (channel,) = done
        self.channels.pop(channel.name, None)
        lost = [one for one in channel.listeners if channel.name in one.channels]  # after a gap
        for listening in lost:
            listening.lost(channel.name, error)
        for listening in [one for one, missing in self._asking.items() if channel in missing]:
            del self._asking[listening]
            listening.asked(error)

    def injected_done(self, server: ServerConnection, error: ErrorFields | None) -> None: ...

    def cancel_over(self) -> None: ...

    def copy_begins(self) -> None: ...

    def ready(self, failed: bool) -> None: ...

    # -- notifications ------------------------------------------------------------------------------------------------

    def _notified(self, buffer: bytes, start: int, end: int) -> None:
        name_at = start + 9  # behind type, length and process id
        channel = self.channels.get(buffer[name_at : buffer.find(0, name_at, end)])
        if channel is None or not channel.listeners:
            return
        self._desk.measures.notifications_received += 1
        # Who listens now; whoever joins later has not asked for this one.
        listeners = iter(tuple(channel.listeners))
        self._telling.append((buffer[start:end], buffer[name_at:end].isascii(), listeners, channel))
        if len(self._telling) == 1:
            self._tell_some()
        elif len(self._telling) == _MAX_QUEUED and self._server is not None:
            self._server.transport.pause_reading()

    def _tell_some(self) -> None:
        """One notification may have thousands of listeners: the loop gets its turn in between."""
        room = _TOLD_AT_ONCE
        while self._telling:
            raw, is_ascii, listeners, channel = self._telling[0]
            for listening in listeners:
                if channel.name in listening.channels:
                    listening.tell(raw, is_ascii=is_ascii)
                room -= 1
                if not room:
                    self._desk.loop.call_soon(self._tell_some)
                    return
            self._telling.popleft()
            if len(self._telling) == _MAX_QUEUED // 2 and self._server is not None:
                self._server.transport.resume_reading()

    # -- the end ------------------------------------------------------------------------------------------------------

    def _left(self) -> None:
        server = self._server
        assert server is not None, "DISCARD ALL was answered over a connection"
        if self._is_of_use():
            self._state = HubState.SETTING_UP  # somebody came in the meantime
            self._send(_SET_UP)
            return
        self._server = None
        server.unlink(clock.now())
        self._pool.put_idle(server)
        self._end()

    def close(self) -> None:
        """The process ends, and nobody listens any more."""
        self._close_server()
        self._end()

    def _close_server(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            self._pool.close(server)

    def _end(self) -> None:
        if self._state is HubState.OVER:
            return
        state, self._state = self._state, HubState.OVER
        self._stop_timer()
        if self._holds_slot:
            self._holds_slot = False
            self._pool.gave_up(self)
            self._upstream.gate.release(self.id, clock.now())
        elif state is HubState.WAITING:
            self._upstream.gate.leave(self.id, INTERNAL_CLASS, 0.0)
        self._over(self)

    def _fail_all(self, error: ErrorFields) -> None:
        for listening in self._take_asking():
            listening.asked(error)

    def _take_asking(self) -> list["Listening"]:
        asking, self._asking = list(self._asking), {}
        return asking

    def _set_timer(self, seconds: float, then: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = self._desk.loop.call_later(seconds, then)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
