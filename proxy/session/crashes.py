"""Errors of our own in a callback of the loop: logged with their traceback and counted, as those of tasks are.

Owns: the exception handler of the loop.
Does not know: what the callback did. The connection it belonged to is ended by the loop, or by whoever delivers.
"""

import asyncio
from typing import Any

import structlog

from proxy.session.measures import Measures

log = structlog.get_logger("pgheadroom")


def count_crashes(loop: asyncio.AbstractEventLoop, measures: Measures) -> None:
    """From now on. An OSError is the machine's and none of ours: no descriptor is left, say; it is told as before."""

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is None or isinstance(error, OSError):
            loop.default_exception_handler(context)
            return
        measures.crashes += 1
        log.error("callback_crashed", during=context.get("message", ""), exc_info=error)

    loop.set_exception_handler(handle)
