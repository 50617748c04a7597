"""The packets that have no type byte: the first thing a client says.

Owns: cutting the packet off, telling what is not PostgreSQL, decoding and encoding the four kinds.
Does not know: what is answered, TLS, sockets, time.
Source: PostgreSQL manual, "Message Formats" (protocol-message-formats): StartupMessage, SSLRequest, GSSENCRequest,
CancelRequest; "Start-up" (protocol-flow), version 18.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from struct import Struct
from typing import Final, TypeAlias

from proxy.wire.errors import ProtocolViolation
from proxy.wire.messages import read_text, text

CANCEL_REQUEST_CODE: Final = 1234 << 16 | 5678
SSL_REQUEST_CODE: Final = 1234 << 16 | 5679
GSSENC_REQUEST_CODE: Final = 1234 << 16 | 5680

# MAX_STARTUP_PACKET_LENGTH of the server's libpq/pqcomm.h, less or equal; it does not count the length itself.
DEFAULT_MAX_STARTUP_BYTES: Final = 10_000
MAX_CANCEL_KEY_BYTES: Final = 256

# What parse_bool() of the server's utils/adt/bool.c takes for false.
_SPELLINGS_OF_FALSE: Final = frozenset(("0", "of", "off", "n", "no", "f", "fa", "fal", "fals", "false"))

_uint32 = Struct(">I")


@dataclass(frozen=True, slots=True)
class SSLRequest:
    """The client asks for TLS; the answer is one byte, S or N."""


@dataclass(frozen=True, slots=True)
class GSSENCRequest:
    """The client asks for GSSAPI encryption; the answer is one byte, G or N."""


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """The client asks, on a connection of its own, to cancel what the one with this key runs. There is no answer."""

    process_id: int
    secret_key: bytes


@dataclass(frozen=True, slots=True)
class StartupMessage:
    """Who wants to log in, and with which parameters, named and ordered as the client sent them.

    Bytes that are no UTF-8 are kept as surrogate escapes. Values may hold secrets.
    """

    major: int
    minor: int
    parameters: dict[str, str]

    @property
    def user(self) -> str:
        return self.parameters["user"]

    @property
    def database(self) -> str:
        """The database asked for; the user's name where none was, as in the server."""
        return self.parameters.get("database") or self.user

    @property
    def replication(self) -> bool:
        """Whether a walsender is asked for: `replication` is set to anything but a spelling of false."""
        return self.parameters.get("replication", "0").lower() not in _SPELLINGS_OF_FALSE

    @property
    def unsupported_protocol_options(self) -> list[str]:
        """The protocol extensions asked for; a server that knows none names them in NegotiateProtocolVersion."""
        return [name for name in self.parameters if name.startswith("_pq_.")]

    @property
    def wants_minor(self) -> int:
        """The minor version of protocol 3 asked for: 0, or 2 from PostgreSQL 18 on, or one not yet known."""
        return self.minor


StartupPacket: TypeAlias = SSLRequest | GSSENCRequest | CancelRequest | StartupMessage


class StartupReader:
    """Collects one packet without a type byte. After it returned the packet, `rest` holds the bytes behind it."""

    __slots__ = ("_max_startup_bytes", "_received", "rest")

    def __init__(self, max_startup_bytes: int = DEFAULT_MAX_STARTUP_BYTES) -> None:
        self._max_startup_bytes = max_startup_bytes
        self._received = b""
        self.rest = b""

    def feed(self, data: bytes) -> bytes | None:
        """Take received bytes; return the packet without its length bytes, or None while it is incomplete.

        A reader serves one packet: where another follows (after SSLRequest), feed `rest` to a new one.
        Raises ProtocolViolation, as early as it can be told, for what is not PostgreSQL or longer than the bound.
        """
        received = self._received = self._received + data
        if len(received) < 4:
            return None
        (length,) = _uint32.unpack_from(received)
        if not 8 <= length <= self._max_startup_bytes + 4:
            raise ProtocolViolation(describe_foreign(received))
        if len(received) < length:
            return None
        self.rest = received[length:]
        return received[4:length]


_HTTP_VERBS: Final = (b"GET ", b"POST", b"PUT ", b"HEAD", b"OPTI", b"DELE", b"PATC", b"CONN", b"TRAC", b"PRI ")
_MONGODB_OPCODES: Final = (2004, 2012, 2013)


