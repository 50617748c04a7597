"""The answers of a server to the extended protocol, where they are not simply those the client is to get.

Owns: the order of the answers still to come, what of them is the proxy's own, what the client is told in between.
Does not know: what was asked, sockets, statements (it undoes by calling back).
Source: PostgreSQL manual, "Extended Query" (protocol-flow) and "Pipelining" (protocol-flow).

Each request of the extended protocol is completed by one message: ParseComplete, BindComplete, CloseComplete,
RowDescription or NoData for Describe, CommandComplete, EmptyQueryResponse or PortalSuspended for Execute. After an
error the server skips everything up to the next Sync. So a queue of what was asked tells what each message means.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from proxy.session.awaited import SYNC_BEHIND_COPY
from proxy.wire import messages
from proxy.wire.errors import ProtocolViolation
from proxy.wire.framing import Fact

COMPLETIONS: Final = bytes(
    (
        messages.PARSE_COMPLETE,
        messages.BIND_COMPLETE,
        messages.CLOSE_COMPLETE,
        messages.ROW_DESCRIPTION,
        messages.NO_DATA,
        messages.COMMAND_COMPLETE,
        messages.EMPTY_QUERY_RESPONSE,
        messages.PORTAL_SUSPENDED,
    )
)

PASS: Final = 0  # completes a request of the client's
SWALLOW: Final = 1  # completes one of ours
SAY: Final = 2  # nothing comes: the client is told `data` when its turn is there
SWAP: Final = 3  # an error comes, caused on purpose; the client is told `data` in its place
READY: Final = 4  # a ReadyForQuery, the answer to a message of type `asked`


class Reply:
    """One answer that is to come. `undo` is called where the request was refused or skipped."""

    __slots__ = ("asked", "data", "failed", "kind", "undo")

    def __init__(
        self,
        kind: int,
        *,
        data: bytes = b"",
        asked: int = 0,
        undo: Callable[[], None] | None = None,
        failed: Callable[[bytes], bytes | None] | None = None,
    ) -> None:
        self.kind = kind
        self.data = data
        self.asked = asked
        self.undo = undo
        self.failed = failed  # called with the error that this very request has met; may return what is told instead


PASSES: Final = Reply(PASS)
SWALLOWED: Final = Reply(SWALLOW)
READY_AFTER_SYNC: Final = Reply(READY, asked=messages.SYNC)
READY_AFTER_QUERY: Final = Reply(READY, asked=messages.QUERY)
READY_AFTER_CALL: Final = Reply(READY, asked=messages.FUNCTION_CALL)
READY_BEHIND_COPY: Final = Reply(READY, asked=messages.SYNC)
READY_AFTER: Final = {
    messages.SYNC: READY_AFTER_SYNC,
    SYNC_BEHIND_COPY: READY_BEHIND_COPY,
    messages.QUERY: READY_AFTER_QUERY,
    messages.FUNCTION_CALL: READY_AFTER_CALL,
}


class Replies:
    """The queue of one server connection. `is_skipping`: an error was answered whose Sync has not been sent yet."""

    __slots__ = ("_queue", "is_skipping", "never_ready")

    def __init__(self) -> None:
        self._queue: deque[Reply] = deque()
        self.never_ready = 0  # queries that the server has skipped, since somebody last asked
        self.is_skipping = False

    @property
    def is_active(self) -> bool:
        """Every message of the server's has to be looked at."""
        return bool(self._queue) or self.is_skipping

    @property
    def has_unanswered(self) -> bool:
        return bool(self._queue)

    def expect(self, reply: Reply) -> None:
        self._queue.append(reply)

    def sync_was_sent(self, behind_copy: bool) -> None:
        self.is_skipping = False
        self._queue.append(READY_BEHIND_COPY if behind_copy else READY_AFTER_SYNC)

    def clear(self) -> None:
        """Whatever comes is nobody's any more."""
        self._queue.clear()
        self.is_skipping = False

    def lead(self) -> bytes:
        """What the client is to be told now, before the server says more."""
        queue = self._queue
        said = b""
        while queue and queue[0].kind == SAY:
            said += queue.popleft().data
        return said

    def take(self, buffer: bytes, facts: Sequence[Fact]) -> tuple[bytes, list[Fact]]:
        """What of `buffer` the client gets, with what it is told besides, and the facts in that."""
        told = _Told(buffer)
        for kind, start, end in facts:
            if kind == messages.READY_FOR_QUERY:
                self._ready()
                told.keep(kind, start, end)
            elif kind == messages.ERROR_RESPONSE:
                self._error(told, start, end)
            elif kind in COMPLETIONS:
                self._completion(told, kind, start, end)
                continue
            else:
                if kind == messages.COPY_IN_RESPONSE:
                    self._ignored_syncs()
                told.keep(kind, start, end)
                continue
            told.insert(self.lead())
        return told.whole()

    def _completion(self, told: "_Told", kind: int, start: int, end: int) -> None:
        head = self._queue[0] if self._queue else None
        if head is None or head.kind == READY:  # part of the answer to a Query
            told.keep(kind, start, end)
            return
        if head.kind == SWAP or (end < 0 and self._is_ours_next()):
            raise ProtocolViolation(f'message of type "{chr(kind)}" where none was to come')
        self._queue.popleft()
        if head.kind == SWALLOW:
            told.cut(start, end)
        else:
            told.keep(kind, start, end)
        told.insert(self.lead())

    def _is_ours_next(self) -> bool:
        """The message at the head must be whole: it is cut out, or something is told behind it."""
        queue = self._queue
        return queue[0].kind == SWALLOW or (len(queue) > 1 and queue[1].kind == SAY)

    def _ready(self) -> None:
        queue = self._queue
        if queue:
            if queue[0].kind != READY:
                raise ProtocolViolation("ReadyForQuery before the answers that were to come")
            queue.popleft()

    def _error(self, told: "_Told", start: int, end: int) -> None:
        queue = self._queue
        head = queue[0] if queue else None
        instead = None if head is None else self._told_instead(head, told.payload(start, end))
        if instead is not None and end >= 0:
            told.cut(start, end)
            told.insert(instead, messages.ERROR_RESPONSE)
        else:
            told.keep(messages.ERROR_RESPONSE, start, end)
        if head is not None and head.kind != READY:  # else of a Query, or out of turn, as at a shutdown
            self._skip_to_sync()

    @staticmethod
    def _told_instead(head: Reply, error: bytes) -> bytes | None:
        if head.kind == SWAP:
            return head.data
        return None if head.failed is None else head.failed(error)

    def _skip_to_sync(self) -> None:
        queue = self._queue
        skipped: list[Reply] = []
        while queue and queue[0].asked != messages.SYNC:
            skipped.append(queue.popleft())
        self.is_skipping = not queue
        self.never_ready += sum(reply.kind == READY for reply in skipped)
        for reply in reversed(skipped):
            if reply.undo is not None:
                reply.undo()

    def _ignored_syncs(self) -> None:
        """The server asks for copy data, and ignores every Sync sent ahead of their end."""
        queue = list(self._queue)
        ahead = queue.index(READY_BEHIND_COPY) if READY_BEHIND_COPY in queue else len(queue)
        self._queue = deque(one for at, one in enumerate(queue) if one is not READY_AFTER_SYNC or at > ahead)


