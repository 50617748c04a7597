"""A running HTTP surface over a view that is only numbers, for commands that are called as a shell would."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from structlog.testing import capture_logs

from proxy.service.http import HttpServer, HttpSettings
from proxy.service.view import ProcessView


@contextmanager
def served(view: ProcessView) -> Iterator[str]:
    """The base URL of a server for this view, in a thread with a loop of its own; its log stays out of the output."""
    with capture_logs():
        yield from _served(view)


def _served(view: ProcessView) -> Iterator[str]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="fake-proxy")
    thread.start()
    server = HttpServer(view, HttpSettings(port=0))
    try:
        port = asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
        yield f"http://127.0.0.1:{port}"
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
