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

    def __init__(self, reload: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        self._reload = reload
        self._loop = loop
        self._files: tuple[Path, ...] = ()
        self._known: Stamp = ()
        self._last: Stamp = ()
        self._timer: asyncio.TimerHandle | None = None

    def adopt(self, config: Config) -> None:
        """This configuration is in force: what its files are now is known."""
        users = config.auth.users_file
        self._files = (Path(config.file), *([users] if users is not None else []))
        self._known = self._last = self._stamp()
        self.close()
        if config.reload.watch:
            self._timer = self._loop.call_later(LOOK_EVERY_SECONDS, self._look)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = self._loop.call_later(LOOK_EVERY_SECONDS, self._look)
        stamp, before = self._stamp(), self._last
        self._last = stamp
        if stamp != self._known and stamp == before:
            self._known = stamp  # asked for once, also where it is refused: the next change is another one
            self._reload()

    def _stamp(self) -> Stamp:
        return tuple(map(_stamp, self._files))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        facts = os.stat(path)
    except OSError:
        return None  # between two names of a file that is being replaced
    return facts.st_mtime_ns, facts.st_size, facts.st_ino