def describe_foreign(received: bytes) -> str:
    """One sentence for bytes that do not begin like a startup packet."""
    if received.startswith(_HTTP_VERBS):
        return "this is a PostgreSQL port, and the client speaks HTTP"
    if received[:2] == b"\x16\x03":
        return "the client opened with a TLS handshake; TLS is asked for with an SSLRequest first"
    if received.startswith(b"SSH-"):
        return "this is a PostgreSQL port, and the client speaks SSH"
    if len(received) >= 16 and int.from_bytes(received[12:16], "little") in _MONGODB_OPCODES:
        return "this is a PostgreSQL port, and the client speaks the MongoDB protocol"
    (length,) = _uint32.unpack_from(received)
    return f"invalid length of startup packet: {length}"


def parse_startup_packet(packet: bytes) -> StartupPacket:
    """Decode a packet whose four length bytes are already removed.

    Raises ProtocolViolation when a name lacks its value, a NUL is missing, bytes follow the last NUL, the user is
    missing, or the version is not 3. Values may hold secrets: errors name the parameter and never its value.
    """
    if len(packet) < 4:
        raise ProtocolViolation("startup packet without a protocol version")
    (code,) = _uint32.unpack_from(packet)
    if code == CANCEL_REQUEST_CODE:
        return _parse_cancel_request(packet)
    if code in (SSL_REQUEST_CODE, GSSENC_REQUEST_CODE):
        if len(packet) != 4:
            raise ProtocolViolation("bytes follow the code of a request for encryption")
        return SSLRequest() if code == SSL_REQUEST_CODE else GSSENCRequest()
    major, minor = code >> 16, code & 0xFFFF
    if major != 3:
        raise ProtocolViolation(f"unsupported frontend protocol {major}.{minor}: version 3 is supported")
    return StartupMessage(major, minor, _parse_parameters(packet))


def _parse_cancel_request(packet: bytes) -> CancelRequest:
    if not 8 < len(packet) <= 8 + MAX_CANCEL_KEY_BYTES:
        raise ProtocolViolation("invalid length of a cancel request")
    return CancelRequest(_uint32.unpack_from(packet, 4)[0], packet[8:])


def _parse_parameters(packet: bytes) -> dict[str, str]:
    parameters: dict[str, str] = {}
    position = 4
    while True:
        name, position = read_text(packet, position, "a parameter name in the startup packet")
        if not name:
            break
        if position >= len(packet):
            raise ProtocolViolation(f'parameter "{name}" in the startup packet has no value')
        parameters[name], position = read_text(packet, position, f'parameter "{name}" in the startup packet')
    if position != len(packet):
        raise ProtocolViolation("bytes follow the last parameter in the startup packet")
    if not parameters.get("user"):
        raise ProtocolViolation("no PostgreSQL user name specified in startup packet")
    return parameters


def encode_startup(parameters: Mapping[str, str], minor: int = 0) -> bytes:
    """A whole StartupMessage of protocol 3. An empty name would end the list early and is a ValueError."""
    if "" in parameters:
        raise ValueError("a startup parameter needs a name")
    body = b"".join(text(name) + text(value) for name, value in parameters.items())
    return _packet(3 << 16 | minor, body + b"\0")


def encode_ssl_request() -> bytes:
    return _packet(SSL_REQUEST_CODE)


def encode_cancel_request(process_id: int, secret_key: bytes) -> bytes:
    return _packet(CANCEL_REQUEST_CODE, _uint32.pack(process_id) + secret_key)


def _packet(code: int, body: bytes = b"") -> bytes:
    return _uint32.pack(8 + len(body)) + _uint32.pack(code) + body


def split_options(options: str) -> list[tuple[str, str]]:
    """The settings in the startup parameter `options`, in order: "-c name=value", "-cname=value", "--name=value".

    A blank or a backslash in a value is written behind a backslash. In names "-" stands for "_".
    Raises ProtocolViolation for any other switch: the server knows some (as "-e"), but no setting can be told of them.
    Source: manual, "Parameter Interaction via the Shell" (config-setting) and "libpq: options" (libpq-connect).
    """
    settings = []
    words = iter(_split_words(options))
    for word in words:
        if word == "-c":
            assignment = next(words, "")
        elif word.startswith(("-c", "--")):
            assignment = word[2:]
        else:
            raise ProtocolViolation('startup parameter "options" may hold "-c name=value" and "--name=value" only')
        name, equals, value = assignment.partition("=")
        if not equals or not name:
            raise ProtocolViolation('a setting in startup parameter "options" lacks its name or its value')
        settings.append((name.replace("-", "_"), value))
    return settings


def _split_words(options: str) -> list[str]:
    """Cut at blanks that no backslash protects, as pg_split_opts() of the server does."""
    words: list[str] = []
    between = True
    characters = iter(options)
    for character in characters:
        if character in " \t\n\v\f\r":
            between = True
            continue
        if between:
            words.append("")
            between = False
        words[-1] += next(characters, "") if character == "\\" else character
    return words
