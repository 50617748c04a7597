"""One server connection: login, linked to a client, idle, closing, gone.

Owns: this socket, which answers are still to come on it, its parameters, and whether it is fit to be shared again.
Does not know: slots and classes, which client comes next, how it was dialled.

    LOGIN -> IDLE <-> LINKED -> CLOSING -> GONE      (any state -> GONE when the server closes its side)

"Gone" is what the server does, never what we do: a closed socket leaves a backend that still counts against
max_connections until it has noticed.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Final, Protocol

from proxy.session import clock
from proxy.session.awaited import Awaited
from proxy.session.encryption import server_certificate_der
from proxy.session.facts import facts_from, facts_moved, facts_until
from proxy.session.parameters import REPORTED_SETTABLE, Settings, SettingsTable
from proxy.session.replies import COMPLETIONS, NO_SUCH_STATEMENT, READY, READY_AFTER, RESULT_CHANGED, Replies, Reply
from proxy.session.routes import Route
from proxy.session.statements import NO_UNNAMED, ServerStatements, Statement, StatementTable
from proxy.session.transports import set_up
from proxy.wire import messages
from proxy.wire.errors import ProtocolViolation
from proxy.wire.framing import Fact, server_cursor
from proxy.wire.login import LoginState
from proxy.wire.messages import ErrorFields
from proxy.wire.server_login import ServerLogin

# Held until whole, because a decision hangs on them. Everything else streams through.
_WANTED: Final = bytes(
    (
        messages.READY_FOR_QUERY,
        messages.PARAMETER_STATUS,
        messages.ERROR_RESPONSE,
        messages.COPY_IN_RESPONSE,
        messages.NOTIFICATION_RESPONSE,
    )
)
_WANTED_AT_LOGIN: Final = _WANTED + bytes(
    (
        messages.AUTHENTICATION,
        messages.BACKEND_KEY_DATA,
        messages.NOTICE_RESPONSE,
        messages.NEGOTIATE_PROTOCOL_VERSION,
    )
)
_WANTED_OF_QUESTION: Final = _WANTED + bytes((messages.DATA_ROW,))
_WANTED_WHILE_TRACKED: Final = _WANTED + COMPLETIONS
_MAX_HELD: Final = 256 * 1024  # the longest RowDescription, 1,600 columns, has half of that

IDLE_STATUS: Final = 0x49  # "I" of ReadyForQuery: no transaction is open
FAILED_STATUS: Final = 0x45  # "E": a failed transaction waits for its end
INJECTED: Final = 0  # awaited beside the client's own message types: ours, swallowed up to its ReadyForQuery


class ServerState(Enum):
    """Where a server connection is; the values are those of the metric `server_connections{state}`."""

    LOGIN = "dialling"
    IDLE = "idle"
    LINKED = "in_use"
    CLOSING = "closing"
    GONE = "gone"


class Writable(Protocol):
    """The part of a transport that the relay uses on the leg it does not own."""

    def write(self, data: bytes) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Holder:
    """Whoever holds a server connection. A base class and no Protocol: the relay calls it for every answer."""

    __slots__ = ("transport",)

    transport: Writable

    def unit_may_be_over(self) -> None:
        """The server is idle outside a transaction and owes no answer."""
        raise NotImplementedError

    def server_lost(self, server: "ServerConnection") -> None:
        """The server closed its side while linked."""
        raise NotImplementedError

    def injected_done(self, server: "ServerConnection", error: ErrorFields | None) -> None:
        """What the proxy sent of its own is answered; after an error nothing of the client's has run."""
        raise NotImplementedError

    def copy_begins(self) -> None:
        """The server waits for copy data."""
        raise NotImplementedError

    def cancel_over(self) -> None:
        """A cancel that was under way to this connection can no longer reach it."""
        raise NotImplementedError

    def ready(self, failed: bool) -> None:
        """A ReadyForQuery of the client's own has passed, an ErrorResponse before it if `failed`."""
        raise NotImplementedError


