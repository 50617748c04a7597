"""Sends what a scenario asks for and prints what came back, as JSON. DATABASE_URL says where."""

import json
import sys
import time
from typing import Any

import tasks

PATIENCE_MS = 15_000


def result_of(sent: Any, patience_ms: int = PATIENCE_MS) -> Any:
    return sent.unwrap().get(timeout_ms=patience_ms).unwrap()


def pool() -> dict[str, Any]:
    handles = [tasks.double.send(i=i) for i in range(40)]
    return {"rows": [result_of(handle) for handle in handles]}


def listen() -> dict[str, Any]:
    """A worker with nothing to do hears of a new task, and the producer of its result: neither asks every so often."""
    result_of(tasks.echo.send(word="warm"))
    heard = []
    for word in ("one", "two"):
        time.sleep(1)  # so that everybody waits again
        started = time.monotonic()
        heard.append(result_of(tasks.echo.send(word=word)))
        assert time.monotonic() - started < 1.5, "it was found by looking, not by hearing of it"
    return {"heard": heard}


if __name__ == "__main__":
    print(json.dumps({"pool": pool, "listen": listen}[sys.argv[1]]()))
