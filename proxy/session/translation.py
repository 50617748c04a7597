"""A client's messages of the extended protocol, as the server connection that serves it now has to read them.

Owns: names of statements in Parse, Bind, Describe and Close; parsing on demand, ahead of the message that needs it;
what answers to expect, and what the client is told where nothing is sent.
Does not know: slots, sockets, when a unit of work is over, what statements leave in a session.

    Parse    of a text the server connection knows    not sent, ParseComplete is told
             of another                               sent under a name of ours
    Bind, Describe                                    sent with our name; behind a Parse of ours where it is not known
    Close    of a statement                           not sent, CloseComplete is told; the text stays for the next
    a name the client has not prepared                sent as it is: the server says that it does not exist
"""

from collections.abc import Callable, Mapping, Sequence
from struct import Struct
from typing import Final

from proxy.session import refusals
from proxy.session.examination import Dialect
from proxy.session.parameters import Folding
from proxy.session.replies import (
    NO_SUCH_STATEMENT,
    PASS,
    PASSES,
    READY,
    READY_AFTER,
    RESULT_CHANGED,
    SAY,
    SWALLOWED,
    SWAP,
    Reply,
)
from proxy.session.server import FAILED_STATUS, ServerConnection
from proxy.session.statements import NO_UNNAMED, NONE, ClientStatements, Statement, StatementTable
from proxy.wire import messages
from proxy.wire.errors import ProtocolViolation
from proxy.wire.framing import Fact
from proxy.wire.messages import ErrorFields
from proxy.wire.sql import PinReason, inspect_sql, transaction_effect

_length: Final = Struct(">I")
_HEADER_BYTES: Final = 5
_STATEMENT: Final = 0x53  # "S" of Describe and Close
_SAID_PARSED: Final = messages.parse_complete()
_SAID_CLOSED: Final = messages.close_complete()
# No statement has this name: it is described where an error is wanted, so that the server skips up to Sync.
_NO_STATEMENT: Final = b"pgheadroom_no_statement"
_FAILING: Final = messages.message(messages.DESCRIBE, b"S" + _NO_STATEMENT + b"\0")
_NO_SUCH_STATEMENT: Final = "26000"  # comes before the state of the transaction is looked at


