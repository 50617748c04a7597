"""The cursor: what travels on, what is held, what is told of it."""

import pytest

from proxy.wire import framing, messages
from proxy.wire.errors import ProtocolViolation
from proxy.wire.framing import BACKEND_TYPES, FRONTEND_TYPES, SMALL_FRONTEND_TYPES
from proxy.wire.messages import COMMAND_COMPLETE, DATA_ROW, QUERY, READY_FOR_QUERY, SYNC

READY = messages.ready_for_query(b"I")
ROW = messages.data_row(["one", None])


@pytest.fixture
def from_server(cursor_class):
    return cursor_class(b"Z", known=BACKEND_TYPES)


@pytest.fixture
def from_client(cursor_class):
    return cursor_class(b"QS", known=FRONTEND_TYPES, small=SMALL_FRONTEND_TYPES)


def test_a_whole_message_travels_uncopied_and_is_reported(from_server):
    returned, facts = from_server.feed(READY)
    assert returned is READY
    assert list(facts) == [(READY_FOR_QUERY, 0, len(READY))]
    assert from_server.at_boundary


def test_types_nobody_wants_give_the_shared_empty_facts(from_server):
    returned, facts = from_server.feed(ROW)
    assert returned is ROW
    assert facts is framing.NO_FACTS


def test_every_wanted_message_of_a_stream_is_reported_at_its_offsets(from_client):
    stream = messages.query("select 1") + messages.terminate() + messages.sync() + messages.query("")
    returned, facts = from_client.feed(stream)
    assert returned is stream
    assert [kind for kind, _, _ in facts] == [QUERY, SYNC, QUERY]
    assert [stream[start + 5 : end] for _, start, end in facts] == [b"select 1\0", b"", b"\0"]


def test_an_incomplete_unwanted_message_streams_through(from_server):
    cut = len(ROW) - 3
    assert from_server.feed(ROW[:cut]) == (ROW[:cut], ())
    assert not from_server.at_boundary
    returned, facts = from_server.feed(ROW[cut:] + READY)
    assert returned == ROW[cut:] + READY
    assert list(facts) == [(READY_FOR_QUERY, 3, 3 + len(READY))]


def test_an_incomplete_wanted_message_is_held_and_comes_first_in_a_later_feed(from_server):
    assert from_server.feed(ROW + READY[:5]) == (ROW, ())
    assert from_server.held_bytes == 5
    assert not from_server.at_boundary
    returned, facts = from_server.feed(READY[5:] + ROW)
    assert returned == READY + ROW
    assert list(facts) == [(READY_FOR_QUERY, 0, len(READY))]


def test_an_incomplete_header_is_held_though_nobody_wants_its_message(from_server):
    assert from_server.feed(ROW[:4]) == (b"", ())
    returned, facts = from_server.feed(ROW[4:7])
    assert returned == ROW[:7]
    assert not facts
    assert from_server.held_bytes == 0


def test_skipped_bytes_are_never_taken_for_headers(from_server):
    row = messages.data_row([READY.decode() * 3])
    for byte in row:
        _, facts = from_server.feed(bytes((byte,)))
        assert not facts
    assert from_server.at_boundary


def test_a_wanted_message_too_long_to_hold_streams_and_is_reported_once_without_end(cursor_class):
    cursor = cursor_class(b"Q", known=FRONTEND_TYPES, max_held_bytes=100)
    long = messages.query("x" * 200)
    returned, facts = cursor.feed(long[:50])
    assert (returned, list(facts)) == (long[:50], [(QUERY, 0, -1)])
    assert cursor.feed(long[50:]) == (long[50:], ())
    assert cursor.at_boundary


def test_whether_a_message_is_too_long_to_hold_depends_on_its_length_alone(cursor_class):
    cursor = cursor_class(b"Q", known=FRONTEND_TYPES, max_held_bytes=100)
    exact, longer = messages.query("x" * 94), messages.query("x" * 95)
    assert len(exact) == 100
    assert list(cursor.feed(exact + longer)[1]) == [(QUERY, 0, 100), (QUERY, 100, -1)]


