"""A server that is obedient until a test makes it lie.

Owns: accepting, a minimal PostgreSQL (trust, every statement succeeds, SET is reported), a record of what came.
Does not know: what is tested. Overriding `on_startup` or `on_message` is how it is made to misbehave.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from proxy.wire import messages
from proxy.wire.startup import CancelRequest, SSLRequest, StartupMessage, parse_startup_packet

PARAMETERS = {
    "application_name": "",
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "server_version": "18.0",
    "standard_conforming_strings": "on",
    "TimeZone": "UTC",
}
FACTS = ("100", "3", "0", "180000", "0", "-1")  # what the proxy asks a server about itself, and the process id
_SET = re.compile(r'(?:SET|RESET) "?(\w+)"?(?: = \'(.*)\')?', re.IGNORECASE)


class Session:
    """One connection to the fake server. `received` are (type, payload); `reads` the sizes of what one read brought."""

    def __init__(self, server: "FakeServer", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer
        self.startup: StartupMessage | None = None
        self.received: list[tuple[str, bytes]] = []
        self.status = b"I"
        self.parameters = dict(PARAMETERS)
        self.process_id = 0
        self.skips_to_sync = False

    def send(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))

    def greet(self) -> None:
        greeting = [messages.authentication_ok()]
        greeting += [messages.parameter_status(name, value) for name, value in self.parameters.items()]
        greeting += [messages.backend_key_data(self.process_id, b"key!"), messages.ready_for_query(b"I")]
        self.send(*greeting)

    def complete(self, tag: str = "SELECT 0") -> None:
        self.send(messages.command_complete(tag), messages.ready_for_query(self.status))

    def fail(self, code: str = "XX000", text: str = "the fake server says no", severity: str = "ERROR") -> None:
        self.send(messages.error_response(messages.ErrorFields(severity, code, text)))

    def rows(self, *values: str) -> None:
        self.send(messages.row_description(["c"]), *(messages.data_row([value]) for value in values))

    @property
    def queries(self) -> list[str]:
        return [payload[:-1].decode() for kind, payload in self.received if kind == "Q"]

    # -- the obedient server -------------------------------------------------------------------------------------------

    def obey(self, kind: str, payload: bytes) -> None:
        if kind == "Q":
            self._obey_query(payload[:-1].decode())
        elif kind == "S":
            self.send(messages.ready_for_query(self.status))
        elif kind in "PBCDE":
            answers = {"P": messages.parse_complete(), "B": messages.bind_complete(), "C": messages.close_complete()}
            answers |= {"D": messages.no_data(), "E": messages.command_complete("SELECT 0")}
            self.send(answers[kind])

    def _obey_query(self, sql: str) -> None:
        if "max_connections" in sql:
            facts = (*FACTS, str(self.process_id))
            self.send(messages.row_description(["c"] * len(facts)), messages.data_row(facts))
            self.complete("SELECT 1")
            return
        for statement in sql.split(";"):
            self._obey_statement(statement.strip())
        self.send(messages.ready_for_query(self.status))

    def _obey_statement(self, statement: str) -> None:
        word = statement.split(" ", maxsplit=1)[0].upper()
        if word == "BEGIN":
            self.status = b"T"
        elif word in ("COMMIT", "ROLLBACK"):
            self.status = b"I"
        elif statement.upper() in ("RESET ALL", "DISCARD ALL"):
            self._report(PARAMETERS)
        elif found := _SET.match(statement):
            known = {name.lower(): name for name in PARAMETERS}
            name = known.get(found[1].lower(), found[1])
            self._report({name: found[2] if found[2] is not None else PARAMETERS.get(name, "")})
        elif not statement:
            self.send(messages.empty_query_response())
            return
        self.send(messages.command_complete(word))

    def _report(self, values: dict[str, str]) -> None:
        for name, value in values.items():
            if name in PARAMETERS and self.parameters.get(name) != value:
                self.send(messages.parameter_status(name, value))
            self.parameters[name] = value

    # -- the socket ----------------------------------------------------------------------------------------------------

    async def read(self) -> None:
        while True:
            head = await self.reader.readexactly(5)
            payload = await self.reader.readexactly(int.from_bytes(head[1:], "big") - 4)
            kind = chr(head[0])
            self.received.append((kind, payload))
            if kind == "X":
                return
            await self.server.on_message(self, kind, payload)


async def _obey(session: Session, kind: str, payload: bytes) -> None:
    session.obey(kind, payload)


async def _greet(session: Session) -> None:
    session.greet()


class FakeServer:
    """Listens on 127.0.0.1. `cancels` are process ids of cancel requests; `never_closes` keeps ended sessions open."""

    def __init__(self) -> None:
        self.sessions: list[Session] = []
        self.cancels: list[int] = []
        self.cancel_keys: list[bytes] = []
        self.on_startup: Callable[[Session], Awaitable[None]] = _greet
        self.on_message: Callable[[Session, str, bytes], Awaitable[None]] = _obey
        self.on_cancel: Callable[[int], Awaitable[None]] | None = None
        self.never_closes = False
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._end = asyncio.Event()

    @property
    def url(self) -> str:
        """The user of the proxy's own queries is one that no test logs in as."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres?sslmode=disable"

    def of(self, user: str) -> list[Session]:
        return [one for one in self.sessions if one.startup is not None and one.startup.user == user]

    def queries(self, user: str = "app") -> list[str]:
        return [sql for session in self.of(user) for sql in session.queries]

    @staticmethod
    async def sleep(seconds: float) -> None:
        """A server that takes its time."""
        await asyncio.sleep(seconds)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None, "started before"
        self._end.set()
        self._server.close()
        for session in self.sessions:
            session.writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._end.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "a coroutine runs in a task"
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            if self.never_closes:
                await self._end.wait()
            writer.transport.abort()
            self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(4), "big")
        packet = parse_startup_packet(await reader.readexactly(length - 4))
        if isinstance(packet, CancelRequest):
            self.cancels.append(packet.process_id)
            self.cancel_keys.append(packet.secret_key)
            if self.on_cancel is not None:
                await self.on_cancel(packet.process_id)
        elif isinstance(packet, SSLRequest):
            writer.write(b"N")
            await self._serve(reader, writer)
        elif isinstance(packet, StartupMessage):
            session = Session(self, reader, writer)
            session.startup = packet
            self.sessions.append(session)
            session.process_id = 1000 + len(self.sessions)
            await self.on_startup(session)
            await session.read()


@pytest.fixture
async def fake_server() -> AsyncIterator[FakeServer]:
    server = FakeServer()
    await server.start()
    yield server
    await server.stop()
