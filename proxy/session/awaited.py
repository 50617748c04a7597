"""Which answers are still to come on a server connection.

Owns: the types of the messages sent that end in a ReadyForQuery, oldest first.
Does not know: what they asked, what the answers say.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

from proxy.wire import messages

NOTHING: Final = -1
SYNC_BEHIND_COPY: Final = 1  # a Sync behind CopyDone or CopyFail, which were sent before the server asked for the data
_NOTHING: Final = NOTHING  # a C number in the compiled module


class Awaited:
    """A queue of message types. Nearly always it holds one or none, so the first is kept beside the rest."""

    __slots__ = ("_rest", "first")

    def __init__(self) -> None:
        self.first: int = _NOTHING
        self._rest: deque[int] | None = None

    def __bool__(self) -> bool:
        return self.first != _NOTHING

    def __iter__(self) -> Iterator[int]:
        if self.first != _NOTHING:
            yield self.first
        if self._rest is not None:
            yield from self._rest

    def is_one(self) -> bool:
        """One answer is to come and no more."""
        return self.first != _NOTHING and self._rest is None

    def push(self, kind: int) -> None:
        if self.first == _NOTHING:
            self.first = kind
        elif self._rest is None:
            self._rest = deque((kind,))
        else:
            self._rest.append(kind)

    def extend(self, kinds: Iterable[int]) -> None:
        for kind in kinds:
            self.push(kind)

    def pop(self) -> None:
        """The first is answered."""
        if self._rest is None:
            self.first = _NOTHING
        else:
            self.first = self._rest.popleft()
            if not self._rest:
                self._rest = None

    def drop_ignored_syncs(self) -> None:
        """The server asks for copy data: a Sync sent ahead of their end is never answered."""
        kinds = list(self)
        ahead = kinds.index(SYNC_BEHIND_COPY) if SYNC_BEHIND_COPY in kinds else len(kinds)
        self.first = _NOTHING
        self._rest = None
        self.extend(kind for at, kind in enumerate(kinds) if kind != messages.SYNC or at > ahead)