def test_what_is_wanted_can_change_between_messages(from_server):
    assert not from_server.feed(ROW)[1]
    from_server.wanted = bytes((DATA_ROW,))
    assert from_server.wanted == b"D"
    assert list(from_server.feed(ROW + READY)[1]) == [(DATA_ROW, 0, len(ROW))]


def test_what_is_held_goes_on_with_the_next_bytes_once_it_is_wanted_no_more(from_server):
    from_server.wanted = bytes((COMMAND_COMPLETE,))
    done = messages.command_complete("SELECT 1")
    assert from_server.feed(done[:7]) == (b"", ())
    from_server.wanted = b""
    assert from_server.feed(done[7:8]) == (done[:8], ())
    assert from_server.feed(done[8:]) == (done[8:], ())
    assert from_server.at_boundary


def test_what_is_held_stays_held_while_it_is_wanted(from_server):
    from_server.feed(READY[:5])
    from_server.wanted = b"ZC"
    assert list(from_server.feed(READY[5:])[1]) == [(READY_FOR_QUERY, 0, len(READY))]


def test_nothing_fed_is_nothing_returned(from_server):
    assert from_server.feed(b"") == (b"", ())
    from_server.feed(READY[:3])
    assert from_server.feed(b"") == (b"", ())
    assert from_server.feed(READY[3:])[0] == READY


@pytest.mark.parametrize("length", [-1, 0, 3, -(2**31)])
@pytest.mark.parametrize("kind", [DATA_ROW, READY_FOR_QUERY])
def test_a_length_that_does_not_hold_itself_is_a_violation(from_server, kind, length):
    with pytest.raises(ProtocolViolation, match=f"invalid length {length} "):
        from_server.feed(bytes((kind,)) + length.to_bytes(4, "big", signed=True))


@pytest.mark.parametrize("kind", [DATA_ROW, READY_FOR_QUERY])
def test_a_length_above_the_bound_is_a_violation_and_the_bound_is_not(cursor_class, kind):
    def fed(length):
        cursor = cursor_class(b"Z", known=BACKEND_TYPES, max_message_bytes=1000)
        return cursor.feed(bytes((kind,)) + length.to_bytes(4, "big"))

    fed(1000)
    with pytest.raises(ProtocolViolation, match="1001 bytes long; at most 1000 are accepted"):
        fed(1001)


def test_the_longest_length_is_refused_by_default(from_server):
    from_server.feed(b"D" + (2**30).to_bytes(4, "big"))
    with pytest.raises(ProtocolViolation):
        framing.server_cursor(b"").feed(b"D" + (2**30 + 1).to_bytes(4, "big"))


def test_small_messages_have_the_bound_of_the_server(from_client, cursor_class):
    from_client.feed(b"C" + (10_000).to_bytes(4, "big"))
    for kind in SMALL_FRONTEND_TYPES:
        cursor = cursor_class(b"QS", known=FRONTEND_TYPES, small=SMALL_FRONTEND_TYPES)
        with pytest.raises(ProtocolViolation, match="at most 10000"):
            cursor.feed(bytes((kind,)) + (10_001).to_bytes(4, "big"))


@pytest.mark.parametrize("more", [b"", b"\0\0\0\4"])
def test_an_unknown_type_is_a_violation_at_its_first_byte(cursor_class, more):
    for kind in set(range(256)) - set(BACKEND_TYPES):
        with pytest.raises(ProtocolViolation, match="invalid message type"):
            cursor_class(b"Z", known=BACKEND_TYPES).feed(READY + bytes((kind,)) + more)


def test_a_type_named_only_in_wanted_is_known(cursor_class):
    cursor = cursor_class(b"p", known=b"X")
    assert len(cursor.feed(messages.password_message("x"))[1]) == 1


def test_a_logged_in_client_sends_no_password():
    with pytest.raises(ProtocolViolation):
        framing.client_cursor(b"Q").feed(messages.password_message("x"))
    framing.login_cursor().feed(messages.password_message("x"))
    with pytest.raises(ProtocolViolation):
        framing.login_cursor().feed(messages.query("select 1"))


def test_the_directions_know_the_types_of_the_manual():
    assert FRONTEND_TYPES == b"BCDEFHPQSXcdfp"
    assert BACKEND_TYPES == b"123ACDEGHIKNRSTVWZcdnstv"
