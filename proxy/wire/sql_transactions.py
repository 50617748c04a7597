"""What a text of SQL does to the transaction it meets.

Owns: which statements open and which end a transaction.
Does not know: the state of any transaction; whether a statement succeeds.
Source: manual, pages sql-begin, sql-start-transaction, sql-commit, sql-end, sql-rollback, sql-abort,
sql-prepare-transaction, sql-rollback-to; "Multiple Statements in a Simple Query" (protocol-flow), version 18.
"""

from dataclasses import dataclass
from typing import Final

from proxy.wire.sql_tokens import Token, TokenKind, Unterminated, statements

_ENDS: Final = frozenset({"COMMIT", "ROLLBACK", "PREPARE TRANSACTION"})
_ENDS_AND_OPENS: Final = frozenset({"COMMIT AND CHAIN", "ROLLBACK AND CHAIN"})
_SYNONYMS: Final = {"END": "COMMIT", "ABORT": "ROLLBACK"}


@dataclass(frozen=True, slots=True)
class TransactionEffect:
    """`opens`: the text, run to its end, leaves a transaction open that it opened or chained. `ends`: it ends one.

    `statements` are their first words in capitals, spelt one way: BEGIN (also for START TRANSACTION), COMMIT (END),
    ROLLBACK (ABORT), "ROLLBACK TO", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN", "PREPARE TRANSACTION",
    "COMMIT PREPARED", "ROLLBACK PREPARED"; "" for one that begins with no word. A text that cannot be read to its end,
    which the server refuses as a whole, has one statement, "", and does nothing.
    """

    statements: tuple[str, ...]
    opens: bool
    ends: bool

    @property
    def first_ends(self) -> bool:
        """The first statement is one that a failed transaction block accepts, and leaves no transaction behind."""
        return bool(self.statements) and self.statements[0] in _ENDS


def transaction_effect(sql: bytes, backslash_escapes: bool = False) -> TransactionEffect:
    """What `sql`, one statement or several, does to transactions should all of it succeed."""
    try:
        words = tuple(transaction_word(statement) for statement in statements(sql, backslash_escapes))
    except Unterminated:
        return TransactionEffect(("",), opens=False, ends=False)
    is_open = False
    for word in words:
        if word == "BEGIN" or word in _ENDS_AND_OPENS:
            is_open = True
        elif word in _ENDS:
            is_open = False
    return TransactionEffect(words, is_open, any(word in _ENDS or word in _ENDS_AND_OPENS for word in words))


def transaction_word(statement: list[Token]) -> str:
    """The first word of a statement, as in `TransactionEffect.statements`."""
    words = [token.text.decode("ascii", "replace").upper() for token in statement[:5] if token.kind is TokenKind.WORD]
    if not words or statement[0].kind is not TokenKind.WORD:
        return ""
    first = _SYNONYMS.get(words[0], words[0])
    behind = [word for word in words[1:] if word not in ("WORK", "TRANSACTION")]
    if first in ("COMMIT", "ROLLBACK"):
        return _ending(first, behind)
    if first == "START" and words[1:2] == ["TRANSACTION"]:
        return "BEGIN"
    if first == "PREPARE" and len(statement) == 3 and words[1:] == ["TRANSACTION"]:
        return "PREPARE TRANSACTION"
    return first


def _ending(first: str, behind: list[str]) -> str:
    if behind[:2] == ["AND", "CHAIN"]:
        return f"{first} AND CHAIN"
    if behind[:1] == ["PREPARED"] or (first == "ROLLBACK" and behind[:1] == ["TO"]):
        return f"{first} {behind[0]}"
    return first
