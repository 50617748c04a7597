"""The first packet: PostgreSQL's four kinds, and what is none of them."""

import pytest

from proxy.wire import startup
from proxy.wire.errors import ProtocolViolation
from proxy.wire.startup import (
    CancelRequest,
    GSSENCRequest,
    SSLRequest,
    StartupMessage,
    StartupReader,
    parse_startup_packet,
    split_options,
)

# Recorded from a listening socket: psql 15 with `options`, psycopg on libpq 18, asyncpg 0.32.
PSQL = bytes.fromhex(
    "00000054000300007573657200616c6963650064617461626173650073686f70006f7074696f6e73002d63207365617263685f70617468"
    "3d612c2062006170706c69636174696f6e5f6e616d65007073716c0000"
)
PSYCOPG = bytes.fromhex("00000022000300007573657200616c6963650064617461626173650073686f700000")
ASYNCPG = bytes.fromhex(
    "0000005200030000636c69656e745f656e636f64696e6700277574662d3827007573657200616c6963650064617461626173650073686f"
    "70006170706c69636174696f6e5f6e616d6500776f726b65720000"
)


def packet(body: bytes, code: int = 3 << 16) -> bytes:
    return code.to_bytes(4, "big") + body


def read_whole(data: bytes) -> bytes:
    read = StartupReader().feed(data)
    assert read is not None
    return read


def test_a_startup_message_comes_back_as_it_was_encoded():
    parameters = {"user": "alice", "database": "shop", "options": "-c a=b", "application_name": "web\udcff"}
    parsed = parse_startup_packet(read_whole(startup.encode_startup(parameters, minor=2)))
    assert parsed == StartupMessage(3, 2, parameters)
    assert list(parsed.parameters) == list(parameters)
    assert (parsed.user, parsed.database, parsed.wants_minor) == ("alice", "shop", 2)


@pytest.mark.parametrize(
    ("recorded", "extra"),
    [
        (PSYCOPG, {}),
        (ASYNCPG, {"client_encoding": "'utf-8'", "application_name": "worker"}),
        (PSQL, {"options": "-c search_path=a, b", "application_name": "psql"}),
    ],
    ids=["psycopg", "asyncpg", "psql"],
)
def test_what_drivers_send_is_read(recorded, extra):
    message = parse_startup_packet(read_whole(recorded))
    assert message == StartupMessage(3, 0, {"user": "alice", "database": "shop", **extra})
    assert startup.encode_startup(message.parameters) == recorded


@pytest.mark.parametrize("database", [{}, {"database": ""}])
def test_the_database_defaults_to_the_user(database):
    assert StartupMessage(3, 0, {"user": "alice", **database}).database == "alice"


@pytest.mark.parametrize(
    ("value", "walsender"),
    [("database", True), ("on", True), ("1", True), ("true", True), ("o", True), ("off", False), ("0", False)],
)
def test_replication_is_told_as_the_server_would(value, walsender):
    assert StartupMessage(3, 0, {"user": "a", "replication": value}).replication is walsender
    assert not StartupMessage(3, 0, {"user": "a"}).replication


def test_protocol_extensions_are_listed():
    message = StartupMessage(3, 2, {"user": "a", "_pq_.compression": "x", "_pq_x": "y"})
    assert message.unsupported_protocol_options == ["_pq_.compression"]


def test_the_two_requests_for_encryption():
    assert parse_startup_packet(read_whole(startup.encode_ssl_request())) == SSLRequest()
    assert parse_startup_packet(read_whole(bytes.fromhex("0000000804d21630"))) == GSSENCRequest()
    with pytest.raises(ProtocolViolation):
        parse_startup_packet(bytes.fromhex("04d2162f00"))


@pytest.mark.parametrize("key", [b"1234", b"k" * 32, b"k" * 256])
def test_cancel_keys_have_any_length_up_to_256(key):
    request = read_whole(startup.encode_cancel_request(0xFFFFFFFF, key))
    assert parse_startup_packet(request) == CancelRequest(0xFFFFFFFF, key)


