"""Notifications on their way from the shared connection to those who listen.

Owns: their order, how many listeners are told in one turn of the loop, when the server is not to be read for a while.
Does not know: the connection they came over, whether a client can be told now (`listening`).
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from proxy.session.listen_channels import Channel, Channels

if TYPE_CHECKING:
    from proxy.session.frontdesk import Frontdesk
    from proxy.session.listening import Listening

_NAME_AT: Final = 9  # behind type, length and process id
_TOLD_AT_ONCE: Final = 200  # listeners told in one turn of the loop: about a millisecond
_MAX_QUEUED: Final = 1000  # notifications being handed out, above which the server is not read


class _Notification(NamedTuple):
    message: bytes
    is_ascii: bool
    channel: Channel
    untold: "Iterator[Listening]"


class Notifications:
    """Those of one hub. `pause` and `resume` stop and start the reading of the server."""

    def __init__(
        self, desk: "Frontdesk", channels: Channels, pause: Callable[[], None], resume: Callable[[], None]
    ) -> None:
        self._desk = desk
        self._channels = channels
        self._pause = pause
        self._resume = resume
        self._queue: deque[_Notification] = deque()

    def received(self, message: bytes) -> None:
        """For all who listen now; whoever joins later has not asked for this one."""
        channel = self._channels.channel_or_none(message[_NAME_AT : message.find(0, _NAME_AT)])
        if channel is None or not channel.listeners:
            return
        self._desk.measures.notifications_received += 1
        listeners = iter(tuple(channel.listeners))
        self._queue.append(_Notification(message, message[_NAME_AT:].isascii(), channel, listeners))
        if len(self._queue) == 1:
            self._tell_some()
        elif len(self._queue) == _MAX_QUEUED:
            self._pause()

    def _tell_some(self) -> None:
        """One notification may have thousands of listeners: the loop gets its turn in between."""
        room = _TOLD_AT_ONCE
        while self._queue:
            message, is_ascii, channel, untold = self._queue[0]
            for listening in untold:
                if channel.name in listening.channels:
                    listening.tell(message, is_ascii=is_ascii)
                room -= 1
                if not room:
                    self._desk.loop.call_soon(self._tell_some)
                    return
            self._queue.popleft()
            if len(self._queue) == _MAX_QUEUED // 2:
                self._resume()
