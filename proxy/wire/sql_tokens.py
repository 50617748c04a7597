"""SQL cut into tokens and statements, as far as telling statements apart needs it.

Owns: where strings, comments, identifiers and statements begin and end.
Does not know: what a statement means (`sql`), grammar.
Source: manual, "Lexical Structure" (sql-syntax-lexical); scan.l of the server and psqlscan.l of psql.

Bytes are read as the server reads them in an encoding in which ASCII bytes mean themselves. Under SJIS, BIG5, GBK, UHC,
JOHAB or GB18030 as client_encoding the second byte of a character can look like a letter or a backslash; never like a
quote.
"""

import re
from collections.abc import Iterator
from enum import Enum
from typing import Final, NamedTuple


class TokenKind(Enum):
    """`WORD` is a keyword or identifier, in lower case; `QUOTED` an identifier in quotes, without them."""

    WORD = "word"
    QUOTED = "quoted"
    UNICODE_QUOTED = "unicode_quoted"
    STRING = "string"
    SIGN = "sign"
    OTHER = "other"


class Token(NamedTuple):
    """`text` of a STRING is what stands between plain quotes, and empty for the other spellings of strings."""

    kind: TokenKind
    text: bytes

    def is_word(self, *words: bytes) -> bool:
        return self.kind is TokenKind.WORD and self.text in words

    def is_sign(self, sign: bytes) -> bool:
        return self.kind is TokenKind.SIGN and self.text == sign


class Unterminated(Exception):  # noqa: N818 - a fact about the text
    """A string, quoted identifier or comment does not end: the server refuses the text, or it was misread here."""


_IDENTIFIER: Final = rb"[A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*+"
# Two strings with only blanks, comments and a newline between them are one, and the second keeps the first's escapes.
_GOES_ON: Final = rb"'(?:[ \t\f\v]|--[^\n\r]*+)*+[\n\r](?:[ \t\n\r\f\v]|--[^\n\r]*+[\n\r])*+'"
_ESCAPED: Final = rb"'[^'\\]*+(?:(?:\\.|''|" + _GOES_ON + rb")[^'\\]*+)*+'"
_STANDARD: Final = rb"'(?P<content>[^']*+(?:''[^']*+)*+)'"
# The order of alternatives decides. Quantifiers are possessive: a text that does not match fails in linear time.
_TEMPLATE: Final = (
    rb"(?P<blank>[ \t\n\r\f\v]++|--[^\n\r]*+)"
    rb"|(?P<escaped>[eE]" + _ESCAPED + rb"%(escaped)b)"
    rb'|(?P<unicode>[uU]&"[^"]*+(?:""[^"]*+)*+")'
    rb"|(?P<word>(?![eE]')" + _IDENTIFIER + rb")"
    rb'|(?P<quoted>"[^"]*+(?:""[^"]*+)*+")'
    rb"|(?P<standard>%(standard)b)"
    rb"|(?P<dollar>\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*+)?\$)"
    rb"|(?P<comment>/\*)"
    rb"|(?P<sign>[;(),.*=])"
    rb"|(?P<other>[0-9]++|[^'\"A-Za-z_\x80-\xff])"
)
_LEX: Final = re.compile(_TEMPLATE % {b"escaped": b"", b"standard": _STANDARD}, re.DOTALL)
_LEX_BACKSLASHES: Final = re.compile(
    _TEMPLATE % {b"escaped": b"|" + _ESCAPED, b"standard": b"(?P<content>(?!))"}, re.DOTALL
)
_COMMENT_EDGE: Final = re.compile(rb"/\*|\*/")


