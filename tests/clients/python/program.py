"""The loop of a driver's program: a line of JSON with a scenario and a URL comes in, a line with its result goes out.

Owns: the protocol with the tests; every program, in whatever language, speaks it.
Does not know: drivers.

    {"scenario": "pool", "url": "postgresql://..."}  ->  {"result": {...}} or {"failure": "what went wrong"}

The program ends at the end of its input.
"""

import asyncio
import json
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

NAMES = (
    "version connect_by_url pool crowd prepared_statements transactions copy_in copy_out listen cancel errors "
    "refusal_while_full recovery refused_begin"
)

Work = Callable[[str], Any]


def serve(scenarios: Mapping[str, Work]) -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = {"result": scenarios[asked["scenario"]](asked["url"])}
        except Exception:
            answer = {"failure": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


def in_a_loop(work: Callable[[str], Awaitable[Any]]) -> Work:
    """A coroutine function as a scenario; each call has a loop of its own."""

    async def run(url: str) -> Any:
        return await work(url)

    return lambda url: asyncio.run(run(url))


def scenarios_of(namespace: Mapping[str, Any], names: str) -> dict[str, Work]:
    """The functions of a module that are called as the scenarios; a layer above a driver lacks some."""
    found = {name: namespace[name] for name in names.split() if name in namespace}
    return {name: in_a_loop(work) if asyncio.iscoroutinefunction(work) else work for name, work in found.items()}
