"""A client's messages of the extended protocol, as the server connection that serves it now has to read them.

Owns: what becomes of each message, what answers to expect, and what the client is told where nothing is sent.
Does not know: what a statement is called on the server (`server_names`), slots, sockets, when a unit of work is over,
what statements leave in a session.

    Parse    of a text the server connection knows    not sent, ParseComplete is told
             of another                               sent under a name of ours
    Bind, Describe                                    sent with our name; behind a Parse of ours where it is not known
    Close    of a statement                           not sent, CloseComplete is told; the text stays for the next
    a name the client has not prepared                sent as it is: the server says that it does not exist
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from proxy.session import refusals
from proxy.session.replies import (
    PASS,
    PASSES,
    READY,
    READY_AFTER,
    SAY,
    SWALLOWED,
    SWAP,
    Reply,
)
from proxy.session.rewriting import Rewriting, end_of_name
from proxy.session.server import FAILED_STATUS
from proxy.session.server_names import ServerNames
from proxy.session.statements import NO_UNNAMED, Statement
from proxy.session.undoing import UnnamedBefore, both, on_error
from proxy.wire import messages
from proxy.wire.framing import Fact
from proxy.wire.messages import ErrorFields
from proxy.wire.sql import PinReason, inspect_sql, transaction_effect

_HEADER_BYTES: Final = 5
_STATEMENT: Final = 0x53  # "S" of Describe and Close
_SAID_PARSED: Final = messages.parse_complete()
_SAID_CLOSED: Final = messages.close_complete()
# No statement has this name: it is described where an error is wanted, so that the server skips up to Sync.
_NO_STATEMENT: Final = b"pgheadroom_no_statement"
_FAILING: Final = messages.message(messages.DESCRIBE, b"S" + _NO_STATEMENT + b"\0")
_NO_SUCH_STATEMENT: Final = "26000"  # comes before the state of the transaction is looked at


class Translation(ServerNames):
    """One piece of a client's stream, for one server connection. `translate` is called once."""

    _restore: Callable[[], None] | None = None  # to be called where the next Execute fails
    _ignores_sync: bool
    _is_behind_copy: bool

    def translate(self, buffer: bytes, facts: Sequence[Fact]) -> bytes:
        """What is to be sent in place of `buffer`. The answers to it are expected from now on."""
        server = self._server
        self._buffer = buffer
        self._out = Rewriting(buffer)
        self._ignores_sync = server.ignores_sync
        self._is_behind_copy = server.has_copy_end
        replies = self._replies
        if not replies.is_skipping and not server.copying_in:
            self._close_unused(0)
        for kind, start, end in facts:
            if replies.is_skipping and kind != messages.SYNC:
                continue  # the server does not look at it
            handler = _HANDLERS.get(kind)
            if handler is not None:
                handler(self, start, end)
        return self._out.whole()

    def _pass(self, undo: Callable[[], None] | None = None) -> None:
        self._expect(PASSES if undo is None else Reply(PASS, undo=undo))

    def _fail(self, start: int, end: int, error: ErrorFields) -> None:
        """In place of the message comes one that fails, and the client is told `error`."""
        if self._server.last_status == FAILED_STATUS and error.code != _NO_SUCH_STATEMENT:
            error = refusals.in_failed_transaction()
        self._out.insert(start, _FAILING)
        self._out.drop(start, end if end >= 0 else start)
        self._expect(Reply(SWAP, data=messages.error_response(error)))

    # -- what names a statement ----------------------------------------------------------------------------------------

    def _use(self, start: int, end: int, name_at: int) -> None:
        """The Bind or Describe at `start` names a statement at `name_at`."""
        name_end = end_of_name(self._buffer, name_at, end)
        name = self._buffer[name_at:name_end]
        if not name:
            self._use_unnamed(start, end)
            return
        found = self._statements.named.get(name)
        if found is None:
            self._pass()
            return
        statement = self._resolve(name, found)
        if statement.is_stale and self._known.name_or_none(statement) is None:
            self._fail(start, end, refusals.result_changed())
            return
        server_name = self._server_name(start, statement)
        self._out.rename(start, name_at, name_end, server_name)
        self._expect(Reply(PASS, failed=self._note_failed_use(statement, name, server_name)))
        if self._buffer[start] == messages.BIND and PinReason.PREPARE in statement.facts.clears:
            self._restore = self._forget_all()

    def _use_unnamed(self, start: int, end: int) -> None:
        statements, server = self._statements, self._server
        if server.unnamed is not statements.unnamed or not statements.unnamed:
            if not statements.can_replay_unnamed:
                self._fail(start, end, refusals.no_unnamed_statement())
                return
            self._out.insert(start, statements.unnamed)
            self._expect(Reply(SWALLOWED.kind, undo=self._unnamed_is_lost))
            server.unnamed = statements.unnamed
        self._pass()
        sql = statements.text_or_none(b"")
        if sql is None or self._buffer[start] != messages.BIND:
            return
        if PinReason.PREPARE in inspect_sql(sql, *self._dialect).clears:
            self._restore = self._forget_all()

    def _unnamed_is_lost(self) -> None:
        self._server.unnamed = NO_UNNAMED

    # -- by message ----------------------------------------------------------------------------------------------------

    def _parse(self, start: int, end: int) -> None:
        name_at = start + _HEADER_BYTES
        if end < 0:  # its name may not be there yet; it keeps that, and has pinned the connection
            self._parse_unnamed(start, end)
            return
        name_end = end_of_name(self._buffer, name_at, end)
        name = self._buffer[name_at:name_end]
        if not name:
            self._parse_unnamed(start, end)
        elif name in self._statements.named:
            self._parse_twice(start, name, name_end)
        elif self._statements.size + end - start > self._max_bytes:
            self._fail(start, end, refusals.too_many_statements(self._max_bytes))
        else:
            self._parse_named(start, end, name, name_end)

    def _parse_unnamed(self, start: int, end: int) -> None:
        statements, server = self._statements, self._server
        undo = self._unnamed_changes()
        statements.keep_unnamed(self._buffer, start, end)
        server.unnamed = statements.unnamed
        self._restore = self._deallocate(start, start + _HEADER_BYTES + 1, end) or self._restore
        self._expect(Reply(PASS, undo=undo, failed=on_error(undo.nothing_is_left)))

    def _unnamed_changes(self) -> UnnamedBefore:
        return UnnamedBefore(self._statements, self._server)

    def _parse_named(self, start: int, end: int, name: bytes, name_end: int) -> None:
        tail = self._buffer[name_end + 1 : end]
        statement = self._statement(tail)
        self._statements.define(name, statement)
        undo = partial(self._statements.undefine, name, statement)
        if self._known.name_or_none(statement) is not None and self._may_be_told_without_asking(statement):
            self._out.drop(start, end)
            self._expect(Reply(SAY, data=_SAID_PARSED, undo=undo))
            return
        self._known.forget(statement)
        server_name = self._known.add(statement)
        self._close_unused(start)
        was_not_parsed = partial(self._known.was_not_parsed, statement, server_name)
        self._out.rename(start, start + _HEADER_BYTES, name_end, server_name)
        self._pass(both(undo, was_not_parsed))

    def _parse_twice(self, start: int, name: bytes, name_end: int) -> None:
        """The client has a statement of that name. The server is made to say so, after what else it may have to say."""
        server_name = self._empty_statement(start)
        self._out.rename(start, start + _HEADER_BYTES, name_end, server_name)

        def failed(error: bytes) -> bytes:
            self._known.to_close.append(server_name)
            return messages.message(messages.ERROR_RESPONSE, error.replace(server_name, name))

        self._expect(Reply(PASS, failed=failed))

    def _may_be_told_without_asking(self, statement: Statement) -> bool:
        """In a failed transaction a server parses nothing but what ends it."""
        return self._server.last_status != FAILED_STATUS or transaction_effect(statement.sql).first_ends

    def _bind(self, start: int, end: int) -> None:
        self._use(start, end, end_of_name(self._buffer, start + _HEADER_BYTES, end) + 1)

    def _describe(self, start: int, end: int) -> None:
        if self._buffer[start + _HEADER_BYTES] == _STATEMENT:
            self._use(start, end, start + _HEADER_BYTES + 1)
        else:
            self._pass()

    def _execute(self, _start: int, _end: int) -> None:
        self._pass(self._restore)

    def _close(self, start: int, end: int) -> None:
        name_at = start + _HEADER_BYTES + 1
        name = self._buffer[name_at : end_of_name(self._buffer, name_at, end)]
        if self._buffer[start + _HEADER_BYTES] != _STATEMENT:
            self._pass()
        elif not name:
            undo_unnamed = self._unnamed_changes()
            self._statements.unnamed = self._server.unnamed = NO_UNNAMED
            self._pass(undo_unnamed)
        elif name in self._statements.named:
            statement = self._statements.named[name]
            self._statements.undefine(name, statement)
            self._out.drop(start, end)
            undo = partial(self._statements.define, name, statement)
            self._expect(Reply(SAY, data=_SAID_CLOSED, undo=undo))
        else:
            self._pass()

    def _sync(self, _start: int, _end: int) -> None:
        if not self._ignores_sync:
            self._replies.sync_was_sent(self._is_behind_copy)
            self._known.sync_was_sent()
            self._is_behind_copy = False

    def _end_of_copy(self, _start: int, _end: int) -> None:
        self._is_behind_copy = not self._ignores_sync
        self._ignores_sync = False

    def _query(self, start: int, end: int) -> None:
        unnamed = self._unnamed_changes()
        self._statements.unnamed = self._server.unnamed = NO_UNNAMED
        sql_at = start + _HEADER_BYTES
        restore = self._deallocate(start, sql_at, end)
        if end >= 0 and PinReason.PREPARE in inspect_sql(self._buffer[sql_at : end - 1], *self._dialect).clears:
            restore = self._forget_all()
        undone: Callable[[], None] = unnamed if restore is None else both(restore, unnamed)
        failed = None if restore is None else on_error(restore)
        self._expect(Reply(READY, asked=messages.QUERY, failed=failed, undo=undone))

    def _function_call(self, _start: int, _end: int) -> None:
        self._expect(READY_AFTER[messages.FUNCTION_CALL])


_HANDLERS: Final[Mapping[int, Callable[[Translation, int, int], None]]] = {
    messages.PARSE: Translation._parse,
    messages.BIND: Translation._bind,
    messages.DESCRIBE: Translation._describe,
    messages.EXECUTE: Translation._execute,
    messages.CLOSE: Translation._close,
    messages.SYNC: Translation._sync,
    messages.COPY_DONE: Translation._end_of_copy,
    messages.COPY_FAIL: Translation._end_of_copy,
    messages.QUERY: Translation._query,
    messages.FUNCTION_CALL: Translation._function_call,
}
