"""Tags in a comment of a statement, as SQLCommenter and what speaks its format put them there.

Owns: finding the comment that leads or ends a text, and reading one tag of it.
Does not know: what a tag means.
Source: SQLCommenter, "Specification": key='value', separated by commas, both percent-encoded, a quote in a value
behind a backslash; the comment stands behind the statement, and some write it in front.

Only these two places are looked at, and only comments of up to `MAX_COMMENT_BYTES`. What is no list of tags from its
beginning to its end is a comment like any other.
"""

import re
from typing import Final
from urllib.parse import unquote_to_bytes

MAX_COMMENT_BYTES: Final = 4096  # a W3C trace context alone may have 512 bytes of state, encoded

_BLANKS: Final = b" \t\r\n\f\v"
_BEHIND: Final = _BLANKS + b";"
# Possessive: what does not match fails in linear time.
_PAIR: Final = re.compile(rb"\s*+([^\s=',]++)\s*+=\s*+'((?:[^'\\]|\\.|'')*+)'\s*+(,?)", re.DOTALL)
_ESCAPED: Final = re.compile(rb"\\(.)|'(')", re.DOTALL)


def tag_or_none(sql: bytes, key: bytes, *, is_whole: bool = True) -> str | None:
    """The value of the tag `key`, in the comment behind the text where that has it, else in the one in front.

    `is_whole`: `sql` is all of the text, and not its beginning only.
    """
    for comment in (_comment_behind(sql) if is_whole else None, _comment_in_front(sql)):
        if comment is not None and (value := _value_or_none(comment, key)) is not None:
            return value
    return None


def _comment_in_front(sql: bytes) -> bytes | None:
    at = len(sql) - len(sql.lstrip(_BLANKS))
    if not sql.startswith(b"/*", at):
        return None
    end = sql.find(b"*/", at + 2, at + 4 + MAX_COMMENT_BYTES)
    return None if end < 0 else sql[at + 2 : end]


def _comment_behind(sql: bytes) -> bytes | None:
    """A text that ends with a string cannot be taken for it: that ends with a quote, or with a dollar sign."""
    end = len(sql.rstrip(_BEHIND))
    if not sql.endswith(b"*/", 0, end):
        return None
    at = sql.rfind(b"/*", max(0, end - 4 - MAX_COMMENT_BYTES), end - 2)
    return None if at < 0 else sql[at + 2 : end - 2]


def _value_or_none(comment: bytes, key: bytes) -> str | None:
    """None where there is no such tag, its value is no UTF-8, or this is no list of tags."""
    at, found, goes_on = 0, None, True
    while goes_on:
        pair = _PAIR.match(comment, at)
        if pair is None:
            return None
        if found is None and unquote_to_bytes(pair[1]) == key:
            found = pair[2]
        at, goes_on = pair.end(), bool(pair[3])
    if found is None or at != len(comment):
        return None
    try:
        return unquote_to_bytes(_ESCAPED.sub(rb"\1\2", found)).decode()
    except UnicodeDecodeError:
        return None
