"""Streams for the framing tests: recorded ones, drawn ones, and a reader that is too simple to be wrong."""

from itertools import pairwise
from pathlib import Path

from hypothesis import strategies as st

from proxy.wire import startup
from proxy.wire.framing import BACKEND_TYPES, FRONTEND_TYPES

TRANSCRIPTS = Path(__file__).parent / "transcripts"


def recorded(driver: str, side: str) -> bytes:
    """What `driver` and PostgreSQL 15 or 18 said to each other, from the first message with a type byte on.

    Those that are named after a scenario were made by tests/clients/recording.py.
    """
    stream = bytes.fromhex((TRANSCRIPTS / f"{driver}_{side}.hex").read_text())
    if side == "server":
        return stream
    reader = startup.StartupReader()
    assert reader.feed(stream) is not None
    return reader.rest


RECORDED = {
    (driver, side): (recorded(driver, side), FRONTEND_TYPES if side == "client" else BACKEND_TYPES)
    for driver, _, side in sorted(path.stem.rpartition("_") for path in TRANSCRIPTS.glob("*.hex"))
}


def read_whole(stream: bytes, wanted: bytes, max_held_bytes: int = 1 << 20):
    """The facts of a stream of whole messages, one after the other."""
    facts, at = [], 0
    while at < len(stream):
        end = at + 1 + int.from_bytes(stream[at + 1 : at + 5], "big")
        if stream[at] in wanted:
            facts.append((stream[at], at, end if end - at <= max_held_bytes else -1))
        at = end
    return facts


def feed_in_pieces(cursor, stream: bytes, cuts):
    """Feed `stream` cut at `cuts`; return all bytes that came back and the facts at their offsets in the stream."""
    returned, facts = b"", []
    edges = [0, *cuts, len(stream)]
    for start, end in pairwise(edges):
        piece = stream[start:end]
        held_before = cursor.held_bytes
        gone_on, found = cursor.feed(piece)
        for kind, at, behind in found:
            facts.append((kind, at + len(returned), behind if behind < 0 else behind + len(returned)))
        returned += gone_on
        assert len(returned) + cursor.held_bytes == end
        if not held_before and not cursor.held_bytes:
            assert gone_on is piece
    return returned, facts


def framed(kind: int, payload: bytes) -> bytes:
    return bytes((kind,)) + (len(payload) + 4).to_bytes(4, "big") + payload


def whole_streams(types: bytes):
    """Streams of whole messages; five-byte messages and payloads that look like headers are common."""
    payloads = st.one_of(st.just(b""), st.binary(max_size=12), st.just(b"Z\0\0\0\5IQ\0\0\0\4"), st.binary(max_size=80))
    return st.lists(st.builds(framed, st.sampled_from(list(types)), payloads), max_size=12).map(b"".join)


def damaged_streams(types: bytes):
    """Streams whose lengths may lie and whose types may be unknown."""
    headers = st.builds(
        lambda kind, length, payload: bytes((kind,)) + length.to_bytes(4, "big", signed=True) + payload,
        st.one_of(st.sampled_from(list(types)), st.integers(0, 255)),
        st.one_of(st.integers(-2, 40), st.sampled_from([-(2**31), 2**31 - 1, 1 << 30, (1 << 30) + 1, 10_000, 10_001])),
        st.binary(max_size=20),
    )
    return st.lists(st.one_of(headers, st.binary(max_size=9), whole_streams(types)), max_size=6).map(b"".join)


def cuts_of(stream: bytes):
    return st.lists(st.integers(0, len(stream)), max_size=10).map(sorted)
