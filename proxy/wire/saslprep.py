"""The form of a password that SCRAM hashes.

Owns: SASLprep, with the server's way out where a password has no such form.
Does not know: SCRAM.
Source: RFC 4013 (SASLprep), RFC 3454 (stringprep); pg_saslprep() of the server's common/saslprep.c.
"""

import stringprep
import unicodedata
from collections.abc import Callable
from typing import Final

_PROHIBITED: Final[tuple[Callable[[str], bool], ...]] = (
    stringprep.in_table_a1,  # unassigned in Unicode 3.2
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def prepare_password(password: str) -> bytes:
    """The bytes of `password` that are hashed: its SASLprep form, or its raw bytes where it has none.

    Plain ASCII is its own form. Bytes that are no UTF-8 come as surrogate escapes and stay as they are.
    """
    if not password.isascii():
        password = _saslprep_or_none(password) or password
    return password.encode("utf-8", "surrogateescape")


def _saslprep_or_none(password: str) -> str | None:
    mapped = "".join(
        " " if stringprep.in_table_c12(character) else character
        for character in password
        if not stringprep.in_table_b1(character)
    )
    prepared = unicodedata.normalize("NFKC", mapped)
    if any(prohibits(character) for character in prepared for prohibits in _PROHIBITED):
        return None
    return prepared if _is_of_one_direction(prepared) else None


def _is_of_one_direction(prepared: str) -> bool:
    """RFC 3454, section 6: right-to-left text begins and ends so, and holds no left-to-right character."""
    right_to_left = [stringprep.in_table_d1(character) for character in prepared]
    if not any(right_to_left):
        return True
    return right_to_left[0] and right_to_left[-1] and not any(map(stringprep.in_table_d2, prepared))
