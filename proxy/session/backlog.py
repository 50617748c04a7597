"""What a client has sent that cannot go on yet.

Owns: these bytes, the bound on them, and noticing that a client which is not read has gone.
Does not know: why they wait.

Reading goes on while they wait, or the loss of the peer would not be noticed. Above the bound it stops, and the kernel
is asked once a second instead.
"""

import asyncio
import select
from collections.abc import Sequence
from typing import Final

from proxy.session.facts import facts_moved
from proxy.wire.framing import Fact

_PROBE_SECONDS: Final = 1.0
_HANGUP: Final = select.POLLRDHUP | select.POLLHUP | select.POLLERR


class Backlog:
    """Pieces of one client's stream with their facts, in order. `size` is their sum in bytes, 0 where there is none."""

    __slots__ = ("_pieces", "_unread", "size")

    def __init__(self) -> None:
        self._pieces: list[tuple[bytes, Sequence[Fact]]] | None = None
        self._unread: Unread | None = None
        self.size = 0

    @property
    def pieces(self) -> Sequence[tuple[bytes, Sequence[Fact]]]:
        return self._pieces or ()

    def add(self, buffer: bytes, facts: Sequence[Fact], max_bytes: int, transport: asyncio.Transport) -> None:
        """Keep `buffer`, which is not empty; above `max_bytes` in all the client is not read any more."""
        assert self is not NOTHING_KEPT, "that one is everybody's"
        if self._pieces is None:
            self._pieces = []
        self._pieces.append((buffer, facts))
        self.size += len(buffer)
        if self.size > max_bytes and self._unread is None:
            self._unread = Unread(transport)

    def take(self) -> tuple[bytes, Sequence[Fact]]:
        """All of it as one piece. The client is read again."""
        pieces, self._pieces = self._pieces or [], None
        self.size = 0
        if self._unread is not None:
            self._unread.close()
            self._unread.transport.resume_reading()
            self._unread = None
        if len(pieces) == 1:
            return pieces[0]
        facts: list[Fact] = []
        at = 0
        for buffer, found in pieces:
            facts += facts_moved(found, at)
            at += len(buffer)
        return b"".join(buffer for buffer, _ in pieces), facts

    def close(self) -> None:
        """The client is gone, and what it sent with it."""
        self._pieces = None
        self.size = 0
        if self._unread is not None:
            self._unread.close()
            self._unread = None


NOTHING_KEPT: Final = Backlog()  # of every client that keeps nothing, which is nearly all of them


class Unread:
    """A client that is not read. A paused transport reports neither FIN nor RST, so the kernel is asked."""

    __slots__ = ("_loop", "_probe", "transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self._loop = asyncio.get_running_loop()
        self._probe = self._loop.call_later(_PROBE_SECONDS, self._probe_peer)
        transport.pause_reading()

    def close(self) -> None:
        self._probe.cancel()

    def _probe_peer(self) -> None:
        poller = select.poll()
        poller.register(self.transport.get_extra_info("socket").fileno(), select.POLLRDHUP)
        if any(event & _HANGUP for _, event in poller.poll(0)):
            self.transport.abort()
            return
        self._probe = self._loop.call_later(_PROBE_SECONDS, self._probe_peer)
