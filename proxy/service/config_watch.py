"""Sees that the configuration has changed, and asks for a reload.

Owns: when the files are looked at, and when a change is whole.
Does not know: what a reload is.

One stat of two files each second: an editor, a git checkout and Kubernetes replace a file in different ways, and the
stamp, the size and the number of the file tell all of them apart. A change is taken over when nothing has moved since
the last look: who writes slowly is not read in the middle.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from proxy.service.config.model import Config

LOOK_EVERY_SECONDS: Final = 1.0

Stamp = tuple[tuple[int, int, int] | None, ...]


class ConfigWatch:
    """Looks while the configuration in force says `reload.watch`."""

    def __init__(self, reload: Callable[[], None], loop: asyncio.AbstractEventLoop, config: Config) -> None:
        """`config` was read a moment ago, and will be adopted when the process has started."""
        self._reload = reload
        self._loop = loop
        self._files = _files(config)
        self._known: Stamp = ()
        self._last: Stamp = ()
        self._before_reading: Stamp | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False
        self.about_to_read()

    def about_to_read(self) -> None:
        """What the files become from now on is not what will be adopted: reading, checking and asking servers take
        their time, and who writes meanwhile would never be seen."""
        self._before_reading = self._stamp()

    def adopt(self, config: Config) -> None:
        """This configuration is in force: what its files were before they were read is known."""
        before, self._before_reading = self._before_reading, None
        known_files, self._files = self._files, _files(config)
        self._known = self._last = before if before is not None and known_files == self._files else self._stamp()
        self.watch(config.reload.watch)

    def watch(self, wanted: bool) -> None:
        """Begin or end to look; what the files were when they were read last is known all the time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if wanted and not self._is_closed:
            self._timer = self._loop.call_later(LOOK_EVERY_SECONDS, self._look)

    def close(self) -> None:
        """For good: who stops takes over nothing more, also where a reload comes meanwhile."""
        self._is_closed = True
        self.watch(False)

    def _look(self) -> None:
        self._timer = self._loop.call_later(LOOK_EVERY_SECONDS, self._look)
        stamp, before = self._stamp(), self._last
        self._last = stamp
        if stamp != self._known and stamp == before:
            self._known = stamp  # asked for once, also where it is refused: the next change is another one
            self._reload()

    def _stamp(self) -> Stamp:
        return tuple(map(_stamp, self._files))


def _files(config: Config) -> tuple[Path, ...]:
    users = config.auth.users_file
    return (Path(config.file), *([users] if users is not None else []))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        facts = os.stat(path)
    except OSError:
        return None  # between two names of a file that is being replaced
    return facts.st_mtime_ns, facts.st_size, facts.st_ino
