"""The facts of one piece of a stream, when the piece is cut or put behind another.

Owns: their offsets.
Does not know: what the messages mean.
"""

from collections.abc import Sequence

from proxy.wire.framing import Fact


def facts_moved(facts: Sequence[Fact], by: int) -> list[Fact]:
    """The same facts, for a buffer with `by` more bytes in front."""
    return [(kind, start + by, end + by if end >= 0 else end) for kind, start, end in facts]


def facts_from(facts: Sequence[Fact], cut: int) -> Sequence[Fact]:
    """The facts of the buffer without its first `cut` bytes."""
    return facts if cut == 0 else facts_moved([fact for fact in facts if fact[1] >= cut], -cut)


def facts_until(facts: Sequence[Fact], cut: int) -> list[Fact]:
    """Those that begin in the first `cut` bytes."""
    return [fact for fact in facts if fact[1] < cut]
