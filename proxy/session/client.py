"""One logged-in client: idle, waiting for a slot, linked to a server connection, gone.

Owns: this socket after authentication, what of the client's is still to be sent, the slot it holds, why it is pinned.
Does not know: the admission rule, how connections are dialled, what its results contain.

    ENTERING -> IDLE -> WAITING -> DIALLING -> LINKED -> IDLE ...      any -> GONE

ENTERING is everything between AuthenticationOk and the first ReadyForQuery: a place in the class, and a server
connection where the login needs one. IDLE costs no slot. In DIALLING the slot is held and the server connection is not
there yet, or is still being made fit.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Final

from proxy.admission.classes import ClientId
from proxy.admission.decisions import Grant, RefusalReason, Refuse, StillWaiting
from proxy.session import clock, examination, listening, refusals
from proxy.session.backlog import Backlog
from proxy.session.cleaning import Cleaning
from proxy.session.examination import WANTED, Dialect, Examination, may_end_transaction
from proxy.session.facts import facts_from, facts_until
from proxy.session.listening import Listening
from proxy.session.local import NEEDS_NO_SERVER, LocalAnswers
from proxy.session.parameters import REPORTED_SETTABLE, Settings, apply_sql, difference
from proxy.session.server import IDLE_STATUS, INJECTED, Holder, ServerConnection
from proxy.session.session_state import NO_PINS, SessionState
from proxy.session.settings import OnSessionState, PoolMode
from proxy.session.skipping import may_be_skipped
from proxy.session.statement_mode import block_opens_at
from proxy.session.statements import NO_UNNAMED, NONE, ClientStatements
from proxy.session.translation import Translation, held_from
from proxy.session.transports import close_in_time
from proxy.wire import messages, prefilter
from proxy.wire.errors import ProtocolViolation
from proxy.wire.framing import Fact, client_cursor, renamed
from proxy.wire.messages import ErrorFields
from proxy.wire.sql import FOLLOWED_PARAMETERS, NEVER_CLEARED, PLAIN, PinReason, inspect_sql

if TYPE_CHECKING:
    from proxy.session.frontdesk import Frontdesk, Identity

_QUERY: Final = messages.QUERY
_SYNC: Final = messages.SYNC
_COPY_MESSAGES: Final = frozenset((messages.COPY_DATA, messages.COPY_DONE, messages.COPY_FAIL))
_HEADER_BYTES: Final = 5


class Phase(Enum):
    """Where a client is."""

    ENTERING = "entering"
    IDLE = "idle"
    WAITING = "waiting"
    DIALLING = "dialling"
    LINKED = "linked"
    CLEANING = "cleaning"  # a refused pin: its transaction is being rolled back on the server
    GONE = "gone"


# Numbers inside, for they are compared at every message; `phase` shows them by name.
_ENTERING: Final = 0
_IDLE: Final = 1
_WAITING: Final = 2
_DIALLING: Final = 3
_LINKED: Final = 4
_CLEANING: Final = 5
_GONE: Final = 6
_PHASES: Final = (
    Phase.ENTERING,
    Phase.IDLE,
    Phase.WAITING,
    Phase.DIALLING,
    Phase.LINKED,
    Phase.CLEANING,
    Phase.GONE,
)


class ClientConnection(Holder):
    """The protocol object of one client after AuthenticationOk."""

    __slots__ = (
        "_asked_at",
        "_backlog",
        "_backslash_escapes",
        "_cancel_when_injected",
        "_closed",
        "_copied",
        "_cursor",
        "_desk",
        "_dialect",
        "_gate",
        "_granted_at",
        "_has_portal",
        "_is_clogged",
        "_is_going_on",
        "_late_copy",
        "_local",
        "_lone_timer",
        "_may_be_skipped",
        "_measures",
        "_one_statement",
        "_phase",
        "_server_paused",
        "_state",
        "_statements",
        "_unbounded",
        "_unsynced",
        "class_name",
        "holds_slot",
        "id",
        "identity",
        "listening",
        "pool",
        "process_id",
        "server",
        "session_hold",
        "settings",
    )

    transport: asyncio.Transport

    def __init__(
        self,
        desk: "Frontdesk",
        identity: "Identity",
        transport: asyncio.Transport,
        client_id: ClientId,
        closed: Callable[[], None],
    ) -> None:
        self._desk = desk
        self._closed = closed
        self.id = client_id
        self.identity = identity
        self.transport = transport
        self._gate = desk.gate
        self.class_name = desk.classify(identity, identity.application_name)
        if of_class := desk.behaviour(self.class_name).parameters:
            self.identity = replace(identity, parameters={**of_class, **identity.parameters})
        self._measures = desk.measures.of(self.class_name).of_application(identity.application_name)
        self.session_hold = desk.pool_mode(self.class_name) is PoolMode.SESSION
        self._one_statement = desk.pool_mode(self.class_name) is PoolMode.STATEMENT
        self._phase = _ENTERING
        self.pool = desk.registry.pool(identity.database, identity.user)
        self.server: ServerConnection | None = None
        self.settings: Settings | None = None
        self._state: SessionState | None = None
        self.holds_slot = False
        self.process_id = 0
        limits = desk.settings.limits
        self._cursor = client_cursor(
            WANTED, max_held_bytes=limits.max_inspected_bytes, max_message_bytes=limits.max_message_bytes
        )
        self._dialect = Dialect()
        self._backslash_escapes = False
        self._local: LocalAnswers | None = None
        self._backlog = Backlog(transport, desk.loop)
        self._asked_at = 0.0
        self._granted_at = 0.0
        self._unsynced = False
        self._late_copy = False
        self._copied = False
        self._unbounded = False
        self._statements: ClientStatements | None = None
        self._has_portal = False
        self._cancel_when_injected = False
        self._is_clogged = False
        self._is_going_on = False
        self._may_be_skipped = False
        self._server_paused = False
        self._lone_timer: asyncio.TimerHandle | None = None
        self.listening: Listening | None = None

    @property
    def phase(self) -> Phase:
        return _PHASES[self._phase]

    @property
    def application(self) -> str:
        """What it calls itself now; beyond what is told apart, OTHER."""
        return self._measures.name

    @property
    def pins(self) -> frozenset[PinReason]:
        """Why the server connection is not shared between transactions."""
        return NO_PINS if self._state is None else self._state.pins

    # -- the socket -------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._phase == _IDLE and self._may_be_usual() and self._sent_at_once(data):
            return
        try:
            buffer, facts = self._cursor.feed(data)
            if not buffer:
                return
            if self._phase == _IDLE:
                self._begin(buffer, facts)
            elif self._phase == _LINKED and not self._backlog.size and not self._must_hold():
                self._forward(buffer, facts)
            elif self._phase != _GONE:
                self._keep(buffer, facts)
        except ProtocolViolation as violation:
            self._broke_protocol(violation)

    def _may_be_usual(self) -> bool:
        """There is nothing before it that is not done with."""
        return not (self._is_clogged or self._one_statement or self._backlog.size or self._local is not None)

    def _sent_at_once(self, data: bytes) -> bool:
        """The hot path, and the same as `_begin` for it: one whole unit that leaves nothing in the session."""
        if self._cursor.is_one(data, _QUERY):
            return self._query_sent(data)
        if self._statements is None:
            return False
        name_at = self._cursor.bound_unit(data)
        if name_at > 0:
            return self._bound_sent(data, name_at)
        parse_end = self._cursor.unnamed_unit(data)
        return parse_end > 0 and self._unnamed_sent(data, parse_end)

    def _query_sent(self, data: bytes) -> bool:
        if prefilter.may_matter(data, self._backslash_escapes, _HEADER_BYTES, len(data) - 1):
            return False
        now = clock.now()
        if not self._gate.try_grant(self.id, self.class_name, now):
            return False
        server = self._link_at_once(data, None, now)
        if server is not None:
            server.send_one(data, _QUERY)
            server.unnamed = NO_UNNAMED
            if self._statements is not None:
                self._statements.unnamed = NO_UNNAMED
        return True

    def _bound_sent(self, data: bytes, name_at: int) -> bool:
        """A statement that was prepared before is bound and executed."""
        statements, settings = self._statements, self.settings
        assert statements is not None, "asked before"
        assert settings is not None, "an idle client has entered"
        own_name = data[name_at : data.find(0, name_at)]
        statement = statements.named.get(own_name)
        if statement is None or statement.facts is not PLAIN or statement.folding is not settings.folding:
            return False
        now = clock.now()
        if statement.is_stale or not self._gate.try_grant(self.id, self.class_name, now):
            return False
        server = self._link_at_once(data, None, now)
        if server is None:
            return True
        name = server.statements.name_or_none(statement)
        if name is None or server.statements.to_close:
            self._forward(data, self._cursor.feed(data)[1])
        else:
            server.bound = statement
            server.bound_name = own_name
            server.send_one(renamed(data, name_at, name), _SYNC)
        return True

    def _unnamed_sent(self, data: bytes, parse_end: int) -> bool:
        """A text is parsed as the unnamed statement, bound and executed."""
        statements = self._statements
        assert statements is not None, "asked before"
        text_at = _HEADER_BYTES + 1
        if prefilter.may_matter(data, self._backslash_escapes, text_at, data.find(0, text_at)):
            return False
        now = clock.now()
        if not self._gate.try_grant(self.id, self.class_name, now):
            return False
        server = self._link_at_once(data, None, now)
        if server is not None:
            statements.keep_unnamed(data, 0, parse_end)
            server.unnamed = statements.unnamed
            server.send_one(data, _SYNC)
        return True

    def _must_hold(self) -> bool:
        """It is not certain under which settings more would run.

        A SET of the proxy's own is not answered yet, or a RESET of the client's whose answer brings another one; or the
        connection has been reset, and is not the client's any more.
        """
        server = self.server
        if server is not None and self._state is not None and self._state.was_discarded:
            return True
        if server is None or not server.awaiting:
            return False
        return server.awaiting.first == INJECTED or (server.tells_ready and not server.copying_in)

    def eof_received(self) -> None:
        """Our side is closed too, and connection_lost follows: in time, also where the peer reads nothing more."""
        close_in_time(self.transport, self._desk.loop)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed()
        self._leave()

    def pause_writing(self) -> None:
        # This client does not drain its result: stop reading the server rather than hold the result here.
        self._is_clogged = True
        if self.server is not None:
            self._server_paused = True
            self.server.transport.pause_reading()

    def resume_writing(self) -> None:
        self._is_clogged = False
        if self._server_paused and self.server is not None:
            self.server.transport.resume_reading()
        self._server_paused = False
        self._tell_what_was_heard()
        self._go_on()

    def _broke_protocol(self, violation: ProtocolViolation) -> None:
        self._desk.measures.protocol_violations["client"] += 1
        self._desk.log.info("client_broke_protocol", violation=str(violation), **self.identity.log_keys())
        self.end(refusals.protocol_violation(str(violation)))

    def end(self, error: ErrorFields | None) -> None:
        """Say why, and close."""
        if self._phase == _GONE:
            return
        if error is not None:
            self.transport.write(messages.error_response(error))
        self._leave()
        close_in_time(self.transport, self._desk.loop)

    # -- entering -----------------------------------------------------------------------------------------------------

    def enter(self) -> None:
        """AuthenticationOk is sent. First a place in the class, then a server connection where that is needed."""
        desk = self._desk
        self._asked_at = clock.now()
        name = self.class_name
        desk.door.join(_PlaceSeeker(self), name, desk.queue_timeout(name), desk.flow(self.identity, name))

    def place_refused(self, refusal: Refuse) -> None:
        self._desk.measures.refusals_outside_queue[refusal.class_name, refusal.reason.value] += 1
        self.end(refusals.no_place(refusal))

    def place_granted(self) -> None:
        table = self.pool.table
        if not self.session_hold and table.is_known:
            self.settings = table.settings_or_none(self.identity.parameters)
            if self.settings is not None:
                self._entered()
                return
        self._request_slot(unbounded=self.session_hold)

    def _prepare_first_server(self, server: ServerConnection) -> None:
        """Entering needs the server: for its parameters, to try this client's own, or for the whole session."""
        table = self.pool.table
        known = table.settings_or_none(self.identity.parameters)
        want = known or table.intern({**table.neutral.values, **self.identity.parameters})
        if want is server.settings:
            self._first_server_is_fit(server)
        else:
            self._send_alone(server, apply_sql(difference(server.settings, want)), want)

    def _first_server_is_fit(self, server: ServerConnection) -> None:
        self.settings = server.settings
        if self.session_hold:
            self._phase = _LINKED
            self._say_entered()
            self._flush_pending()
        else:
            self._release_server(server)
            self._entered()

    def _entered(self) -> None:
        self._phase = _IDLE
        self._say_entered()
        self._begin_pending()

    def _say_entered(self) -> None:
        assert self.settings is not None, "a client enters with known settings"
        self._read_dialect()
        self.process_id, key = self._desk.keys.issue(self, self.identity.minor_version)
        own = self.settings.values
        greeting = [
            messages.parameter_status(name, own.get(name.lower(), value))
            for name, value in self.pool.table.reported.items()
        ]
        greeting += (messages.backend_key_data(self.process_id, key), messages.ready_for_query(b"I"))
        self.transport.write(b"".join(greeting))
        self._desk.measures.logins += 1

    # -- beginning a unit of work -------------------------------------------------------------------------------------

    def _link_at_once(self, buffer: bytes, facts: Sequence[Fact] | None, now: float) -> ServerConnection | None:
        """A slot was granted without a wait. Without an idle connection that is fit as it is, the unit is kept.

        `facts` are those of the unit, None where it has not been fed to the cursor.
        """
        self.holds_slot = True
        self._unbounded = False
        self._granted_at = self._asked_at = now
        self._measures.granted_at_once()
        pool, settings = self.pool, self.settings
        assert settings is not None, "an idle client has entered"
        server = pool.take_idle_or_none(settings, self.class_name)
        if server is not None and server.settings is settings and not pool.needs_check(server, now):
            self._phase = _LINKED
            self.server = server
            server.link(self)
            return server
        self._keep(buffer, self._cursor.feed(buffer)[1] if facts is None else facts)
        self._phase = _DIALLING
        if server is not None:
            self.server_ready(server)
        else:
            pool.want(self)
        return None

    def _begin(self, buffer: bytes, facts: Sequence[Fact]) -> None:
        """The client is idle and sends something."""
        if self._backlog.size or self._is_clogged:
            self._keep(buffer, facts)
            if self._is_clogged:
                return  # it does not read its answers: nothing new begins, or they would pile up here
            buffer, facts = self._backlog.take()
        if self._local is not None or buffer[0] in NEEDS_NO_SERVER or buffer[0] == messages.CLOSE:
            buffer, facts = self._answer_locally(buffer, facts)
            if not buffer:
                return
        seen = examination.examine(buffer, facts, self._dialect, False, self._statements)
        if (seen.leaves_at == 0 or seen.pins or seen.parses_listen or self.listening is not None) and self._is_done(
            buffer, facts, seen
        ):
            return
        block_at = block_opens_at(buffer, facts, self._backslash_escapes) if self._one_statement else -1
        if block_at == 0:
            self._keep(buffer, facts)
            self._refuse_unit(refusals.no_transaction_block(self.class_name, "ERROR"))
            return
        now = clock.now()
        if (
            seen.is_plain()
            and seen.leaves_at < 0
            and block_at < 0
            and self._gate.try_grant(self.id, self.class_name, now)
        ):
            server = self._link_at_once(buffer, facts, now)
            if server is not None:
                if seen.names_statements:
                    self._forward(buffer, facts)
                else:
                    self._send(server, buffer, facts, seen)
        else:
            self._keep(buffer, facts)
            self._request_slot_for(seen)

    def _request_slot_for(self, seen: Examination) -> None:
        """For what may not be granted at once."""
        if not seen.pins:
            self._request_slot(unbounded=False)
        elif self._on_session_state is OnSessionState.REJECT:
            self._refuse_unit(refusals.session_state_rejected(self.class_name, seen.pins))
        else:
            self._request_slot(unbounded=self._on_session_state is OnSessionState.PIN)

    def _answer_locally(self, buffer: bytes, facts: Sequence[Fact]) -> tuple[bytes, Sequence[Fact]]:
        local = self._local or LocalAnswers(self)
        answer, rest = local.consume(buffer)
        if answer:
            self.transport.write(answer)
        self._local = None if local.is_idle else local
        self._tell_what_was_heard()
        return rest, facts_from(facts, len(buffer) - len(rest))

    def _begin_pending(self) -> None:
        """The client is idle again and has sent more in the meantime."""
        if self._backlog.size and self._phase == _IDLE:
            buffer, facts = self._backlog.take()
            self._begin(buffer, facts)

    def _request_slot(self, *, unbounded: bool) -> None:
        desk = self._desk
        down = desk.registry.connector.down
        if down is not None:
            self._fail_for_want_of_server(down)
            return
        if self._phase == _IDLE:
            self._phase = _WAITING
        self._asked_at = clock.now()
        self._unbounded = unbounded
        self._gate.request(self, self.class_name, desk.flow(self.identity, self.class_name), unbounded=unbounded)

    # -- what the gate decides ----------------------------------------------------------------------------------------

    def granted(self, grant: Grant) -> None:
        self.holds_slot = True
        self._granted_at = clock.now()
        if self._phase == _WAITING:
            self._phase = _DIALLING
        self.pool.want(self)

    def refused(self, refusal: Refuse) -> None:
        if self._phase == _ENTERING:
            self.end(refusals.refused(refusal, "FATAL"))
        else:
            is_for_all = refusal.reason is not RefusalReason.PINNED_LIMIT
            self._refuse_unit(refusals.refused(refusal, "ERROR"), is_for_all=is_for_all)

    def still_waiting(self, event: StillWaiting) -> None:
        self.transport.write(messages.notice_response(refusals.still_waiting(event)))

    def _refuse_unit(self, error: ErrorFields, *, is_for_all: bool = False) -> None:
        """The unit of work that was to begin does not. The client connection stays usable.

        `is_for_all`: what the client has sent behind it is refused as well, for the same answer would be given to each.
        """
        self._phase = _IDLE
        local = self._local or LocalAnswers(self)
        buffer, facts = self._backlog.take()
        answer, rest = local.refuse(error, buffer)
        answers = [answer]
        while is_for_all and rest and rest[0] != messages.TERMINATE:
            answer, rest = local.refuse(error, rest)
            answers.append(answer)
        self.transport.write(b"".join(answers))
        self._local = None if local.is_idle else local
        if rest:
            self._keep(rest, facts_from(facts, len(buffer) - len(rest)))
            self._go_on()
        self._tell_what_was_heard()

    def _go_on(self) -> None:
        """Begin what is pending. A chain of refusals must not become a deep stack: only the outermost call loops."""
        if self._is_going_on:
            return
        self._is_going_on = True
        try:
            while self._backlog.size and self._phase == _IDLE and not self._is_clogged:
                had = self._backlog.size
                self._begin_pending()
                if self._phase == _IDLE and self._backlog.size == had:
                    return  # the rest of a message is missing
        finally:
            self._is_going_on = False

    # -- what the pool brings -----------------------------------------------------------------------------------------

    @property
    def urgency(self) -> int:
        return self._desk.behaviour(self.class_name).priority

    def gives_up_at(self) -> float:
        return self._asked_at + self._desk.queue_timeout(self.class_name)

    def server_failed(self, error: ErrorFields) -> None:
        self._stop_lone_timer()
        self._slot_over()
        self._fail_for_want_of_server(error)

    def _fail_for_want_of_server(self, error: ErrorFields) -> None:
        if self._phase == _ENTERING:
            self.end(replace(error, severity="FATAL"))
        else:
            self._refuse_unit(replace(error, severity="ERROR"), is_for_all=True)

    def server_ready(self, server: ServerConnection) -> None:
        self._stop_lone_timer()
        server.link(self)
        self.server = server
        if self._phase == _ENTERING:
            self._prepare_first_server(server)
        elif self.pool.needs_check(server, clock.now()):
            self._send_alone(server, "", None)  # idle for long: does it still answer?
        else:
            self._link(server)

    def _send_alone(self, server: ServerConnection, sql: str, want: Settings | None) -> None:
        """Send something of ours and await the answer before anything of the client's."""
        server.transport.write(server.inject(sql, want=want))
        self._lone_timer = self._desk.loop.call_later(self._desk.settings.pool.dial_timeout_seconds, self._lone_timeout)

    def _lone_timeout(self) -> None:
        """The connection does not answer; nothing of the client's was sent on it, so another one will do.

        That one is given the same time to come and to answer: it may be that all are silent, and none makes room.
        """
        server, self.server, self._lone_timer = self.server, None, None
        if server is not None:
            self.pool.close(server)
        seconds, waited = self._desk.settings.pool.dial_timeout_seconds, clock.now() - self._granted_at
        if server is None or waited > 1.5 * seconds:
            self.pool.gave_up(self)
            self.server_failed(refusals.server_silent(waited))
            return
        self._lone_timer = self._desk.loop.call_later(seconds, self._lone_timeout)
        self.pool.want(self)

    def _stop_lone_timer(self) -> None:
        if self._lone_timer is not None:
            self._lone_timer.cancel()
            self._lone_timer = None

    def _link(self, server: ServerConnection) -> None:
        """The connection is fit: bring it to the client's settings and send what was kept."""
        settings = self.settings
        assert settings is not None, "a client that begins a unit has entered"
        if server.settings is not settings:
            changes = difference(server.settings, settings)
            if not self.pool.table.are_accepted(changes) or self._may_end_transaction():
                self._send_alone(server, apply_sql(changes), settings)
                return
            server.transport.write(server.inject(apply_sql(changes), want=settings))
            self._desk.measures.parameters_reapplied += 1
        self._phase = _LINKED
        self._flush_pending()
        self._cancel_if_asked()

    def _may_end_transaction(self) -> bool:
        """A SET that fails leaves a failed transaction, which stops all that follows, but not what ends it."""
        return any(may_end_transaction(buffer, facts, self._statements) for buffer, facts in self._backlog.pieces)

    def _cancel_if_asked(self) -> None:
        """A cancel came while statements of the proxy's own ran: it was meant for the client's, which run now."""
        server = self.server
        if self._cancel_when_injected and server is not None and not server.is_injecting:
            self._cancel_when_injected = False
            if server.awaiting:
                self._desk.canceller.cancel(server)

    def injected_done(self, server: ServerConnection, error: ErrorFields | None) -> None:
        self._stop_lone_timer()
        if self._state is not None and self._state.asked:
            if server.last_status != IDLE_STATUS and self._state.failure is None:
                # The question has failed: its transaction is not the client's to end.
                self._state.failure = error
                server.transport.write(server.inject("ROLLBACK"))
                return
            self._settings_told(server, self._state)
            self._go_on_linked()
            self._cancel_if_asked()
        elif error is not None:
            self._desk.measures.parameters_failed += 1
            self.end(replace(error, severity="FATAL"))
        elif self._phase == _ENTERING:
            self._first_server_is_fit(server)
        elif self._phase == _DIALLING:
            self._link(server)
        else:
            self._go_on_linked()
            self._cancel_if_asked()

    def _settings_told(self, server: ServerConnection, state: SessionState) -> None:
        """The answer to a question of ours, of which the client knows nothing."""
        if not state.learn(server, self.pool.table):
            state.pins |= {PinReason.SET}
            self._desk.measures.pins[self.class_name, PinReason.SET.value] += 1
            self._unbounded = True
            self._gate.note_pinned(self.id)

    def server_lost(self, server: ServerConnection) -> None:
        self.server = None
        if self._lone_timer is not None:
            self._lone_timer.cancel()
            self._lone_timer = None
            self.pool.want(self)
            return
        self._desk.measures.servers_lost_linked += 1
        # A FATAL of the server's own has gone through already; and an error would complete a row that is cut short.
        can_be_told = not server.told_fatal and not server.is_mid_message
        self.end(refusals.server_lost() if can_be_told else None)

    # -- linked -------------------------------------------------------------------------------------------------------

    def _go_on_linked(self) -> None:
        """An answer has settled what held back more of the client's."""
        if self._phase == _LINKED and self._local is None and not self._must_hold():
            self._flush_pending()

    def _flush_pending(self) -> None:
        if self._backlog.size:
            buffer, facts = self._backlog.take()
            try:
                self._forward(buffer, facts)
            except ProtocolViolation as violation:
                self._broke_protocol(violation)

    def _forward(self, buffer: bytes, facts: Sequence[Fact]) -> None:
        server = self.server
        assert server is not None, "a linked client has its server connection"
        if not facts:
            server.transport.write(buffer)
            self._streamed(server)
            return
        if self._one_statement:
            block_at = block_opens_at(buffer, facts, self._backslash_escapes)
            if block_at >= 0:
                self._hold_block(server, buffer, facts, block_at)
                return
        ignores_sync, has_copy_end = server.ignores_sync, server.has_copy_end
        seen = examination.examine(buffer, facts, self._dialect, ignores_sync, self._statements, has_copy_end)
        if (seen.names_statements or server.replies.is_active) and not self.session_hold:
            held_at = self._held_from(server, buffer, facts)
            if held_at >= 0:
                self._hold(server, buffer, facts, held_at)
                return
        if seen.leaves_at >= 0:
            if not seen.is_plain():
                server.retire_at = 0.0  # nobody will look at what the answer means for the session
            self._say_farewell(buffer, facts, seen.leaves_at)
        elif seen.is_plain() or self._may_change_session(server, seen, buffer, facts):
            self._send(server, buffer, facts, seen)

    def _hold_block(self, server: ServerConnection, buffer: bytes, facts: Sequence[Fact], block_at: int) -> None:
        """In statement mode a unit that would open a transaction block waits for those before it, and is refused."""
        if block_at:
            self._forward(buffer[:block_at], facts_until(facts, block_at))
        if self._phase == _GONE:
            return
        if self._unsynced or not (server.awaiting or server.cancels_under_way):
            self.end(refusals.no_transaction_block(self.class_name, "FATAL"))  # it cannot be refused on its own
            return
        self._keep(buffer[block_at:], facts_from(facts, block_at))

    def _held_from(self, server: ServerConnection, buffer: bytes, facts: Sequence[Fact]) -> int:
        """Where the first message stands whose statement depends on an answer that is still to come; -1 without."""
        if self._statements is None:
            self._statements = ClientStatements()
        statements = self._statements
        if not server.awaiting:
            statements.unsettled = NONE
            if not self._unsynced:
                statements.in_open_unit = NONE
        return held_from(buffer, facts, statements, self._dialect, self._unsynced)

    def _hold(self, server: ServerConnection, buffer: bytes, facts: Sequence[Fact], held_at: int) -> None:
        """Send what stands before; the rest goes on when that is answered."""
        if held_at:
            self._forward(buffer[:held_at], facts_until(facts, held_at))
        if self._phase != _GONE:
            self._keep(buffer[held_at:], facts_from(facts, held_at))
            server.tells_ready = True

    def _say_farewell(self, buffer: bytes, facts: Sequence[Fact], leaves_at: int) -> None:
        """Terminate. As with a server, what was sent ahead of it is carried out: it may be a COMMIT."""
        if leaves_at:
            self._forward(buffer[:leaves_at], facts_until(facts, leaves_at))
        self._leave(work_goes_on=True)
        close_in_time(self.transport, self._desk.loop)

    def _send(self, server: ServerConnection, buffer: bytes, facts: Sequence[Fact], seen: Examination) -> None:
        if self.session_hold and not self._may_be_skipped:  # elsewhere the answers are followed one by one
            self._may_be_skipped = may_be_skipped(facts, self._unsynced)
        of_copy = server.copying_in or self._late_copy or buffer[0] in _COPY_MESSAGES
        if (seen.is_extended or seen.has_query or server.replies.is_active) and not self.session_hold:
            if server.replies.is_skipping:
                seen.skip_to_sync()
            buffer = self._translated(server, buffer, facts, seen)
        self._late_copy = False
        was_copying, server.copying_in = server.copying_in, server.copying_in and not seen.ends_copy
        server.has_copy_end = (server.has_copy_end or seen.ends_copy) and not was_copying
        server.send(buffer, seen.awaited)
        if server.replies.is_active:
            server.say_what_needs_no_answer()
        if seen.whole:
            self._unsynced = self._copied = self._has_portal = False
        elif seen.only_ends_copy and of_copy:
            self._copied = True
            self._unsynced = was_copying and not server.awaiting  # by the simple protocol, CopyDone needs no Sync
        elif not server.copying_in and (seen.is_extended or seen.ends_copy or seen.awaited):  # and no lone Flush
            self._unsynced = True
            self._has_portal = self._has_portal or seen.has_portal
        if not seen.awaited and server.is_clean:
            self.unit_may_be_over()  # the end of a COPY that the server has given up already: no answer will come

    def _translated(self, server: ServerConnection, buffer: bytes, facts: Sequence[Fact], seen: Examination) -> bytes:
        """What the server is to read. Only names, and units that come in pieces, need a look at every answer."""
        if seen.sets_parameters:
            server.has_sure_settings = False
        if not seen.names_statements and not server.replies.is_active and (seen.whole or not seen.is_extended):
            self._note_unnamed(server, buffer, seen)
            return buffer
        if self._statements is None:
            self._statements = ClientStatements()
        settings, pool = self.settings, self.pool
        assert settings is not None, "a linked client has entered"
        folding = settings.folding if server.has_sure_settings else None
        max_bytes = self._desk.settings.limits.max_statement_bytes
        server.track_replies()
        work = Translation(self._statements, server, pool.statements, self._dialect, folding, max_bytes)
        return work.translate(buffer, facts)

    def _note_unnamed(self, server: ServerConnection, buffer: bytes, seen: Examination) -> None:
        """The unnamed statement is another one, or gone. The last of several counts."""
        if seen.parses_unnamed >= 0:
            if self._statements is None:
                self._statements = ClientStatements()
            self._statements.keep_unnamed(buffer, seen.parses_unnamed, seen.unnamed_end)
            server.unnamed = self._statements.unnamed
        elif seen.has_query:
            server.unnamed = NO_UNNAMED
            if self._statements is not None:
                self._statements.unnamed = NO_UNNAMED

    def _streamed(self, server: ServerConnection) -> None:
        """A part of a long message, or messages without a decision in them, went to the server."""
        if self._late_copy:
            # The COPY had failed in the middle of this message; now the message is whole and the server is free.
            if not self._is_mid_message():
                self._late_copy = False
                self._copied = True
                self.unit_may_be_over()
        elif not server.copying_in:
            self._unsynced = True

    def _is_mid_message(self) -> bool:
        return self._cursor.is_mid_message()

    def unit_may_be_over(self) -> None:
        server = self.server
        assert server is not None, "the server tells its holder"
        if server.replies.is_skipping:
            self._unsynced = True  # also where a query came behind the error: it was skipped
        if self._unsynced or self._is_pinned() or self.session_hold or server.cancels_under_way or server.is_cut():
            if self._unsynced and not self._has_portal:
                self._end_open_unit(server)
            if self._desk.draining:
                self._desk.tell_if_drained()
            self._tell_what_was_heard()
            if self._backlog.size:
                self._go_on_linked()
        elif self._cursor.is_mid_message() and not self._backlog.size:
            self._late_copy = True  # in mid-message, the beginning of which the server has
        elif self._copied:
            # What came between the copy data was not looked at: a Sync of ours ends whatever it may have begun.
            self._copied = False
            server.transport.write(server.inject_sync())
        elif self._state is not None and self._state.unsure:
            self._desk.measures.parameters_asked += 1
            server.transport.write(server.inject_question(self._state.ask()))
        elif self._state is not None and self._state.ignored:
            self._discard_state(server, self._state)
        else:
            self._release_server(server)
            if self.listening is not None:
                self.listening.flush()
            if self._backlog.size:
                self._go_on()

    def _discard_state(self, server: ServerConnection, state: SessionState) -> None:
        """The client's settings are noted first: those of the connection are gone with the rest."""
        if server.settings is not self.settings:
            self._settings_changed(server.settings)
        state.ignored, state.was_discarded = False, True
        server.statements.all_deallocated()
        server.transport.write(server.inject("DISCARD ALL", want=self.pool.table.neutral))

    def _end_open_unit(self, server: ServerConnection) -> None:
        """Parse or Describe without a Sync, and all of it is answered: a Sync of ours gives the connection back.

        Nothing was begun that the Sync which is still to come would end. Behind an error the client's own messages up
        to that are skipped here.
        """
        replies = server.replies
        if replies.has_unanswered or self._is_pinned() or self.session_hold or server.cancels_under_way:
            return
        statements = self._statements
        if (
            self._is_mid_message()
            or server.is_mid_message
            or statements is None
            or (statements.unnamed and not statements.can_replay_unnamed)
        ):
            return
        if replies.is_skipping:
            self._local = LocalAnswers(self)
            self._local.discard_up_to_sync()
            replies.clear()
        self._unsynced = False
        server.transport.write(server.inject_sync())

    def _is_pinned(self) -> bool:
        return self._state is not None and bool(self._state.pins)

    def copy_begins(self) -> None:
        """The client sends the data, and may have sent some ahead."""
        self._go_on_linked()

    def cancel_over(self) -> None:
        server = self.server
        if server is not None and server.is_clean and self._phase == _LINKED:
            self.unit_may_be_over()

    def _release_server(self, server: ServerConnection) -> None:
        now = clock.now()
        if self._phase == _LINKED:
            self._phase = _IDLE
        self.server = None
        self._may_be_skipped = False
        server.unlink(now)
        if self._server_paused:
            self._server_paused = False
            server.transport.resume_reading()
        if self._state is not None and self._state.was_discarded:
            self._state.was_discarded = False
        elif server.settings is not self.settings:
            self._settings_changed(server.settings)
        self.pool.put_idle(server)
        self._give_slot_back(now)

    def _slot_over(self) -> None:
        self._give_slot_back(clock.now())

    def _give_slot_back(self, now: float) -> None:
        """The time it was held is noted."""
        self.holds_slot = False
        self._measures.held(now - self._granted_at, now - self._asked_at)
        self._gate.release(self.id, now)

    @property
    def is_busy(self) -> bool:
        """Waits or works: a drain gives it time. A session that is only held does not count."""
        if self._phase == _LINKED and self.server is not None:
            return not self.server.is_clean or self._unsynced
        return self._phase not in (_IDLE, _GONE)

    @property
    def is_idle_in_transaction(self) -> bool:
        """Its transaction is open, and everything it has sent is answered."""
        server = self.server
        if self._phase != _LINKED or server is None or server.awaiting or self._unsynced:
            return False
        return server.last_status != IDLE_STATUS and not server.copying_in

    def reclassify(self) -> None:
        name = self.settings.values.get("application_name", "") if self.settings else self.identity.application_name
        self._desk.pool_left(self)
        self.class_name = self._desk.classify(self.identity, name)
        self._measures = self._desk.measures.of(self.class_name).of_application(name)
        self._one_statement = self._desk.pool_mode(self.class_name) is PoolMode.STATEMENT
        self._desk.pool_joined(self)

    def _settings_changed(self, settings: Settings) -> None:
        """The client changed a parameter. A new application_name counts from the next transaction on."""
        had, self.settings = self.settings, settings
        name = settings.values.get("application_name", "")
        if had is not None and had.values.get("application_name", "") != name:
            self.reclassify()
        self._read_dialect()

    def _read_dialect(self) -> None:
        table, settings = self.pool.table, self.settings
        followed = REPORTED_SETTABLE if table.is_reported("search_path") else FOLLOWED_PARAMETERS
        self._backslash_escapes = settings is not None and settings.values.get("standard_conforming_strings") == "off"
        self._dialect = Dialect(followed, self._backslash_escapes)

    # -- statements, where they are not the server's ------------------------------------------------------------------

    def statement_text(self, name: bytes) -> bytes | None:
        """The SQL of a prepared statement, None where there is none of that name."""
        return None if self._statements is None else self._statements.text_or_none(name)

    def define_statement(self, name: bytes, tail: bytes) -> ErrorFields | None:
        """A Parse is answered here: the server gets it when the statement is used. Returns why not."""
        if self._statements is None:
            self._statements = ClientStatements()
        settings = self.settings
        assert settings is not None, "a client that sends statements has entered"
        max_bytes = self._desk.settings.limits.max_statement_bytes
        if name and self._statements.size + len(name) + len(tail) > max_bytes:
            return refusals.too_many_statements(max_bytes)
        if name:
            facts = inspect_sql(tail[: tail.find(b"\0")], *self._dialect)
            self._statements.define(name, self.pool.statements.get(tail, settings.folding, facts))
        else:
            parse = messages.message(messages.PARSE, b"\0" + tail)
            self._statements.keep_unnamed(parse, 0, len(parse))
        return None

    def close_statement(self, name: bytes) -> bool:
        """Whether there was a statement of that name."""
        statement = None if self._statements is None else self._statements.named.get(name)
        if self._statements is None or statement is None:
            return False
        self._statements.undefine(name, statement)
        return True

    # -- session state that cannot be shared ---------------------------------------------------------------------------

    def _may_change_session(
        self, server: ServerConnection, seen: Examination, buffer: bytes, facts: Sequence[Fact]
    ) -> bool:
        """Decide before forwarding what would leave session state. False: it was refused and answered."""
        state = self._state
        if state is None:
            state = self._state = SessionState(self.identity.parameters)
        assert self.settings is not None, "a linked client has entered"
        state.changed(seen, self.pool.table, self.settings, server.settings)
        if seen.clearing is not PLAIN:
            state.expect(server, seen)
            if self.listening is not None:
                self.listening.expect(server, seen)
        elif seen.changes_parameters:
            server.retire_at = 0.0  # a RESET whose outcome is not seen: nobody else may get this connection
        if not seen.pins:
            return True
        if self._on_session_state is not OnSessionState.PIN:
            return self._does_not_pin(server, state, seen, buffer, facts)
        if not self._unbounded and not self.session_hold:
            refusal = self._gate.request_pin(self.id)
            if refusal is not None:
                self._refuse_in_transaction(server, refusals.refused(refusal, "ERROR"), buffer, facts)
                return False
            self._unbounded = True
        for reason in seen.pins - state.pins:
            self._desk.measures.pins[self.class_name, reason.value] += 1
        state.pins |= seen.pins
        return True

    @property
    def _on_session_state(self) -> OnSessionState:
        if self.session_hold:
            return OnSessionState.PIN  # held for the session anyhow
        return self._desk.behaviour(self.class_name).on_session_state

    def _does_not_pin(
        self, server: ServerConnection, state: SessionState, seen: Examination, buffer: bytes, facts: Sequence[Fact]
    ) -> bool:
        """The class rejects what cannot follow the client, or lets it go with the transaction."""
        if self._on_session_state is OnSessionState.REJECT:
            error = refusals.session_state_rejected(self.class_name, seen.pins)
            self._refuse_in_transaction(server, error, buffer, facts)
            return False
        state.ignored = True
        if seen.pins & NEVER_CLEARED:
            server.retire_at = 0.0
        return True

    def ready(self, failed: bool) -> None:
        """The statement that clears session state was answered, or one that was sent before or behind it."""
        server, state = self.server, self._state
        assert server is not None, "the server tells its holder"
        server.tells_ready = False
        if self.listening is not None:
            self.listening.ready(server, failed)
        if state is not None:
            self._session_state_answered(server, state, failed)
        if self._backlog.size and server.awaiting:
            server.tells_ready = True
        self._go_on_linked()

    def _session_state_answered(self, server: ServerConnection, state: SessionState, failed: bool) -> None:
        if state.lost_its_last_pin(server, failed) and not self.session_hold:
            self._unbounded = False
            self._gate.unpin(self.id)
        told = state.bring_back_startup_parameters(server, self.pool.table)
        if told:
            self.transport.write(told)
        server.tells_ready = state.is_resetting

    def _refuse_in_transaction(
        self, server: ServerConnection, error: ErrorFields, buffer: bytes, facts: Sequence[Fact]
    ) -> None:
        """A pin is refused: the transaction ends on the server now, and for the client at its COMMIT or ROLLBACK."""
        if server.awaiting or self._unsynced:
            self.end(replace(error, severity="FATAL"))  # answers are still to come: an error now would overtake them
            return
        in_block = server.last_status != IDLE_STATUS
        self._keep(buffer, facts)
        self._phase = _CLEANING
        self.server = None
        Cleaning(server, self.pool, self._desk.canceller, lambda: self._cleaned(in_block, error)).begin(
            is_dirty=self._state is not None and self._state.is_dirty, is_mid_message=self._is_mid_message()
        )

    def _cleaned(self, in_block: bool, error: ErrorFields) -> None:
        self._slot_over()
        if self._phase == _GONE:
            return
        if in_block:
            self._local = LocalAnswers(self)
            self._local.enter_failed_block()
        self._refuse_unit(error)

    # -- listening without a slot (`listening`) -----------------------------------------------------------------------

    def _is_done(self, buffer: bytes, facts: Sequence[Fact], seen: Examination) -> bool:
        """It begins with a farewell, or with LISTEN or UNLISTEN, which the shared connection answers."""
        if seen.leaves_at == 0:
            self.end(None)
            return True
        return listening.takes(self, self._desk, buffer, facts, seen, self._dialect)

    def keep_unit(self, buffer: bytes, facts: Sequence[Fact], *, is_whole: bool) -> None:
        """It is answered by others up to `units_over`; the rest of one that is not whole will come here again."""
        self._keep(buffer, facts)
        if is_whole:
            self._phase = _WAITING
            self._asked_at = clock.now()

    def has_room_for_statements(self, more_bytes: int) -> bool:
        had = 0 if self._statements is None else self._statements.size
        return had + more_bytes <= self._desk.settings.limits.max_statement_bytes

    def forget_unnamed_statement(self) -> None:
        if self._statements is not None:
            self._statements.unnamed = NO_UNNAMED

    def units_over(self, end: int, error: ErrorFields | None) -> None:
        """What was kept is answered up to `end`. With an `error` the unit behind it is refused."""
        self._cut_pending(end)
        if error is not None:
            self._refuse_unit(error)
        else:
            self._go_on()
            self._tell_what_was_heard()
        if self._desk.draining:
            self._desk.tell_if_drained()

    def pin_instead(self, end: int) -> None:
        """The unit that begins at `end` needs a connection of its own, as if nothing could be shared."""
        self._cut_pending(end)
        if self._on_session_state is OnSessionState.REJECT:
            self._refuse_unit(refusals.session_state_rejected(self.class_name, frozenset({PinReason.LISTEN})))
        else:
            self._request_slot(unbounded=self._on_session_state is OnSessionState.PIN)

    def _cut_pending(self, end: int) -> None:
        self._phase = _IDLE
        buffer, facts = self._backlog.take()
        if end < len(buffer):
            self._keep(buffer[end:], facts_from(facts, end))

    def may_be_told(self) -> bool:
        """What answers nothing may be written now: no answer is under way, and no transaction is open."""
        if self._is_clogged or self._local is not None:
            return False
        server = self.server
        is_quiet = self._phase == _LINKED and server is not None and server.is_clean and not self._unsynced
        return is_quiet or self._phase == _IDLE

    def _tell_what_was_heard(self) -> None:
        if self.listening is not None:
            self.listening.flush()

    # -- cancel, leave ------------------------------------------------------------------------------------------------

    def cancel_requested(self) -> None:
        """A CancelRequest names this client."""
        desk = self._desk
        if self._phase == _WAITING:
            desk.measures.cancels_of_waiting += 1
            if self.listening is not None and self.listening.gives_up(refusals.cancelled_while_waiting()):
                return
            self._gate.leave(self.id, self.class_name, clock.now() - self._asked_at)
            self._refuse_unit(refusals.cancelled_while_waiting())
        elif self._phase == _DIALLING and self.server is None:
            desk.measures.cancels_of_waiting += 1
            self.pool.gave_up(self)
            self._stop_lone_timer()
            self._slot_over()
            self._refuse_unit(refusals.cancelled_while_waiting())
        elif self.server is not None and self.server.is_injecting:
            self._cancel_when_injected = True
        elif self.server is not None and (self.server.awaiting or self._unsynced or self.server.copying_in):
            desk.canceller.cancel(self.server)

    def _leave(self, *, work_goes_on: bool = False) -> None:
        """The client is gone, or is being sent away. Whatever it holds goes back, in its own time."""
        if self._phase == _GONE:
            return
        phase, self._phase = self._phase, _GONE
        self._stop_lone_timer()
        desk, server = self._desk, self.server
        self.server = None
        if server is not None:
            Cleaning(server, self.pool, desk.canceller, self._slot_over).begin(
                is_dirty=self.session_hold or (self._state is not None and self._state.is_dirty),
                is_spoilt=bool(self.pins & NEVER_CLEARED),
                is_mid_message=self._unsynced or self._is_mid_message(),
                work_goes_on=work_goes_on,
                is_unanswerable=self._may_be_skipped,
            )
        elif phase != _CLEANING and self.holds_slot:
            self.pool.gave_up(self)
            self._slot_over()
        else:
            self._gate.leave(self.id, self.class_name, clock.now() - self._asked_at)
        self._backlog.close()
        if self.listening is not None:
            self.listening.close()
        desk.client_left(self)

    def _keep(self, buffer: bytes, facts: Sequence[Fact]) -> None:
        self._backlog.add(buffer, facts, self._desk.settings.limits.max_waiting_bytes)


class _PlaceSeeker:
    """Stands for a client at the door, where the answer is about its place and not about a slot."""

    def __init__(self, client: ClientConnection) -> None:
        self.id = client.id
        self._client = client

    def granted(self, grant: Grant) -> None:
        self._client.place_granted()

    def refused(self, refusal: Refuse) -> None:
        self._client.place_refused(refusal)

    def still_waiting(self, event: StillWaiting) -> None:
        self._client.still_waiting(event)