def tokens(sql: bytes, backslash_escapes: bool = False) -> Iterator[Token]:
    """The tokens of `sql` without blanks and comments, up to its first NUL. Linear in its length.

    `backslash_escapes`: standard_conforming_strings is off. Raises Unterminated.
    """
    lex = (_LEX_BACKSLASHES if backslash_escapes else _LEX).match
    position, end = 0, sql.find(b"\0")
    end = len(sql) if end < 0 else end
    while position < end:
        found = lex(sql, position, end)
        if found is None:
            raise Unterminated
        name, position = found.lastgroup, found.end()
        if name in _SKIPPED:
            position = _behind_comment(sql, position, end) if name == "comment" else position
        elif name == "dollar":
            position = _behind_dollar_quote(sql, found.group(), position, end)
            yield _NAMELESS_STRING
        else:
            yield _token(name or "", found)


_SKIPPED: Final = frozenset(("blank", "comment"))
_NAMELESS_STRING: Final = Token(TokenKind.STRING, b"")
_OTHER: Final = Token(TokenKind.OTHER, b"")
_SIGNS: Final = {sign: Token(TokenKind.SIGN, sign) for sign in (b";", b"(", b")", b",", b".", b"*", b"=")}
_SEMICOLON, _OPENING, _CLOSING = _SIGNS[b";"], _SIGNS[b"("], _SIGNS[b")"]
_BLOCK_WORDS: Final = frozenset({b"begin", b"case", b"end"})


def _token(name: str, found: "re.Match[bytes]") -> Token:
    if name == "word":
        return Token(TokenKind.WORD, found.group().lower())
    if name == "sign":
        return _SIGNS[found.group()]
    if name == "standard":
        return Token(TokenKind.STRING, found.group("content").replace(b"''", b"'"))
    if name == "quoted":
        return Token(TokenKind.QUOTED, found.group()[1:-1].replace(b'""', b'"'))
    if name == "unicode":
        return Token(TokenKind.UNICODE_QUOTED, b"")
    return _NAMELESS_STRING if name == "escaped" else _OTHER


def _behind_comment(sql: bytes, position: int, end: int) -> int:
    """The offset behind a comment whose first edge was read. Comments nest."""
    depth = 1
    while depth:
        edge = _COMMENT_EDGE.search(sql, position, end)
        if edge is None:
            raise Unterminated
        depth += 1 if edge.group() == b"/*" else -1
        position = edge.end()
    return position


def _behind_dollar_quote(sql: bytes, tag: bytes, position: int, end: int) -> int:
    closing = sql.find(tag, position, end)
    if closing < 0:
        raise Unterminated
    return closing + len(tag)


def statements(sql: bytes, backslash_escapes: bool = False) -> Iterator[list[Token]]:
    """The statements of `sql`, each as its tokens without the semicolon; empty ones are left out. Raises Unterminated.

    A semicolon ends no statement inside parentheses (CREATE RULE) nor in the body of a CREATE FUNCTION or PROCEDURE
    between BEGIN ATOMIC and its END, which are told as psql tells them.
    """
    statement: list[Token] = []
    parentheses = blocks = 0
    for token in tokens(sql, backslash_escapes):
        if token is _SEMICOLON and parentheses <= 0 and blocks == 0:
            if statement:
                yield statement
            statement, parentheses = [], 0
            continue
        if token is _OPENING:
            parentheses += 1
        elif token is _CLOSING:
            parentheses -= 1
        elif token.text in _BLOCK_WORDS and parentheses <= 0:
            blocks += _opens_or_closes_block(statement, token, blocks)
        statement.append(token)
    if statement:
        yield statement


def _opens_or_closes_block(statement: list[Token], token: Token, blocks: int) -> int:
    if token.kind is not TokenKind.WORD:
        return 0
    if token.text == b"begin":
        return int(_defines_routine(statement))
    if blocks:
        return 1 if token.text == b"case" else -1
    return 0


def _defines_routine(statement: list[Token]) -> bool:
    words = [token.text for token in statement[:4] if token.kind is TokenKind.WORD]
    if words[1:3] == [b"or", b"replace"]:
        del words[1:3]
    return words[:1] == [b"create"] and words[1:2] in ([b"function"], [b"procedure"])
