"""A client that says exactly what a test wants it to say.

Owns: one socket, the messages of clients as bytes, reading replies as (type, payload).
Does not know: the proxy; it talks to a server just as well.
"""

import asyncio
import socket
import struct
from dataclasses import dataclass, field

from proxy.wire import messages
from proxy.wire.messages import ErrorFields, message, text
from proxy.wire.startup import encode_cancel_request, encode_startup

Reply = tuple[str, bytes]
_READ_SECONDS = 20.0


def query(sql: str) -> bytes:
    return messages.query(sql)


def parse(sql: str, name: str = "", types: tuple[int, ...] = ()) -> bytes:
    oids = struct.pack(f">H{len(types)}I", len(types), *types)
    return message(messages.PARSE, text(name) + text(sql) + oids)


def bind(*values: str, statement: str = "", portal: str = "") -> bytes:
    cells = b"".join(struct.pack(">I", len(value.encode())) + value.encode() for value in values)
    return message(messages.BIND, text(portal) + text(statement) + struct.pack(">HH", 0, len(values)) + cells + b"\0\0")


def describe(kind: str = "P", name: str = "") -> bytes:
    return message(messages.DESCRIBE, kind.encode() + text(name))


def execute(portal: str = "", rows: int = 0) -> bytes:
    return message(messages.EXECUTE, text(portal) + struct.pack(">I", rows))


def close(kind: str = "S", name: str = "") -> bytes:
    return message(messages.CLOSE, kind.encode() + text(name))


def run(sql: str, *values: str) -> bytes:
    """The four messages of one statement in the extended protocol, without a Sync."""
    return parse(sql) + bind(*values) + describe() + execute()


def copy_data(data: bytes) -> bytes:
    return message(messages.COPY_DATA, data)


def function_call(oid: int, *arguments: bytes) -> bytes:
    """Arguments and result in binary format."""
    cells = b"".join(struct.pack(">I", len(one)) + one for one in arguments)
    body = struct.pack(">IHHH", oid, 1, 1, len(arguments)) + cells + struct.pack(">H", 1)
    return message(messages.FUNCTION_CALL, body)


SYNC = messages.sync()
FLUSH = message(messages.FLUSH)
TERMINATE = messages.terminate()
COPY_DONE = message(messages.COPY_DONE)
COPY_FAIL = message(messages.COPY_FAIL, text("the test gives up"))


@dataclass
class Answer:
    """What came back up to a ReadyForQuery, or to the end of the connection (`status` is then empty)."""

    replies: list[Reply] = field(default_factory=list)
    status: str = ""

    @property
    def kinds(self) -> str:
        """The type bytes in order, ParameterStatus and notices left out."""
        return "".join(kind for kind, _ in self.replies if kind not in "SNA")

    def payloads(self, kind: str) -> list[bytes]:
        return [payload for found, payload in self.replies if found == kind]

    @property
    def tags(self) -> list[str]:
        return [payload[:-1].decode() for payload in self.payloads("C")]

    @property
    def rows(self) -> list[tuple[str | None, ...]]:
        return [_row(payload) for payload in self.payloads("D")]

    @property
    def value(self) -> str | None:
        """The only column of the only row."""
        assert self.error is None, self.error
        ((value,),) = self.rows
        return value

    @property
    def errors(self) -> list[ErrorFields]:
        return [messages.parse_error_fields(payload) for payload in self.payloads("E")]

    @property
    def error(self) -> ErrorFields | None:
        return self.errors[0] if self.errors else None

    @property
    def codes(self) -> list[str]:
        return [error.code for error in self.errors]

    @property
    def notices(self) -> list[ErrorFields]:
        return [messages.parse_error_fields(payload) for payload in self.payloads("N")]

    @property
    def parameters(self) -> dict[str, str]:
        return dict(messages.parse_parameter_status(payload) for payload in self.payloads("S"))


