"""The messages the proxy itself sends, and the few facts it reads from those of others.

Owns: type bytes, encoders, decoders of payloads (a message without its type byte and length).
Does not know: where messages begin and end in a stream (`framing`), what follows what (`login`, the sessions).
Source: PostgreSQL manual, "Message Formats" (protocol-message-formats) and "Error and Notice Message Fields"
(protocol-error-fields), version 18.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from struct import Struct
from typing import Final, NoReturn

from proxy.wire.errors import ProtocolViolation

BIND: Final = 0x42
CLOSE: Final = 0x43
DESCRIBE: Final = 0x44
EXECUTE: Final = 0x45
FUNCTION_CALL: Final = 0x46
FLUSH: Final = 0x48
PARSE: Final = 0x50
QUERY: Final = 0x51
SYNC: Final = 0x53
TERMINATE: Final = 0x58
COPY_DONE: Final = 0x63  # both directions
COPY_DATA: Final = 0x64  # both directions
COPY_FAIL: Final = 0x66
PASSWORD_MESSAGE: Final = 0x70  # also SASLInitialResponse, SASLResponse and GSSResponse

FRONTEND_NAMES: Final = {
    BIND: "Bind",
    CLOSE: "Close",
    COPY_DATA: "CopyData",
    COPY_DONE: "CopyDone",
    COPY_FAIL: "CopyFail",
    DESCRIBE: "Describe",
    EXECUTE: "Execute",
    FLUSH: "Flush",
    FUNCTION_CALL: "FunctionCall",
    PARSE: "Parse",
    PASSWORD_MESSAGE: "PasswordMessage",
    QUERY: "Query",
    SYNC: "Sync",
    TERMINATE: "Terminate",
}

PARSE_COMPLETE: Final = 0x31
BIND_COMPLETE: Final = 0x32
CLOSE_COMPLETE: Final = 0x33
NOTIFICATION_RESPONSE: Final = 0x41
COMMAND_COMPLETE: Final = 0x43
DATA_ROW: Final = 0x44
ERROR_RESPONSE: Final = 0x45
COPY_IN_RESPONSE: Final = 0x47
COPY_OUT_RESPONSE: Final = 0x48
EMPTY_QUERY_RESPONSE: Final = 0x49
BACKEND_KEY_DATA: Final = 0x4B
NOTICE_RESPONSE: Final = 0x4E
AUTHENTICATION: Final = 0x52
PARAMETER_STATUS: Final = 0x53
ROW_DESCRIPTION: Final = 0x54
FUNCTION_CALL_RESPONSE: Final = 0x56
COPY_BOTH_RESPONSE: Final = 0x57
READY_FOR_QUERY: Final = 0x5A
NO_DATA: Final = 0x6E
PORTAL_SUSPENDED: Final = 0x73
PARAMETER_DESCRIPTION: Final = 0x74
NEGOTIATE_PROTOCOL_VERSION: Final = 0x76

BACKEND_NAMES: Final = {
    AUTHENTICATION: "Authentication",
    BACKEND_KEY_DATA: "BackendKeyData",
    BIND_COMPLETE: "BindComplete",
    CLOSE_COMPLETE: "CloseComplete",
    COMMAND_COMPLETE: "CommandComplete",
    COPY_BOTH_RESPONSE: "CopyBothResponse",
    COPY_DATA: "CopyData",
    COPY_DONE: "CopyDone",
    COPY_IN_RESPONSE: "CopyInResponse",
    COPY_OUT_RESPONSE: "CopyOutResponse",
    DATA_ROW: "DataRow",
    EMPTY_QUERY_RESPONSE: "EmptyQueryResponse",
    ERROR_RESPONSE: "ErrorResponse",
    FUNCTION_CALL_RESPONSE: "FunctionCallResponse",
    NEGOTIATE_PROTOCOL_VERSION: "NegotiateProtocolVersion",
    NOTICE_RESPONSE: "NoticeResponse",
    NOTIFICATION_RESPONSE: "NotificationResponse",
    NO_DATA: "NoData",
    PARAMETER_DESCRIPTION: "ParameterDescription",
    PARAMETER_STATUS: "ParameterStatus",
    PARSE_COMPLETE: "ParseComplete",
    PORTAL_SUSPENDED: "PortalSuspended",
    READY_FOR_QUERY: "ReadyForQuery",
    ROW_DESCRIPTION: "RowDescription",
}

_header = Struct(">BI")
_int16 = Struct(">H")
_int32 = Struct(">i")
_uint32 = Struct(">I")


def message(kind: int, payload: bytes = b"") -> bytes:
    """A whole message: type byte, length, payload."""
    return _header.pack(kind, len(payload) + 4) + payload


def text(value: str | bytes) -> bytes:
    """A String of the protocol. Text from outside keeps its bytes (`surrogateescape`). A NUL in it is a ValueError."""
    raw = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
    if b"\0" in raw:
        raise ValueError("a string of the protocol cannot hold a NUL")
    return raw + b"\0"


def read_text(payload: bytes, start: int, what: str) -> tuple[str, int]:
    """The String at `start` and the offset behind its NUL; bytes that are no UTF-8 survive a round trip."""
    end = payload.find(b"\0", start)
    if end < 0:
        raise ProtocolViolation(f"{what} lacks the NUL at its end")
    return payload[start:end].decode("utf-8", "surrogateescape"), end + 1


# -- server to client ---------------------------------------------------------------------------------------------


class AuthenticationKind(Enum):
    """The Int32 that says which Authentication message it is."""

    OK = 0
    KERBEROS_V5 = 2
    CLEARTEXT_PASSWORD = 3
    MD5_PASSWORD = 5
    GSS = 7
    GSS_CONTINUE = 8
    SSPI = 9
    SASL = 10
    SASL_CONTINUE = 11
    SASL_FINAL = 12


def _authentication(kind: AuthenticationKind, data: bytes = b"") -> bytes:
    return message(AUTHENTICATION, _int32.pack(kind.value) + data)


def authentication_ok() -> bytes:
    return _authentication(AuthenticationKind.OK)


def authentication_cleartext() -> bytes:
    return _authentication(AuthenticationKind.CLEARTEXT_PASSWORD)


def authentication_md5(salt: bytes) -> bytes:
    assert len(salt) == 4, "the protocol has room for a salt of four bytes"
    return _authentication(AuthenticationKind.MD5_PASSWORD, salt)


def authentication_sasl(mechanisms: Iterable[str]) -> bytes:
    return _authentication(AuthenticationKind.SASL, b"".join(map(text, mechanisms)) + b"\0")


def authentication_sasl_continue(data: bytes) -> bytes:
    return _authentication(AuthenticationKind.SASL_CONTINUE, data)


def authentication_sasl_final(data: bytes) -> bytes:
    return _authentication(AuthenticationKind.SASL_FINAL, data)


def parameter_status(name: str, value: str) -> bytes:
    return message(PARAMETER_STATUS, text(name) + text(value))


def backend_key_data(process_id: int, secret_key: bytes) -> bytes:
    """`secret_key` has four bytes up to protocol 3.0 and up to 256 from 3.2 on."""
    return message(BACKEND_KEY_DATA, _uint32.pack(process_id) + secret_key)


def ready_for_query(status: bytes) -> bytes:
    """`status`: b"I" idle, b"T" in a transaction, b"E" in a failed one."""
    assert status in (b"I", b"T", b"E"), "ReadyForQuery knows three states"
    return message(READY_FOR_QUERY, status)


def negotiate_protocol_version(minor: int, options: Sequence[str]) -> bytes:
    """`minor`: the newest minor version of protocol 3 that is served; `options`: what was asked for and is unknown."""
    newest = 3 << 16 | minor  # the manual says "minor version"; the server sends major and minor, and libpq reads both
    payload = _uint32.pack(newest) + _uint32.pack(len(options)) + b"".join(map(text, options))
    return message(NEGOTIATE_PROTOCOL_VERSION, payload)


@dataclass(frozen=True, slots=True)
class ErrorFields:
    """What an ErrorResponse or NoticeResponse says. `code` is the SQLSTATE, `routine` the server's function."""

    severity: str
    code: str
    message: str
    detail: str | None = None
    hint: str | None = None
    routine: str | None = None


