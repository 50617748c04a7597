"""The TLS handshake with a client, up to a word that a client can read where it fails.

Owns: beginning a handshake with bytes that were read before anybody knew it was one, telling a failure.
Does not know: when a handshake is due, certificates and modes.
Source: PostgreSQL manual, "SSL Session Encryption" (protocol-flow); RFC 8446, "Alert Protocol".

Two things uvloop's start_tls() leaves to its caller. The ClientHello has to come after it: a client that begins with
the handshake itself (direct TLS) has sent it already, so it is put into the protocol object that start_tls() installs.
And the alert that OpenSSL has ready when a handshake fails is thrown away with the connection: without it a client
whose certificate is not accepted reads that "the server closed the connection unexpectedly".
"""

import asyncio
import contextlib
import socket
from typing import Final, cast

from proxy.session.encryption import HandshakeFailed, TlsOffer

ALPN_PROTOCOL: Final = "postgresql"
# The first byte of a TLS record that carries a handshake; as the length of a startup packet it would mean 369 MB.
FIRST_BYTE_OF_TLS: Final = 0x16

_FAREWELL_SECONDS: Final = 1.0


async def accept_tls(
    transport: asyncio.Transport,
    protocol: asyncio.Protocol,
    offer: TlsOffer,
    *,
    timeout_seconds: float,
    received: bytes = b"",
) -> asyncio.Transport:
    """Encrypt a client's leg; the transport under TLS, from which `protocol` reads from now on.

    To be run in a task of its own, while reading is paused. `received` is the beginning of the handshake, where it was
    read already. Raises OSError, HandshakeFailed among them: the client has been told, and the transport is closed.
    `protocol` may or may not have been told that the connection is lost.
    """
    loop = asyncio.get_running_loop()
    with socket.socket(fileno=_duplicate(transport)) as own:
        try:
            if received:
                # start_tls() queues its first steps behind what is queued here, and the bytes go behind those.
                loop.call_soon(loop.call_soon, _feed, transport, received)
            encrypted = await loop.start_tls(
                transport, protocol, offer.context, server_side=True, ssl_handshake_timeout=timeout_seconds
            )
        except HandshakeFailed as failure:
            await _say(own, failure.alert)
            raise
    if encrypted is None or encrypted.get_extra_info("ssl_object") is None:
        raise ConnectionAbortedError("the client left during the handshake")  # start_tls() ends as if all were well
    return encrypted


def _duplicate(transport: asyncio.Transport) -> int:
    """The connection once more: uvloop closes its own at the failure."""
    sock = cast("socket.socket", transport.get_extra_info("socket"))
    return socket.dup(sock.fileno())


def _feed(transport: asyncio.Transport, received: bytes) -> None:
    receiver = cast("asyncio.BufferedProtocol", transport.get_protocol())
    at = 0
    while at < len(received):
        buffer = memoryview(receiver.get_buffer(len(received) - at))
        count = min(len(buffer), len(received) - at)
        buffer[:count] = received[at : at + count]
        receiver.buffer_updated(count)
        at += count


async def _say(own: socket.socket, alert: bytes) -> None:
    """Send the alert, and read what the client still sends: a close over unread bytes would take the alert back."""
    loop = asyncio.get_running_loop()
    own.setblocking(False)
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_FAREWELL_SECONDS):
            await loop.sock_sendall(own, alert)
            own.shutdown(socket.SHUT_WR)
            while await loop.sock_recv(own, 4096):
                pass
