"""The channels of one database: who listens to each, and what the server knows of it.

Owns: the state of every channel, who waits for the answer to a LISTEN, which statements the server is to be sent next.
Does not know: the connection they are sent over (`listen_hub`), what clients are told and when (`listening`).
Source: PostgreSQL manual, pages sql-listen, sql-unlisten.

    WANTED -> ASKED -> ACTIVE -> UNWANTED -> LEFT

A channel is WANTED until the server is asked, ASKED until it has answered, then ACTIVE; UNWANTED when its last listener
has left, LEFT while the server is told. What is notified once LISTEN is answered is heard, so a client gets its answer
only when its channels are ACTIVE.
"""

from collections import deque
from collections.abc import Iterable
from enum import Enum
from typing import TYPE_CHECKING, Final

from proxy.wire.sql_listen import ListenCommand

if TYPE_CHECKING:
    from proxy.session.listening import Listening

_MAX_BATCH: Final = 200  # statements in one query


class ChannelState(Enum):
    WANTED = "wanted"
    ASKED = "asked"
    ACTIVE = "active"
    UNWANTED = "unwanted"
    LEFT = "left"


class Channel:
    """One channel: who listens, in the order of asking, and what the server knows of it."""

    __slots__ = ("listeners", "name", "spelled", "state")

    def __init__(self, command: ListenCommand) -> None:
        self.name = command.channel
        self.spelled = command.spelled
        self.listeners: dict[Listening, None] = {}
        self.state = ChannelState.WANTED

    def heard_by(self) -> list["Listening"]:
        """The listeners whose LISTEN was answered."""
        return [one for one in self.listeners if self.name in one.channels]