def _fields(fields: ErrorFields) -> bytes:
    named = (
        (b"S", fields.severity),
        (b"V", fields.severity),
        (b"C", fields.code),
        (b"M", fields.message),
        (b"D", fields.detail),
        (b"H", fields.hint),
        (b"R", fields.routine),
    )
    return b"".join(name + text(value) for name, value in named if value is not None) + b"\0"


def error_response(fields: ErrorFields) -> bytes:
    return message(ERROR_RESPONSE, _fields(fields))


def notice_response(fields: ErrorFields) -> bytes:
    return message(NOTICE_RESPONSE, _fields(fields))


def command_complete(tag: str) -> bytes:
    return message(COMMAND_COMPLETE, text(tag))


def parse_complete() -> bytes:
    return message(PARSE_COMPLETE)


def bind_complete() -> bytes:
    return message(BIND_COMPLETE)


def close_complete() -> bytes:
    return message(CLOSE_COMPLETE)


def no_data() -> bytes:
    return message(NO_DATA)


def empty_query_response() -> bytes:
    return message(EMPTY_QUERY_RESPONSE)


def parameter_description(types: Sequence[int] = ()) -> bytes:
    """`types`: the OIDs of a prepared statement's parameters."""
    return message(PARAMETER_DESCRIPTION, _int16.pack(len(types)) + b"".join(map(_uint32.pack, types)))


