"""A small PostgreSQL client for load: one connection, simple queries, as little CPU as possible.

Owns: the login (trust, cleartext, md5, SCRAM-SHA-256), one query at a time, the server's errors as exceptions.
Does not know: pools, load, time. Shares no code with the proxy, so that a mistake there cannot hide here.
Source: PostgreSQL manual, "Message Flow" (protocol-flow) and "SASL Authentication" (sasl-authentication).

Why not a driver: drivers prepare statements (which some poolers cannot share), and some derive the SCRAM key in Python,
which would stop the load generator for seconds when 150 workers log in at once. Here the derived key is remembered.
"""

import asyncio
import hashlib
import hmac
import secrets
import ssl
import struct
from base64 import b64decode, b64encode
from dataclasses import dataclass
from functools import lru_cache
from typing import Self, cast

HEADER = struct.Struct("!cI")
PROTOCOL_3_0 = 196608
GS2_HEADER = "n,,"  # no channel binding

Row = list[str | None]


class QueryError(Exception):
    """The server's ErrorResponse. The connection is still usable unless `closed` says otherwise."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


class ConnectionLost(QueryError):  # noqa: N818 - said in the past tense, as an event
    """The connection ended without an ErrorResponse, or could not be opened."""

    def __init__(self, text: str) -> None:
        super().__init__("08006", text)


@dataclass(frozen=True, slots=True)
class Login:
    """Whom to be, at which address. `host` starting with "/" is a folder with a unix socket."""

    host: str
    port: int
    user: str
    password: str
    database: str
    application_name: str
    tls: ssl.SSLContext | None = None  # over TCP: begin with the handshake, as sslnegotiation=direct does


class Connection(asyncio.Protocol):
    """One connection. `run` must not be called while another `run` is under way."""

    def __init__(self) -> None:
        self.closed = False
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._rows: list[Row] = []
        self._error: QueryError | None = None
        self._answer: asyncio.Future[list[Row]] | None = None
        self._login: _LoginDialogue | None = None

    @classmethod
    async def open(cls, login: Login) -> Self:
        """Connect and log in. Raises QueryError (the server's own) or ConnectionLost."""
        loop = asyncio.get_running_loop()
        connection = cls()
        try:
            if login.host.startswith("/"):
                await loop.create_unix_connection(lambda: connection, f"{login.host}/.s.PGSQL.{login.port}")
            else:
                await loop.create_connection(lambda: connection, login.host, login.port, ssl=login.tls)
        except OSError as error:
            raise ConnectionLost(str(error)) from error
        try:
            await connection._log_in(login)
        except BaseException:
            connection.close()
            raise
        return connection

    async def run(self, sql: str) -> list[Row]:
        """One simple query, the rows of its result as text. Raises QueryError or ConnectionLost."""
        return await self._exchange(b"Q", sql.encode() + b"\0")

    def stop_reading(self) -> None:
        """Leave what comes to the kernel, as a client does that is busy with something else."""
        assert self._transport is not None, "a connection that is open"
        self._transport.pause_reading()

    def close(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(HEADER.pack(b"X", 4))
            self._transport.close()
        self.closed = True

    async def _log_in(self, login: Login) -> None:
        self._login = _LoginDialogue(login.user, login.password)
        names = {"user": login.user, "database": login.database, "application_name": login.application_name}
        body = "".join(f"{name}\0{value}\0" for name, value in names.items()).encode() + b"\0"
        packet = struct.pack("!II", len(body) + 8, PROTOCOL_3_0) + body
        await self._write_and_wait(packet)
        self._login = None

    async def _exchange(self, kind: bytes, body: bytes) -> list[Row]:
        return await self._write_and_wait(HEADER.pack(kind, len(body) + 4) + body)

    async def _write_and_wait(self, packet: bytes) -> list[Row]:
        assert self._answer is None, "one query at a time"
        if self.closed or self._transport is None:
            raise ConnectionLost("the connection is closed")
        self._rows, self._error = [], None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(packet)
        try:
            return await self._answer
        finally:
            self._answer = None

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports do not inherit asyncio's

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        start, buffer = 0, self._buffer
        while len(buffer) - start >= 5:
            kind, length = HEADER.unpack_from(buffer, start)
            if len(buffer) - start <= length:
                break
            self._message(kind, buffer[start + 5 : start + 1 + length])
            start += 1 + length
        self._buffer = buffer[start:]

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._finish(self._error or ConnectionLost(str(exc) if exc else "the server closed the connection"))

    def _message(self, kind: bytes, payload: bytes) -> None:
        if kind == b"D":
            self._rows.append(_row(payload))
        elif kind == b"E":
            self._error = _error(payload)
        elif kind == b"Z":
            self._finish(self._error)
        elif kind == b"R" and self._login is not None and self._transport is not None:
            self._authenticate(self._login, self._transport, payload)

    def _authenticate(self, login: "_LoginDialogue", transport: asyncio.Transport, payload: bytes) -> None:
        try:
            transport.write(login.reply(payload))
        except QueryError as error:
            self._finish(error)

    def _finish(self, error: QueryError | None) -> None:
        if self._answer is None or self._answer.done():
            return
        if error is None:
            self._answer.set_result(self._rows)
        else:
            self._answer.set_exception(error)


def _row(payload: bytes) -> Row:
    values: Row = []
    at = 2
    while at < len(payload):
        (length,) = struct.unpack_from("!i", payload, at)
        at += 4
        values.append(None if length < 0 else payload[at : at + length].decode())
        at += max(length, 0)
    return values


def _error(payload: bytes) -> QueryError:
    fields = {part[:1]: part[1:].decode(errors="replace") for part in payload.split(b"\0") if part}
    return QueryError(fields.get(b"C", "?????"), fields.get(b"M", ""))


class _LoginDialogue:
    """Answers to Authentication messages, one `reply` each."""

    def __init__(self, user: str, password: str) -> None:
        self._user = user
        self._password = password
        self._client_first = f"n=,r={secrets.token_urlsafe(18)}"

    def reply(self, payload: bytes) -> bytes:
        (kind,) = struct.unpack_from("!I", payload)
        match kind:
            case 3:
                return _packet(self._password.encode() + b"\0")
            case 5:
                return _packet(self._md5(payload[4:8]) + b"\0")
            case 10:
                first = (GS2_HEADER + self._client_first).encode()
                return _packet(b"SCRAM-SHA-256\0" + struct.pack("!I", len(first)) + first)
            case 11:
                return _packet(self._proof(payload[4:].decode()))
            case 0 | 12:
                return b""
        raise QueryError("28000", f"authentication request {kind} is not known here")

    def _md5(self, salt: bytes) -> bytes:
        inner = hashlib.md5((self._password + self._user).encode()).hexdigest()  # noqa: S324 - the protocol's choice
        return b"md5" + hashlib.md5(inner.encode() + salt).hexdigest().encode()  # noqa: S324

    def _proof(self, server_first: str) -> bytes:
        fields = dict(part.split("=", 1) for part in server_first.split(","))
        key = _client_key(self._password, b64decode(fields["s"]), int(fields["i"]))
        final = f"c={b64encode(GS2_HEADER.encode()).decode()},r={fields['r']}"
        signed = f"{self._client_first},{server_first},{final}".encode()
        signature = hmac.digest(hashlib.sha256(key).digest(), signed, "sha256")
        proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
        return f"{final},p={b64encode(proof).decode()}".encode()


@lru_cache(maxsize=1000)
def _client_key(password: str, salt: bytes, iterations: int) -> bytes:
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    return hmac.digest(salted, b"Client Key", "sha256")


def _packet(body: bytes) -> bytes:
    return HEADER.pack(b"p", len(body) + 4) + body
