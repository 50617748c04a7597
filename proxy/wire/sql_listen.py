"""LISTEN and UNLISTEN, where a text consists of nothing else.

Owns: which channels such a text names, as the server will call them.
Does not know: who listens, sessions, what else SQL can say.
Source: manual, pages sql-listen, sql-unlisten; "Identifiers and Key Words" (sql-syntax-lexical), version 18.
"""

from enum import Enum
from typing import Final, NamedTuple

from proxy.wire.sql_tokens import Token, TokenKind, Unterminated, statements

MAX_CHANNEL_BYTES: Final = 63  # NAMEDATALEN - 1: the server cuts what is longer


class Verb(Enum):
    """The value is the tag of the CommandComplete."""

    LISTEN = "LISTEN"
    UNLISTEN = "UNLISTEN"
    UNLISTEN_ALL = "UNLISTEN *"

    @property
    def tag(self) -> str:
        return self.value.removesuffix(" *")


class ListenCommand(NamedTuple):
    """`channel` is the name in notifications, `spelled` how it is to be written in SQL; both empty for UNLISTEN *."""

    verb: Verb
    channel: bytes = b""
    spelled: bytes = b""
    is_cut: bool = False  # it was longer than a name may be


def listen_commands(sql: bytes, *, backslash_escapes: bool, is_utf8: bool) -> tuple[ListenCommand, ...] | None:
    """The statements of `sql`, or None where there is anything but LISTEN and UNLISTEN, or nothing at all.

    `is_utf8`: client and server both use UTF8. Otherwise a name that is not ASCII is not understood: in other encodings
    the server may fold its letters too, and cut it elsewhere.
    """
    if b"\0" in sql or not _is_readable(sql, is_utf8):
        return None
    try:
        commands = tuple(_command_or_none(one) for one in statements(sql, backslash_escapes))
    except Unterminated:
        return None
    found = tuple(one for one in commands if one is not None)
    return found if found and len(found) == len(commands) else None


def _is_readable(sql: bytes, is_utf8: bool) -> bool:
    if sql.isascii():
        return True
    if not is_utf8:
        return False
    try:
        sql.decode()
    except UnicodeDecodeError:
        return False
    return True


def _command_or_none(statement: list[Token]) -> ListenCommand | None:
    if len(statement) != 2 or not statement[0].is_word(b"listen", b"unlisten"):
        return None
    what = statement[1]
    verb = Verb.LISTEN if statement[0].text == b"listen" else Verb.UNLISTEN
    if what.is_sign(b"*"):
        return ListenCommand(Verb.UNLISTEN_ALL) if verb is Verb.UNLISTEN else None
    if what.kind not in (TokenKind.WORD, TokenKind.QUOTED) or not what.text:
        return None
    channel = cut_name(what.text)
    spelled = channel if what.kind is TokenKind.WORD else b'"' + channel.replace(b'"', b'""') + b'"'
    return ListenCommand(verb, channel, spelled, len(channel) < len(what.text))


def cut_name(name: bytes) -> bytes:
    """As the server cuts identifiers: never inside a character of UTF8."""
    if len(name) <= MAX_CHANNEL_BYTES:
        return name
    return name[:MAX_CHANNEL_BYTES].decode("utf-8", "ignore").encode()