def row_description(columns: Sequence[str]) -> bytes:
    """Columns of type text, in text format, that belong to no table."""
    tail = Struct(">IHIhiH").pack(0, 0, _TEXT_OID, -1, -1, 0)
    return message(ROW_DESCRIPTION, _int16.pack(len(columns)) + b"".join(text(name) + tail for name in columns))


_TEXT_OID: Final = 25


def data_row(values: Sequence[str | None]) -> bytes:
    cells = [None if value is None else value.encode("utf-8", "surrogateescape") for value in values]
    body = b"".join(b"\xff\xff\xff\xff" if cell is None else _uint32.pack(len(cell)) + cell for cell in cells)
    return message(DATA_ROW, _int16.pack(len(cells)) + body)


# -- client to server ---------------------------------------------------------------------------------------------


def query(sql: str | bytes) -> bytes:
    return message(QUERY, text(sql))


def parameterised_query(sql: str, values: Sequence[str]) -> bytes:
    """One statement with $1, $2 ... and their values as text, up to the Sync; the server finds out the types."""
    cells = b"".join(
        _int32.pack(len(raw)) + raw for raw in (value.encode("utf-8", "surrogateescape") for value in values)
    )
    return b"".join(
        (
            message(PARSE, text("") + text(sql) + _int16.pack(0)),
            message(BIND, text("") + text("") + _int16.pack(0) + _int16.pack(len(values)) + cells + _int16.pack(0)),
            message(EXECUTE, text("") + _int32.pack(0)),
            message(SYNC),
        )
    )


def sync() -> bytes:
    return message(SYNC)


def terminate() -> bytes:
    return message(TERMINATE)


def password_message(password: str | bytes) -> bytes:
    return message(PASSWORD_MESSAGE, text(password))


def sasl_initial_response(mechanism: str, data: bytes) -> bytes:
    return message(PASSWORD_MESSAGE, text(mechanism) + _int32.pack(len(data)) + data)


