"""Tests that run at the same time, except for those that must not: `@pytest.mark.alone`.

Owns: a room that every test of a parallel run (`pytest -n 4`) is in while it runs, and who may be in it together.
Does not know: tests, fixtures, how tests are shared out.

A test that measures CPU, memory or time, or that needs the whole machine, is marked `alone`: it waits until every other
worker has ended its test, and those wait until it has ended. Without `-n` there is one test at a time anyway.
"""

import fcntl
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FOLDER = pytest.StashKey[tempfile.TemporaryDirectory[str]]()


@contextmanager
def locked(path: Path, how: int) -> Iterator[None]:
    """Held by the open file: it is free again when the process ends, however it ends."""
    with path.open("a") as lock:
        fcntl.flock(lock, how)
        yield


@contextmanager
def room(folder: Path, *, alone: bool) -> Iterator[None]:
    """Everybody enters through a door. Who wants to be alone keeps it shut while the others leave."""
    with (folder / "room").open("a") as lock:
        with locked(folder / "door", fcntl.LOCK_EX):
            fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of xdist, whose types are not public, where the room is."""
    stash = node.config.stash
    if FOLDER not in stash:
        stash[FOLDER] = tempfile.TemporaryDirectory(prefix="pgheadroom-tests-")
    node.workerinput["room"] = stash[FOLDER].name


def pytest_unconfigure(config: pytest.Config) -> None:
    if folder := config.stash.get(FOLDER, None):
        folder.cleanup()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Outermost, so that waiting for the room does not count against a test's own time limit."""
    worker = getattr(item.config, "workerinput", None)
    if worker is None:
        return (yield)
    with room(Path(worker["room"]), alone=item.get_closest_marker("alone") is not None):
        return (yield)
