"""`is_one` and `is_last` say yes only where `feed` would tell that very fact, and leave the cursor as it would."""

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.wire import _plain, framing, messages
from proxy.wire.errors import ProtocolViolation
from proxy.wire.framing import BACKEND_TYPES, FRONTEND_TYPES, SMALL_FRONTEND_TYPES, renamed
from proxy.wire.messages import QUERY, READY_FOR_QUERY, message
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


# -- units that name one statement -----------------------------------------------------------------------------------

PARTS = {
    "bind": message(messages.BIND, b"portal\0statement\0" + bytes(6)),
    "bind_unnamed": message(messages.BIND, b"\0\0" + bytes(6)),
    "cut_bind": message(messages.BIND, b"\0statement")[:-2] + b"xx",
    "parse": message(messages.PARSE, b"name\0select 1\0\0\0"),
    "parse_unnamed": message(messages.PARSE, b"\0select 1\0\0\0"),
    "describe": message(messages.DESCRIBE, b"P\0"),
    "describe_statement": message(messages.DESCRIBE, b"Ss\0"),
    "execute": message(messages.EXECUTE, bytes(5)),
    "close": message(messages.CLOSE, b"Ss\0"),
    "long": message(messages.EXECUTE, bytes(10_000)),
    "query": messages.query("select 1"),
    "flush": message(messages.FLUSH),
    "sync": messages.sync(),
}


def unit(*names):
    return b"".join(PARTS[name] for name in names)


def client(cursor_class):
    heads = bytes((messages.BIND,))
    return cursor_class(
        FRONTEND_TYPES, known=FRONTEND_TYPES, small=SMALL_FRONTEND_TYPES, heads=heads, max_message_bytes=20_000
    )


def test_a_statement_bound_and_executed_is_seen(cursor_class):
    cursor = client(cursor_class)
    assert cursor.bound_unit(unit("bind", "describe", "execute", "sync")) == 5 + len(b"portal\0")
    assert cursor.bound_unit(unit("bind_unnamed", "execute", "execute", "sync")) == 6
    assert cursor.unnamed_unit(unit("parse_unnamed", "bind_unnamed", "execute", "sync")) == len(PARTS["parse_unnamed"])


@pytest.mark.parametrize(
    "names",
    [
        ("bind",), ("bind", "execute"), ("bind", "sync", "sync"), ("bind", "execute", "sync", "flush"),
        ("bind", "bind", "sync"), ("bind", "describe_statement", "sync"), ("bind", "close", "sync"),
        ("bind", "query"), ("bind", "long", "sync"), ("cut_bind", "sync"), ("execute", "sync"),
        ("parse", "bind_unnamed", "sync"), ("parse_unnamed", "bind", "sync"), ("parse_unnamed", "sync"),
        ("parse_unnamed", "bind_unnamed", "bind_unnamed", "sync"), ("parse_unnamed", "bind_unnamed"),
    ],
)  # fmt: skip
def test_anything_else_is_not(cursor_class, names):
    cursor = client(cursor_class)
    assert (cursor.bound_unit(unit(*names)), cursor.unnamed_unit(unit(*names))) == (-1, -1)
    whole = unit("bind", "execute", "sync")
    cursor.feed(whole[:3])
    assert cursor.bound_unit(whole) == -1


@settings(max_examples=600, deadline=None)
@given(data=st.data())
def test_both_cursors_see_the_same_units_and_feed_returns_them(data):
    names = st.lists(st.sampled_from(sorted(PARTS)), min_size=1, max_size=5)
    begun = data.draw(st.sampled_from([(), ("bind",), ("parse_unnamed", "bind_unnamed")]))
    stream = bytearray(unit(*begun, *data.draw(names)))
    if data.draw(st.booleans()):
        stream += PARTS["sync"]
    for _ in range(data.draw(st.integers(0, 2))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    piece = bytes(stream)
    found = {(client(one).bound_unit(piece), client(one).unnamed_unit(piece)) for one in CURSORS}
    assert len(found) == 1
    bound, unnamed = found.pop()
    if bound < 0 and unnamed < 0:
        return
    for one in CURSORS:
        returned, facts = client(one).feed(piece)
        assert returned == piece
        kinds = bytes(kind for kind, _, _ in facts)
        assert re.fullmatch(rb"B[DE]*S" if bound >= 0 else rb"PB[DE]*S", kinds)
        if bound >= 0:
            renamed_piece = renamed(piece, bound, b"another name")
            assert client(one).bound_unit(renamed_piece) == bound
            assert renamed_piece[bound:].startswith(b"another name\0")
            assert renamed_piece.endswith(piece[piece.index(0, bound) :])


def test_both_rename_the_same():
    whole = unit("bind", "execute", "sync")
    at = client(_plain.Cursor).bound_unit(whole)
    for name in (b"", b"x", b"statement", b"a much longer name than before"):
        assert _plain.renamed(whole, at, name) == renamed(whole, at, name)
        assert (
            renamed(whole, at, name)
            == message(messages.BIND, b"portal\0" + name + b"\0" + bytes(6)) + whole[len(PARTS["bind"]) :]
        )
