"""Chance, where the core needs it: a number from 0 to 1, drawn by whoever made the core.

Owns: the shape, and the draw that is no chance at all.
Does not know: generators. The same draws give the same decisions.
"""

from collections.abc import Callable

Draw = Callable[[], float]


def middle() -> float:
    """No jitter: what lies between more and less."""
    return 0.5
