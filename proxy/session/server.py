"""One server connection, as far as it reads what the server says: the linked relay.

Owns: which answers are still to come, which of them the client gets, its parameters, whether it is fit to be shared.
Does not know: its socket, states and end (`server_leg`), what of ours was sent (`injected`), slots and classes, which
client comes next.

The hot path is `data_received`: the end of the one answer that is awaited passes through with one look at its end.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

from proxy.session import clock
from proxy.session.awaited import Awaited
from proxy.session.facts import facts_from, facts_moved, facts_until
from proxy.session.holder import Holder
from proxy.session.injected import Injected
from proxy.session.parameters import REPORTED_SETTABLE, Settings
from proxy.session.replies import COMPLETIONS, READY, READY_AFTER, Replies, Reply
from proxy.session.server_leg import ServerLeg, ServerOwner, ServerState
from proxy.session.statement_errors import told_instead
from proxy.session.statements import NO_UNNAMED, ServerStatements, Statement
from proxy.wire import messages
from proxy.wire.errors import ProtocolViolation
from proxy.wire.framing import Fact, server_cursor
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


_READY_FOR_QUERY: Final = messages.READY_FOR_QUERY
_READY_BYTES: Final = 6
_IDLE_STATUS: Final = IDLE_STATUS


class ServerConnection(ServerLeg):
    """The protocol object of one server connection, which reads what the server says."""

    def __init__(self, pool: ServerOwner, login: ServerLogin, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(pool, login, loop)
        self.cursor = server_cursor(_WANTED_AT_LOGIN, max_held_bytes=_MAX_HELD)
        self.awaiting = Awaited()
        self.last_status = IDLE_STATUS
        self.copying_in = False
        self.has_copy_end = False  # it was sent ahead of the question for the data
        self.settings: Settings = pool.table.neutral
        self.told_fatal = False
        self.tells_ready = False  # the holder wants ready(): it has something to learn from the next answer
        self.statements = ServerStatements(pool.max_statements)
        self.replies = Replies()
        self.bound: Statement | None = None  # by the last unit that was not looked at message by message
        self.bound_name = b""  # the client's name of it
        self.has_sure_settings = True  # what its client has sent changes none, as far as can be seen
        self.unnamed = NO_UNNAMED  # the Parse of the unnamed statement it has: the very object that a client keeps
        self._swallowing = False
        self.injected = Injected()
        self._failed = False
        self._is_late = False

    # -- the hot path -----------------------------------------------------------------------------------------------

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

    def _tell_loss(self, client: Holder | None) -> None:
        if client is not None:
            client.server_lost(self)
        self.pool.gone(self)

    # -- linking ----------------------------------------------------------------------------------------------------

    def link(self, client: Holder) -> None:
        ServerLeg.link(self, client)
        self.has_sure_settings = True
        self.bound = None

    def unlink(self, now: float) -> None:
        """Give the connection back: the caller has seen that `is_clean`."""
        ServerLeg.unlink(self, now)
        if self.statements.has_private:
            self.statements.forget_private()
        self.tells_ready = False

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
        """The same with a query whose rows are wanted: they are in `injected` when `injected_done` is called."""
        self._inject(None)
        self.unnamed = NO_UNNAMED
        self.injected.rows = []
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
        self.injected.begins(want)

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

    # -- facts ------------------------------------------------------------------------------------------------------

    def _note(self, client: Holder, buffer: bytes, facts: Iterable[Fact]) -> None:
        for kind, start, end in facts:
            if kind == _READY_FOR_QUERY:
                self._ready(client, buffer[end - 1])
            elif kind == messages.ERROR_RESPONSE:
                self._error(buffer, start, end)
            elif kind == messages.PARAMETER_STATUS:
                had = self.settings
                self.note_parameter(buffer[start + 5 : end])
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
        own = self.statements.name_or_none(statement)
        return told_instead(error, statement, own, self.bound_name, self.statements, self.pool.statements)

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

    def note_own_error(self, buffer: bytes, start: int, end: int) -> None:
        """The answer to what the proxy has sent: nothing of the client's has failed."""
        self._error(buffer, start, end)
        self._failed = False

    def note_parameter(self, payload: bytes) -> None:
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
            index = self.injected.ends_at(self, buffer, facts)
            if index < 0:
                return
            end_of_ours, facts = facts[index][2], facts[index + 1 :]
            self._own_answered(client, buffer[end_of_ours - 1])
            if self.client is not client:
                return
            buffer, facts = buffer[end_of_ours:], facts_from(facts, end_of_ours)
        if self.replies.is_active:
            buffer, facts = self._take_replies(buffer, facts)
        if buffer:
            client.transport.write(buffer)
        # Also where nothing of the client's follows: what was put back after a RESET ends its unit of work.
        self._note(client, buffer, facts)

    def _own_answered(self, client: Holder, status: int) -> None:
        self.awaiting.pop()
        self.last_status = status
        if self.injected.rows is not None:
            self.cursor.wanted = _WANTED
        self.injected.settle(self)
        self._swallowing = self.replies.is_active
        client.injected_done(self, self.injected.take_error())

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
            if self.state is ServerState.LOGIN:
                self.login.received(self, kind, buffer[start + 5 : end])
            elif self.state is ServerState.IDLE:
                self._received_idle(kind, buffer[start + 5 : end])
        if self.state is ServerState.IDLE and self.cursor.is_mid_message():
            self.pool.unfit(self, "it began to say something, and the next client would be told the rest")

    def _received_idle(self, kind: int, payload: bytes) -> None:
        if kind == messages.PARAMETER_STATUS:
            self.note_parameter(payload)
        elif kind == messages.ERROR_RESPONSE:
            # An idle session is told only of its end: shutdown, idle_session_timeout, a superuser's command.
            self.pool.unfit(self, messages.parse_error_fields(payload).message)
        elif kind == messages.READY_FOR_QUERY:
            # Whatever it answers next would be one answer late.
            self.pool.unfit(self, "it answered a question that nobody had asked")

    def logged_in(self, process_id: int, secret_key: bytes) -> None:
        ServerLeg.logged_in(self, process_id, secret_key)
        self.cursor.wanted = _WANTED
        self.settings = self.pool.table.learn_login(self.login.parameters)