class Translation:
    """One piece of a client's stream, for one server connection.

    `folding` is that of the settings under which the piece runs, None where these are not certain: then statements are
    parsed for this client alone.
    """

    def __init__(
        self,
        statements: ClientStatements,
        server: ServerConnection,
        table: StatementTable,
        dialect: Dialect,
        folding: Folding | None,
        max_bytes: int,
    ) -> None:
        self._statements = statements
        self._server = server
        self._known = server.statements
        self._replies = server.replies
        self._table = table
        self._dialect = dialect
        self._folding = folding
        self._max_bytes = max_bytes
        self._restore: Callable[[], None] | None = None
        self._ignores_sync = server.ignores_sync
        self._is_behind_copy = server.has_copy_end
        self._buffer = b""
        self._pieces: list[bytes] = []
        self._at = 0

    def translate(self, buffer: bytes, facts: Sequence[Fact]) -> bytes:
        """What is to be sent in place of `buffer`. The answers to it are expected from now on."""
        self._buffer = buffer
        if not self._replies.is_skipping and not self._server.copying_in:
            self._close_unused()
        for kind, start, end in facts:
            if self._replies.is_skipping and kind != messages.SYNC:
                continue  # the server does not look at it
            handler = _HANDLERS.get(kind)
            if handler is not None:
                handler(self, start, end)
        self._pieces.append(buffer[self._at :])
        return b"".join(self._pieces)

    # -- what is sent --------------------------------------------------------------------------------------------------

    def _insert(self, start: int, data: bytes) -> None:
        """Ahead of the message at `start`."""
        self._pieces.append(self._buffer[self._at : start])
        self._pieces.append(data)
        self._at = start

    def _drop(self, start: int, end: int) -> None:
        self._pieces.append(self._buffer[self._at : start])
        self._at = end

    def _rename(self, start: int, name_at: int, name_end: int, name: bytes) -> None:
        """Another name in the message at `start`, whose end may not be there yet."""
        buffer = self._buffer
        length = _length.unpack_from(buffer, start + 1)[0] + len(name) - (name_end - name_at)
        self._pieces.append(buffer[self._at : start + 1])
        self._pieces.append(_length.pack(length))
        self._pieces.append(buffer[start + _HEADER_BYTES : name_at])
        self._pieces.append(name)
        self._at = name_end

    def _pass(self, undo: Callable[[], None] | None = None) -> None:
        self._replies.expect(PASSES if undo is None else Reply(PASS, undo=undo))

    def _fail(self, start: int, end: int, error: ErrorFields) -> None:
        """In place of the message comes one that fails, and the client is told `error`."""
        if self._server.last_status == FAILED_STATUS and error.code != _NO_SUCH_STATEMENT:
            error = refusals.in_failed_transaction()
        self._insert(start, _FAILING)
        self._drop(start, end if end >= 0 else start)
        self._replies.expect(Reply(SWAP, data=messages.error_response(error)))

    def _close_unused(self) -> None:
        names, self._known.to_close = self._known.to_close, []
        for name in names:
            self._pieces.append(messages.message(messages.CLOSE, b"S" + name + b"\0"))
            undo = _later(self._known.to_close.append, name)
            self._replies.expect(Reply(SWALLOWED.kind, undo=undo))

    # -- statements on the server --------------------------------------------------------------------------------------

    def _resolve(self, name: bytes, statement: Statement) -> Statement:
        """The statement that the client's `name` stands for under the settings of now."""
        folding = self._folding
        if statement.folding is folding or statement.is_stale or self._known.name_or_none(statement) is not None:
            return statement
        found = self._statement(statement.tail)
        self._statements.named[name] = found
        return found

    def _server_name(self, start: int, statement: Statement) -> bytes:
        """The name on the server; where there is none yet it is parsed ahead of the message at `start`."""
        name = self._known.name_or_none(statement)
        if name is not None:
            return name
        name = self._known.add(statement)
        self._insert(start, messages.message(messages.PARSE, name + b"\0" + statement.tail))
        self._replies.expect(Reply(SWALLOWED.kind, undo=self._was_not_parsed(statement, name)))
        self._close_unused_before(start)
        return name

    def _close_unused_before(self, start: int) -> None:
        """What had to make room for the new one."""
        if self._known.to_close:
            self._pieces.append(self._buffer[self._at : start])
            self._at = start
            self._close_unused()

    def _was_not_parsed(self, statement: Statement, name: bytes) -> Callable[[], None]:
        return lambda: self._known.was_not_parsed(statement, name)

    def _use(self, start: int, end: int, name_at: int) -> None:
        """The Bind or Describe at `start` names a statement at `name_at`."""
        name_end = self._end_of_name(name_at, end)
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
        self._rename(start, name_at, name_end, server_name)
        self._replies.expect(Reply(PASS, failed=self._note_failed_use(statement, name, server_name)))
        if self._buffer[start] == messages.BIND and PinReason.PREPARE in statement.facts.clears:
            self._restore = self._forget_all()

    def _note_failed_use(
        self, statement: Statement, name: bytes, server_name: bytes
    ) -> Callable[[bytes], bytes | None]:
        def failed(error: bytes) -> bytes | None:
            if RESULT_CHANGED in error:
                self._table.renew(statement)
            if server_name not in error:
                return None
            if NO_SUCH_STATEMENT in error:  # deallocated unseen, as by a function
                self._known.was_not_parsed(statement, server_name)
            # Its Parse was ahead in the pipeline and has failed: the client knows the statement by its own name.
            return messages.message(messages.ERROR_RESPONSE, error.replace(server_name, name))

        return failed

    def _use_unnamed(self, start: int, end: int) -> None:
        statements, server = self._statements, self._server
        if server.unnamed is not statements.unnamed or not statements.unnamed:
            if not statements.can_replay_unnamed:
                self._fail(start, end, refusals.no_unnamed_statement())
                return
            self._insert(start, statements.unnamed)
            self._replies.expect(Reply(SWALLOWED.kind, undo=self._unnamed_is_lost))
            server.unnamed = statements.unnamed
        self._pass()
        sql = statements.text_or_none(b"")
        if sql is None or self._buffer[start] != messages.BIND:
            return
        if PinReason.PREPARE in inspect_sql(sql, *self._dialect).clears:
            self._restore = self._forget_all()

    def _unnamed_is_lost(self) -> None:
        self._server.unnamed = NO_UNNAMED

    def _end_of_name(self, start: int, end: int) -> int:
        found = self._buffer.find(b"\0", start, end if end >= 0 else len(self._buffer))
        if found < 0:
            raise ProtocolViolation("the name of a statement or portal does not end")
        return found

    # -- by message ----------------------------------------------------------------------------------------------------

    def _parse(self, start: int, end: int) -> None:
        name_at = start + _HEADER_BYTES
        if end < 0:  # its name may not be there yet; it keeps that, and has pinned the connection
            self._parse_unnamed(start, end)
            return
        name_end = self._end_of_name(name_at, end)
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
        self._replies.expect(Reply(PASS, undo=undo, failed=_on_error(undo.nothing_is_left)))

    def _unnamed_changes(self) -> "_UnnamedBefore":
        return _UnnamedBefore(self._statements, self._server)

    def _parse_named(self, start: int, end: int, name: bytes, name_end: int) -> None:
        tail = self._buffer[name_end + 1 : end]
        statement = self._statement(tail)
        self._statements.define(name, statement)
        undo = _later(self._statements.undefine, name, statement)
        if self._known.name_or_none(statement) is not None and self._may_be_told_without_asking(statement):
            self._drop(start, end)
            self._replies.expect(Reply(SAY, data=_SAID_PARSED, undo=undo))
            return
        self._known.forget(statement)
        server_name = self._known.add(statement)
        self._close_unused_before(start)
        was_not_parsed = self._was_not_parsed(statement, server_name)
        self._rename(start, start + _HEADER_BYTES, name_end, server_name)
        self._pass(_both(undo, was_not_parsed))

    def _parse_twice(self, start: int, name: bytes, name_end: int) -> None:
        """The client has a statement of that name. The server is made to say so, after what else it may have to say."""
        server_name = self._known.new_name()
        self._insert(start, _empty_parse(server_name))
        self._replies.expect(SWALLOWED)
        self._rename(start, start + _HEADER_BYTES, name_end, server_name)

        def failed(error: bytes) -> bytes:
            self._known.to_close.append(server_name)
            return messages.message(messages.ERROR_RESPONSE, error.replace(server_name, name))

        self._replies.expect(Reply(PASS, failed=failed))

    def _may_be_told_without_asking(self, statement: Statement) -> bool:
        """In a failed transaction a server parses nothing but what ends it."""
        return self._server.last_status != FAILED_STATUS or transaction_effect(statement.sql).first_ends

    def _statement(self, tail: bytes) -> Statement:
        sql = tail[: tail.find(b"\0")]
        facts = inspect_sql(sql, *self._dialect)
        if self._folding is None:
            return Statement(tail, None, facts)
        return self._table.get(tail, self._folding, facts)

    def _bind(self, start: int, end: int) -> None:
        self._use(start, end, self._end_of_name(start + _HEADER_BYTES, end) + 1)

    def _describe(self, start: int, end: int) -> None:
        if self._buffer[start + _HEADER_BYTES] == _STATEMENT:
            self._use(start, end, start + _HEADER_BYTES + 1)
        else:
            self._pass()

    def _execute(self, _start: int, _end: int) -> None:
        self._pass(self._restore)

    def _close(self, start: int, end: int) -> None:
        name_at = start + _HEADER_BYTES + 1
        name = self._buffer[name_at : self._end_of_name(name_at, end)]
        if self._buffer[start + _HEADER_BYTES] != _STATEMENT:
            self._pass()
        elif not name:
            undo_unnamed = self._unnamed_changes()
            self._statements.unnamed = self._server.unnamed = NO_UNNAMED
            self._pass(undo_unnamed)
        elif name in self._statements.named:
            statement = self._statements.named[name]
            self._statements.undefine(name, statement)
            self._drop(start, end)
            undo = _later(self._statements.define, name, statement)
            self._replies.expect(Reply(SAY, data=_SAID_CLOSED, undo=undo))
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
        undone: Callable[[], None] = unnamed if restore is None else _both(restore, unnamed)
        failed = None if restore is None else _on_error(restore)
        self._replies.expect(Reply(READY, asked=messages.QUERY, failed=failed, undo=undone))

    def _function_call(self, _start: int, _end: int) -> None:
        self._replies.expect(READY_AFTER[messages.FUNCTION_CALL])

    # -- DEALLOCATE ----------------------------------------------------------------------------------------------------

    def _deallocate(self, start: int, sql_at: int, end: int) -> Callable[[], None] | None:
        """Where the text at `sql_at` deallocates a statement of the client's: the same with the server's name of it.

        Returns what is to be called if that fails.
        """
        sql_end = self._buffer.find(b"\0", sql_at) if end >= 0 else sql_at
        name = inspect_sql(self._buffer[sql_at:sql_end], *self._dialect).deallocates
        statement = None if name is None else self._statements.named.get(name)
        if name is None or statement is None or self._server.last_status == FAILED_STATUS:
            return None
        server_name = self._name_to_deallocate(start, statement)
        self._rename(start, sql_at, sql_end, b'DEALLOCATE "' + server_name + b'"')
        self._statements.undefine(name, statement)

        def failed() -> None:
            self._statements.define(name, statement)
            self._known.to_close.append(server_name)

        return failed

    def _name_to_deallocate(self, start: int, statement: Statement) -> bytes:
        """The server's name of `statement`, or that of an empty one: what counts is the answer to the client."""
        name = self._known.name_or_none(statement)
        if name is not None:
            self._known.deallocated(statement)
            return name
        name = self._known.new_name()
        self._insert(start, _empty_parse(name))
        self._replies.expect(SWALLOWED)
        return name

    def _forget_all(self) -> Callable[[], None]:
        """DEALLOCATE ALL or DISCARD ALL. Returns what is to be called if it fails."""
        named = self._statements.forget_all()
        names = self._known.all_deallocated()

        def restore() -> None:
            self._statements.bring_back(named)
            self._known.to_close.extend(names)

        return restore


