"""Messages that need no server: answered, ignored or refused here as the server would.

Owns: what a client is told while it has no server connection: after a refusal, in a failed transaction block that
exists only here, for a lone Sync, for copy data that comes too late.
Does not know: why a unit was refused, slots, sockets.
Source: PostgreSQL manual, "Message Flow" (protocol-flow).

    NORMAL      Sync -> ReadyForQuery; Flush, CopyData, CopyDone, CopyFail -> ignored; anything else needs a server
    DISCARDING  everything up to Sync is dropped, as after an error in the extended protocol
    FAILED      as a server in a failed transaction block: only the end of the block is accepted

A refused BEGIN must end in FAILED: with status "I" the rest of a script would run in autocommit. Where it stands alone
in a simple query it is answered as if it had begun, and the refusal is told to the first statement of the block: many
drivers roll back after a failed statement, and few after a failed BEGIN, which they then keep or pool as it is. A
Terminate is never consumed: whoever has the socket sees to it.

COMMIT AND CHAIN in FAILED ends the block and begins another, which needs a server. Where the refused BEGIN had no
options it is passed on as that BEGIN, filled up with blanks, for the message must keep its length; a block whose
options nobody knows stays failed.
"""

import re
from enum import Enum
from struct import Struct
from typing import Final, Protocol

from proxy.session import refusals
from proxy.wire import messages
from proxy.wire.messages import ErrorFields
from proxy.wire.sql import transaction_effect

_length: Final = Struct(">I")
_HEADER_BYTES: Final = 5
_STATEMENT: Final = b"S"  # "S" of Describe and Close
_MAX_KEPT_BYTES: Final = 64 * 1024  # a longer message cannot be an end of transaction and is only skipped
_IGNORED: Final = frozenset((messages.FLUSH, messages.COPY_DATA, messages.COPY_DONE, messages.COPY_FAIL))
NEEDS_NO_SERVER: Final = _IGNORED | {messages.SYNC}
_CHAINS: Final = frozenset(("COMMIT AND CHAIN", "ROLLBACK AND CHAIN"))
_PLAIN_BEGIN: Final = re.compile(rb"\s*(?:begin(?:\s+(?:work|transaction))?|start\s+transaction)[\s;]*", re.IGNORECASE)


class Mode(Enum):
    NORMAL = "normal"
    DISCARDING = "discarding"
    FAILED = "failed"


class StatementBook(Protocol):
    """The prepared statements of the client whose messages are answered here."""

    def statement_text(self, name: bytes) -> bytes | None: ...

    def define_statement(self, name: bytes, tail: bytes) -> ErrorFields | None: ...

    def close_statement(self, name: bytes) -> bool: ...


