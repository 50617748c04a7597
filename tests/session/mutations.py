"""Streams that are nearly right: whole messages, and the harm that is done to them.

Owns: the strategies that draw such streams.
Does not know: who reads them.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

from hypothesis import strategies as st

Harm = Callable[[bytearray], None]

# Lengths that are off by one, negative, huge, and those between.
_NUMBERS = (0, 1, 3, 4, 5, 8, 0x7F, 0xFF, 0x3FFFFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


def _place(stream: bytearray, share: float) -> int:
    return int(share * len(stream))


def _harm(kind: str, share: float, length: int, value: int) -> Harm:
    def apply(stream: bytearray) -> None:
        at = _place(stream, share)
        if kind == "flip" and at < len(stream):
            stream[at] ^= 1 + value % 255
        elif kind == "cut":
            del stream[at : at + length]
        elif kind == "repeat":
            stream[at:at] = stream[at : at + length]
        elif kind == "insert":
            stream[at:at] = bytes((value % 256,)) * length
        elif kind == "number":
            stream[at : at + 4] = _NUMBERS[value % len(_NUMBERS)].to_bytes(4, "big")
        elif kind == "end":
            del stream[at:]

    return apply


_harms = st.builds(
    _harm,
    st.sampled_from(("flip", "cut", "repeat", "insert", "number", "end")),
    st.floats(0, 1),
    st.integers(1, 40),
    st.integers(0, 10_000),
)


def harmed(messages: Sequence[bytes], *, most_messages: int = 6, most_harms: int = 3) -> st.SearchStrategy[bytes]:
    """Some of `messages` one after the other, with up to `most_harms` done to the whole."""

    def build(chosen: list[bytes], harms: list[Harm]) -> bytes:
        stream = bytearray(b"".join(chosen))
        for harm in harms:
            harm(stream)
        return bytes(stream)

    chosen = st.lists(st.sampled_from(list(messages)), min_size=1, max_size=most_messages)
    return st.builds(build, chosen, st.lists(_harms, max_size=most_harms))


def cut(stream: bytes, shares: Sequence[float]) -> list[bytes]:
    """The stream in pieces that are not empty."""
    places = sorted({0, len(stream), *(int(share * len(stream)) for share in shares)})
    return [stream[start:end] for start, end in pairwise(places)]


cuts = st.lists(st.floats(0, 1), max_size=4)