def sasl_response(data: bytes) -> bytes:
    return message(PASSWORD_MESSAGE, data)


# -- facts read from messages ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Authentication:
    """An Authentication message: its kind, and what follows the kind."""

    kind: AuthenticationKind
    data: bytes


def _wrong(kind: str) -> NoReturn:
    raise ProtocolViolation(f"malformed {kind} message")


def parse_authentication(payload: bytes) -> Authentication:
    """Raises ProtocolViolation for a payload without a kind, or with one that the manual does not list."""
    if len(payload) < 4:
        _wrong("Authentication")
    (number,) = _int32.unpack_from(payload)
    try:
        kind = AuthenticationKind(number)
    except ValueError:
        raise ProtocolViolation(f"unknown authentication request {number}") from None
    return Authentication(kind, payload[4:])


def parse_mechanisms(data: bytes) -> list[str]:
    """The names in an AuthenticationSASL message."""
    if not data.endswith(b"\0"):
        _wrong("AuthenticationSASL")
    return [name.decode("ascii", "replace") for name in data.split(b"\0") if name]


def parse_sasl_initial_response(payload: bytes) -> tuple[str, bytes]:
    """The mechanism a client chose and its first data, empty where it sent none."""
    mechanism, position = read_text(payload, 0, "the SASL mechanism")
    if len(payload) < position + 4:
        _wrong("SASLInitialResponse")
    (length,) = _int32.unpack_from(payload, position)
    data = payload[position + 4 :]
    if length != len(data) and not (length == -1 and not data):
        _wrong("SASLInitialResponse")
    return mechanism, data


def parse_password(payload: bytes) -> bytes:
    """The password of a PasswordMessage, without its NUL, which must be there and be the only one."""
    if not payload.endswith(b"\0") or payload.count(b"\0") != 1:
        _wrong("PasswordMessage")
    return payload[:-1]


def parse_parameter_status(payload: bytes) -> tuple[str, str]:
    name, position = read_text(payload, 0, "the name in a ParameterStatus message")
    value, position = read_text(payload, position, "the value in a ParameterStatus message")
    if position != len(payload):
        _wrong("ParameterStatus")
    return name, value


def parse_backend_key_data(payload: bytes) -> tuple[int, bytes]:
    """Process id and secret key; the key has 4 to 256 bytes."""
    if not 8 <= len(payload) <= 4 + 256:
        _wrong("BackendKeyData")
    return _uint32.unpack_from(payload)[0], payload[4:]


def parse_ready_for_query(payload: bytes) -> bytes:
    """The transaction status: b"I", b"T" or b"E"."""
    if payload not in (b"I", b"T", b"E"):
        _wrong("ReadyForQuery")
    return payload


def parse_text_row(payload: bytes) -> list[str | None]:
    """The columns of a DataRow in text format."""
    row: list[str | None] = []
    at = 2
    for _ in range(int.from_bytes(payload[:2], "big")):
        length = int.from_bytes(payload[at : at + 4], "big", signed=True)
        at += 4
        if length < 0:
            row.append(None)
            continue
        row.append(payload[at : at + length].decode("utf-8", "replace"))
        at += length
    return row


def parse_error_fields(payload: bytes) -> ErrorFields:
    """The fields of an ErrorResponse or NoticeResponse.

    Tolerant, because it is read when something is wrong already: what is missing becomes "ERROR", "XX000" or "".
    """
    fields: dict[bytes, str] = {}
    for field in payload.split(b"\0"):
        fields.setdefault(field[:1], field[1:].decode("utf-8", "surrogateescape"))
    return ErrorFields(
        severity=fields.get(b"V") or fields.get(b"S") or "ERROR",  # V is never translated
        code=fields.get(b"C") or "XX000",
        message=fields.get(b"M", ""),
        detail=fields.get(b"D"),
        hint=fields.get(b"H"),
    )
