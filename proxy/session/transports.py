"""What is done to every stream transport of the proxy.

Owns: write limits, keepalive, and the casts of what asyncio knows by inheritance and we by methods.
Does not know: which leg it is.
"""

import asyncio
import socket
from typing import Final, Protocol, cast

# Above this many unsent bytes the other leg stops being read. uvloop's own low-water mark would be 16 bytes.
WRITE_HIGH_BYTES: Final = 256 * 1024
WRITE_LOW_BYTES: Final = 64 * 1024

LINGER_SECONDS: Final = 10.0  # for the last bytes to a peer that may not read them

# A peer that vanished without a word is noticed after 30 + 3 * 10 seconds.
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))


class Receiver(Protocol):
    """What a transport calls. Compiled classes have these methods and cannot inherit from asyncio.Protocol."""

    def data_received(self, data: bytes) -> None: ...

    def eof_received(self) -> bool | None: ...

    def connection_lost(self, exc: Exception | None) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


def as_protocol(receiver: Receiver) -> asyncio.Protocol:
    return cast("asyncio.Protocol", receiver)


def as_stream(transport: asyncio.BaseTransport) -> asyncio.Transport:
    """uvloop's transports have the methods of asyncio.Transport and do not inherit from it."""
    return cast("asyncio.Transport", transport)


def close_in_time(transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
    """Close once everything written is sent, or after `LINGER_SECONDS`: a peer that reads nothing keeps no socket."""
    is_unsent = transport.get_write_buffer_size() > 0
    transport.close()
    if is_unsent:
        loop.call_later(LINGER_SECONDS, transport.abort)


def bound_writes(transport: asyncio.BaseTransport) -> asyncio.Transport:
    """Bound what is buffered for writing."""
    stream = as_stream(transport)
    stream.set_write_buffer_limits(high=WRITE_HIGH_BYTES, low=WRITE_LOW_BYTES)
    return stream


def keep_alive(sock: socket.socket) -> None:
    """Let the kernel find out about a peer that vanished. What a listening socket accepts inherits it."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def set_up(transport: asyncio.BaseTransport) -> asyncio.Transport:
    """Both, for a connection of our own making."""
    stream = bound_writes(transport)
    sock = stream.get_extra_info("socket")
    if sock is not None:
        keep_alive(sock)
    return stream
