"""Log lines of what may happen a thousand times a second: one now and then, with the number of those left out.

Owns: when each kind of line was last written.
Does not know: what is written. Exact numbers are metrics.
"""

from collections.abc import Hashable
from typing import Final, Protocol

EVERY_SECONDS: Final = 10.0
_MAX_KINDS: Final = 1000


class Writes(Protocol):
    """The part of a logger that is used here."""

    def warning(self, event: str, **facts: object) -> object: ...


class LimitedLog:
    """At most one line for each `kind` of line in `every_seconds`."""

    def __init__(self, log: Writes, every_seconds: float = EVERY_SECONDS) -> None:
        self._log = log
        self._every = every_seconds
        self._written: dict[Hashable, tuple[float, int]] = {}  # when, and how many were left out since

    def warning(self, event: str, kind: Hashable, now: float, **facts: object) -> None:
        """`left_out` in the line tells how many of its kind came since the last one."""
        at, left_out = self._written.get(kind, (-self._every, 0))
        if now - at < self._every:
            self._written[kind] = at, left_out + 1
            return
        if len(self._written) >= _MAX_KINDS:
            self._written.clear()
        self._written[kind] = now, 0
        self._log.warning(event, left_out=left_out, **facts)
