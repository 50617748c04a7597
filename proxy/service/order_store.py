"""The orders in force as a file, so that they survive a restart.

Owns: the form of the file, writing it so that a crash leaves the old one or the new one, reading what is left of it.
Does not know: what the orders do, when they are written.
"""

import errno
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Final, TypeVar

from proxy.admission.classes import ClassState
from proxy.service.config.settable import Number
from proxy.service.switchboard import Override, Switch

_VERSION: Final = 1
_END_OF_CALENDAR: Final = 253_000_000_000.0  # in the year 9987; datetime ends with 9999
Entry = TypeVar("Entry", Switch, Override)


class OrdersUnreadable(Exception):  # noqa: N818 - says what is
    """The file is there and cannot be used; the text is one sentence."""


@dataclass(frozen=True, slots=True)
class StoredOrders:
    """What was in force, and a sentence for each entry that could not be read."""

    switches: tuple[Switch, ...] = ()
    overrides: tuple[Override, ...] = ()
    problems: tuple[str, ...] = ()


def write_orders(path: Path, switches: Iterable[Switch], overrides: Iterable[Override] = ()) -> None:
    """Replace the file as one step; it is on the disk when this returns. Blocks. Raises OSError."""
    document = {
        "version": _VERSION,
        "switches": [asdict(one) for one in switches],
        "overrides": [asdict(one) for one in overrides],
    }
    with NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False) as new:
        try:
            json.dump(document, new, indent=1)
            new.write("\n")
            new.flush()
            os.fsync(new.fileno())
            os.replace(new.name, path)
        except BaseException:
            os.unlink(new.name)
            raise
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    # Without it the new name may be lost in a crash of the machine, and the old orders come back.
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_orders(path: Path) -> StoredOrders:
    """What `write_orders` wrote; nothing where there is no file. Raises OrdersUnreadable."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return StoredOrders()
    except OSError as problem:
        raise OrdersUnreadable(f"{path} cannot be read: {problem.strerror}") from None
    except ValueError as problem:
        raise OrdersUnreadable(f"{path} is no JSON: {problem}") from None
    if not isinstance(document, dict) or document.get("version") != _VERSION:
        raise OrdersUnreadable(f"{path} is not a file of orders, version {_VERSION}")
    problems: list[str] = []
    switches = tuple(_entries(document, "switches", _switch, problems))
    overrides = tuple(_entries(document, "overrides", _override, problems))
    return StoredOrders(switches, overrides, tuple(problems))


def put_aside(path: Path) -> Path:
    """Rename a file that cannot be used, so that the next order does not write over it. Raises OSError."""
    if path.is_dir():  # named by mistake, and somebody else's
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return path.rename(path.with_name(f"{path.name}.unreadable"))


def _entries(
    document: dict[str, Any], key: str, read: Callable[[dict[str, Any]], Entry], problems: list[str]
) -> Iterable[Entry]:
    entries = document.get(key, [])
    if not isinstance(entries, list):
        problems.append(f"{key}: {entries!r} is no list of orders")
        return
    for entry in entries:
        try:
            yield read(entry)
        except (KeyError, TypeError, ValueError, AttributeError) as problem:
            problems.append(f"{key}: {entry!r} is no order: {type(problem).__name__} {problem}")


def _switch(entry: dict[str, Any]) -> Switch:
    return Switch(str(entry["class_name"]), ClassState(entry["state"]), *_circumstances(entry))


def _override(entry: dict[str, Any]) -> Override:
    value: Number = entry["value"]
    if not isinstance(value, int | float | str | None):
        raise TypeError(f"{value!r} is no value of a setting")
    return Override(str(entry["key"]), value, *_circumstances(entry))


def _circumstances(entry: dict[str, Any]) -> tuple[str, str, float, float | None, str]:
    """Who, why, when, until when, from where."""
    until = None if entry["until"] is None else _moment(entry["until"])
    return str(entry["by"]), str(entry["reason"]), _moment(entry["at"]), until, str(entry.get("source", ""))


def _moment(value: Any) -> float:
    """Raises ValueError for what no calendar has: it could be kept, and never be shown."""
    at = float(value)
    if not 0 <= at <= _END_OF_CALENDAR:
        raise ValueError(f"{value!r} is no moment")
    return at
