"""`is_one` and `is_last` say yes only where `feed` would tell that very fact, and leave the cursor as it would."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.wire import _plain, framing, messages
from proxy.wire.errors import ProtocolViolation
from proxy.wire.framing import BACKEND_TYPES, FRONTEND_TYPES, SMALL_FRONTEND_TYPES
from proxy.wire.messages import QUERY, READY_FOR_QUERY
from tests.wire.streams import cuts_of, damaged_streams, whole_streams

CURSORS = {_plain.Cursor, framing.Cursor}
READY = messages.ready_for_query(b"I")
ANSWER = messages.data_row(["1"]) + messages.command_complete("SELECT 1") + READY


def state(cursor):
    return cursor.at_boundary, cursor.held_bytes, cursor.is_mid_message()


def told_by_feed(cursor, piece):
    try:
        returned, facts = cursor.feed(piece)
    except ProtocolViolation:
        return None
    return returned, list(facts)


def compare(cursor_class, pieces, wanted, known, small, max_held, say_yes):
    """Feed one cursor, and another one only where its short cut says no. `say_yes` gives (answer, fact)."""
    arguments = {"known": known, "small": small, "max_held_bytes": max_held, "max_message_bytes": 100}
    fed, asked = cursor_class(wanted, **arguments), cursor_class(wanted, **arguments)
    yes = 0
    for piece in pieces:
        is_yes, fact = say_yes(asked, piece)
        told = told_by_feed(fed, piece)
        if is_yes:
            assert told == (piece, [fact])
            yes += 1
            if fact[1] == 0 and not asked.at_boundary:
                pytest.fail("nothing stood before it")
        else:
            assert told_by_feed(asked, piece) == told
        if told is None:
            break
        assert state(asked) == state(fed)
    return yes


def last(asked, piece):
    return asked.is_last(piece, READY_FOR_QUERY, 6) if len(piece) >= 6 else False, (
        READY_FOR_QUERY,
        len(piece) - 6,
        len(piece),
    )


def one(asked, piece):
    answer = asked.is_one(piece, QUERY)
    if answer:
        asked.feed(piece)  # it changes nothing itself, and a whole message leaves nothing behind
    return answer, (QUERY, 0, len(piece))


def pieces_of(stream, cuts):
    edges = [0, *cuts, len(stream)]
    return [stream[a:b] for a, b in pairwise(edges) if a < b]


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_the_last_message_of_an_answer(data):
    parts = data.draw(
        st.lists(
            st.one_of(st.just(ANSWER), st.just(READY), whole_streams(BACKEND_TYPES), damaged_streams(BACKEND_TYPES)),
            min_size=1,
            max_size=5,
        )
    )
    if data.draw(st.booleans()):
        pieces = [part for part in parts if part]
    else:
        stream = b"".join(parts)
        pieces = pieces_of(stream, data.draw(cuts_of(stream)))
    wanted = data.draw(st.sampled_from([b"Z", b"ZE", b"ZSEG", BACKEND_TYPES]))
    for cursor_class in CURSORS:
        compare(cursor_class, pieces, wanted, BACKEND_TYPES, b"", data.draw(st.sampled_from([5, 6, 17, 1000])), last)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_one_query(data):
    queries = st.text(max_size=20).filter(lambda text: "\0" not in text).map(messages.query)
    parts = data.draw(
        st.lists(
            st.one_of(queries, whole_streams(FRONTEND_TYPES), damaged_streams(FRONTEND_TYPES)), min_size=1, max_size=5
        )
    )
    if data.draw(st.booleans()):
        pieces = [part for part in parts if part]
    else:
        stream = b"".join(parts)
        pieces = pieces_of(stream, data.draw(cuts_of(stream)))
    for cursor_class in CURSORS:
        max_held = data.draw(st.sampled_from([5, 6, 17, 1000]))
        compare(cursor_class, pieces, b"QPS", FRONTEND_TYPES, SMALL_FRONTEND_TYPES, max_held, one)


def test_the_usual_query_and_the_usual_answer_are_seen(cursor_class):
    client = cursor_class(b"QPS", known=FRONTEND_TYPES, small=SMALL_FRONTEND_TYPES)
    server = cursor_class(b"ZSE", known=BACKEND_TYPES)
    assert client.is_one(messages.query("select 1"), QUERY)
    assert server.is_last(ANSWER, READY_FOR_QUERY, 6)
    assert server.is_last(READY, READY_FOR_QUERY, 6)


def test_the_rest_of_a_row_may_stand_before_it(cursor_class):
    server = cursor_class(b"ZSE", known=BACKEND_TYPES)
    server.feed(ANSWER[:7])
    assert server.is_mid_message()
    assert server.is_last(ANSWER[7:], READY_FOR_QUERY, 6)
    assert server.at_boundary


@pytest.mark.parametrize("cut", range(1, len(READY)))
def test_not_where_the_beginning_is_held(cursor_class, cut):
    server = cursor_class(b"ZSE", known=BACKEND_TYPES)
    server.feed(READY[:cut])
    assert not server.is_last(READY[cut:] + READY, READY_FOR_QUERY, 6)


def test_not_where_another_is_wanted_before_it(cursor_class):
    server = cursor_class(b"ZSE", known=BACKEND_TYPES)
    error = messages.error_response(messages.ErrorFields("ERROR", "XX000", "no"))
    assert not server.is_last(error + READY, READY_FOR_QUERY, 6)
    assert not server.is_last(READY + READY, READY_FOR_QUERY, 6)