class LocalAnswers:
    """Takes a client's bytes from a message boundary on, as long as no server is needed."""

    def __init__(self, book: StatementBook) -> None:
        self._book = book
        self.mode = Mode.NORMAL
        self._in_failed_block = False
        self._kept = b""
        self._skip = 0
        self._untold: ErrorFields | None = None  # in FAILED: why, for the first statement to find out
        self._end = ""  # in FAILED: what is executed next ends the transaction, and how
        self._executes_begin = False
        self._opens = False
        self._only_skips = False  # the error was the server's own: what is dropped has no consequences
        self._began_plainly = False  # the refused BEGIN had no options: a chained transaction has none either

    @property
    def is_idle(self) -> bool:
        """Nothing here stands between the client and a server."""
        return self.mode is Mode.NORMAL and not self._kept and not self._skip and not self._in_failed_block

    def refuse(self, error: ErrorFields, data: bytes) -> tuple[bytes, bytes]:
        """Refuse the unit of work that `data` begins with. Returns the answer and what lies behind the unit."""
        kind = data[0]
        if kind in (messages.QUERY, messages.FUNCTION_CALL):
            end = 1 + _length.unpack_from(data, 1)[0]
            told = messages.error_response(error)
            if kind == messages.QUERY and self._is_opening(data[_HEADER_BYTES : end - 1]):
                self._in_failed_block = True
                told = self._begun(data[_HEADER_BYTES : end - 1], error) or told
            self._skip = max(0, end - len(data))  # a query too long to be held arrives in pieces
            answer = told + self._ready()
            self.mode = self._resting_mode()
            return self._and_then(answer, data[end:])
        self.mode = Mode.DISCARDING
        return self._and_then(messages.error_response(error), data)

    def _begun(self, sql: bytes, error: ErrorFields) -> bytes:
        """A BEGIN that stands alone and is refused for want of a slot: the answer to it, empty for anything else."""
        statements = transaction_effect(sql).statements
        if statements != ("BEGIN",) or error.code != refusals.TOO_MANY_CONNECTIONS:
            return b""
        self._untold = error
        is_start = sql.lstrip()[:5].lower() == b"start"
        return messages.command_complete("START TRANSACTION" if is_start else "BEGIN")

    def _and_then(self, answer: bytes, rest: bytes) -> tuple[bytes, bytes]:
        if not rest:
            return answer, rest
        more, rest = self.consume(rest)
        return answer + more, rest

    def consume(self, data: bytes) -> tuple[bytes, bytes]:
        """Answer what needs no server. Returns the answers, and the rest from the first message that needs one."""
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        data = self._kept + data
        self._kept = b""
        answers: list[bytes] = []
        at = 0
        while len(data) - at >= _HEADER_BYTES:
            kind = data[at]
            end = at + 1 + _length.unpack_from(data, at + 1)[0]
            if self.mode is Mode.FAILED and end <= len(data) and self._chains(kind, data[at + _HEADER_BYTES : end]):
                data = _with_begin(data, kind, at, end)
                self._leave_failed_block("")
            if kind == messages.TERMINATE or (self.mode is Mode.NORMAL and self._needs_server(data, at, end)):
                return b"".join(answers), data[at:]
            if end > len(data):
                if end - at <= _MAX_KEPT_BYTES:
                    break
                self._skip = end - len(data)
            answers.append(self._answer(kind, data[at + _HEADER_BYTES : end]))
            at = min(end, len(data))
        self._kept = data[at:]
        return b"".join(answers), b""

    def _needs_server(self, data: bytes, at: int, end: int) -> bool:
        """In NORMAL. The name of a statement is known here only, so its Close can be answered as well."""
        if data[at] in NEEDS_NO_SERVER:
            return False
        name = data[at + _HEADER_BYTES + 1 : end - 1]
        what_at = at + _HEADER_BYTES
        is_of_statement = data[at] == messages.CLOSE and end <= len(data) and data[what_at : what_at + 1] == _STATEMENT
        return not (is_of_statement and name and self._book.statement_text(name) is not None)

    def _answer(self, kind: int, payload: bytes) -> bytes:
        if self.mode is Mode.NORMAL:
            return self._close(payload) if kind == messages.CLOSE else self._ready() if kind == messages.SYNC else b""
        if self.mode is Mode.DISCARDING:
            return self._discard(kind, payload)
        return self._in_failed(kind, payload)

    def _ready(self) -> bytes:
        if not self._in_failed_block:
            return messages.ready_for_query(b"I")
        return messages.ready_for_query(b"E" if self._untold is None else b"T")

    def _resting_mode(self) -> Mode:
        return Mode.FAILED if self._in_failed_block else Mode.NORMAL

    # -- up to Sync -------------------------------------------------------------------------------------------------

    def discard_up_to_sync(self) -> None:
        """The server has refused something of the unit, which was ended there; its rest is still to come."""
        self.mode = Mode.DISCARDING
        self._only_skips = True

    def _discard(self, kind: int, payload: bytes) -> bytes:
        if self._only_skips and kind != messages.SYNC:
            return b""
        if kind == messages.PARSE:
            self._opens = self._is_opening(_sql_of_parse(payload)) or self._opens
        elif kind == messages.BIND:  # of a statement that was prepared in an earlier unit
            text = self._book.statement_text(_statement_of_bind(payload))
            self._opens = (text is not None and self._is_opening(text)) or self._opens
        elif kind == messages.EXECUTE:
            self._executes_begin = self._executes_begin or self._opens
        elif kind == messages.SYNC:
            self._in_failed_block = self._in_failed_block or self._executes_begin
            self._opens = self._executes_begin = self._only_skips = False
            self.mode = self._resting_mode()
            return self._ready()
        return b""

    def _is_opening(self, sql: bytes) -> bool:
        """Whether the text leaves a transaction open; it is remembered how it began."""
        opens = transaction_effect(sql).opens
        if opens:
            self._began_plainly = _PLAIN_BEGIN.fullmatch(sql) is not None
        return opens

    # -- in a failed block ------------------------------------------------------------------------------------------

    def enter_failed_block(self) -> None:
        """The transaction was ended on the server; the client has to find out by its own COMMIT or ROLLBACK."""
        self._in_failed_block = True
        if self.mode is Mode.NORMAL:
            self.mode = Mode.FAILED

    def _in_failed(self, kind: int, payload: bytes) -> bytes:
        if kind == messages.QUERY:
            return self._failed_query(payload[:-1])
        if kind == messages.FUNCTION_CALL:
            return self._aborted() + self._ready()
        if kind == messages.SYNC:
            self.mode = self._resting_mode()
            return self._ready()
        return self._failed_extended(kind, payload)

    def _failed_query(self, sql: bytes) -> bytes:
        effect = transaction_effect(sql)
        if not effect.statements:
            return messages.empty_query_response() + self._ready()
        if not effect.first_ends:
            return self._aborted() + self._ready()
        tag = self._leave_failed_block(effect.statements[0])
        # What follows the COMMIT in the same query would need a server: it is an error, and it is not executed.
        more = self._aborted() if len(effect.statements) > 1 else b""
        return messages.command_complete(tag) + more + self._ready()

    def _chains(self, kind: int, payload: bytes) -> bool:
        """The one statement of this message is an end of the block that begins the next one."""
        if not self._began_plainly or kind not in (messages.QUERY, messages.PARSE):
            return False
        words = transaction_effect(_sql_of(kind, payload)).statements
        return len(words) == 1 and words[0] in _CHAINS

    def _leave_failed_block(self, how: str) -> str:
        """The tag of what ends it: a COMMIT of nothing is one, where no statement has found out that nothing can be."""
        tag = "COMMIT" if self._untold is not None and how.startswith("COMMIT") else "ROLLBACK"
        self._in_failed_block = False
        self._untold = None
        self._end = ""
        self.mode = Mode.NORMAL
        return tag

    def _failed_extended(self, kind: int, payload: bytes) -> bytes:
        if kind == messages.PARSE:
            return self._failed_parse(payload)
        if kind == messages.BIND:
            self._end = self._end_of(_statement_of_bind(payload))
            return messages.bind_complete() if self._end else self._error_up_to_sync()
        if kind == messages.DESCRIBE:
            return self._failed_describe(payload)
        if kind == messages.EXECUTE:
            return self._failed_execute()
        return self._close(payload) if kind == messages.CLOSE else b""  # Flush, late copy data

    def _failed_parse(self, payload: bytes) -> bytes:
        name, _, tail = payload.partition(b"\0")
        if not transaction_effect(_sql_of_parse(payload)).first_ends:
            return self._error_up_to_sync()
        if name and self._book.statement_text(name) is not None:
            self.mode = Mode.DISCARDING
            return messages.error_response(refusals.statement_exists(name))
        error = self._book.define_statement(name, tail)
        if error is not None:
            self.mode = Mode.DISCARDING
            return messages.error_response(error)
        return messages.parse_complete()

    def _end_of(self, statement: bytes) -> str:
        """How a statement ends the transaction, empty where it does not."""
        text = self._book.statement_text(statement)
        effect = transaction_effect(text or b"")
        return effect.statements[0] if effect.first_ends else ""

    def _failed_describe(self, payload: bytes) -> bytes:
        if payload[:1] != b"S":
            return messages.no_data() if self._end else self._error_up_to_sync()
        if not self._end_of(payload[1:-1]):
            return self._error_up_to_sync()
        return messages.parameter_description(()) + messages.no_data()

    def _close(self, payload: bytes) -> bytes:
        if payload[:1] == b"S":
            self._book.close_statement(payload[1:-1])
        return messages.close_complete()

    def _failed_execute(self) -> bytes:
        if not self._end:
            return self._error_up_to_sync()
        tag = self._leave_failed_block(self._end)
        # The batch goes on up to its Sync; anything else in it would need a server.
        self.mode = Mode.DISCARDING
        return messages.command_complete(tag)

    def _error_up_to_sync(self) -> bytes:
        self.mode = Mode.DISCARDING
        return self._aborted()

    def _aborted(self) -> bytes:
        """Why the block failed, to the first that asks; to the others that it has."""
        error, self._untold = self._untold, None
        return messages.error_response(error or refusals.in_failed_transaction())


def _sql_of_parse(payload: bytes) -> bytes:
    return payload.partition(b"\0")[2].partition(b"\0")[0]


def _statement_of_bind(payload: bytes) -> bytes:
    return payload.partition(b"\0")[2].partition(b"\0")[0]


def _sql_of(kind: int, payload: bytes) -> bytes:
    return payload[:-1] if kind == messages.QUERY else _sql_of_parse(payload)


def _with_begin(data: bytes, kind: int, at: int, end: int) -> bytes:
    """The text of the Query or Parse at `at` becomes BEGIN. It keeps its length: what has been found stays true."""
    sql = _sql_of(kind, data[at + _HEADER_BYTES : end])
    sql_at = at + _HEADER_BYTES if kind == messages.QUERY else data.index(b"\0", at + _HEADER_BYTES) + 1
    return data[:sql_at] + b"BEGIN".ljust(len(sql)) + data[sql_at + len(sql) :]