def held_from(
    buffer: bytes, facts: Sequence[Fact], statements: ClientStatements, dialect: Dialect, awaits_sync: bool
) -> int:
    """Where the first message stands whose meaning hangs on the outcome of an earlier unit; -1 without one.

    That unit defines or closes the statement which the message names, and an error in it would have skipped that. Where
    the answer is -1 the names that these units change are noted, for the pieces behind this one. `awaits_sync`: the
    piece goes on with a unit that was begun.
    """
    unsettled, in_open_unit = statements.unsettled, statements.in_open_unit
    for kind, start, end in facts:
        names, changes = _named(buffer, kind, start, end, dialect)
        if not unsettled.isdisjoint(names) or (unsettled and names and _EVERY_NAME in (unsettled | names)):
            return start
        if changes:
            in_open_unit |= names
        if kind == messages.QUERY and awaits_sync:
            in_open_unit |= _UNNAMED  # it destroys that, unless an error before it skips it
        awaits_sync = kind != messages.SYNC and (awaits_sync or kind not in (messages.FLUSH, messages.QUERY))
        if not awaits_sync:
            unsettled |= in_open_unit
            in_open_unit = NONE
            if len(unsettled) > _MAX_UNSETTLED:
                unsettled = frozenset((_EVERY_NAME,))  # whatever is named next waits until all is answered
    statements.unsettled, statements.in_open_unit = unsettled, in_open_unit
    return -1