class ServerOwner(Protocol):
    """What a server connection expects of its pool."""

    table: SettingsTable
    statements: StatementTable
    max_statements: int

    def gone(self, server: "ServerConnection") -> None: ...

    def unfit(self, server: "ServerConnection", why: str) -> None:
        """An idle connection must not be handed out any more."""

    def broke_protocol(self, server: "ServerConnection", violation: ProtocolViolation) -> None: ...

    def doubts_role(self) -> None:
        """The server refused to write: it may have become a standby."""


# Numbers inside, for they are compared at every message; `state` shows them by name.
_LOGIN: Final = 0
_IDLE: Final = 1
_LINKED: Final = 2
_CLOSING: Final = 3
_GONE: Final = 4
_STATES: Final = (
    ServerState.LOGIN,
    ServerState.IDLE,
    ServerState.LINKED,
    ServerState.CLOSING,
    ServerState.GONE,
)
_READY_FOR_QUERY: Final = messages.READY_FOR_QUERY
_READY_BYTES: Final = 6
_IDLE_STATUS: Final = IDLE_STATUS


class ServerConnection:
    """The protocol object of one server connection."""

    def __init__(self, pool: ServerOwner, login: ServerLogin, loop: asyncio.AbstractEventLoop) -> None:
        self.pool = pool
        self.loop = loop
        self.transport: asyncio.Transport
        self.cursor = server_cursor(_WANTED_AT_LOGIN, max_held_bytes=_MAX_HELD)
        self._state = _LOGIN
        self.client: Holder | None = None
        self.awaiting = Awaited()
        self.last_status = IDLE_STATUS
        self.copying_in = False
        self.has_copy_end = False  # it was sent ahead of the question for the data
        self.settings: Settings = pool.table.neutral
        self.process_id = 0
        self.secret_key = b""
        self.told_fatal = False
        self.cancels_under_way = 0
        self.on_gone: Callable[[], None] | None = None
        self.tells_ready = False  # the holder wants ready(): it has something to learn from the next answer
        self.statements = ServerStatements(pool.max_statements)
        self.replies = Replies()
        self.bound: Statement | None = None  # by the last unit that was not looked at message by message
        self.bound_name = b""  # the client's name of it
        self.has_sure_settings = True  # what its client has sent changes none, as far as can be seen
        self.unnamed = NO_UNNAMED  # the Parse of the unnamed statement it has: the very object that a client keeps
        self.idle_since = clock.now()  # while linked: when a unit was answered behind which more is to come
        self.retire_at = float("inf")
        self.login_done: asyncio.Future[ErrorFields | None] = loop.create_future()  # None: logged in
        self.route: Route | None = None  # set by whoever dialled
        self._login = login
        self._swallowing = False
        self.is_full = False  # more is unsent than may be: whoever holds it is not read
        self._injected_want: Settings | None = None
        self.told_rows: list[list[str | None]] | None = None
        self._injected_error: ErrorFields | None = None
        self._failed = False
        self._is_late = False

    # -- the socket -------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = set_up(transport)
        is_local = not isinstance(transport.get_extra_info("peername"), tuple)
        self._login.runs_on(server_certificate_der(transport), is_local=is_local)
        self.transport.write(self._login.start())

    def data_received(self, data: bytes) -> None:
        client = self.client
        if client is not None and self._is_usual_answer(data):
            # The hot path, and the same as `_note` for it: one unit is over, outside a transaction.
            client.transport.write(data)
            self.awaiting.pop()
            self.last_status = _IDLE_STATUS
            self.copying_in = self.has_copy_end = False
            client.unit_may_be_over()
            return
        try:
            buffer, facts = self.cursor.feed(data)
            if client is None:
                self._received_unlinked(buffer, facts)
            elif self._swallowing:
                self._swallow(client, buffer, facts)
            else:
                if self.bound is not None and facts and self.awaiting.first != INJECTED:
                    buffer, facts = self._bound_answered(self.bound, buffer, facts)
                client.transport.write(buffer)
                if facts or self._is_late:
                    self._is_late = False
                    self._note(client, buffer, facts)
        except ProtocolViolation as violation:
            self.pool.broke_protocol(self, violation)

    def _is_usual_answer(self, data: bytes) -> bool:
        """The end of the one answer that is awaited: nothing to be looked at but the ReadyForQuery at its end."""
        return (
            len(data) >= _READY_BYTES
            and data[len(data) - 1] == _IDLE_STATUS
            and self.awaiting.is_one()
            and not (self.tells_ready or self._failed or self._swallowing)
            and self.cursor.is_last(data, _READY_FOR_QUERY, _READY_BYTES)
        )

    def eof_received(self) -> None:
        """Returning None closes our side too; connection_lost follows."""

    def connection_lost(self, exc: Exception | None) -> None:
        client, self.client = self.client, None
        self._state = _GONE
        on_gone, self.on_gone = self.on_gone, None
        why = f"the server hung up during login{f' ({exc})' if exc else ''}"
        self._login_ends(ErrorFields("FATAL", "08006", why, None, None))
        if client is not None:
            client.server_lost(self)
        self.pool.gone(self)
        if on_gone is not None:
            on_gone()

    def pause_writing(self) -> None:
        self.is_full = True
        if self.client is not None:
            self.client.transport.pause_reading()

    def resume_writing(self) -> None:
        self.is_full = False
        if self.client is not None:
            self.client.transport.resume_reading()

    # -- linking ----------------------------------------------------------------------------------------------------

    def link(self, client: Holder) -> None:
        assert self.client is None, "linked twice"
        assert self._state == _IDLE, f"linked while {self.state}"
        self.client = client
        self.has_sure_settings = True
        self.bound = None
        self._state = _LINKED
        if self.is_full:
            client.transport.pause_reading()

    def unlink(self, now: float) -> None:
        """Give the connection back: the caller has seen that `is_clean`."""
        assert self.client is not None, "unlinked twice"
        if self.is_full:
            # The server gave up what it had not read yet. It takes the rest in its own time; the client goes on now.
            self.client.transport.resume_reading()
        self.client = None
        self._state = _IDLE
        if self.statements.has_private:
            self.statements.forget_private()
        self.tells_ready = False
        self.idle_since = now

    @property
    def is_clean(self) -> bool:
        """Nothing is owed and no transaction is open: another client may use it, if the session state allows."""
        return not self.awaiting and self.last_status == _IDLE_STATUS and not self.copying_in

    def send(self, data: bytes, kinds: Iterable[int]) -> None:
        """Forward the client's bytes; `kinds` are the types in them that are answered with a ReadyForQuery."""
        self.transport.write(data)
        self.awaiting.extend(kinds)

    def send_one(self, data: bytes, kind: int) -> None:
        """The same for one message."""
        self.transport.write(data)
        self.awaiting.push(kind)

    def inject(self, sql: str, *, want: Settings | None = None) -> bytes:
        """Bytes to be sent ahead of the client's own; the replies are swallowed and `injected_done` is called.

        `want` are the settings this connection has if `sql` succeeds.
        """
        self._inject(want)
        self.unnamed = NO_UNNAMED
        return messages.query(sql)

    def inject_question(self, sql: str) -> bytes:
        """The same with a query whose rows are wanted: they are in `told_rows` when `injected_done` is called."""
        self._inject(None)
        self.unnamed = NO_UNNAMED
        self.told_rows = []
        self.cursor.wanted = _WANTED_OF_QUESTION
        return messages.query(sql)

    def inject_sync(self) -> bytes:
        """The same with a Sync: whatever was begun by the extended protocol is over when it is answered."""
        self._inject(None)
        return messages.sync()

    def _inject(self, want: Settings | None) -> None:
        assert not self.awaiting, "injected behind messages that are not answered yet"
        self.awaiting.push(INJECTED)
        self._swallowing = True
        self._injected_want = want

    def track_replies(self) -> None:
        """From the next message sent on, every answer is told apart: `replies` is to be told what to expect."""
        if self.replies.is_active:
            return
        for kind in self.awaiting:
            if kind != INJECTED:
                self.replies.expect(self._ready_after(kind))
        self._swallowing = True
        self.cursor.wanted = _WANTED_WHILE_TRACKED

    def _ready_after(self, kind: int) -> Reply:
        """For a unit that was sent before answers were told apart."""
        bound = self.bound
        if bound is None:
            return READY_AFTER[kind]
        return Reply(READY, asked=kind, failed=lambda error: self._bound_failed(bound, error))

    def say_what_needs_no_answer(self) -> None:
        """Tell the client what is its turn already; more follows as the server answers."""
        client = self.client
        said = self.replies.lead()
        if said and client is not None:
            client.transport.write(said)
        if not self.replies.is_active:
            self._end_tracking()

    @property
    def told_at_login(self) -> Mapping[str, str]:
        """The parameters as the server reported them at the login."""
        return self._login.parameters

    @property
    def state(self) -> ServerState:
        return _STATES[self._state]

    @property
    def is_mid_message(self) -> bool:
        """The holder has been sent the beginning of a message: whatever follows would be taken for the rest of it."""
        return self.cursor.is_mid_message()

    def is_cut(self) -> bool:
        """A part of a message has come, and its rest is on its way: a notice behind an answer may be cut anywhere.

        Whoever holds the connection must not give it back now, and is told once the rest is here.
        """
        self._is_late = self.cursor.is_mid_message() or self.cursor.held_bytes > 0
        return self._is_late

    @property
    def ignores_sync(self) -> bool:
        """Copy data are awaited. A COPY of the extended protocol that has failed answers the next Sync again."""
        return self.copying_in and not self._failed

    @property
    def is_injecting(self) -> bool:
        return INJECTED in self.awaiting

    @property
    def owes_only_ours(self) -> bool:
        """Every answer to the client's own messages has come; one to ours may be under way."""
        return all(kind == INJECTED for kind in self.awaiting)

    @property
    def is_open(self) -> bool:
        """The server has not closed its side yet."""
        return self._state != _GONE

    def terminate(self) -> None:
        """Ask the server to end this session. It is gone when its side is closed, not before.

        What it still sends is thrown away. The write side is closed too: the client may have left in the middle of a
        message, and the server would take a Terminate for the rest of it.
        """
        if self._state >= _CLOSING:
            return
        self.client = None
        self._state = _CLOSING
        transport = self.transport
        transport.set_protocol(_Closing(self))
        transport.resume_reading()
        transport.write(messages.terminate())
        if transport.can_write_eof():
            transport.write_eof()
        else:
            transport.close()  # under TLS only close_notify ends a message that will never be whole

    # -- facts ------------------------------------------------------------------------------------------------------

    def _note(self, client: Holder, buffer: bytes, facts: Iterable[Fact]) -> None:
        for kind, start, end in facts:
            if kind == _READY_FOR_QUERY:
                self._ready(client, buffer[end - 1])
            elif kind == messages.ERROR_RESPONSE:
                self._error(buffer, start, end)
            elif kind == messages.PARAMETER_STATUS:
                had = self.settings
                self._parameter(buffer[start + 5 : end])
                if self.settings.folding is not had.folding:
                    self.has_sure_settings = False
                    self.statements.settings_have_changed()
            elif kind == messages.COPY_IN_RESPONSE:
                self._copy_in()
                client.copy_begins()
        # What was told above may have sent the client away, a Terminate that had to wait for the answer for one.
        if self.client is client and self.is_clean and not self.told_fatal:
            client.unit_may_be_over()

    def _bound_answered(
        self, statement: Statement, buffer: bytes, facts: Sequence[Fact]
    ) -> tuple[bytes, Sequence[Fact]]:
        """An error in the answer may speak of the statement, by a name that the client does not know."""
        for kind, start, end in facts:
            if kind == messages.ERROR_RESPONSE and end >= 0:
                told = self._bound_failed(statement, buffer[start + 5 : end])
                if told is not None:
                    behind = facts_moved(facts_from(facts, end), start + len(told))
                    before = facts_until(facts, start)
                    return buffer[:start] + told + buffer[end:], [*before, (kind, start, start + len(told)), *behind]
        return buffer, facts

    def _bound_failed(self, statement: Statement, error: bytes) -> bytes | None:
        """What the client is told in place of `error`, None where that speaks of nothing it does not know."""
        if RESULT_CHANGED in error:
            self.pool.statements.renew(statement)
        own = self.statements.name_or_none(statement)
        if own is None or own not in error:
            return None
        if NO_SUCH_STATEMENT in error:  # deallocated unseen, as by a function
            self.statements.was_not_parsed(statement, own)
        return messages.message(messages.ERROR_RESPONSE, error.replace(own, self.bound_name))

    def _ready(self, client: Holder, status: int) -> None:
        if not self.awaiting:
            raise ProtocolViolation("ReadyForQuery that answers nothing")
        self.awaiting.pop()
        if not self.awaiting:
            self.statements.all_answered()
        self.last_status = status
        if status != _IDLE_STATUS or self.awaiting:
            self.idle_since = clock.now()
        self.copying_in = self.has_copy_end = False
        failed, self._failed = self._failed, False
        if self.tells_ready:
            client.ready(failed)

    def _error(self, buffer: bytes, start: int, end: int) -> None:
        self._failed = True
        payload = buffer[start + 5 :] if end < 0 else buffer[start + 5 : end]
        # The field V is the severity in English, whatever lc_messages is.
        if b"VFATAL\0" in payload or b"VPANIC\0" in payload:
            self.told_fatal = True
        if b"\0C25006\0" in payload:
            self.pool.doubts_role()

    def _parameter(self, payload: bytes) -> None:
        name, value = messages.parse_parameter_status(payload)
        name = name.lower()
        if name in REPORTED_SETTABLE:
            table = self.pool.table
            table.accept(name, value, value)
            self.settings = table.intern({**self.settings.values, name: value})

    def _copy_in(self) -> None:
        """The server now ignores Sync until CopyDone or CopyFail, which may have been sent already."""
        self.copying_in = not self.has_copy_end
        self.awaiting.drop_ignored_syncs()

    # -- what is ours and not the client's -------------------------------------------------------------------------

    def _swallow(self, client: Holder, buffer: bytes, facts: Sequence[Fact]) -> None:
        """Keep the replies to what the proxy sent from the client, and pass on what follows them."""
        if self.awaiting.first == INJECTED:
            taken = self._swallow_injected(buffer, facts)
            if taken is None:
                return
            end_of_ours, facts = taken
            self._swallowing = self.replies.is_active
            error, self._injected_error = self._injected_error, None
            client.injected_done(self, error)
            if self.client is not client:
                return
            buffer, facts = buffer[end_of_ours:], facts_from(facts, end_of_ours)
        if self.replies.is_active:
            buffer, facts = self._take_replies(buffer, facts)
        if buffer:
            client.transport.write(buffer)
        # Also where nothing of the client's follows: what was put back after a RESET ends its unit of work.
        self._note(client, buffer, facts)

    def _swallow_injected(self, buffer: bytes, facts: Sequence[Fact]) -> tuple[int, Sequence[Fact]] | None:
        """Where our replies end and the facts behind them; None while they have not ended."""
        for index, (kind, start, end) in enumerate(facts):
            payload = buffer[start + 5 : end]
            if kind == messages.PARAMETER_STATUS:
                self._parameter(payload)
            elif kind == messages.ERROR_RESPONSE and self._injected_error is None:
                self._injected_error = messages.parse_error_fields(payload)
                self._error(buffer, start, end)
                self._failed = False
            elif kind == messages.NOTIFICATION_RESPONSE and self.client is not None:
                self.client.transport.write(buffer[start:end])  # to a pinned client: it comes at any time
            elif kind == messages.DATA_ROW and self.told_rows is not None:
                self.told_rows.append(messages.parse_text_row(payload))
            elif kind == messages.READY_FOR_QUERY:
                if self.told_rows is not None:
                    self.cursor.wanted = _WANTED
                self.awaiting.pop()
                self.last_status = buffer[end - 1]
                self._settle_injected()
                return end, facts[index + 1 :]
        return None

    def _settle_injected(self) -> None:
        """After success: reported parameters are what the server said, the others what was asked for."""
        want, self._injected_want = self._injected_want, None
        if want is None or self._injected_error is not None:
            return
        table = self.pool.table
        told = self.settings.values
        values = {}
        for name, asked in want.values.items():
            values[name] = told.get(name, asked) if table.is_reported(name) else asked
            table.accept(name, asked, values[name])
        self.settings = table.intern(values)

    def _take_replies(self, buffer: bytes, facts: Sequence[Fact]) -> tuple[bytes, Sequence[Fact]]:
        """The answers as the client is to get them. Queries that the server has skipped are not awaited any more."""
        replies = self.replies
        buffer, facts = replies.take(buffer, facts)
        for _ in range(replies.never_ready):
            self.awaiting.pop()
        replies.never_ready = 0
        if not replies.is_active:
            self._end_tracking()
        return buffer, facts

    def _end_tracking(self) -> None:
        self._swallowing = self.awaiting.first == INJECTED
        self.cursor.wanted = _WANTED

    # -- without a client --------------------------------------------------------------------------------------------

    def _received_unlinked(self, buffer: bytes, facts: Iterable[Fact]) -> None:
        for kind, start, end in facts:
            payload = buffer[start + 5 : end]
            if self._state == _LOGIN:
                self._login_message(kind, payload)
            elif kind == messages.PARAMETER_STATUS and self._state == _IDLE:
                self._parameter(payload)
            elif kind == messages.ERROR_RESPONSE and self._state == _IDLE:
                # An idle session is told only of its end: shutdown, idle_session_timeout, a superuser's command.
                self.pool.unfit(self, messages.parse_error_fields(payload).message)
            elif kind == messages.READY_FOR_QUERY and self._state == _IDLE:
                # Whatever it answers next would be one answer late.
                self.pool.unfit(self, "it answered a question that nobody had asked")
        if self._state == _IDLE and self.cursor.is_mid_message():
            self.pool.unfit(self, "it began to say something, and the next client would be told the rest")

    def _login_message(self, kind: int, payload: bytes) -> None:
        try:
            reply = self._login.receive(kind, payload)
        except ProtocolViolation as violation:
            self._login_ends(ErrorFields("FATAL", "08P01", str(violation)))
            self.pool.broke_protocol(self, violation)
            return
        if reply:
            self.transport.write(reply)
        if self._login.state is LoginState.DONE:
            self._logged_in()
        elif self._login.state is LoginState.FAILED:
            assert self._login.error is not None, "a failed login carries its error"
            self.terminate()
            self._login_ends(self._login.error)

    def _logged_in(self) -> None:
        login = self._login
        self.process_id = login.process_id
        self.secret_key = login.secret_key
        self.cursor.wanted = _WANTED
        self.settings = self.pool.table.learn_login(login.parameters)
        self._state = _IDLE
        self._login_ends(None)

    def _login_ends(self, error: ErrorFields | None) -> None:
        if not self.login_done.done():
            self.login_done.set_result(error)


class _Closing(asyncio.Protocol):
    """Reads a terminated connection to its end."""

    def __init__(self, server: ServerConnection) -> None:
        self._server = server

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connection_lost(exc)
