"""A line for every order: what, who, why, until when, from where.

Owns: the two places of that line: the log, and a file that is only ever appended to.
Does not know: what orders do.
"""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import structlog

log = structlog.get_logger("pgheadroom")


class Audit:
    """Writes to the log always, and to `path` where there is one. A file that fails never stops an order."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def note(self, event: str, *, at: float, **facts: object) -> None:
        """One line; `at` in Unix seconds. Values are texts and numbers."""
        log.warning(event, **facts)
        if self._path is None:
            return
        moment = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"at": moment, "event": event, **facts}, default=str) + "\n"
        try:
            _append(self._path, line.encode())
        except OSError as problem:
            log.error("audit_not_written", path=str(self._path), why=problem.strerror)  # noqa: TRY400 (no bug of ours)


def _append(path: Path, line: bytes) -> None:
    # Opened anew for every line, so that the file can be rotated by renaming; written in one call, so that two
    # processes never mix their lines.
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def shown_time(at: float | None) -> str | None:
    """A moment for a log line; None stays None."""
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
