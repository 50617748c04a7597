"""What statements leave in a session, statement by statement.

Owns: the reasons to pin, and the tables of what pins and what clears.
Does not know: how text is cut into statements (`sql_tokens`), what is done about a pin, grammar beyond a few words.
Source: manual, "SQL Commands" (sql-commands), pages sql-set, sql-reset, sql-discard, sql-listen, sql-prepare,
sql-declare, sql-createtable; "System Administration Functions" (functions-admin), version 18.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import Final

from proxy.wire.sql_listen import cut_name
from proxy.wire.sql_tokens import Token, TokenKind
from proxy.wire.sql_transactions import transaction_word


class PinReason(Enum):
    """The session state that another client must not meet."""

    LISTEN = "listen"
    TEMPORARY_TABLE = "temporary_table"
    ADVISORY_LOCK = "advisory_lock"
    PREPARE = "prepare"
    WITH_HOLD_CURSOR = "with_hold_cursor"
    SET = "set"
    SET_CONFIG = "set_config"
    SET_ROLE = "set_role"
    SESSION_AUTHORIZATION = "session_authorization"
    LOAD = "load"
    SESSION_FUNCTION = "session_function"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class SqlFacts:
    """What a text does to the session, should it succeed.

    `pin` is the first thing in it that cannot be followed, `further_pins` are the others, `pins` all of them. `clears`
    is what would be gone after it: nothing that the same text sets again behind, nothing that it rolls back.
    `resets_parameters`: RESET ALL or DISCARD ALL. `resets` are parameters set back one by one, lower case. `sets` are
    parameters that it may leave changed for the session without the server's reporting it, lower case: what they are
    then has to be asked for. `sets_parameters`: SET, SET LOCAL, RESET or set_config() stands in it, also where nothing
    is left of that. `deallocates` is the name in a text that is one DEALLOCATE of one statement. `unlistens` are
    channels left one by one.
    """

    pin: PinReason | None = None
    clears: frozenset[PinReason] = frozenset()
    resets_parameters: bool = False
    further_pins: frozenset[PinReason] = frozenset()
    resets: frozenset[str] = frozenset()
    sets: frozenset[str] = frozenset()
    sets_parameters: bool = False
    deallocates: bytes | None = None
    unlistens: frozenset[bytes] = frozenset()

    @property
    def changes_parameters(self) -> bool:
        """RESET in any form."""
        return self.resets_parameters or bool(self.resets)

    @property
    def pins(self) -> frozenset[PinReason]:
        return self.further_pins if self.pin is None else self.further_pins | {self.pin}


PLAIN: Final = SqlFacts()
"""Returned, the very object, for a text that means nothing to sharing."""

FOLLOWED_PARAMETERS: Final = frozenset(
    {
        "application_name",
        "client_encoding",
        "datestyle",
        "default_transaction_read_only",
        "intervalstyle",
        "scram_iterations",
        "standard_conforming_strings",
        "timezone",
    }
)
"""Settable by anyone, and reported by ParameterStatus in every version that has them. Lower case."""

NEVER_CLEARED: Final = frozenset({PinReason.LOAD, PinReason.SESSION_FUNCTION, PinReason.UNKNOWN})
"""Nothing unloads a library; DISCARD ALL ends no backup, drops no temporary slot, closes no connection of dblink."""

_ALL_CLEARED: Final = frozenset(PinReason) - NEVER_CLEARED
_PARAMETERS: Final = frozenset({PinReason.SET, PinReason.SET_CONFIG})

_SESSION_FUNCTIONS: Final[Mapping[bytes, PinReason]] = {
    b"pg_advisory_lock": PinReason.ADVISORY_LOCK,
    b"pg_advisory_lock_shared": PinReason.ADVISORY_LOCK,
    b"pg_try_advisory_lock": PinReason.ADVISORY_LOCK,
    b"pg_try_advisory_lock_shared": PinReason.ADVISORY_LOCK,
    b"dblink_connect": PinReason.SESSION_FUNCTION,
    b"dblink_connect_u": PinReason.SESSION_FUNCTION,
    b"pg_backup_start": PinReason.SESSION_FUNCTION,
    b"pg_start_backup": PinReason.SESSION_FUNCTION,
    b"pg_create_logical_replication_slot": PinReason.SESSION_FUNCTION,  # may be a temporary slot
    b"pg_create_physical_replication_slot": PinReason.SESSION_FUNCTION,
    b"pg_copy_logical_replication_slot": PinReason.SESSION_FUNCTION,
    b"pg_copy_physical_replication_slot": PinReason.SESSION_FUNCTION,
    b"pg_replication_origin_session_setup": PinReason.SESSION_FUNCTION,
}


class Inspection:
    """Collects over the statements of one text: `take` each, then ask for `facts`."""

    def __init__(self, followed: frozenset[str]) -> None:
        self._followed = followed
        self._pins: dict[PinReason, None] = {}
        self._clears: frozenset[PinReason] = frozenset()
        self._resets_parameters = False
        self._resets: frozenset[str] = frozenset()
        self._sets: frozenset[str] = frozenset()
        self._sets_parameters = False
        self._deallocates: bytes | None = None
        self._count = 0
        self._unlistens: frozenset[bytes] = frozenset()
        self._kept = (self._clears, self._resets_parameters, self._resets, self._unlistens)

    def facts(self) -> SqlFacts:
        pins = list(self._pins)
        first = pins[0] if pins else None
        found = SqlFacts(
            first,
            self._clears,
            self._resets_parameters,
            frozenset(pins[1:]),
            self._resets,
            self._sets,
            self._sets_parameters,
            self._deallocates if self._count == 1 else None,
            self._unlistens,
        )
        return PLAIN if found == PLAIN else found

    def pin(self, reason: PinReason) -> None:
        self._pins[reason] = None
        self._clears -= {reason}

    def take(self, statement: list[Token]) -> None:
        self._count += 1
        handler = _STATEMENTS.get(statement[0].text) if statement[0].kind is TokenKind.WORD else None
        if handler is not None:
            handler(self, statement)
        self._look_everywhere(statement)
        self._follow_transaction(transaction_word(statement))

    def _follow_transaction(self, word: str) -> None:
        """What a transaction cleared is not cleared once it is rolled back."""
        if word in ("COMMIT", "COMMIT AND CHAIN"):
            self._kept = (self._clears, self._resets_parameters, self._resets, self._unlistens)
        elif word.startswith("ROLLBACK"):
            self._clears, self._resets_parameters, self._resets, self._unlistens = self._kept

    # -- by the first word -------------------------------------------------------------------------------------------

    def _set(self, statement: list[Token]) -> None:
        words = statement[1:]
        if words and words[0].is_word(b"constraints", b"transaction"):
            return
        self._sets_parameters = True
        if words and words[0].is_word(b"local"):
            return
        if words and words[0].is_word(b"session"):
            del words[0]
        for spelling, parameters in _SET_SPELLINGS:
            if _begins(words, spelling):
                self._sets |= parameters - self._followed
                return
        for spelling, reason in _PINNING_SPELLINGS:
            if _begins(words, spelling):
                self._set_spelt(words[len(spelling) :], reason)
                return
        name, value = _parameter_name(words)
        self._resets |= {name} if _is_default(value) else set()
        self._change(name, value, PinReason.SET)

    def _change(self, name: str, value: list[Token], reason: PinReason) -> None:
        """A parameter changes for the session: the server reports it, or can be asked, or nobody can know."""
        if name in _OF_ONE_TRANSACTION:
            return
        if name in _PINNING_PARAMETERS:
            self.pin(_PINNING_PARAMETERS[name])
        elif _may_name_temporary_schema(name, value) or not _ASKABLE.match(name):
            self.pin(reason)
        elif name not in self._followed:
            self._sets |= {name}

    def _set_spelt(self, value: list[Token], reason: PinReason) -> None:
        if reason is PinReason.SESSION_AUTHORIZATION and _begins(value, (b"default",)):
            self._clear({reason})
        else:
            self.pin(reason)

    def _reset(self, statement: list[Token]) -> None:
        self._sets_parameters = True
        words = statement[1:]
        if _begins(words, (b"all",)):
            self._clear(_PARAMETERS)
            self._resets_parameters = True
            return
        if _begins(words, (b"session", b"authorization")):
            self._clear({PinReason.SESSION_AUTHORIZATION})
            return
        name, _ = _parameter_name(words)
        if name in _PINNING_PARAMETERS:
            self._clear({_PINNING_PARAMETERS[name]})
        elif name not in _OF_ONE_TRANSACTION:  # one that is not followed may still stand in the client's startup packet
            self._resets |= {name}
            self._change(name, [], PinReason.SET)

    def _discard(self, statement: list[Token]) -> None:
        if _begins(statement[1:], (b"all",)):
            self._clear(_ALL_CLEARED)
            self._resets_parameters = True
        elif _begins(statement[1:], (b"temp",)) or _begins(statement[1:], (b"temporary",)):
            self._clear({PinReason.TEMPORARY_TABLE})

    def _listen(self, statement: list[Token]) -> None:
        self.pin(PinReason.LISTEN)
        self._unlistens -= {cut_name(token.text) for token in statement[1:]}

    def _unlisten(self, statement: list[Token]) -> None:
        if len(statement) > 1 and statement[1].is_sign(b"*"):
            self._clear({PinReason.LISTEN})
        else:
            self._unlistens |= {cut_name(token.text) for token in statement[1:]}

    def _load(self, _statement: list[Token]) -> None:
        self.pin(PinReason.LOAD)

    def _prepare(self, statement: list[Token]) -> None:
        if not _begins(statement[1:], (b"transaction",)) or len(statement) != 3:
            self.pin(PinReason.PREPARE)

    def _deallocate(self, statement: list[Token]) -> None:
        words = statement[2:] if _begins(statement[1:], (b"prepare",)) and len(statement) > 2 else statement[1:]
        if _begins(words, (b"all",)):
            self._clear({PinReason.PREPARE})
        elif len(words) == 1 and words[0].kind in (TokenKind.WORD, TokenKind.QUOTED):
            self._deallocates = words[0].text

    def _declare(self, statement: list[Token]) -> None:
        if any(one.is_word(b"with") and next_.is_word(b"hold") for one, next_ in pairwise(statement)):
            self.pin(PinReason.WITH_HOLD_CURSOR)

    def _close(self, statement: list[Token]) -> None:
        if _begins(statement[1:], (b"all",)):
            self._clear({PinReason.WITH_HOLD_CURSOR})

    def _clear(self, reasons: Iterable[PinReason]) -> None:
        self._clears |= frozenset(reasons)

    # -- by what stands anywhere -------------------------------------------------------------------------------------

    def _look_everywhere(self, statement: list[Token]) -> None:
        if _begins(statement, (b"select",)) and statement[1:] in (_UNLOCKS_ALL, _SCHEMA + _UNLOCKS_ALL):
            self._clear({PinReason.ADVISORY_LOCK})
        for index, (token, behind) in enumerate(pairwise(statement)):
            if behind.text not in _TELLING or token.kind is TokenKind.OTHER or token.kind is TokenKind.SIGN:
                continue
            if behind.is_sign(b"("):
                self._call(token, statement, index)
            elif _makes_temporary(statement, index):
                self.pin(PinReason.TEMPORARY_TABLE)

    def _call(self, function: Token, statement: list[Token], index: int) -> None:
        if function.kind is TokenKind.UNICODE_QUOTED:
            self.pin(PinReason.UNKNOWN)  # its escapes are not read here, so it can be any function
        elif function.kind is not TokenKind.STRING:
            reason = _SESSION_FUNCTIONS.get(function.text)
            if reason is not None:
                self.pin(reason)
            elif function.text == b"set_config":
                self._sets_parameters = True
                self._set_config(statement[index + 2 : index + 2 + _MAX_ARGUMENT_TOKENS])

    def _set_config(self, behind: list[Token]) -> None:
        """`behind` are the arguments of set_config(name, value, is_local)."""
        name, value, local = _three_arguments(behind)
        if len(local) == 1 and local[0].is_word(b"true"):
            return
        if len(name) != 1 or name[0].kind is not TokenKind.STRING or not name[0].text:
            self.pin(PinReason.SET_CONFIG)
        else:
            self._change(name[0].text.decode("utf-8", "replace").lower(), value, PinReason.SET_CONFIG)


_SET_SPELLINGS: Final[tuple[tuple[tuple[bytes, ...], frozenset[str]], ...]] = (
    (
        (b"characteristics",),
        frozenset({"default_transaction_deferrable", "default_transaction_isolation", "default_transaction_read_only"}),
    ),
    ((b"xml", b"option"), frozenset({"xmloption"})),
)
_PINNING_SPELLINGS: Final = (
    ((b"authorization",), PinReason.SESSION_AUTHORIZATION),
    ((b"role",), PinReason.SET_ROLE),
    ((b"seed",), PinReason.SET),
)
# A name that means the same in current_setting(); and no parameter that has no value, as the seed of random().
_ASKABLE: Final = re.compile(r"(?!seed\Z)[a-z_][a-z0-9_$]*(?:\.[a-z_][a-z0-9_$]*)*\Z")
_PINNING_PARAMETERS: Final = {
    "role": PinReason.SET_ROLE,
    "session_authorization": PinReason.SESSION_AUTHORIZATION,
}
_OF_ONE_TRANSACTION: Final = frozenset({"transaction_isolation", "transaction_read_only", "transaction_deferrable"})

_STATEMENTS: Final[Mapping[bytes, Callable[[Inspection, list[Token]], None]]] = {
    b"close": Inspection._close,
    b"deallocate": Inspection._deallocate,
    b"declare": Inspection._declare,
    b"discard": Inspection._discard,
    b"listen": Inspection._listen,
    b"load": Inspection._load,
    b"prepare": Inspection._prepare,
    b"reset": Inspection._reset,
    b"set": Inspection._set,
    b"unlisten": Inspection._unlisten,
}

_SCHEMA: Final = [Token(TokenKind.WORD, b"pg_catalog"), Token(TokenKind.SIGN, b".")]
_UNLOCKS_ALL: Final = [
    Token(TokenKind.WORD, b"pg_advisory_unlock_all"),
    Token(TokenKind.SIGN, b"("),
    Token(TokenKind.SIGN, b")"),
]
_TEMPORARY_SCHEMA: Final = b"pg_temp"
_TELLING: Final = frozenset({b"(", b".", b"temp", b"temporary"})  # what stands behind a word that matters
_MAX_ARGUMENT_TOKENS: Final = 100  # calls can be nested as deep as a text is long; longer arguments are not understood


def _begins(tokens: list[Token], words: tuple[bytes, ...]) -> bool:
    return len(tokens) >= len(words) and all(token.is_word(word) for token, word in zip(tokens, words, strict=False))


def _parameter_name(tokens: list[Token]) -> tuple[str, list[Token]]:
    """The parameter that SET or RESET names, in lower case, and the tokens of its value."""
    for spelling, name in _SPELLED_PARAMETERS:
        if _begins(tokens, spelling):
            return name, tokens[len(spelling) :]
    length = 1
    while len(tokens) > length + 1 and tokens[length].is_sign(b"."):
        length += 2
    name = b"".join(token.text for token in tokens[:length]).decode("utf-8", "replace").lower()
    return name, tokens[length + 1 :]  # behind "=" or TO


_SPELLED_PARAMETERS: Final = (
    ((b"time", b"zone"), "timezone"),
    ((b"names",), "client_encoding"),
    ((b"schema",), "search_path"),
)


def _is_default(value: list[Token]) -> bool:
    """SET x TO DEFAULT, SET NAMES without a name, SET TIME ZONE LOCAL."""
    return not value or (len(value) == 1 and value[0].is_word(b"default", b"local"))


def _may_name_temporary_schema(parameter: str, value: list[Token]) -> bool:
    """A search_path with pg_temp in it makes tables temporary that do not say so. What cannot be read may name it."""
    if parameter != "search_path":
        return False
    readable = (TokenKind.WORD, TokenKind.QUOTED, TokenKind.STRING)
    names = [token for token in value if not token.is_sign(b",")]
    return any(not name.text or name.kind not in readable or _TEMPORARY_SCHEMA in name.text for name in names)


def _makes_temporary(statement: list[Token], index: int) -> bool:
    """The token at `index` and the next name the temporary schema, or announce a temporary object with TEMP."""
    token, behind = statement[index : index + 2]
    if behind.is_sign(b"."):
        return token.text.startswith(_TEMPORARY_SCHEMA)
    if not behind.is_word(b"temp", b"temporary"):
        return False
    if token.is_word(b"into"):  # INSERT INTO temp is a table of that name
        return index == 0 or not statement[index - 1].is_word(b"insert", b"merge")
    return token.is_word(b"create", b"replace", b"local", b"global")


def _three_arguments(behind: list[Token]) -> tuple[list[Token], list[Token], list[Token]]:
    """The arguments of a call from behind its opening parenthesis; empty where there are not three."""
    arguments: list[list[Token]] = [[]]
    depth = 0
    for token in behind:
        depth += token.is_sign(b"(") - token.is_sign(b")")
        if depth < 0:
            break
        if depth == 0 and token.is_sign(b","):
            arguments.append([])
        else:
            arguments[-1].append(token)
    return (arguments[0], arguments[1], arguments[2]) if len(arguments) == 3 else ([], [], [])
