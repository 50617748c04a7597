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

    __slots__ = ("_loop", "_pieces", "_probe", "_transport", "size")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pieces: list[tuple[bytes, Sequence[Fact]]] | None = None
        self._probe: asyncio.TimerHandle | None = None
        self.size = 0

    @property
    def pieces(self) -> Sequence[tuple[bytes, Sequence[Fact]]]:
        return self._pieces or ()

    def add(self, buffer: bytes, facts: Sequence[Fact], max_bytes: int) -> None:
        """Keep `buffer`, which is not empty; above `max_bytes` in all the client is not read any more."""
        if self._pieces is None:
            self._pieces = []
        self._pieces.append((buffer, facts))
        self.size += len(buffer)
        if self.size > max_bytes and self._probe is None:
            self._transport.pause_reading()
            self._probe = self._loop.call_later(_PROBE_SECONDS, self._probe_peer)

    def take(self) -> tuple[bytes, Sequence[Fact]]:
        """All of it as one piece. The client is read again."""
        pieces, self._pieces = self._pieces or [], None
        self.size = 0
        if self._probe is not None:
            self._probe.cancel()
            self._probe = None
            self._transport.resume_reading()
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
        if self._probe is not None:
            self._probe.cancel()
            self._probe = None

    def _probe_peer(self) -> None:
        """A paused transport reports neither FIN nor RST."""
        poller = select.poll()
        poller.register(self._transport.get_extra_info("socket").fileno(), select.POLLRDHUP)
        if any(event & _HANGUP for _, event in poller.poll(0)):
            self._transport.abort()
            return
        self._probe = self._loop.call_later(_PROBE_SECONDS, self._probe_peer)