class Channels:
    """All of one database. `awaits_answer`: statements were taken whose outcome is not known yet."""

    def __init__(self) -> None:
        self._by_name: dict[bytes, Channel] = {}
        self._asking: dict[Listening, set[Channel]] = {}  # who waits for what
        self._todo: deque[Channel] = deque()
        self._in_flight: list[Channel] = []
        self._singly = 0  # statements still to be sent one by one, after a query of several has failed

    def __len__(self) -> int:
        return len(self._by_name)

    def channel_or_none(self, name: bytes) -> Channel | None:
        return self._by_name.get(name)

    @property
    def are_wanted(self) -> bool:
        """Somebody listens or waits for that, or the server listens to what nobody wants any more."""
        return bool(self._asking or self._by_name)

    @property
    def listeners(self) -> set["Listening"]:
        return {one for channel in self._by_name.values() for one in channel.listeners}

    @property
    def awaits_answer(self) -> bool:
        return bool(self._in_flight)

    # -- who listens --------------------------------------------------------------------------------------------------

    def join(self, listening: "Listening", commands: Iterable[ListenCommand]) -> set[Channel]:
        """Which of the channels the server has not confirmed; `wait` for them."""
        missing = set()
        for command in commands:
            channel = self._joined(command)
            channel.listeners[listening] = None
            if channel.state is not ChannelState.ACTIVE:
                missing.add(channel)
        return missing

    def _joined(self, command: ListenCommand) -> Channel:
        channel = self._by_name.get(command.channel)
        if channel is None:
            channel = self._by_name[command.channel] = Channel(command)
            self._todo.append(channel)
        elif channel.state is ChannelState.UNWANTED:
            channel.state = ChannelState.ACTIVE  # it stands in `_todo` and is skipped there
        return channel

    def leave(self, listening: "Listening", names: Iterable[bytes]) -> None:
        for name in names:
            channel = self._by_name.get(name)
            if channel is not None and channel.listeners.pop(listening, listening) is None and not channel.listeners:
                self._last_has_left(channel)

    def _last_has_left(self, channel: Channel) -> None:
        if channel.state is ChannelState.WANTED:
            del self._by_name[channel.name]
        elif channel.state is ChannelState.ACTIVE:
            channel.state = ChannelState.UNWANTED
            self._todo.append(channel)

    # -- who waits ----------------------------------------------------------------------------------------------------

    def wait(self, listening: "Listening", missing: set[Channel]) -> None:
        self._asking[listening] = missing

    def withdraw(self, listening: "Listening") -> None:
        """It waits no longer for what it asked; channels are left by `leave`."""
        self._asking.pop(listening, None)

    def those_with_all(self) -> list["Listening"]:
        """Who waits although nothing is missing: for the connection itself."""
        return [one for one, missing in self._asking.items() if not missing]

    def took_if_has_all(self, listening: "Listening") -> bool:
        """Whether it was waiting and has everything; then it waits no more, and is to be told."""
        missing = self._asking.get(listening)
        if missing is None or missing:
            return False
        del self._asking[listening]
        return True

    def take_asking(self, channel: Channel | None = None) -> list["Listening"]:
        """Who waited for this channel, or for anything, and waits no more."""
        taken = [one for one, missing in self._asking.items() if channel is None or channel in missing]
        for listening in taken:
            del self._asking[listening]
        return taken

    # -- what the server is asked -------------------------------------------------------------------------------------

    def next_statements(self) -> list[bytes]:
        """To be sent as one query. Its outcome is told by `confirmed`, `refused_or_none` or `connection_lost`."""
        statements: list[bytes] = []
        room = 1 if self._singly else _MAX_BATCH
        while self._todo and len(statements) < room:
            channel = self._todo.popleft()
            statement = self._statement_or_none(channel)
            if statement is not None:
                statements.append(statement)
                self._in_flight.append(channel)
        self._singly = max(0, self._singly - len(statements)) if statements else 0
        return statements

    def _statement_or_none(self, channel: Channel) -> bytes | None:
        if channel.state is ChannelState.WANTED and channel.listeners:
            channel.state = ChannelState.ASKED
            return b"LISTEN " + channel.spelled
        if channel.state is ChannelState.UNWANTED:
            channel.state = ChannelState.LEFT
            return b"UNLISTEN " + channel.spelled
        return None

    def confirmed(self) -> Iterable["Listening"]:
        """The server has done it. Returns those who waited for any of it; whoever has all now is to be told."""
        done, self._in_flight = self._in_flight, []
        for channel in done:
            self._confirm(channel)
        active = [channel for channel in done if channel.state is ChannelState.ACTIVE]
        concerned = {one: None for channel in active for one in channel.listeners if one in self._asking}
        for listening in concerned:
            self._asking[listening].difference_update(active)
        return concerned

    def _confirm(self, channel: Channel) -> None:
        if channel.state is ChannelState.ASKED:
            channel.state = ChannelState.ACTIVE
            if not channel.listeners:
                self._last_has_left(channel)  # and so it is not active
        elif channel.listeners:
            channel.state = ChannelState.WANTED  # asked for again while it was being left
            self._todo.append(channel)
        else:
            del self._by_name[channel.name]

    def refused_or_none(self) -> Channel | None:
        """The server has refused: this channel, which is forgotten. None where it was a query of several statements,
        which has done nothing: each is sent alone now, to find out which one is at fault."""
        done, self._in_flight = self._in_flight, []
        if len(done) == 1:
            self._by_name.pop(done[0].name, None)
            return done[0]
        for channel in done:
            is_asked = channel.state is ChannelState.ASKED
            channel.state = ChannelState.WANTED if is_asked else ChannelState.UNWANTED
        self._todo.extendleft(reversed(done))
        self._singly = len(done)
        return None

    # -- the connection is lost ---------------------------------------------------------------------------------------

    def active_listeners(self) -> list["Listening"]:
        """Who hears notifications, once for each channel."""
        active = (channel for channel in self._by_name.values() if channel.state is ChannelState.ACTIVE)
        return [one for channel in active for one in channel.heard_by()]

    def connection_lost(self) -> None:
        """The next connection has to be asked for everything."""
        self._in_flight, self._singly = [], 0
        self._by_name = {name: channel for name, channel in self._by_name.items() if channel.listeners}
        for channel in self._by_name.values():
            channel.state = ChannelState.WANTED
        self._todo = deque(self._by_name.values())
