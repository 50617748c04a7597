"""A running HTTP surface over a view that is only numbers, for commands that are called as a shell would."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from structlog.testing import capture_logs

from proxy.service.http import HttpServer, HttpSettings
from proxy.service.view import ProcessView

ANY_PORT = HttpSettings(port=0)


@contextmanager
def served(view: ProcessView, settings: HttpSettings = ANY_PORT) -> Iterator[str]:
    """The base URL of a server for this view, in a thread with a loop of its own; its log stays out of the output."""
    with capture_logs():
        yield from _served(view, settings)


def _served(view: ProcessView, settings: HttpSettings) -> Iterator[str]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="fake-proxy")
    thread.start()
    server = HttpServer(view, settings)
    try:
        port = asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
        yield f"http://127.0.0.1:{port}"
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
