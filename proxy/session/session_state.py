"""What a client has left in its session that another one must not find.

Owns: why its server connection is pinned, which answer may end that, what of its own a RESET takes away, and which
parameters it may have changed without the server's reporting it.
Does not know: whether a pin is allowed, slots, when the client is sent anything.

A SET of a parameter that the server does not report does not pin. When its transaction is over the server is asked what
the parameter is now: a SET may have failed, been rolled back, or have meant the default. From then on it follows the
client as any other does.
"""

from collections.abc import Mapping
from typing import Final

from proxy.session.examination import Examination
from proxy.session.parameters import Settings, SettingsTable, apply_sql, difference, question
from proxy.session.server import FAILED_STATUS, IDLE_STATUS, ServerConnection
from proxy.wire import messages
from proxy.wire.messages import ErrorFields
from proxy.wire.sql import PLAIN, PinReason, SqlFacts

NO_PINS: Final[frozenset[PinReason]] = frozenset()
_NO_NAMES: Final[frozenset[str]] = frozenset()
# Not known, not to be changed, not to be changed by this user: nobody has changed it in this session.
_CANNOT_BE_SET: Final = frozenset({"42704", "42602", "55P02", "42501"})
_MAX_FOLLOWED_CHARACTERS: Final = 4096  # of one value: it is sent again whenever the connection changes


class SessionState:
    """Of one client, from the first statement on that leaves something behind. `own` are its startup parameters.

    `unsure` are parameters that may have changed; `asked` those of which the server has been asked, in order.
    `ignored`: what is left behind has to be discarded before anybody else gets the connection; `was_discarded`: it has
    been, and the connection's settings are not the client's any more.
    """

    __slots__ = (
        "_clears",
        "_own",
        "_reset",
        "_singly",
        "asked",
        "failure",
        "ignored",
        "pins",
        "unsure",
        "was_discarded",
    )

    def __init__(self, own: Mapping[str, str]) -> None:
        self.pins = NO_PINS
        self.unsure = _NO_NAMES
        self.asked: list[str] = []
        self.failure: ErrorFields | None = None  # of the question
        self._singly = False  # one of several cannot be asked for, and nobody knows which
        self.ignored = False
        self.was_discarded = False
        self._own = own
        self._clears: SqlFacts = PLAIN
        self._reset: frozenset[str] = frozenset()  # own startup parameters that a RESET under way takes away

    @property
    def is_dirty(self) -> bool:
        """Its connection is not as it is said to be."""
        return bool(self.pins or self.unsure or self.asked or self.ignored)

    @property
    def is_to_be_settled(self) -> bool:
        """Before its connection is anybody else's, the server is to be asked, or told to discard."""
        return bool(self.unsure or self.ignored)

    def changed(self, seen: Examination, table: SettingsTable, *settings: Settings) -> None:
        """A statement has been sent that changes parameters; `settings` are those that it may have found."""
        self.unsure |= seen.sets
        if seen.changes_parameters:
            self.unsure |= {name for one in settings for name in one.values if not table.is_reported(name)}

    def ask(self) -> str:
        """The query that tells what became of them."""
        self.asked, self.failure = sorted(self.unsure), None
        if self._singly:
            del self.asked[1:]
        self.unsure -= frozenset(self.asked)
        self._singly = self._singly and bool(self.unsure)
        return question(self.asked)

    def learn(self, server: ServerConnection, table: SettingsTable) -> bool:
        """What the server has told. False: this cannot be followed."""
        names, self.asked = self.asked, []
        rows = server.injected.take_rows()
        if self.failure is not None and self.failure.code in _CANNOT_BE_SET and len(rows) == 1:
            if len(names) > 1:
                self.unsure, self._singly = self.unsure | frozenset(names), True
            return True
        if [len(row) for row in rows] != [len(names), len(names)]:
            return False
        values = {name: value for name, value in server.settings.values.items() if name not in names}
        for name, now, default in zip(names, *rows, strict=True):
            if now is None or now == default:
                continue
            if not now.isascii() or len(now) > _MAX_FOLLOWED_CHARACTERS:
                return False
            values[name] = now
            table.accept(name, now, now)
        server.settings = table.intern(values)
        return True

    @property
    def is_resetting(self) -> bool:
        """What a RESET took has still to be brought back."""
        return bool(self._reset)

    def expect(self, server: ServerConnection, seen: Examination) -> None:
        """Once it is answered, pins may go, and what a RESET took of the client's startup parameters comes back."""
        found, own = seen.clearing, frozenset(self._own)
        if server.owes_only_ours and len(seen.awaited) == 1 and seen.whole:
            self._clears = found
            server.tells_ready = True
        if found.resets_parameters or found.resets & own:
            self._reset |= own if found.resets_parameters else found.resets & own
            server.tells_ready = True

    def lost_its_last_pin(self, server: ServerConnection, failed: bool) -> bool:
        """What was to clear is answered. Whether there were pins and there are none now."""
        found, self._clears = self._clears, PLAIN
        if not (self.pins and found.clears) or failed or server.last_status != IDLE_STATUS:
            return False
        self.pins -= found.clears
        return not self.pins

    def bring_back_startup_parameters(self, server: ServerConnection, table: SettingsTable) -> bytes:
        """RESET must bring back what the client started with, not what the server connection was dialled with.

        The SETs are sent, if it is time for them; returns what the client is to be told of them.
        """
        # Nothing can be sent ahead of what is under way already, and nothing succeeds in a failed transaction.
        if not self._reset or server.awaiting or server.last_status == FAILED_STATUS:
            return b""
        names, self._reset = self._reset, frozenset()
        own = table.settings_or_none(self._own)
        if own is None:
            server.retire_at = 0.0
            return b""
        # What the server does not report it has lost now, and this connection must not go on under that name.
        kept = {n: v for n, v in server.settings.values.items() if table.is_reported(n) or n not in names}
        server.settings = table.intern(kept)
        neutral = table.neutral.values
        lost = {name: own.values[name] for name in names if kept.get(name) == neutral.get(name)}
        want = table.intern({**kept, **lost})
        changes = difference(server.settings, want)
        if not changes:
            return b""
        in_block = server.last_status != IDLE_STATUS
        server.transport.write(server.inject(apply_sql(changes, in_block=in_block), want=want))
        return b"".join(
            messages.parameter_status(name, lost[name.lower()])
            for name in table.reported
            if lost.get(name.lower(), kept.get(name.lower())) != kept.get(name.lower())
        )
