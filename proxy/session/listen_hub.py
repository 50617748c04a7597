"""The server connection over which the clients of one database listen.

Owns: this connection and its slot of the class `internal`, its setting up, its return after a loss, its end.
Does not know: which channels are to be listened to (`listen_channels`), who has missed what (`listen_gap`), how one is
told (`listen_notifications`, `listening`), how many hubs there may be (`listen_hubs`).
Source: PostgreSQL manual, pages sql-listen, sql-notify; "Asynchronous Operations" (protocol-flow).

    NEW -> WAITING -> SETTING_UP -> UP -> LEAVING -> OVER
              ^            |         |        |
              +---- PAUSE <+---------+--------+     the connection is lost or did not come about
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from enum import Enum
from typing import TYPE_CHECKING, Final

from proxy.admission.classes import INTERNAL_CLASS, ClientId
from proxy.admission.decisions import Grant, RefusalReason, Refuse, StillWaiting
from proxy.session import clock, refusals
from proxy.session.holder import Holder
from proxy.session.listen_channels import Channels
from proxy.session.listen_gap import Gap
from proxy.session.listen_notifications import Notifications
from proxy.session.parameters import Settings
from proxy.session.pool import Pool
from proxy.session.server import ServerConnection
from proxy.wire import messages
from proxy.wire.framing import server_cursor
from proxy.wire.messages import ErrorFields
from proxy.wire.sql_listen import ListenCommand

if TYPE_CHECKING:
    from proxy.session.listening import Listening
    from proxy.session.upstream import Upstream

_WANTED: Final = bytes((messages.NOTIFICATION_RESPONSE, messages.ERROR_RESPONSE, messages.READY_FOR_QUERY))
_LINGER_SECONDS: Final = 1.0  # without listeners: drivers parse LISTEN first and execute it a moment later
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
        self.channels = Channels()
        self._desk = desk
        self._upstream = upstream
        self._pool = pool
        self._over = over
        self._state = HubState.NEW
        self._server: ServerConnection | None = None
        self._cursor = server_cursor(_WANTED)
        self._holds_slot = False
        self._error: ErrorFields | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._backoff_seconds = 0.0
        self._heard_at = 0.0
        self._gap = Gap(database)
        self._notifications = Notifications(desk, self.channels, self._pause_server, self._resume_server)
        desk.loop.call_soon(self._open)

    # -- who listens --------------------------------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        return self._state is HubState.UP

    def join(self, listening: "Listening", commands: Iterable[ListenCommand]) -> bool:
        """Listen for `listening`. False: `asked` of it is called later, once the server has confirmed all of it."""
        missing = self.channels.join(listening, commands)
        is_done = self.is_up and not missing
        if not is_done:
            self.channels.wait(listening, missing)
        self._look_for_work()
        return is_done

    def withdraw(self, listening: "Listening") -> None:
        """It waits no longer for what it asked; channels are left by `leave`."""
        self.channels.withdraw(listening)
        self._look_for_work()

    def leave(self, listening: "Listening", names: Iterable[bytes]) -> None:
        self.channels.leave(listening, names)
        self._look_for_work()

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
        if refusal.reason is RefusalReason.SHUTTING_DOWN or not self.channels.are_wanted:
            for listening in self.channels.take_asking():
                listening.asked(refusals.refused(refusal, "ERROR"))
            self._end()
        else:
            self._open()  # those who wait have their own patience

    def still_waiting(self, event: StillWaiting) -> None: ...

    def crashed(self) -> None:
        for listening in self.channels.take_asking():
            listening.asked_in_vain()
        self._end()

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
        if not self.channels.are_wanted:
            self._end()
        elif self._is_for_good(error):
            self._upstream.listen_hubs.refused_by_server(self.database, error)
            for listening in self.channels.take_asking():
                listening.asked_in_vain()
            self._end()
        else:
            self._gap.lasts(error)
            self._pause()

    def _is_for_good(self, error: ErrorFields) -> bool:
        """The server does not want this login, and nobody depends on it yet."""
        is_outage = self._upstream.registry.connector.down is not None or error.code[:2] in _OF_THE_SERVER_AS_A_WHOLE
        return not self._gap.is_open and not is_outage

    def _pause(self) -> None:
        """Dial again, each time later."""
        self._state = HubState.PAUSE
        bounds = self._upstream.registry.settings
        self._backoff_seconds = min(bounds.retry_max_seconds, self._backoff_seconds * 2 or bounds.retry_min_seconds)
        seconds = self._backoff_seconds * random.uniform(0.5, 1.0)  # noqa: S311 (jitter)
        self._set_timer(seconds, self._dial_again)

    def _dial_again(self) -> None:
        self._timer = None
        if self.channels.are_wanted:
            self._dial()
        else:
            self._end()

    def server_lost(self, server: ServerConnection) -> None:
        self._server = None
        self._lost()

    def _lost(self) -> None:
        """The connection is gone. What was ACTIVE may miss notifications from now on, and whoever listens is told."""
        self._stop_timer()
        missed = self.channels.active_listeners()
        if missed and self._gap.began(missed, self._heard_at, len(self.channels)):
            self._desk.measures.listen_gaps += 1
        self.channels.connection_lost()
        self._error = None
        was_up, self._state = self.is_up, HubState.PAUSE
        if not self.channels.are_wanted:
            self._end()
        elif was_up:
            self._dial()  # at once: most often one backend was ended and the server is there
        else:
            self._pause()

    # -- what is sent -------------------------------------------------------------------------------------------------

    def _look_for_work(self) -> None:
        """Send what is to be sent, or begin to leave where there is nothing to stay for."""
        if not self.is_up or self.channels.awaits_answer or self._server is None or self._server.awaiting:
            return
        statements = self.channels.next_statements()
        if statements:
            self._stop_timer()
            self._send(b";".join(statements))
            return
        self._gap.ended()
        if not self.channels.are_wanted and self._timer is None:
            self._set_timer(_LINGER_SECONDS, self._leave)

    def _send(self, sql: bytes) -> None:
        assert self._server is not None, "something is sent over a connection"
        self._server.send_one(messages.query(sql), messages.QUERY)
        self._set_timer(self._upstream.registry.settings.dial_timeout_seconds, self._no_answer)

    def _no_answer(self) -> None:
        self._timer = None
        self._close_server()
        self._lost()

    def _leave(self) -> None:
        self._timer = None
        if self.channels.are_wanted or not self.is_up:
            return
        self._state = HubState.LEAVING
        self._send(b"DISCARD ALL")

    # -- what the server sends ----------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        self._heard_at = time.time()
        buffer, facts = self._cursor.feed(data)
        for kind, start, end in facts:
            if kind == messages.NOTIFICATION_RESPONSE:
                self._notifications.received(buffer[start:end])
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
        elif self.is_up:
            self._statements_done(error)
        elif error is not None:
            self._no_answer()  # DISCARD ALL failed: nobody else may have this connection

    def _set_up(self, error: ErrorFields | None) -> None:
        if error is not None:
            self._close_server()
            self.server_failed(error)
            return
        self._state = HubState.UP
        self._backoff_seconds = 0.0
        self._tell_whoever_has_all(self.channels.those_with_all())

    def _statements_done(self, error: ErrorFields | None) -> None:
        if error is None:
            self._tell_whoever_has_all(self.channels.confirmed())
            return
        refused = self.channels.refused_or_none()
        if refused is None:
            return
        for listening in refused.heard_by():  # after a gap
            listening.lost(refused.name, error)
        for listening in self.channels.take_asking(refused):
            listening.asked(error)

    def _tell_whoever_has_all(self, candidates: Iterable["Listening"]) -> None:
        for listening in candidates:
            if self.channels.took_if_has_all(listening):
                listening.asked(None)

    def injected_done(self, server: ServerConnection, error: ErrorFields | None) -> None: ...

    def cancel_over(self) -> None: ...

    def copy_begins(self) -> None: ...

    def ready(self, failed: bool) -> None: ...

    def _pause_server(self) -> None:
        if self._server is not None:
            self._server.transport.pause_reading()

    def _resume_server(self) -> None:
        if self._server is not None:
            self._server.transport.resume_reading()

    # -- the end ------------------------------------------------------------------------------------------------------

    def _left(self) -> None:
        server = self._server
        assert server is not None, "DISCARD ALL was answered over a connection"
        if self.channels.are_wanted:
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

    def _set_timer(self, seconds: float, then: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = self._desk.loop.call_later(seconds, then)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
