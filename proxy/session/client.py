"""One logged-in client: idle, waiting for a slot, linked to a server connection, gone.

Owns: this socket after authentication, the phase it is in, what of the client's is still to be sent, the slot it holds.
Does not know: the admission rule, how connections are dialled, what its results contain.

    ENTERING -> IDLE -> WAITING -> DIALLING -> LINKED -> IDLE ...      any -> GONE

ENTERING is everything between AuthenticationOk and the first ReadyForQuery (`entering`). IDLE costs no slot; a usual
unit of work goes from there by a short way (`short_ways`). In DIALLING the slot is held and the server connection is
not there yet, or is still being made fit (`fitting`). LINKED, what is sent goes to the server (`linked`).
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Final

from proxy.admission.classes import ClientId
from proxy.admission.decisions import Grant, RefusalReason, Refuse, StillWaiting
from proxy.admission.trial import Would
from proxy.session import clock, examination, listening, refusals, short_ways
from proxy.session.backlog import NOTHING_KEPT, Backlog
from proxy.session.cleaning import Cleaning
from proxy.session.entering import Entering
from proxy.session.examination import WANTED, Dialect, Examination
from proxy.session.facts import facts_from
from proxy.session.fitting import Fitting
from proxy.session.holding import HoldWatch
from proxy.session.identity import with_parameters_of_class
from proxy.session.linked import Link
from proxy.session.listening import Listening
from proxy.session.local import NEEDS_NO_SERVER, LocalAnswers
from proxy.session.parameters import REPORTED_SETTABLE, Settings
from proxy.session.server import ServerConnection
from proxy.session.session_state import NO_PINS, SessionState
from proxy.session.settings import ClassBehaviour, OnSessionState, PoolMode
from proxy.session.statement_mode import block_opens_at
from proxy.session.statements import NO_UNNAMED, ClientStatements
from proxy.session.transports import close_in_time
from proxy.wire import messages
from proxy.wire.errors import ProtocolViolation
from proxy.wire.framing import Fact, client_cursor
from proxy.wire.messages import ErrorFields
from proxy.wire.sql import FOLLOWED_PARAMETERS, NEVER_CLEARED, PinReason, inspect_sql

if TYPE_CHECKING:
    from proxy.session.identity import Identity
    from proxy.session.upstream import Upstream


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
_NAME: Final = "application_name"
_FAREWELL: Final = messages.message(messages.TERMINATE)
# By whether the server reports search_path, and whether backslashes escape. All clients share these four.
_DIALECTS: Final = {
    (reports, escapes): Dialect(REPORTED_SETTABLE if reports else FOLLOWED_PARAMETERS, escapes)
    for reports in (False, True)
    for escapes in (False, True)
}
_PHASES: Final = (
    Phase.ENTERING,
    Phase.IDLE,
    Phase.WAITING,
    Phase.DIALLING,
    Phase.LINKED,
    Phase.CLEANING,
    Phase.GONE,
)


class ClientConnection:
    """The protocol object of one client after AuthenticationOk."""

    __slots__ = (
        "_backlog_is_begun",
        "_entering",
        "_fitting",
        "_is_clogged",
        "_measures",
        "_phase",
        "_server_paused",
        "_warned_until",
        "asked_at",
        "backlog",
        "backslash_escapes",
        "class_name",
        "cursor",
        "desk",
        "dialect",
        "gate",
        "granted_at",
        "holds_slot",
        "id",
        "identity",
        "idle_since",
        "is_unbounded",
        "link",
        "listening",
        "local",
        "one_statement",
        "own_class",
        "pool",
        "process_id",
        "secret_key",
        "session_hold",
        "settings",
        "state",
        "statements",
        "tags",
        "transport",
        "upstream",
        "watch",
    )

    def __init__(
        self,
        upstream: "Upstream",
        identity: "Identity",
        transport: asyncio.Transport,
        client_id: ClientId,
        own_class: str,
    ) -> None:
        self.upstream = upstream
        self.desk = desk = upstream.desk
        self.gate = upstream.gate
        self.id = client_id
        self.transport = transport
        self.watch: HoldWatch | None = None  # where its class has bounds
        self.tags = upstream.tags
        self.own_class = own_class
        behaviour = self._belong_to(own_class, identity.application_name)
        self.identity = with_parameters_of_class(identity, behaviour.parameters)
        self.session_hold = behaviour.pool_mode is PoolMode.SESSION
        self.pool = upstream.pool_of(identity)
        self.process_id = 0
        self.secret_key = b""
        # Where it is, and who stands for it there.
        self._phase = _ENTERING
        self._entering: Entering | None = None
        self._fitting: Fitting | None = None
        self.link: Link | None = None
        self.local: LocalAnswers | None = None
        self.listening: Listening | None = None
        # The slot.
        self.holds_slot = False
        self.asked_at = 0.0
        self.granted_at = 0.0
        self.idle_since = 0.0
        self.is_unbounded = False  # held until the client says otherwise
        self._warned_until = 0.0
        # What it sends, and what it has left behind.
        limits = desk.settings.limits
        self.cursor = client_cursor(
            WANTED, max_held_bytes=limits.max_inspected_bytes, max_message_bytes=limits.max_message_bytes
        )
        self.backlog = NOTHING_KEPT
        self._backlog_is_begun = False
        self._is_clogged = False
        self._server_paused = False
        self.settings: Settings | None = None
        self.dialect = _DIALECTS[False, False]
        self.backslash_escapes = False
        self.state: SessionState | None = None
        self.statements: ClientStatements | None = None

    @property
    def phase(self) -> Phase:
        return _PHASES[self._phase]

    @property
    def is_gone(self) -> bool:
        return self._phase == _GONE

    @property
    def server(self) -> ServerConnection | None:
        """The server connection that it holds, fit or not."""
        if self.link is not None:
            return self.link.server
        return None if self._fitting is None else self._fitting.server

    @property
    def application(self) -> str:
        """What it calls itself now; beyond what is told apart, OTHER."""
        return self._measures.name

    @property
    def pins(self) -> frozenset[PinReason]:
        """Why the server connection is not shared between transactions."""
        return NO_PINS if self.state is None else self.state.pins

    def is_pinned(self) -> bool:
        return self.state is not None and bool(self.state.pins)

    # -- the socket -------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._phase == _IDLE and self._may_be_usual():
            if short_ways.sent(self, data):
                return
            if data == _FAREWELL and self.cursor.at_boundary:
                self.end(None)
                return
        try:
            buffer, facts = self.cursor.feed(data)
            if not buffer:
                return
            if self._phase == _IDLE:
                self._begin(buffer, facts)
            elif self.link is not None:
                self.link.received(buffer, facts)
            elif self._phase != _GONE:
                self.keep(buffer, facts)
        except ProtocolViolation as violation:
            self.broke_protocol(violation)

    def _may_be_usual(self) -> bool:
        """There is nothing before it that is not done with."""
        return not (self._is_clogged or self.one_statement or self.backlog.size or self.local is not None)

    def is_mid_message(self) -> bool:
        return self.cursor.is_mid_message()

    def keep(self, buffer: bytes, facts: Sequence[Fact]) -> None:
        """It cannot go on now."""
        if self.backlog is NOTHING_KEPT:
            self.backlog = Backlog()
        self.backlog.add(buffer, facts, self.desk.settings.limits.max_waiting_bytes, self.transport)

    def take_kept(self) -> tuple[bytes, Sequence[Fact]]:
        """All of that as one piece."""
        backlog, self.backlog = self.backlog, NOTHING_KEPT
        return backlog.take()

    def eof_received(self) -> None:
        """Our side is closed too, and connection_lost follows: in time, also where the peer reads nothing more."""
        close_in_time(self.transport, self.desk.loop)

    def connection_lost(self, exc: Exception | None) -> None:
        self.desk.disconnected()
        self.leave()

    def pause_writing(self) -> None:
        # This client does not drain its result: stop reading the server rather than hold the result here.
        self._is_clogged = True
        if self.watch is not None:
            self.watch.clogged(clock.now())
        server = self.server
        if server is not None:
            self._server_paused = True
            server.transport.pause_reading()

    def resume_writing(self) -> None:
        self._is_clogged = False
        if self.watch is not None:
            self.watch.drained()
        server = self.server
        if self._server_paused and server is not None:
            server.transport.resume_reading()
        self._server_paused = False
        self.tell_what_was_heard()
        self.go_on()

    def broke_protocol(self, violation: ProtocolViolation) -> None:
        self.desk.measures.protocol_violations["client"] += 1
        self.desk.log.info("client_broke_protocol", violation=str(violation), **self.identity.log_keys())
        self.end(refusals.protocol_violation(str(violation)))

    def end(self, error: ErrorFields | None, *, cancels: bool = False) -> None:
        """Say why, and close. `cancels`: what runs is cancelled, whatever happens to work of clients that vanish."""
        if self._phase == _GONE:
            return
        if error is not None:
            self.transport.write(messages.error_response(error))
        self.leave(cancels=cancels)
        close_in_time(self.transport, self.desk.loop)

    # -- entering -----------------------------------------------------------------------------------------------------

    def enter(self, ahead: bytes) -> None:
        """`ahead` ends with AuthenticationOk, and is to be sent before anything else."""
        self.asked_at = clock.now()
        self._entering = Entering(self, ahead)
        self._entering.begin()

    def entered(self) -> None:
        """It has been greeted, and holds no server connection."""
        self._entering = self._fitting = None
        self._phase = _IDLE
        self.idle_since = clock.now()
        self._begin_pending()

    # -- beginning a unit of work -------------------------------------------------------------------------------------

    def _begin(self, buffer: bytes, facts: Sequence[Fact]) -> None:
        """The client is idle and sends something."""
        if self.backlog.size or self._is_clogged:
            self.keep(buffer, facts)
            if self._is_clogged:
                return  # it does not read its answers: nothing new begins, or they would pile up here
            buffer, facts = self.take_kept()
        if self.local is not None or buffer[0] in NEEDS_NO_SERVER or buffer[0] == messages.CLOSE:
            buffer, facts = self._answer_locally(buffer, facts)
            if not buffer:
                return
        seen = examination.examine(buffer, facts, self.dialect, False, self.statements)
        if (seen.leaves_at == 0 or seen.pins or seen.parses_listen or self.listening is not None) and self._is_done(
            buffer, facts, seen
        ):
            return
        if self.tags is not None:
            self._move_to(self.tags.class_of_unit(self, buffer, facts))
        block_at = block_opens_at(buffer, facts, self.backslash_escapes) if self.one_statement else -1
        if block_at == 0:
            self.keep(buffer, facts)
            self.refuse_unit(refusals.no_transaction_block(self.class_name, "ERROR"))
            return
        now = clock.now()
        if (
            seen.is_plain()
            and seen.leaves_at < 0
            and block_at < 0
            and self.gate.try_grant(self.id, self.class_name, now)
        ):
            link = short_ways.link_at_once(self, buffer, facts, now)
            if link is not None:
                if seen.names_statements:
                    link.forward(buffer, facts)
                else:
                    link.send(buffer, facts, seen)
        else:
            self.keep(buffer, facts)
            self._request_slot_for(seen)

    def _is_done(self, buffer: bytes, facts: Sequence[Fact], seen: Examination) -> bool:
        """It begins with a farewell, or with LISTEN or UNLISTEN, which the shared connection answers."""
        if seen.leaves_at == 0:
            self.end(None)
            return True
        return listening.takes(self, self.upstream, buffer, facts, seen, self.dialect)

    def _answer_locally(self, buffer: bytes, facts: Sequence[Fact]) -> tuple[bytes, Sequence[Fact]]:
        self.idle_since = clock.now()
        local = self.local or LocalAnswers(self)
        answer, rest = local.consume(buffer)
        if answer:
            self.transport.write(answer)
        self.local = None if local.is_idle else local
        self.tell_what_was_heard()
        return rest, facts_from(facts, len(buffer) - len(rest))

    def _begin_pending(self) -> None:
        """The client is idle again and has sent more in the meantime."""
        if self.backlog.size and self._phase == _IDLE:
            buffer, facts = self.take_kept()
            self._begin(buffer, facts)

    def go_on(self) -> None:
        """Begin what is pending. A chain of refusals must not become a deep stack: only the outermost call loops."""
        if self._backlog_is_begun:
            return
        self._backlog_is_begun = True
        try:
            while self.backlog.size and self._phase == _IDLE and not self._is_clogged:
                had = self.backlog.size
                self._begin_pending()
                if self._phase == _IDLE and self.backlog.size == had:
                    return  # the rest of a message is missing
        finally:
            self._backlog_is_begun = False

    # -- a slot -------------------------------------------------------------------------------------------------------

    def _request_slot_for(self, seen: Examination) -> None:
        """For what may not be granted at once."""
        if not seen.pins:
            self.request_slot(unbounded=False)
        elif self.on_session_state is OnSessionState.REJECT:
            self.refuse_unit(refusals.session_state_rejected(self.class_name, seen.pins))
        else:
            self.request_slot(unbounded=self.on_session_state is OnSessionState.PIN)

    @property
    def on_session_state(self) -> OnSessionState:
        if self.session_hold:
            return OnSessionState.PIN  # held for the session anyhow
        return self.desk.behaviour(self.class_name).on_session_state

    def request_slot(self, *, unbounded: bool) -> None:
        desk = self.desk
        down = self.upstream.registry.connector.down
        if down is not None:
            self._fail_for_want_of_server(down)
            return
        if self._phase == _IDLE:
            self._phase = _WAITING
        self.asked_at = clock.now()
        self.is_unbounded = unbounded
        self.gate.request(self, self.class_name, desk.flow(self.identity, self.class_name), unbounded=unbounded)

    def granted_at_once(self, now: float) -> None:
        """Without a request, and without a wait."""
        self.holds_slot = True
        self.is_unbounded = False
        self.granted_at = self.asked_at = now
        if self.watch is not None:
            self.watch.begins(now)
        if self.gate.controller.warned:
            self.tell_what_would_have_been()
        self._measures.granted_at_once()

    def granted(self, grant: Grant) -> None:
        self.holds_slot = True
        self.granted_at = clock.now()
        if self.watch is not None:
            self.watch.begins(self.granted_at)
        self.tell_what_would_have_been()
        if self._phase == _ENTERING:
            self._fitting = Fitting(self, self._entering)
            self._fitting.begin()
        else:
            self.await_server(None)

    def refused(self, refusal: Refuse) -> None:
        if self._phase == _ENTERING:
            self.end_login(refusals.refused(refusal, "FATAL"), refusal.waited_seconds)
        else:
            is_for_all = refusal.reason is not RefusalReason.PINNED_LIMIT
            self.refuse_unit(refusals.refused(refusal, "ERROR"), is_for_all=is_for_all)

    def crashed(self) -> None:
        self.transport.abort()

    def tell_what_would_have_been(self) -> None:
        """Where its class only warns. To be called where a message of ours may stand."""
        would = self.gate.controller.warned.pop(self.id, None)
        if would is not None:
            self.warn(would)

    def warn(self, would: Would) -> None:
        """The log and the metrics know of all, the client of one in a while."""
        now = clock.now()
        self.upstream.tell_warning(self.identity, would, now)
        if now >= self._warned_until:
            self._warned_until = now + refusals.WARN_EVERY_SECONDS
            self.transport.write(messages.notice_response(refusals.would_have_been(would)))

    def still_waiting(self, event: StillWaiting) -> None:
        self.transport.write(messages.notice_response(refusals.still_waiting(event)))

    def refuse_unit(self, error: ErrorFields, *, is_for_all: bool = False) -> None:
        """The unit of work that was to begin does not. The client connection stays usable.

        `is_for_all`: what the client has sent behind it is refused as well, for the same answer would be given to each.
        """
        self._phase = _IDLE
        self.idle_since = clock.now()
        local = self.local or LocalAnswers(self)
        buffer, facts = self.take_kept()
        answer, rest = local.refuse(error, buffer)
        answers = [answer]
        while is_for_all and rest and rest[0] != messages.TERMINATE:
            answer, rest = local.refuse(error, rest)
            answers.append(answer)
        self.transport.write(b"".join(answers))
        self.local = None if local.is_idle else local
        if rest:
            self.keep(rest, facts_from(facts, len(buffer) - len(rest)))
            self.go_on()
        self.tell_what_was_heard()

    def end_login(self, error: ErrorFields, waited_seconds: float) -> None:
        """Its login is refused; who has come to nothing before is told so later, and has no place until then."""
        self.upstream.door.left(self.id)
        desk, name = self.desk, self.class_name
        answer = partial(self.end, error)
        desk.connects.tell_late(self, name, desk.flow(self.identity, name), waited_seconds, answer)

    @property
    def was_served(self) -> bool:
        """It has held a slot: it did not connect for nothing."""
        return self.granted_at > 0.0

    def slot_over(self) -> None:
        self._give_slot_back(clock.now())
        if self.watch is not None:
            self.upstream.holds.slot_is_back(self.watch)

    def _give_slot_back(self, now: float) -> None:
        """The time it was held is noted."""
        self.holds_slot = False
        self._measures.held(now - self.granted_at, now - self.asked_at)
        self.gate.release(self.id, now)

    # -- a server connection ------------------------------------------------------------------------------------------

    def await_server(self, server: ServerConnection | None) -> None:
        """The slot is held. `server` was idle and is to be made fit; without one, the pool brings it."""
        self._phase = _DIALLING
        self._fitting = fitting = Fitting(self)
        if server is not None:
            fitting.server_ready(server)
        else:
            fitting.begin()

    def server_failed(self, error: ErrorFields) -> None:
        """No server connection can be had."""
        self._fitting = None
        self.slot_over()
        self._fail_for_want_of_server(error)

    def _fail_for_want_of_server(self, error: ErrorFields) -> None:
        if self._phase == _ENTERING:
            self.end_login(replace(error, severity="FATAL"), clock.now() - self.asked_at)
        else:
            self.refuse_unit(replace(error, severity="ERROR"), is_for_all=True)

    def settings_failed(self, error: ErrorFields) -> None:
        """The server did not take this client's settings: nothing of it may run."""
        self.desk.measures.parameters_failed += 1
        self.end(replace(error, severity="FATAL"))

    def linked(self, link: Link) -> None:
        """A server connection is fit, and `link` holds it."""
        self.link = link
        self._entering = self._fitting = None
        self._phase = _LINKED

    def hands_over_for_cleaning(self) -> None:
        """Its transaction is being ended on the server, by somebody who holds the connection from now on."""
        self.link = None
        self._phase = _CLEANING

    def give_back(self, server: ServerConnection) -> None:
        """The server connection and the slot."""
        now = clock.now()
        if self._phase == _LINKED:
            self._phase = _IDLE
        self.idle_since = now
        link, self.link = self.link, None
        server.unlink(now)
        if self._server_paused:
            self._server_paused = False
            server.transport.resume_reading()
        if self.state is not None and self.state.was_discarded:
            self.state.was_discarded = False
        elif server.settings is not self.settings:
            self.settings_changed(server.settings, was_reset=link is not None and link.was_reset)
        self.pool.put_idle(server)
        self._give_slot_back(now)

    def unit_is_over(self) -> None:
        """Nothing is held any more."""
        if self.listening is not None:
            self.listening.flush()
        if self.backlog.size:
            self.go_on()

    # -- what it is ---------------------------------------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """Waits or works: a drain gives it time. A session that is only held does not count."""
        if self.link is not None:
            return not self.link.is_quiet
        return self._phase not in (_IDLE, _GONE)

    @property
    def is_idle(self) -> bool:
        """Holds nothing, and waits for nothing."""
        return self._phase == _IDLE

    @property
    def is_quiet_holder(self) -> bool:
        """It holds a slot, and everything it has sent is answered: in a transaction, pinned, or for its session."""
        link = self.link
        return self.holds_slot and link is not None and (link.is_idle_in_transaction or link.is_quiet)

    @property
    def is_idle_in_transaction(self) -> bool:
        return self.link is not None and self.link.is_idle_in_transaction

    def reclassify(self, *, may_rise: bool = True) -> None:
        """By its name, and the rules there are now. `may_rise`: also to a class that is served earlier."""
        found, behaviour = self.upstream.classify(self.identity, self._application_name()), self.desk.behaviour
        if may_rise or behaviour(found).priority >= behaviour(self.own_class).priority:
            self.own_class = found
        self.tags = self.upstream.tags
        self._move_to(self.own_class, is_renamed=True)

    def _application_name(self) -> str:
        return self.identity.application_name if self.settings is None else self.settings.values.get(_NAME, "")

    def _move_to(self, class_name: str, *, is_renamed: bool = False) -> None:
        if class_name != self.class_name or is_renamed:
            self.desk.parted(self)
            self._belong_to(class_name, self._application_name())
            self.desk.joined(self)

    def _belong_to(self, class_name: str, application_name: str) -> ClassBehaviour:
        self.class_name = class_name
        behaviour = self.desk.behaviour(class_name)
        self._measures = self.desk.measures.of(class_name).of_application(application_name)
        self.one_statement = behaviour.pool_mode is PoolMode.STATEMENT
        self.watch = self.upstream.holds.watch_or_none(self, behaviour.holds, self.watch)
        return behaviour

    def settings_changed(self, settings: Settings, *, was_reset: bool = False) -> None:
        """The client changed a parameter. A new application_name counts from the next transaction on.

        A RESET never raises a class: pools of drivers send it of their own accord.
        """
        had, self.settings = self.settings, settings
        if had is not None and had.values.get(_NAME, "") != settings.values.get(_NAME, ""):
            self.reclassify(may_rise=not was_reset)
        self.read_dialect()

    def read_dialect(self) -> None:
        """How its SQL reads under the settings it has now."""
        settings = self.settings
        self.backslash_escapes = settings is not None and settings.values.get("standard_conforming_strings") == "off"
        self.dialect = _DIALECTS[self.pool.table.is_reported("search_path"), self.backslash_escapes]

    # -- its statements -----------------------------------------------------------------------------------------------

    def own_statements(self) -> ClientStatements:
        if self.statements is None:
            self.statements = ClientStatements()
        return self.statements

    def statement_text(self, name: bytes) -> bytes | None:
        """The SQL of a prepared statement, None where there is none of that name."""
        return None if self.statements is None else self.statements.text_or_none(name)

    def has_room_for_statements(self, more_bytes: int) -> bool:
        had = 0 if self.statements is None else self.statements.size
        return had + more_bytes <= self.desk.settings.limits.max_statement_bytes

    def define_statement(self, name: bytes, tail: bytes) -> ErrorFields | None:
        """A Parse is answered here: the server gets it when the statement is used. Returns why not."""
        if name and not self.has_room_for_statements(len(name) + len(tail)):
            return refusals.too_many_statements(self.desk.settings.limits.max_statement_bytes)
        statements, settings = self.own_statements(), self.settings
        assert settings is not None, "a client that sends statements has entered"
        if name:
            facts = inspect_sql(tail[: tail.find(b"\0")], *self.dialect)
            statements.define(name, self.pool.statements.get(tail, settings.folding, facts))
        else:
            parse = messages.message(messages.PARSE, b"\0" + tail)
            statements.keep_unnamed(parse, 0, len(parse))
        return None

    def close_statement(self, name: bytes) -> bool:
        """Whether there was a statement of that name."""
        statement = None if self.statements is None else self.statements.named.get(name)
        if self.statements is None or statement is None:
            return False
        self.statements.undefine(name, statement)
        return True

    def forget_unnamed_statement(self) -> None:
        if self.statements is not None:
            self.statements.unnamed = NO_UNNAMED

    # -- listening without a slot (`listening`) -----------------------------------------------------------------------

    def keep_unit(self, buffer: bytes, facts: Sequence[Fact], *, is_whole: bool) -> None:
        """It is answered by others up to `units_over`; the rest of one that is not whole will come here again."""
        self.keep(buffer, facts)
        if is_whole:
            self._phase = _WAITING
            self.asked_at = clock.now()

    def units_over(self, end: int, error: ErrorFields | None) -> None:
        """What was kept is answered up to `end`. With an `error` the unit behind it is refused."""
        self._cut_pending(end)
        if error is not None:
            self.refuse_unit(error)
        else:
            self.go_on()
            self.tell_what_was_heard()
        if self.desk.draining:
            self.desk.tell_if_drained()

    def pin_instead(self, end: int) -> None:
        """The unit that begins at `end` needs a connection of its own, as if nothing could be shared."""
        self._cut_pending(end)
        if self.on_session_state is OnSessionState.REJECT:
            self.refuse_unit(refusals.session_state_rejected(self.class_name, frozenset({PinReason.LISTEN})))
        else:
            self.request_slot(unbounded=self.on_session_state is OnSessionState.PIN)

    def _cut_pending(self, end: int) -> None:
        self._phase = _IDLE
        self.idle_since = clock.now()
        buffer, facts = self.take_kept()
        if end < len(buffer):
            self.keep(buffer[end:], facts_from(facts, end))

    def may_be_told(self) -> bool:
        """What answers nothing may be written now: no answer is under way, and no transaction is open."""
        if self._is_clogged or self.local is not None:
            return False
        return self._phase == _IDLE or (self.link is not None and self.link.is_quiet)

    def tell_what_was_heard(self) -> None:
        if self.listening is not None:
            self.listening.flush()

    # -- cancel, leave ------------------------------------------------------------------------------------------------

    def cancel_requested(self) -> None:
        """A CancelRequest names this client."""
        if self._phase == _WAITING:
            self.desk.measures.cancels_of_waiting += 1
            if self.listening is not None and self.listening.gives_up(refusals.cancelled_while_waiting()):
                return
            self.gate.leave(self.id, self.class_name, clock.now() - self.asked_at)
            self.refuse_unit(refusals.cancelled_while_waiting())
        elif self._fitting is not None and self._fitting.server is None:
            self.desk.measures.cancels_of_waiting += 1
            self._fitting.give_up()
            self._fitting = None
            self.slot_over()
            self.refuse_unit(refusals.cancelled_while_waiting())
        elif self._fitting is not None:
            self._fitting.is_cancel_asked = True
        elif self.link is not None:
            self.link.cancel_requested()

    def leave(self, *, work_goes_on: bool = False, cancels: bool = False) -> None:
        """The client is gone, or is being sent away. Whatever it holds goes back, in its own time."""
        if self._phase == _GONE:
            return
        phase, self._phase = self._phase, _GONE
        server, link, fitting = self.server, self.link, self._fitting
        self.link = self._fitting = self._entering = None
        if fitting is not None:
            fitting.give_up()
        if server is not None:
            self._clean(server, link, work_goes_on, cancels)
        elif phase != _CLEANING and self.holds_slot:
            self.slot_over()
        else:
            self.gate.leave(self.id, self.class_name, clock.now() - self.asked_at)
        self.backlog.close()
        if self.watch is not None:
            self.watch.close()
        if self.listening is not None:
            self.listening.close()
        self.desk.client_left(self)

    def _clean(self, server: ServerConnection, link: Link | None, work_goes_on: bool, cancels: bool) -> None:
        """`link` None: nothing of the client's has been sent yet."""
        Cleaning(server, self.pool, self.upstream.canceller, self.slot_over).begin(
            is_dirty=self.session_hold or (self.state is not None and self.state.is_dirty),
            is_spoilt=bool(self.pins & NEVER_CLEARED),
            is_mid_message=link is not None and (link.unsynced or self.is_mid_message()),
            work_goes_on=work_goes_on,
            must_cancel=cancels,
            is_unanswerable=link is not None and link.may_be_skipped,
        )
