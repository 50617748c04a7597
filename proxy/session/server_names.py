"""The names under which a server connection knows the statements of the client that it serves now.

Owns: parsing on demand, ahead of the message that needs it; closing what nobody uses; DEALLOCATE, which is SQL and
names a statement; what is taken back where the server refuses any of it.
Does not know: which messages come, in what order, what the client is told (`translation`).
"""

from collections.abc import Callable
from functools import partial

from proxy.session.examination import Dialect
from proxy.session.parameters import Folding
from proxy.session.replies import SWALLOWED, Reply
from proxy.session.rewriting import Rewriting
from proxy.session.server import FAILED_STATUS, ServerConnection
from proxy.session.statement_errors import told_instead
from proxy.session.statements import ClientStatements, Statement, StatementTable
from proxy.wire import messages
from proxy.wire.sql import inspect_sql


class ServerNames:
    """For one piece of a client's stream, `buffer`, of which `out` is what the server connection gets.

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
        self._expect = server.replies.expect
        self._table = table
        self._dialect = dialect
        self._folding = folding
        self._max_bytes = max_bytes  # what one client may prepare
        self._buffer = b""
        self._out: Rewriting

    def _statement(self, tail: bytes) -> Statement:
        sql = tail[: tail.find(b"\0")]
        facts = inspect_sql(sql, *self._dialect)
        if self._folding is None:
            return Statement(tail, None, facts)
        return self._table.get(tail, self._folding, facts)

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
        self._out.insert(start, messages.message(messages.PARSE, name + b"\0" + statement.tail))
        self._expect(Reply(SWALLOWED.kind, undo=partial(self._known.was_not_parsed, statement, name)))
        self._close_unused(start)
        return name

    def _empty_statement(self, start: int) -> bytes:
        """The name of one, parsed ahead of the message at `start`. Its Parse succeeds in any state of a transaction."""
        name = self._known.new_name()
        self._out.insert(start, messages.message(messages.PARSE, name + b"\0\0\0\0"))
        self._expect(SWALLOWED)
        return name

    def _close_unused(self, start: int) -> None:
        """Ahead of the message at `start`."""
        if not self._known.to_close:
            return
        names, self._known.to_close = self._known.to_close, []
        for name in names:
            undo = partial(self._known.to_close.append, name)
            self._expect(Reply(SWALLOWED.kind, undo=undo))
        self._out.insert(start, b"".join(messages.message(messages.CLOSE, b"S" + one + b"\0") for one in names))

    def _note_failed_use(
        self, statement: Statement, name: bytes, server_name: bytes
    ) -> Callable[[bytes], bytes | None]:
        def failed(error: bytes) -> bytes | None:
            return told_instead(error, statement, server_name, name, self._known, self._table)

        return failed

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
        self._out.rename(start, sql_at, sql_end, b'DEALLOCATE "' + server_name + b'"')
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
        return self._empty_statement(start)

    def _forget_all(self) -> Callable[[], None]:
        """DEALLOCATE ALL or DISCARD ALL. Returns what is to be called if it fails."""
        named = self._statements.forget_all()
        names = self._known.all_deallocated()

        def restore() -> None:
            self._statements.bring_back(named)
            self._known.to_close.extend(names)

        return restore
