"""However the network cuts a stream, the same bytes go on and the same facts are told."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.wire import _plain, framing, messages
from proxy.wire.errors import ProtocolViolation
from proxy.wire.framing import BACKEND_TYPES, FRONTEND_TYPES, SMALL_FRONTEND_TYPES
from tests.wire.streams import RECORDED, cuts_of, damaged_streams, feed_in_pieces, framed, read_whole, whole_streams

try:
    from proxy.wire import _compiled
except ImportError:
    _compiled = None

WANTED = {"client": b"QPSXpcf", "server": b"ZSERGK"}


@pytest.fixture(params=RECORDED, ids="-".join)
def transcript(request):
    """(stream, the types of its direction, those wanted)"""
    stream, known = RECORDED[request.param]
    return stream, known, WANTED[request.param[1]]


def test_there_are_transcripts_of_several_drivers():
    assert {name.split("_")[0] for name, _ in RECORDED} == {"asyncpg", "pg", "pgjdbc", "pgx", "postgres", "psycopg"}


def test_transcripts_hold_what_their_drivers_do():
    seen = {chr(kind) for stream, _ in RECORDED.values() for kind, _, _ in read_whole(stream, bytes(range(256)))}
    assert set("pPBDESQXdc" + "RSKZ12nTDCtAGH") <= seen


def test_a_transcript_cut_in_two_at_every_byte_tells_the_same(cursor_class, transcript):
    stream, known, wanted = transcript
    expected = (stream, read_whole(stream, wanted))
    for cut in range(len(stream) + 1):
        cursor = cursor_class(wanted, known=known, small=SMALL_FRONTEND_TYPES)
        assert feed_in_pieces(cursor, stream, [cut]) == expected
        assert cursor.at_boundary


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7, 64])
def test_a_transcript_in_pieces_of_equal_size_tells_the_same(cursor_class, transcript, step):
    stream, known, wanted = transcript
    for select in (wanted, b"", known):
        cursor = cursor_class(select, known=known)
        assert feed_in_pieces(cursor, stream, range(step, len(stream), step)) == (stream, read_whole(stream, select))


def test_a_transcript_cut_short_at_every_byte_holds_only_what_is_incomplete(cursor_class, transcript):
    stream, known, wanted = transcript
    boundaries = {0, *(end for _, _, end in read_whole(stream, known))}
    for cut in range(len(stream) + 1):
        cursor = cursor_class(wanted, known=known)
        returned, facts = cursor.feed(stream[:cut])
        assert returned == stream[: len(returned)]
        assert list(facts) == [fact for fact in read_whole(stream, wanted) if fact[2] <= cut]
        assert cursor.at_boundary is (cut in boundaries)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), stream=whole_streams(BACKEND_TYPES), wanted=st.sets(st.sampled_from(list(BACKEND_TYPES))))
def test_drawn_streams_cut_anywhere_tell_the_same(data, stream, wanted):
    cuts, max_held = data.draw(cuts_of(stream)), data.draw(st.sampled_from([5, 6, 17, 1000]))
    for cursor_class in {_plain.Cursor, framing.Cursor}:
        cursor = cursor_class(bytes(wanted), known=BACKEND_TYPES, max_held_bytes=max_held)
        assert feed_in_pieces(cursor, stream, cuts) == (stream, read_whole(stream, bytes(wanted), max_held))
        assert cursor.at_boundary


def outcome(cursor, piece: bytes):
    """All that can be seen of one feed."""
    try:
        returned, facts = cursor.feed(piece)
    except ProtocolViolation as violation:
        return str(violation)
    return returned, list(facts), cursor.at_boundary, cursor.held_bytes


@pytest.mark.skipif(_compiled is None, reason="the compiled module was not built")
@settings(max_examples=500, deadline=None)
@given(data=st.data(), stream=damaged_streams(FRONTEND_TYPES))
def test_both_cursors_agree_on_any_bytes_whatever_is_wanted_when(data, stream):
    options = {
        "known": FRONTEND_TYPES,
        "small": SMALL_FRONTEND_TYPES,
        "max_held_bytes": data.draw(st.sampled_from([5, 20, 1 << 20])),
        "max_message_bytes": data.draw(st.sampled_from([4, 30, 1 << 30])),
    }
    plain, compiled = (cursor_class(b"Q", **options) for cursor_class in (_plain.Cursor, _compiled.Cursor))
    edges = [0, *data.draw(cuts_of(stream)), len(stream)]
    for start, end in pairwise(edges):
        seen = outcome(plain, stream[start:end])
        assert outcome(compiled, stream[start:end]) == seen
        if isinstance(seen, str):
            return
        plain.wanted = compiled.wanted = bytes(data.draw(st.sets(st.sampled_from(list(b"QPS")))))


@settings(max_examples=500, deadline=None)
@given(data=st.data(), stream=st.one_of(st.binary(max_size=100), damaged_streams(BACKEND_TYPES)))
def test_any_bytes_are_framed_or_a_violation(data, stream):
    for cursor_class in {_plain.Cursor, framing.Cursor}:
        cursor = cursor_class(data.draw(st.binary(max_size=3)), known=BACKEND_TYPES)
        try:
            returned, _ = feed_in_pieces(cursor, stream, data.draw(cuts_of(stream)))
        except ProtocolViolation:
            continue
        assert returned == stream[: len(returned)]


def test_a_stream_of_messages_without_payload(cursor_class):
    stream = messages.sync() * 1000
    cursor = cursor_class(b"S", known=FRONTEND_TYPES, small=SMALL_FRONTEND_TYPES)
    returned, facts = feed_in_pieces(cursor, stream, range(1, len(stream)))
    assert (returned, len(facts)) == (stream, 1000)


@pytest.mark.parametrize("wanted", [b"Q", b""])
def test_a_megabyte_byte_by_byte_takes_no_quadratic_time(cursor_class, wanted):
    """Copying what is held for each byte would move half a terabyte, and the suite's timeout would end the test."""
    query = framed(messages.QUERY, b"x" * ((1 << 20) - 6) + b"\0")
    cursor = cursor_class(wanted, known=FRONTEND_TYPES)
    returned = [cursor.feed(query[at : at + 1]) for at in range(len(query))]
    assert b"".join(piece for piece, _ in returned) == query
    assert list(returned[-1][1]) == ([(messages.QUERY, 0, len(query))] if wanted else [])


def test_changing_what_is_wanted_at_every_byte_takes_no_quadratic_time(cursor_class):
    query = framed(messages.QUERY, b"x" * 200_000)
    cursor = cursor_class(b"Q", known=FRONTEND_TYPES)
    for at in range(len(query)):
        cursor.wanted = b"QP" if at % 2 else b"QS"
        cursor.feed(query[at : at + 1])
    assert cursor.at_boundary