class _Told:
    """A buffer from the server, cut and added to."""

    def __init__(self, buffer: bytes) -> None:
        self._buffer = buffer
        self._pieces: list[bytes] = []
        self._facts: list[Fact] = []
        self._at = 0  # what stands before is in `pieces`
        self._moved = 0  # by how much what follows moves
        self._behind = 0  # where something would be inserted now

    def keep(self, kind: int, start: int, end: int) -> None:
        self._facts.append((kind, start + self._moved, end + self._moved if end >= 0 else end))
        self._behind = end if end >= 0 else len(self._buffer)

    def cut(self, start: int, end: int) -> None:
        self._pieces.append(self._buffer[self._at : start])
        self._moved -= end - start
        self._at = self._behind = end

    def insert(self, data: bytes, kind: int = 0) -> None:
        if not data:
            return
        self._pieces.append(self._buffer[self._at : self._behind])
        self._at = self._behind
        self._pieces.append(data)
        if kind:
            start = self._behind + self._moved
            self._facts.append((kind, start, start + len(data)))
        self._moved += len(data)

    def payload(self, start: int, end: int) -> bytes:
        return self._buffer[start + 5 : end if end >= 0 else len(self._buffer)]

    def whole(self) -> tuple[bytes, list[Fact]]:
        if not self._pieces:
            return self._buffer, self._facts
        self._pieces.append(self._buffer[self._at :])
        return b"".join(self._pieces), self._facts