def _named(buffer: bytes, kind: int, start: int, end: int, dialect: Dialect) -> tuple[frozenset[bytes], bool]:
    """The statement that a message names, and whether it changes what that name stands for."""
    at = start + _HEADER_BYTES
    name: bytes | None = None
    if kind == messages.QUERY and end >= 0:
        facts = inspect_sql(buffer[at : end - 1], *dialect)
        name = _EVERY_NAME if PinReason.PREPARE in facts.clears else facts.deallocates
    elif kind == messages.BIND:
        at = buffer.find(0, at) + 1
        name = buffer[at : buffer.find(0, at)]
    elif kind == messages.PARSE and end >= 0:
        name = buffer[at : buffer.find(0, at)]
    elif kind in (messages.DESCRIBE, messages.CLOSE) and buffer[at] == _STATEMENT:
        name = buffer[at + 1 : buffer.find(0, at + 1)]
    is_use = kind in (messages.BIND, messages.DESCRIBE)
    return frozenset((name,)) if name or (is_use and name is not None) else NONE, not is_use


_UNNAMED: Final = frozenset((b"",))
_MAX_UNSETTLED: Final = 1000  # names kept of a pipeline that never comes to rest
_EVERY_NAME: Final = b"\0"  # no name of the protocol's: DEALLOCATE ALL was sent

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


class _UnnamedBefore:
    """Called where a message that changes the unnamed statement was skipped: what was before is there."""

    def __init__(self, statements: ClientStatements, server: ServerConnection) -> None:
        self._statements = statements
        self._server = server
        self._of_client, self._of_server = statements.unnamed, server.unnamed
        statements.changes += 1
        self._change = statements.changes

    def nothing_is_left(self) -> None:
        """It was not skipped: it has failed, and a server drops the old one first."""
        self._of_client = self._of_server = NO_UNNAMED

    def __call__(self) -> None:
        if self._statements.changes == self._change:  # else there was another one behind it
            self._statements.changes -= 1
            self._statements.unnamed, self._server.unnamed = self._of_client, self._of_server


def _both(one: Callable[[], None], other: Callable[[], None]) -> Callable[[], None]:
    def call() -> None:
        one()
        other()

    return call


def _empty_parse(name: bytes) -> bytes:
    """A Parse that succeeds in any state of a transaction."""
    return messages.message(messages.PARSE, name + b"\0\0\0\0")


def _on_error(restore: Callable[[], None]) -> Callable[[bytes], None]:
    def failed(_error: bytes) -> None:
        restore()

    return failed


def _later(function: Callable[..., object], *arguments: object) -> Callable[[], None]:
    def call() -> None:
        function(*arguments)

    return call
