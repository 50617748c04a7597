"""Switches as files: while `pause-bulk` is in the directory, bulk is paused.

Owns: the names of such files, what one says, and when the directory has to be read again.
Does not know: which classes there are, what becomes of the flags.

The reason is what stands on the first line of the file; who gave the order is the owner of the file. The directory's
modification time changes when a file comes or goes: one stat of it, and nothing else, happens while nothing does.
That is why it is asked for and not watched: inotify would be a library with threads, or a binding of our own.
"""

import os
import pwd
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proxy.service.switchboard import STATES

LOOK_EVERY_SECONDS: Final = 0.5
MAX_REASON_LENGTH: Final = 300

# File systems stamp a change with the time of the last tick of the kernel, or of a second: a second file within the
# same stamp changes nothing that could be seen, so what changed so lately is read again.
_COARSEST_STAMP_SECONDS: Final = 2.0

# Several files of one class: the one that stops it most.
_STRONGEST_FIRST: Final = ("reject", "drain", "pause")


@dataclass(frozen=True, slots=True)
class FlagFile:
    """One file: `order` is pause, drain or reject."""

    path: Path
    order: str
    class_name: str
    by: str
    reason: str
    at: float


class FlagDirectory:
    """The files of one directory, read when something came or went."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem: str | None = None
        self._stamp: int | None = None
        self._is_fresh = True

    def read_if_changed(self, now: float) -> list[FlagFile] | None:
        """The files, one per class; None where nothing has changed, or nothing can be seen (then `problem` says why).

        A directory that is not there holds none; one that cannot be read leaves things as they are.
        """
        try:
            stamp = os.stat(self.path).st_mtime_ns
            if stamp == self._stamp and not self._is_fresh:
                return None
            files = [flag for entry in os.scandir(self.path) if (flag := _read(entry)) is not None]
        except OSError as problem:
            was_there = self._stamp is not None
            self._stamp = None
            self.problem = f"{self.path} cannot be read: {problem.strerror}"
            return [] if was_there and isinstance(problem, FileNotFoundError) else None
        self._stamp, self.problem = stamp, None
        self._is_fresh = now - stamp / 1e9 < _COARSEST_STAMP_SECONDS
        return _one_per_class(files)


def _one_per_class(files: Iterable[FlagFile]) -> list[FlagFile]:
    by_strength = sorted(files, key=lambda flag: _STRONGEST_FIRST.index(flag.order), reverse=True)
    return list({flag.class_name: flag for flag in by_strength}.values())


def _read(entry: "os.DirEntry[str]") -> FlagFile | None:
    order, dash, class_name = entry.name.partition("-")
    if not dash or not class_name or order not in STATES or order == "resume":
        return None
    try:
        # The name is the switch, also of a link that leads nowhere or round in a circle.
        facts = entry.stat(follow_symlinks=False)
        reason = _first_line(entry.path, facts.st_uid)
    except FileNotFoundError:  # removed in this moment
        return None
    return FlagFile(Path(entry.path), order, class_name, _owner(facts.st_uid), reason, facts.st_mtime)


def _first_line(path: str, owner: int) -> str:
    """What its owner may read. A link of somebody else to the users file would show a password to whoever reads
    /status: what belongs to another than the name in the directory is not read."""
    try:
        # Not opened to wait: a pipe of that name has no writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return ""  # the name says enough
    with open(descriptor, encoding="utf-8", errors="replace") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != owner:
            return ""
        line = file.readline(MAX_REASON_LENGTH)
    return "".join(c if c.isprintable() else " " for c in line).strip()


def _owner(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