@pytest.mark.parametrize("key", [b"", b"k" * 257])
def test_other_cancel_keys_are_a_violation(key):
    with pytest.raises(ProtocolViolation):
        parse_startup_packet(startup.encode_cancel_request(1, key)[4:])


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "a parameter name .* lacks the NUL"),
        (b"user\0alice\0", "a parameter name .* lacks the NUL"),
        (b"user\0alice", '"user" in the startup packet lacks the NUL'),
        (b"user\0alice\0options\0", '"options" in the startup packet has no value'),
        (b"user\0alice\0\0x", "bytes follow"),
        (b"\0", "no PostgreSQL user name"),
        (b"user\0\0\0", "no PostgreSQL user name"),
    ],
)
def test_a_malformed_startup_message_is_a_violation(body, sentence):
    with pytest.raises(ProtocolViolation, match=sentence):
        parse_startup_packet(packet(body))


def test_an_error_names_the_parameter_and_never_its_value():
    with pytest.raises(ProtocolViolation) as caught:
        parse_startup_packet(packet(b"user\0alice\0options\0secret"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("code", [2 << 16, 4 << 16, 1234 << 16 | 1])
def test_other_major_versions_are_refused_by_number(code):
    with pytest.raises(ProtocolViolation, match=rf"unsupported frontend protocol {code >> 16}\.{code & 0xFFFF}"):
        parse_startup_packet(packet(b"user\0a\0\0", code))


def test_a_packet_without_a_version_is_a_violation():
    with pytest.raises(ProtocolViolation):
        parse_startup_packet(b"\0\3")


def test_a_packet_cut_anywhere_is_collected_and_the_rest_kept():
    whole = startup.encode_startup({"user": "alice"})
    for cut in range(len(whole) + 1):
        reader = StartupReader()
        first = reader.feed(whole[:cut])
        assert (first is None) == (cut < len(whole))
        assert (reader.feed(whole[cut:] + b"behind") if first is None else first) == whole[4:]
        assert reader.rest == (b"" if first else b"behind")


def test_the_bound_is_the_servers():
    longest = b"x" * (10_000 - 4)
    assert StartupReader().feed((10_004).to_bytes(4, "big") + packet(longest)) is not None
    with pytest.raises(ProtocolViolation, match="invalid length of startup packet: 10005"):
        StartupReader().feed((10_005).to_bytes(4, "big"))
    with pytest.raises(ProtocolViolation, match="invalid length of startup packet: 7"):
        StartupReader().feed((7).to_bytes(4, "big"))


@pytest.mark.parametrize(
    ("received", "named"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP"),
        (b"POST", "HTTP"),
        (b"PRI * HTTP/2.0\r\n", "HTTP"),
        (b"\x16\x03\x01\x02\x00\x01\x00", "TLS handshake"),
        (b"SSH-2.0-OpenSSH_9.2", "SSH"),
        (bytes.fromhex("3a00000001000000000000000dd40700"[:24] + "dd070000"), "MongoDB"),
        (b"\xff\xff\xff\xff", "invalid length of startup packet: 4294967295"),
    ],
)
def test_what_is_not_postgresql_is_named_at_once(received, named):
    with pytest.raises(ProtocolViolation, match=named):
        StartupReader().feed(received)


def test_a_packet_without_a_user_name_parameter_name_cannot_be_encoded():
    with pytest.raises(ValueError, match="needs a name"):
        startup.encode_startup({"user": "a", "": "b"})
    with pytest.raises(ValueError, match="NUL"):
        startup.encode_startup({"user": "a\0b"})


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ("", []),
        ("-c a=b", [("a", "b")]),
        (" -ca=b  --c-d=e=f\t", [("a", "b"), ("c_d", "e=f")]),
        (r"-c search_path=a,\ b -c x=\\y", [("search_path", "a, b"), ("x", r"\y")]),
        ("-c a=", [("a", "")]),
        ("-c a=b\\", [("a", "b")]),
    ],
)
def test_options_are_split_as_the_server_splits_them(options, settings):
    assert split_options(options) == settings


@pytest.mark.parametrize("options", ["-e", "a=b", "-c", "-c a", "--a", "--=b", "-c =b", "-", "\\"])
def test_options_that_set_nothing_we_know_are_a_violation(options):
    with pytest.raises(ProtocolViolation):
        split_options(options)
