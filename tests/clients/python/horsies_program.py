"""Horsies, a task queue: a worker with child processes and a producer on one URL, in a Python of their own."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.clients.python.program import NAMES, scenarios_of, serve

FOLDER = Path(__file__).parents[1] / "horsies"
BIN = FOLDER / ".venv" / "bin"
SECONDS = 40


def environment(url: str) -> dict[str, str]:
    driver = url.replace("postgresql://", "postgresql+psycopg://")  # it is SQLAlchemy that reads it
    return {**os.environ, "DATABASE_URL": driver, "PYTHONPATH": str(FOLDER), "PYTHONDONTWRITEBYTECODE": "1"}


@contextmanager
def worker(url: str) -> Iterator[None]:
    command = [str(BIN / "horsies"), "worker", "tasks:app", "--processes", "2", "--loglevel", "WARNING"]
    running = subprocess.Popen(
        command, cwd=FOLDER, env=environment(url), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        yield
    finally:
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=SECONDS)


def produce(url: str, scenario: str) -> Any:
    with worker(url):
        command = [str(BIN / "python"), "producer.py", scenario]
        done = subprocess.run(
            command, cwd=FOLDER, env=environment(url), capture_output=True, text=True, timeout=SECONDS, check=False
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def version(_: str) -> Any:
    command = [str(BIN / "python"), "-c", "import importlib.metadata as m; print(m.version('horsies'))"]
    return {"driver": subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()}


def pool(url: str) -> Any:
    return produce(url, "pool")


def listen(url: str) -> Any:
    return produce(url, "listen")


if __name__ == "__main__":
    serve(scenarios_of(globals(), NAMES))
