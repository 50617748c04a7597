"""A wire of chosen length between the proxy and its server, which counts how often somebody had to wait for the server.

Owns: forwarding both directions late and in order, and the turns of every connection.
Does not know: PostgreSQL, the proxy.

A turn is bytes towards the server after bytes from it have arrived: what is sent in one go, however many messages that
are, is one turn, and what is sent only after an answer was read is one more. Nothing but turns costs time on a long
wire.
"""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast


class _End(asyncio.Protocol):
    """One socket of a link: what it reads is on its way to the other end."""

    def __init__(self, link: "Link") -> None:
        self.link = link
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.other: _End | None = None
        self._on_the_way: deque[bytes] = deque()
        self._due = 0  # how many of these have been under way for long enough

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.opened.set_result(None)

    def data_received(self, data: bytes) -> None:
        self.link.left(self)
        self._send(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._send(b"")

    def _send(self, data: bytes) -> None:
        """Nothing at all is the end of the connection, which travels as data does."""
        self._on_the_way.append(data)
        # Timers of one moment may fire in any order: each delivers what comes next, whoever it was made for. The loop
        # counts in milliseconds, and a wire is never too short.
        seconds = math.ceil(self.link.wire.one_way_seconds * 1000) / 1000
        if seconds:
            asyncio.get_running_loop().call_later(seconds, self._deliver)
        else:
            self._deliver()

    def _deliver(self) -> None:
        self._due += 1
        self.pass_on()

    def pass_on(self) -> None:
        """Give the other end what is due, as soon as there is one."""
        while self._due and self.other is not None:
            self._due -= 1
            data = self._on_the_way.popleft()
            if self.link.is_silent or self.other.transport.is_closing():
                continue
            if data:
                self.link.arrived(self)
                self.other.transport.write(data)
            else:
                self.other.transport.close()


class Link:
    """One connection over the wire. `turns` are those since it was made."""

    def __init__(self, wire: "SlowLink") -> None:
        self.wire = wire
        self.turns = 0
        self.is_silent = False
        self._has_heard = True  # whoever connects waits for nothing before its first bytes
        self.near = _End(self)
        self.far = _End(self)

    @property
    def port(self) -> int:
        """Of the near side's socket, as that side knows it."""
        return int(self.near.transport.get_extra_info("peername")[1])

    def goes_silent(self) -> None:
        """What is sent from now on arrives nowhere, and nobody is told."""
        self.is_silent = True

    def left(self, end: _End) -> None:
        if end is self.near and self._has_heard:
            self.turns += 1
            self._has_heard = False

    def arrived(self, end: _End) -> None:
        if end is self.far:
            self._has_heard = True

    async def join(self, host: str, port: int) -> None:
        """Connect to the far side; what the near one has said meanwhile waits."""
        await self.near.opened
        try:
            await asyncio.get_running_loop().create_connection(lambda: self.far, host, port)
        except OSError:
            self.near.transport.abort()
            return
        self.near.other, self.far.other = self.far, self.near
        self.near.pass_on()

    def cut(self) -> None:
        for end in (self.near, self.far):
            if end.opened.done():
                end.transport.abort()


class SlowLink:
    """The wire: it listens at `port`, and every connection made there is one to the server."""

    def __init__(self, host: str, port: int, one_way_seconds: float, *, listen_host: str = "127.0.0.1") -> None:
        self.host = host
        self.listen_host = listen_host
        self.server_port = port
        self.one_way_seconds = one_way_seconds  # may be changed at any time, for what is sent from then on
        self.links: list[Link] = []
        self.port = 0
        self._joining: set[asyncio.Task[None]] = set()
        self._listening: asyncio.Server | None = None

    async def start(self) -> "SlowLink":
        """Raises OSError where there is no such address on this machine."""
        self._listening = await asyncio.get_running_loop().create_server(self._accept, self.listen_host, 0)
        self.port = int(self._listening.sockets[0].getsockname()[1])
        return self

    def _accept(self) -> asyncio.Protocol:
        link = Link(self)
        self.links.append(link)
        task = asyncio.get_running_loop().create_task(link.join(self.host, self.server_port))
        self._joining.add(task)
        task.add_done_callback(self._joining.discard)
        return link.near

    def link_of(self, port: int) -> Link:
        """The connection whose near side is bound to this local port."""
        (link,) = (one for one in self.links if one.near.opened.done() and one.port == port)
        return link

    async def stop(self) -> None:
        if self._listening is not None:
            self._listening.close()
        for link in self.links:
            link.cut()
        await asyncio.gather(*self._joining, return_exceptions=True)


@asynccontextmanager
async def slow_link(host: str, port: int, *, round_trip_seconds: float) -> AsyncIterator[SlowLink]:
    """A wire to this server on which a question and its answer take `round_trip_seconds` together."""
    wire = await SlowLink(host, port, round_trip_seconds / 2).start()
    try:
        yield wire
    finally:
        await wire.stop()
