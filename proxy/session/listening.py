"""One client that listens over the shared connection of its database.

Owns: its channels, its LISTEN and UNLISTEN that are not answered yet, what it has still to be told.
Does not know: the shared connection (`listen_hub`), how units are read (`listen_units`).

A client is told only between its units of work, as a server would: what comes in the middle of one, or while the client
does not read, is kept up to a bound. Beyond it notifications are dropped, counted, and the client is told so.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from proxy.session import refusals
from proxy.session.examination import Dialect, Examination
from proxy.session.listen_hub import ListenHub
from proxy.session.listen_units import ListenUnit, TextOf, read_unit, text_after
from proxy.session.server import IDLE_STATUS, ServerConnection
from proxy.wire import messages, prefilter
from proxy.wire.framing import Fact
from proxy.wire.messages import ErrorFields
from proxy.wire.sql import PLAIN, PinReason, SqlFacts
from proxy.wire.sql_listen import ListenCommand, Verb, listen_commands

if TYPE_CHECKING:
    from proxy.session.client import ClientConnection
    from proxy.session.upstream import Upstream

_MAX_UNITS: Final = 100  # answered in one go; what a client has sent behind them is looked at again


def takes(
    client: "ClientConnection",
    upstream: "Upstream",
    buffer: bytes,
    facts: Sequence[Fact],
    seen: Examination,
    dialect: Dialect,
) -> bool:
    """An idle client has sent `buffer`. True: it begins with LISTEN or UNLISTEN, which are answered without a slot."""
    listening = client.listening
    if listening is None:
        if not (seen.parses_listen or PinReason.LISTEN in seen.pins) or not upstream.listen_hubs.is_on:
            return False
        listening = Listening(client, upstream)
    return listening.takes(buffer, facts, dialect)


class Listening:
    """Of one client, from its first LISTEN on."""

    __slots__ = (
        "_answered_up_to",
        "_backslash_escapes",
        "_clearing",
        "_client",
        "_desk",
        "_dropped",
        "_hub",
        "_joining",
        "_timer",
        "_units",
        "_untold",
        "_untold_bytes",
        "_upstream",
        "channels",
    )

    def __init__(self, client: "ClientConnection", upstream: "Upstream") -> None:
        self.channels: set[bytes] = set()  # those whose LISTEN was answered
        self._client = client
        self._desk = upstream.desk
        self._upstream = upstream
        self._backslash_escapes = False
        self._hub: ListenHub | None = None
        self._units: deque[ListenUnit] | None = None  # to be answered; None where nothing is asked
        self._joining: set[bytes] = set()
        self._answered_up_to = 0
        self._timer: asyncio.TimerHandle | None = None
        self._clearing: SqlFacts = PLAIN
        self._untold: list[bytes] = []
        self._untold_bytes = 0
        self._dropped = 0

    # -- what the client sends ----------------------------------------------------------------------------------------

    def takes(self, buffer: bytes, facts: Sequence[Fact], dialect: Dialect) -> bool:
        self._backslash_escapes = dialect.backslash_escapes
        units = self._read(buffer)
        if units is None:
            return False
        self._client.listening = self
        self._client.keep_unit(buffer, facts, is_whole=bool(units))
        if units:
            self._units = deque(units)
            self._answered_up_to = 0
            self._go_on()
        return True

    def _read(self, buffer: bytes) -> list[ListenUnit] | None:
        """The units at the beginning of `buffer`, none where the first is not whole yet; None where it is not ours."""
        text_of: TextOf = self._client.statement_text
        units: list[ListenUnit] = []
        at = 0
        while at < len(buffer) and len(units) < _MAX_UNITS:
            unit = read_unit(buffer, at, self._read_sql, text_of)
            if unit is None or not self._may_take(unit):
                return units or None
            if not unit.end:
                break  # the rest of it is on its way
            units.append(unit)
            text_of = text_after(unit, text_of)
            at = unit.end
        return units

    def _may_take(self, unit: ListenUnit) -> bool:
        added = sum(len(name) + len(tail) for name, tail in unit.parsed.items() if name and tail is not None)
        is_sharable = self._may_share() or not unit.names_listen
        return is_sharable and (not added or self._client.has_room_for_statements(added))

    def _read_sql(self, sql: bytes) -> tuple[ListenCommand, ...] | None:
        if not prefilter.may_matter(sql, self._backslash_escapes):
            return None  # nearly every statement of a client that also works
        is_utf8 = self._encodings() == ("UTF8", "UTF8")
        return listen_commands(sql, backslash_escapes=self._backslash_escapes, is_utf8=is_utf8)

    def _encodings(self) -> tuple[str, str]:
        """Of the client and of the server."""
        client = self._client
        own = client.settings.values.get("client_encoding", "") if client.settings is not None else ""
        return own.upper(), client.pool.table.reported.get("server_encoding", "").upper()

    def _may_share(self) -> bool:
        """The shared connection speaks UTF8, and what it hears is handed on as it is."""
        own, server = self._encodings()
        return own == "UTF8" or (own == "SQL_ASCII" and server in ("UTF8", "SQL_ASCII"))

    # -- one unit after the other -------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        while self._units:
            if not self._begin(self._units[0]):
                return
            self._answer()
        self._over(None)

    def _begin(self, unit: ListenUnit) -> bool:
        """False: the hub has to confirm it first, or it was given to somebody else."""
        wanted = _after(self.channels, unit.commands)
        new = [one for one in unit.commands if one.verb is Verb.LISTEN and one.channel in wanted - self.channels]
        if not unit.names_listen:
            return True
        hub = self._hub or self._upstream.listen_hubs.hub_or_none(self._client.pool.database)
        if hub is None:
            self._cannot_share()
            return False
        self._hub = hub
        self._joining = {one.channel for one in new}
        if hub.join(self, new):
            return True
        if self._timer is None:
            seconds = self._desk.queue_timeout(self._client.class_name)
            self._timer = self._desk.loop.call_later(seconds, self._timeout, seconds)
        return False

    def _answer(self) -> None:
        assert self._units, "the first unit is done"
        unit = self._units.popleft()
        wanted = _after(self.channels, unit.commands)
        left, self.channels = (self.channels | self._joining) - wanted, wanted
        self._joining = set()
        self._leave(left)
        self._define(unit)
        self._client.transport.write(unit.answer)
        self._answered_up_to = unit.end

    def _define(self, unit: ListenUnit) -> None:
        client = self._client
        for name, tail in unit.parsed.items():
            if tail is not None:
                client.define_statement(name, tail)
            elif name:
                client.close_statement(name)
            else:
                client.forget_unnamed_statement()

    def asked(self, error: ErrorFields | None) -> None:
        """The hub has it all confirmed, or the server has refused."""
        self._stop_timer()
        if not self._units:
            return
        if error is not None:
            self._over(error)
            return
        self._answer()
        self._go_on()

    def asked_in_vain(self) -> None:
        """There is no shared connection to be had for this database."""
        self._hub, self._joining = None, set()
        if self._units:
            self._stop_timer()
            self._cannot_share()

    def _cannot_share(self) -> None:
        """As without sharing: the client gets a connection of its own, and keeps it."""
        self._units = None
        self._client.pin_instead(self._answered_up_to)

    def _timeout(self, seconds: float) -> None:
        self._timer = None
        down = self._upstream.registry.connector.down
        self._over(refusals.listen_timeout(seconds) if down is None else replace(down, severity="ERROR"))

    def gives_up(self, error: ErrorFields) -> bool:
        """The client cancels. False: nothing is asked here."""
        if self._units is None:
            return False
        self._over(error)
        return True

    def _over(self, error: ErrorFields | None) -> None:
        """All units are answered, or the next one ends with `error`."""
        self._stop_timer()
        self._units = None
        joining, self._joining = self._joining, set()
        if self._hub is not None:
            self._hub.withdraw(self)
        self._leave(joining)
        self._client.units_over(self._answered_up_to, error)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- leaving ------------------------------------------------------------------------------------------------------

    def _leave(self, names: Iterable[bytes]) -> None:
        if self._hub is None:
            return
        self._hub.leave(self, names)
        if not self.channels and not self._joining:
            self._hub = None  # it ends when nobody listens any more; the next LISTEN may meet another one

    def close(self) -> None:
        """The client is gone."""
        self._stop_timer()
        self._units = None
        if self._hub is not None:
            self._hub.withdraw(self)
        left, self.channels, self._joining = self.channels | self._joining, set(), set()
        self._leave(left)
        self._untold.clear()

    def expect(self, server: ServerConnection, seen: Examination) -> None:
        """DISCARD ALL or UNLISTEN goes to a server, maybe among others: its answer ends what is heard here."""
        if server.owes_only_ours and len(seen.awaited) == 1 and seen.whole:
            self._clearing = seen.clearing
            server.tells_ready = True

    def ready(self, server: ServerConnection, failed: bool) -> None:
        """That answer has come."""
        done, self._clearing = self._clearing, PLAIN
        if failed or server.last_status != IDLE_STATUS:
            return
        left = self.channels & done.unlistens
        if PinReason.LISTEN in done.clears:
            left = self.channels
            self._untold, self._untold_bytes, self._dropped = [], 0, 0
        self.channels = self.channels - left
        self._leave(left)

    def lost(self, name: bytes, error: ErrorFields) -> None:
        """After a loss of the shared connection the server would not listen to it again."""
        self.channels.discard(name)
        self.tell(messages.notice_response(refusals.channel_lost(name, error)), is_ascii=False)

    # -- what the client is told --------------------------------------------------------------------------------------

    def tell(self, data: bytes, *, is_ascii: bool) -> None:
        """A notification or a notice: now if nothing stands in between, else when the unit of work is over."""
        client = self._client
        if not is_ascii and not self._may_share():
            self._drop()  # the client has changed its encoding since
        elif not self._untold and not self._dropped and client.may_be_told():
            client.transport.write(data)
        elif self._dropped or self._untold_bytes + len(data) > self._desk.settings.limits.max_notification_bytes:
            self._drop()  # also what would still fit: the notice has to stand where the gap is
        else:
            self._untold.append(data)
            self._untold_bytes += len(data)

    def _drop(self) -> None:
        self._dropped += 1
        self._desk.measures.notifications_dropped += 1

    def flush(self) -> None:
        """A unit of work is over, or the client reads again."""
        if not (self._untold or self._dropped) or not self._client.may_be_told():
            return
        if self._dropped:
            self._untold.append(messages.notice_response(refusals.notifications_dropped(self._dropped)))
        data, self._untold = b"".join(self._untold), []
        self._untold_bytes = self._dropped = 0
        self._client.transport.write(data)


def _after(channels: Iterable[bytes], commands: Iterable[ListenCommand]) -> set[bytes]:
    """The channels once `commands` have run."""
    wanted = set(channels)
    for command in commands:
        if command.verb is Verb.LISTEN:
            wanted.add(command.channel)
        elif command.verb is Verb.UNLISTEN:
            wanted.discard(command.channel)
        else:
            wanted.clear()
    return wanted
