"""Units of work that are nothing but LISTEN and UNLISTEN, read before a server connection is asked for.

Owns: recognising such a unit in a client's stream, simple or extended protocol, and the bytes of its answer.
Does not know: who listens to what, sockets, when the answer is due.
Source: PostgreSQL manual, "Message Flow" (protocol-flow), version 18.
"""

from collections.abc import Callable, Mapping
from struct import Struct
from typing import Final

from proxy.wire import messages
from proxy.wire.messages import ErrorFields
from proxy.wire.sql_listen import MAX_CHANNEL_BYTES, ListenCommand, Verb

# The SQL of a statement that the client has prepared, by its name; None where there is none.
TextOf = Callable[[bytes], bytes | None]
ReadSql = Callable[[bytes], tuple[ListenCommand, ...] | None]

_HEADER_BYTES: Final = 5
_ENDS: Final = (messages.QUERY, messages.SYNC, messages.FLUSH)
_MAX_MESSAGE_BYTES: Final = 8 * 1024  # nobody names a channel at such length
_length: Final = Struct(">I")
_count: Final = Struct(">H")


class _NotUnderstood(Exception):  # noqa: N818 - a fact about the stream
    """Something else is in the unit, or something that the server has to judge."""


class ListenUnit:
    """One unit, or a part of one up to a Flush. `end` is where it ends, 0 while the rest of it has not arrived.

    `commands` are executed, in order; `names_listen` tells that a LISTEN is executed or parsed. `parsed` are the
    statements it leaves, each as what stands behind the name in its Parse, None for one that it closes; b"" is the name
    of the unnamed one.
    """

    __slots__ = ("answers", "commands", "end", "names_listen", "parsed")

    def __init__(self) -> None:
        self.end = 0
        self.commands: list[ListenCommand] = []
        self.answers: list[bytes] = []
        self.parsed: dict[bytes, bytes | None] = {}
        self.names_listen = False

    @property
    def answer(self) -> bytes:
        return b"".join(self.answers)


def read_unit(buffer: bytes, at: int, read_sql: ReadSql, text_of: TextOf) -> ListenUnit | None:
    """The unit that begins at the message boundary `at`; None where it is not for us."""
    try:
        return _Reader(buffer, read_sql, text_of).read(at)
    except _NotUnderstood:
        return None


def text_after(unit: ListenUnit, text_of: TextOf) -> TextOf:
    """The statements as they are once `unit` is done."""
    return lambda name: _sql_of(unit.parsed[name]) if name in unit.parsed else text_of(name)


def _sql_of(tail: bytes | None) -> bytes | None:
    return None if tail is None else tail[: tail.find(0)]


class _Reader:
    def __init__(self, buffer: bytes, read_sql: ReadSql, text_of: TextOf) -> None:
        self._buffer = buffer
        self._read_sql = read_sql
        self._unit = ListenUnit()
        self._text_of = text_after(self._unit, text_of)
        self._portals: dict[bytes, ListenCommand] = {}

    def read(self, at: int) -> ListenUnit:
        buffer, unit = self._buffer, self._unit
        begins_at = at
        while len(buffer) - at >= _HEADER_BYTES:
            kind, end = buffer[at], at + 1 + _length.unpack_from(buffer, at + 1)[0]
            handler = _HANDLERS.get(kind)
            if handler is None or end - at > _MAX_MESSAGE_BYTES or (kind == messages.QUERY and at > begins_at):
                raise _NotUnderstood
            if end > len(buffer):
                break
            handler(self, buffer[at:end])
            at = end
            if kind in _ENDS:
                self._end(kind, at)
                break
        return unit

    def _end(self, kind: int, at: int) -> None:
        unit = self._unit
        if not unit.answers:
            raise _NotUnderstood  # a lone Sync or Flush
        if kind != messages.FLUSH:
            unit.answers.append(messages.ready_for_query(b"I"))
        elif self._portals:
            raise _NotUnderstood  # one that is executed later would have to be kept until then
        unit.end = at

    def _query(self, message: bytes) -> None:
        commands = self._read_sql(message[_HEADER_BYTES:-1])
        if commands is None:
            raise _NotUnderstood
        for command in commands:
            self._executes(command)
        self._unit.parsed[b""] = None  # a simple query destroys the unnamed statement

    def _parse(self, message: bytes) -> None:
        name, _, tail = message[_HEADER_BYTES:].partition(b"\0")
        sql, _, types = tail.partition(b"\0")
        if types != b"\0\0" or (name and self._text_of(name) is not None):
            raise _NotUnderstood  # parameters, or a name that is taken: the server says what is wrong with it
        self._names(self._command(sql))
        self._unit.parsed[name] = tail
        self._unit.answers.append(messages.parse_complete())

    def _command(self, sql: bytes | None) -> ListenCommand:
        commands = None if sql is None else self._read_sql(sql)
        if commands is None or len(commands) != 1:
            raise _NotUnderstood
        return commands[0]

    def _bind(self, message: bytes) -> None:
        portal, _, behind = message[_HEADER_BYTES:].partition(b"\0")
        statement, _, behind = behind.partition(b"\0")
        formats = _count.unpack_from(behind)[0] if len(behind) >= 2 else 0
        if behind[2 + 2 * formats : 4 + 2 * formats] != b"\0\0":
            raise _NotUnderstood  # parameters: the server says what is wrong with them
        self._portals[portal] = self._command(self._text_of(statement))
        self._unit.answers.append(messages.bind_complete())

    def _describe(self, message: bytes) -> None:
        name = message[_HEADER_BYTES + 1 : -1]
        if message[_HEADER_BYTES : _HEADER_BYTES + 1] == b"S":
            self._command(self._text_of(name))
            self._unit.answers.append(messages.parameter_description(()))
        elif name not in self._portals:
            raise _NotUnderstood
        self._unit.answers.append(messages.no_data())

    def _execute(self, message: bytes) -> None:
        name = message[_HEADER_BYTES : message.find(0, _HEADER_BYTES)]
        command = self._portals.pop(name, None)
        if command is None:
            raise _NotUnderstood
        self._executes(command)

    def _close(self, message: bytes) -> None:
        name = message[_HEADER_BYTES + 1 : -1]
        if message[_HEADER_BYTES : _HEADER_BYTES + 1] == b"S":
            self._command(self._text_of(name))
            self._unit.parsed[name] = None
        self._unit.answers.append(messages.close_complete())

    def _nothing(self, _message: bytes) -> None: ...

    def _names(self, command: ListenCommand) -> None:
        self._unit.names_listen = self._unit.names_listen or command.verb is Verb.LISTEN

    def _executes(self, command: ListenCommand) -> None:
        unit = self._unit
        self._names(command)
        unit.commands.append(command)
        if command.is_cut:
            unit.answers.append(messages.notice_response(_cut_notice(command.channel)))
        unit.answers.append(messages.command_complete(command.verb.tag))


_HANDLERS: Final[Mapping[int, Callable[[_Reader, bytes], None]]] = {
    messages.QUERY: _Reader._query,
    messages.PARSE: _Reader._parse,
    messages.BIND: _Reader._bind,
    messages.DESCRIBE: _Reader._describe,
    messages.EXECUTE: _Reader._execute,
    messages.CLOSE: _Reader._close,
    messages.FLUSH: _Reader._nothing,
    messages.SYNC: _Reader._nothing,
}


def _cut_notice(channel: bytes) -> ErrorFields:
    name = channel.decode("utf-8", "surrogateescape")
    text = f'the name of the channel was cut to "{name}", for names have {MAX_CHANNEL_BYTES} bytes at most'
    return ErrorFields("NOTICE", "42622", text)
