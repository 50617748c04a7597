"""A client that holds a server connection: what it sends goes there, until its unit of work is over.

Owns: what is under way between the two: a unit without its Sync, a portal, a COPY; the decision that a unit of work is
over, and the connection can be given back.
Does not know: slots, how the connection was got and made fit (`fitting`), what a statement changes in the session
(`session_changes`), what a refused client is told.

A `Link` lives from the first bytes sent to the connection's being given back: nothing of one hold reaches the next.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from proxy.session import clock, examination, refusals, session_changes
from proxy.session.examination import Examination
from proxy.session.facts import facts_from, facts_until
from proxy.session.holder import Holder
from proxy.session.local import LocalAnswers
from proxy.session.server import IDLE_STATUS, INJECTED, ServerConnection
from proxy.session.skipping import may_be_skipped
from proxy.session.statement_mode import block_opens_at
from proxy.session.statements import NO_UNNAMED, NONE
from proxy.session.translation import Translation
from proxy.session.transports import close_in_time
from proxy.session.unsettled import held_from
from proxy.wire import messages
from proxy.wire.errors import ProtocolViolation
from proxy.wire.framing import Fact
from proxy.wire.messages import ErrorFields

if TYPE_CHECKING:
    from proxy.session.client import ClientConnection
    from proxy.session.holding import HoldWatch

_COPY_MESSAGES: Final = frozenset((messages.COPY_DATA, messages.COPY_DONE, messages.COPY_FAIL))


class Link(Holder):
    """Holds `server` for `client`. `unsynced`: a unit was begun whose Sync, or whose end, has not been sent."""

    __slots__ = (
        "_copied",
        "_has_portal",
        "_late_copy",
        "cancel_when_injected",
        "client",
        "may_be_skipped",
        "server",
        "transaction_since",
        "unit_since",
        "unsynced",
        "was_reset",
    )

    transport: asyncio.Transport

    def __init__(self, client: "ClientConnection", server: ServerConnection) -> None:
        self.client = client
        self.server = server
        self.transport = client.transport
        self.unsynced = False
        self.may_be_skipped = False  # what is awaited may never be answered
        self.cancel_when_injected = False
        self._late_copy = False
        self._copied = False
        self._has_portal = False
        self.was_reset = False  # parameters have been, or may have been, set back
        # Where somebody asks for them (`holding`), and something began after the slot was granted; 0 where nothing did.
        self.unit_since = 0.0
        self.transaction_since = 0.0

    # -- from the client ----------------------------------------------------------------------------------------------

    def received(self, buffer: bytes, facts: Sequence[Fact]) -> None:
        if self.client.backlog.size or self.must_hold():
            self.client.keep(buffer, facts)
        else:
            self.forward(buffer, facts)

    def must_hold(self) -> bool:
        """It is not certain under which settings more would run.

        A SET of the proxy's own is not answered yet, or a RESET of the client's whose answer brings another one; or the
        connection has been reset, and is not the client's any more. Nor is it certain what a cancel on its way would
        hit, where what it was meant for is over.
        """
        server, state = self.server, self.client.state
        if state is not None and state.was_discarded:
            return True
        if not server.awaiting:
            return server.cancels_under_way > 0
        return server.awaiting.first == INJECTED or (server.tells_ready and not server.copying_in)

    def go_on(self) -> None:
        """An answer has settled what held back more of the client's."""
        if self.client.link is self and self.client.local is None and not self.must_hold():
            self.flush_backlog()

    def flush_backlog(self) -> None:
        """Send what was kept."""
        if self.client.backlog.size:
            buffer, facts = self.client.take_kept()
            try:
                self.forward(buffer, facts)
            except ProtocolViolation as violation:
                self.client.broke_protocol(violation)

    def forward(self, buffer: bytes, facts: Sequence[Fact]) -> None:
        """Send it as far as it may go now. Raises ProtocolViolation."""
        server, client = self.server, self.client
        if not facts:
            server.transport.write(buffer)
            self._streamed()
            return
        if client.one_statement:
            block_at = block_opens_at(buffer, facts, client.backslash_escapes)
            if block_at >= 0:
                self._hold_block(buffer, facts, block_at)
                return
        ignores_sync, has_copy_end = server.ignores_sync, server.has_copy_end
        seen = examination.examine(buffer, facts, client.dialect, ignores_sync, client.statements, has_copy_end)
        if (seen.names_statements or server.replies.is_active) and not client.session_hold:
            held_at = self._held_from(buffer, facts)
            if held_at >= 0:
                self._hold(buffer, facts, held_at)
                return
        if seen.leaves_at >= 0:
            if not seen.is_plain():
                server.retire_at = 0.0  # nobody will look at what the answer means for the session
            self._say_farewell(buffer, facts, seen.leaves_at)
        elif seen.is_plain() or session_changes.may_be_sent(self, seen, buffer, facts):
            self.send(buffer, facts, seen)

    def _hold_block(self, buffer: bytes, facts: Sequence[Fact], block_at: int) -> None:
        """In statement mode a unit that would open a transaction block waits for those before it, and is refused."""
        client, server = self.client, self.server
        if block_at:
            self.forward(buffer[:block_at], facts_until(facts, block_at))
        if client.is_gone:
            return
        if self.unsynced or not (server.awaiting or server.cancels_under_way):
            client.end(refusals.no_transaction_block(client.class_name, "FATAL"))  # it cannot be refused on its own
            return
        client.keep(buffer[block_at:], facts_from(facts, block_at))

    def _held_from(self, buffer: bytes, facts: Sequence[Fact]) -> int:
        """Where the first message stands whose statement depends on an answer that is still to come; -1 without."""
        statements = self.client.own_statements()
        if not self.server.awaiting:
            statements.unsettled = NONE
            if not self.unsynced:
                statements.in_open_unit = NONE
        return held_from(buffer, facts, statements, self.client.dialect, self.unsynced)

    def _hold(self, buffer: bytes, facts: Sequence[Fact], held_at: int) -> None:
        """Send what stands before; the rest goes on when that is answered."""
        if held_at:
            self.forward(buffer[:held_at], facts_until(facts, held_at))
        if not self.client.is_gone:
            self.client.keep(buffer[held_at:], facts_from(facts, held_at))
            self.server.tells_ready = True

    def _say_farewell(self, buffer: bytes, facts: Sequence[Fact], leaves_at: int) -> None:
        """Terminate. As with a server, what was sent ahead of it is carried out: it may be a COMMIT."""
        if leaves_at:
            self.forward(buffer[:leaves_at], facts_until(facts, leaves_at))
        self.client.leave(work_goes_on=True)
        close_in_time(self.client.transport, self.client.desk.loop)

    # -- to the server ------------------------------------------------------------------------------------------------

    def send(self, buffer: bytes, facts: Sequence[Fact], seen: Examination) -> None:
        """Send what was examined. What it names is translated, and what is under way behind it is noted."""
        server, session_hold = self.server, self.client.session_hold
        watch = self.client.watch
        if watch is not None and not (server.awaiting or self.unsynced):
            self._unit_begins(watch, clock.now())
        if session_hold and not self.may_be_skipped:  # elsewhere the answers are followed one by one
            self.may_be_skipped = may_be_skipped(facts, self.unsynced)
        of_copy = server.copying_in or self._late_copy or buffer[0] in _COPY_MESSAGES
        if (seen.is_extended or seen.has_query or server.replies.is_active) and not session_hold:
            if server.replies.is_skipping:
                seen.skip_to_sync()
            buffer = self._translated(buffer, facts, seen)
        self._late_copy = False
        was_copying, server.copying_in = server.copying_in, server.copying_in and not seen.ends_copy
        server.has_copy_end = (server.has_copy_end or seen.ends_copy) and not was_copying
        server.send(buffer, seen.awaited)
        if server.replies.is_active:
            server.say_what_needs_no_answer()
        if seen.whole:
            self.unsynced = self._copied = self._has_portal = False
        elif seen.only_ends_copy and of_copy:
            self._copied = True
            self.unsynced = was_copying and not server.awaiting  # by the simple protocol, CopyDone needs no Sync
        elif not server.copying_in and (seen.is_extended or seen.ends_copy or seen.awaited):  # and no lone Flush
            self.unsynced = True
            self._has_portal = self._has_portal or seen.has_portal
        if not seen.awaited and server.is_clean:
            self.unit_may_be_over()  # the end of a COPY that the server has given up already: no answer will come

    def _unit_begins(self, watch: "HoldWatch", now: float) -> None:
        self.unit_since = now
        if self.server.last_status == IDLE_STATUS:
            self.transaction_since = now
        watch.begins(now)

    def _translated(self, buffer: bytes, facts: Sequence[Fact], seen: Examination) -> bytes:
        """What the server is to read. Only names, and units that come in pieces, need a look at every answer."""
        server, client = self.server, self.client
        if seen.sets_parameters:
            server.has_sure_settings = False
        if not seen.names_statements and not server.replies.is_active and (seen.whole or not seen.is_extended):
            self._note_unnamed(buffer, seen)
            return buffer
        settings = client.settings
        assert settings is not None, "a linked client has entered"
        folding = settings.folding if server.has_sure_settings else None
        max_bytes = client.desk.settings.limits.max_statement_bytes
        server.track_replies()
        work = Translation(client.own_statements(), server, client.pool.statements, client.dialect, folding, max_bytes)
        return work.translate(buffer, facts)

    def _note_unnamed(self, buffer: bytes, seen: Examination) -> None:
        """The unnamed statement is another one, or gone. The last of several counts."""
        if seen.parses_unnamed >= 0:
            statements = self.client.own_statements()
            statements.keep_unnamed(buffer, seen.parses_unnamed, seen.unnamed_end)
            self.server.unnamed = statements.unnamed
        elif seen.has_query:
            self.server.unnamed = NO_UNNAMED
            self.client.forget_unnamed_statement()

    def _streamed(self) -> None:
        """A part of a long message, or messages without a decision in them, went to the server."""
        if self._late_copy:
            # The COPY had failed in the middle of this message; now the message is whole and the server is free.
            if not self.client.is_mid_message():
                self._late_copy = False
                self._copied = True
                self.unit_may_be_over()
        elif not self.server.copying_in:
            self.unsynced = True

    # -- what the server tells ----------------------------------------------------------------------------------------

    def unit_may_be_over(self) -> None:
        server, client = self.server, self.client
        if server.replies.is_skipping:
            self.unsynced = True  # also where a query came behind the error: it was skipped
        if self.unsynced or client.is_pinned() or client.session_hold or server.cancels_under_way or server.is_cut():
            self._goes_on_holding()
        elif client.cursor.is_mid_message() and not client.backlog.size:
            self._late_copy = True  # in mid-message, the beginning of which the server has
        elif self._copied:
            # What came between the copy data was not looked at: a Sync of ours ends whatever it may have begun.
            self._copied = False
            server.transport.write(server.inject_sync())
        elif client.state is not None and client.state.is_to_be_settled:
            session_changes.settle(self, client.state)
        else:
            client.give_back(server)
            client.unit_is_over()

    def _goes_on_holding(self) -> None:
        client = self.client
        if client.watch is not None:
            client.idle_since = clock.now()
        if self.unsynced and not self._has_portal:
            self._end_open_unit()
        if client.desk.draining:
            client.desk.tell_if_drained()
        client.tell_what_was_heard()
        if client.backlog.size:
            self.go_on()

    def _end_open_unit(self) -> None:
        """Parse or Describe without a Sync, and all of it is answered: a Sync of ours gives the connection back.

        Nothing was begun that the Sync which is still to come would end. Behind an error the client's own messages up
        to that are skipped here.
        """
        server, client = self.server, self.client
        replies = server.replies
        if replies.has_unanswered or client.is_pinned() or client.session_hold or server.cancels_under_way:
            return
        statements = client.statements
        if (
            client.is_mid_message()
            or server.is_mid_message
            or statements is None
            or (statements.unnamed and not statements.can_replay_unnamed)
        ):
            return
        if replies.is_skipping:
            client.local = LocalAnswers(client)
            client.local.discard_up_to_sync()
            replies.clear()
        self.unsynced = False
        server.transport.write(server.inject_sync())

    def ready(self, failed: bool) -> None:
        """The statement that clears session state was answered, or one that was sent before or behind it."""
        server, client = self.server, self.client
        server.tells_ready = False
        if client.listening is not None:
            client.listening.ready(server, failed)
        if client.state is not None:
            session_changes.answered(self, client.state, failed)
        if client.backlog.size and server.awaiting:
            server.tells_ready = True
        self.go_on()

    def injected_done(self, server: ServerConnection, error: ErrorFields | None) -> None:
        client, state = self.client, self.client.state
        if state is not None and state.asked:
            if not session_changes.is_told(self, state, error):
                return
        elif error is not None:
            client.settings_failed(error)
            return
        self.go_on()
        self.cancel_if_asked()

    def copy_begins(self) -> None:
        """The client sends the data, and may have sent some ahead."""
        self.go_on()

    def server_lost(self, server: ServerConnection) -> None:
        client = self.client
        client.link = None
        client.desk.measures.servers_lost_linked += 1
        # A FATAL of the server's own has gone through already; and an error would complete a row that is cut short.
        can_be_told = not server.told_fatal and not server.is_mid_message
        client.end(refusals.server_lost() if can_be_told else None)

    # -- cancel -------------------------------------------------------------------------------------------------------

    def cancel_requested(self) -> None:
        """While statements of the proxy's own run, the cancel waits: it is meant for the client's."""
        server = self.server
        if server.is_injecting:
            self.cancel_when_injected = True
        elif server.awaiting or self.unsynced or server.copying_in:
            self.client.upstream.canceller.cancel(server)

    def cancel_if_asked(self) -> None:
        """The client's own statements run now, if there are any."""
        server = self.server
        if self.cancel_when_injected and self.client.link is self and not server.is_injecting:
            self.cancel_when_injected = False
            if server.awaiting:
                self.client.upstream.canceller.cancel(server)

    def cancel_over(self) -> None:
        if self.client.link is not self:
            return
        if self.server.is_clean:
            self.unit_may_be_over()
        self.go_on()

    # -- what others ask ----------------------------------------------------------------------------------------------

    @property
    def is_quiet(self) -> bool:
        """No answer is under way, and no transaction is open."""
        return self.server.is_clean and not self.unsynced

    @property
    def is_idle_in_transaction(self) -> bool:
        """A transaction is open, and everything the client has sent is answered."""
        server = self.server
        if server.awaiting or self.unsynced or server.copying_in:
            return False
        return server.last_status != IDLE_STATUS

    def fail(self, error: ErrorFields) -> None:
        """Answers are still to come, and an error now would overtake them: the connection ends."""
        self.client.end(replace(error, severity="FATAL"))
