"""The idle server connections of one pool.

Owns: which is handed out next: one with the wanted settings where there is one, else one of the stack that was put to
last; of a stack always the most recently used.
Does not know: who asks, ages, how a connection is closed.

The connections lie on stacks, one for each settings they have. Stacks that have become empty stay listed for a while:
a connection that goes back and forth costs no more than a push and a pop.
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from proxy.session.parameters import Settings
from proxy.session.server import ServerConnection

_EMPTY_STACKS_KEPT: Final = 16


class IdleConnections:
    """Stacks of idle connections. `count` is their number."""

    __slots__ = ("_listed", "_newest", "count")

    def __init__(self) -> None:
        self.count = 0
        self._listed: OrderedDict[Settings, None] = OrderedDict()  # that of the latest `put` stands at the end
        self._newest: Settings | None = None  # that one

    def __iter__(self) -> Iterator[ServerConnection]:
        for settings in self._listed:
            yield from settings.idle

    def coldest(self) -> Iterator[ServerConnection]:
        """The longest idle connection of each stack."""
        for settings in self._listed:
            if settings.idle:
                yield settings.idle[0]

    def put(self, server: ServerConnection) -> None:
        settings = server.settings
        if settings is not self._newest:
            self._make_newest(settings)
        settings.idle.append(server)
        self.count += 1

    def take(self, settings: Settings) -> ServerConnection | None:
        if not settings.idle:
            if not self.count:
                return None
            settings = self._other_settings()
        self.count -= 1
        return settings.idle.pop()

    def remove(self, server: ServerConnection) -> bool:
        """Whether it was there. Its settings may have changed since it was put."""
        for settings in (server.settings, *self._listed):
            if server in settings.idle:
                settings.idle.remove(server)
                self.count -= 1
                return True
        return False

    def _make_newest(self, settings: Settings) -> None:
        if len(self._listed) > 2 * self.count + _EMPTY_STACKS_KEPT:
            for one in [one for one in self._listed if not one.idle]:
                del self._listed[one]
        self._listed[settings] = None
        self._listed.move_to_end(settings)
        self._newest = settings

    def _other_settings(self) -> Settings:
        """Those of the stack that was put to last. Each empty stack is passed once and is not listed any more."""
        self._newest = None
        while True:
            settings = next(reversed(self._listed))
            if settings.idle:
                return settings
            del self._listed[settings]