def _row(payload: bytes) -> tuple[str | None, ...]:
    values: list[str | None] = []
    at = 2
    for _ in range(int.from_bytes(payload[:2], "big")):
        length = int.from_bytes(payload[at : at + 4], "big", signed=True)
        at += 4
        values.append(None if length < 0 else payload[at : at + length].decode())
        at += max(0, length)
    return tuple(values)


class WireClient:
    """One connection. Nothing is sent and nothing is read unless a test says so."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.greeting = Answer()
        self.parameters: dict[str, str] = {}  # as the latest ParameterStatus told
        self.process_id = 0
        self.secret_key = b""

    @classmethod
    async def open(cls, host: str, port: int) -> "WireClient":
        return cls(*await asyncio.open_connection(host, port, limit=1 << 26))

    async def log_in(self, user: str, database: str, *, minor: int = 0, **parameters: str) -> None:
        """By trust. Raises AssertionError where the login fails."""
        await self.send(encode_startup({"user": user, "database": database, **parameters}, minor))
        self.greeting = await self.answer()
        assert self.greeting.status == "I", self.greeting.errors
        self.process_id, self.secret_key = messages.parse_backend_key_data(self.greeting.payloads("K")[0])

    async def send(self, *parts: bytes) -> None:
        """All parts in one write."""
        self.writer.write(b"".join(parts))
        await self.writer.drain()

    async def reply(self) -> Reply:
        """The next message. Raises IncompleteReadError at the end of the connection."""
        async with asyncio.timeout(_READ_SECONDS):
            head = await self.reader.readexactly(5)
            payload = await self.reader.readexactly(int.from_bytes(head[1:], "big") - 4)
        kind = chr(head[0])
        if kind == "S" and payload.endswith(b"\0"):
            name, value = messages.parse_parameter_status(payload)
            self.parameters[name] = value
        return kind, payload

    async def answer(self, until: str = "Z") -> Answer:
        """Everything up to a message of a type in `until`, or to the end of the connection."""
        answer = Answer()
        while True:
            try:
                kind, payload = await self.reply()
            except (asyncio.IncompleteReadError, ConnectionError):
                return answer
            answer.replies.append((kind, payload))
            if kind == "Z":
                answer.status = payload.decode()
            if kind in until:
                return answer

    async def query(self, sql: str) -> Answer:
        """One simple query."""
        await self.send(query(sql))
        return await self.answer()

    async def extended(self, sql: str, *values: str) -> Answer:
        await self.send(run(sql, *values), SYNC)
        return await self.answer()

    async def value(self, sql: str) -> str | None:
        return (await self.query(sql)).value

    async def ask_to_cancel(self, *, key: bytes | None = None) -> None:
        """What PQcancel does: a connection of its own, until the other side closes it."""
        host, port = self.writer.get_extra_info("peername")[:2]
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(encode_cancel_request(self.process_id, self.secret_key if key is None else key))
        async with asyncio.timeout(_READ_SECONDS):
            await reader.read()
        writer.close()

    async def cancelled(self, until: str = "Z") -> Answer:
        """The answer to what runs, cancelled until it comes: a server forgets a cancel that comes before its query."""
        answer = asyncio.create_task(self.answer(until))
        while not answer.done():
            await self.ask_to_cancel()
            await asyncio.wait({answer}, timeout=0.1)
        return await answer

    async def is_at_end(self) -> bool:
        """The other side has closed, and has said nothing more."""
        async with asyncio.timeout(_READ_SECONDS):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True

    async def leave(self) -> None:
        """Terminate and close, as a driver does."""
        await self.send(TERMINATE)
        self.writer.close()

    async def abort(self) -> None:
        """Reset the connection, as a machine that died does for those who talk to it. May be called twice."""
        sock = self.writer.get_extra_info("socket")
        if not self.writer.transport.is_closing() and sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def stop_sending(self) -> None:
        """Half-close: the other side sees EOF, and may still answer."""
        self.writer.write_eof()
