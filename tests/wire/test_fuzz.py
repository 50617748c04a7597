"""Whatever a peer sends is read or is a ProtocolViolation, never anything else."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.wire import messages, startup
from proxy.wire.channel_binding import end_point_hash_or_none
from proxy.wire.errors import ProtocolViolation
from proxy.wire.login import METHODS, ClientLogin, Credentials, LoginState
from proxy.wire.passwords import StoredPassword, md5_hash
from proxy.wire.scram import ScramClient, ScramServer, derive_keys, parse_verifier_or_none
from proxy.wire.server_login import ServerLogin

KEYS = derive_keys("pencil", b"salt", 10)
STORED = [
    None,
    *(StoredPassword.parse(text) for text in ("pencil", md5_hash("alice", "pencil"), KEYS.verifier.format())),
]
BINDINGS = [None, b"hash"]
# A certificate of three parts, as short as can be: a signature by sha256WithRSAEncryption.
SIGNED = bytes.fromhex("30163003020100300b06092a864886f70d01010b03020000")
CREDENTIALS = [
    None,
    Credentials(password="pencil"),
    Credentials(md5_hash=STORED[2].secret),
    Credentials(scram_keys=KEYS),
]
fuzz = settings(max_examples=300, deadline=None)


def pieces(*known: bytes):
    """Byte strings glued from what the reader knows and from noise."""
    return st.lists(st.one_of(st.sampled_from(known), st.binary(max_size=5)), max_size=8).map(b"".join)


strings = pieces(b"user", b"alice", b"\0", b"\0\0", b"options", b"SCRAM-SHA-256\0", b"\0\0\0\4", b"\xff\xff\xff\xff")
scram_messages = pieces(
    b"n,,", b"y,,", b"p=x,,", b"n=", b"r=abc", b"c=biws", b"p=", b"A" * 43 + b"=", b",", b"s=AAAA", b"i=1"
)


@fuzz
@given(packet=st.one_of(strings, strings.map(lambda body: b"\0\3\0\0" + body), st.binary(max_size=30)))
def test_startup_packets(packet):
    with contextlib.suppress(ProtocolViolation):
        parsed = startup.parse_startup_packet(packet)
        if isinstance(parsed, startup.StartupMessage):
            assert startup.parse_startup_packet(startup.encode_startup(parsed.parameters, parsed.minor)[4:]) == parsed


@fuzz
@given(fed=st.lists(st.binary(max_size=12), max_size=6))
def test_the_first_bytes_of_a_connection(fed):
    reader = startup.StartupReader(100)
    with contextlib.suppress(ProtocolViolation):
        for piece in fed:
            if (packet := reader.feed(piece)) is not None:
                assert 4 <= len(packet) <= 100
                return


@fuzz
@given(options=st.one_of(st.text(max_size=30), st.text(alphabet="-c= \\a", max_size=30)))
def test_startup_options(options):
    with contextlib.suppress(ProtocolViolation):
        assert all(name for name, _ in startup.split_options(options))


@pytest.mark.parametrize(
    "decoder",
    [
        messages.parse_authentication,
        messages.parse_backend_key_data,
        messages.parse_error_fields,
        messages.parse_mechanisms,
        messages.parse_parameter_status,
        messages.parse_password,
        messages.parse_ready_for_query,
        messages.parse_sasl_initial_response,
    ],
)
@fuzz
@given(payload=st.one_of(strings, st.binary(max_size=30)))
def test_payloads(decoder, payload):
    with contextlib.suppress(ProtocolViolation):
        decoder(payload)


@fuzz
@given(first=scram_messages, final=scram_messages)
def test_scram_messages(first, final):
    server, client = ScramServer(KEYS.verifier), ScramClient("pencil", nonce="abc")
    with contextlib.suppress(ProtocolViolation):
        server.first(first)
        assert server.final(final) is None
    with contextlib.suppress(ProtocolViolation):
        client.final(first)
        assert not client.is_signed(final)


@fuzz
@given(text=st.one_of(st.text(max_size=20), st.text(max_size=20).map(lambda tail: "SCRAM-SHA-256$" + tail)))
def test_stored_secrets(text):
    parse_verifier_or_none(text)
    assert StoredPassword.parse(text).secret == text


@pytest.mark.parametrize("method", METHODS)
@fuzz
@given(data=st.data(), stored=st.sampled_from(STORED))
def test_clients_that_log_in(method, data, stored):
    login = ClientLogin("alice", method, stored, mock_secret=b"secret", binding=data.draw(st.sampled_from(BINDINGS)))
    login.start()
    answers = st.one_of(strings, scram_messages, scram_messages.map(initial_response))
    with contextlib.suppress(ProtocolViolation):
        while login.state is LoginState.WAITING:
            login.receive(data.draw(st.sampled_from(b"ppppQX")), data.draw(answers))
    assert login.state is not LoginState.ACCEPTED or method == "trust"


def initial_response(data: bytes) -> bytes:
    mechanism = "SCRAM-SHA-256-PLUS" if data.startswith(b"p") else "SCRAM-SHA-256"
    return messages.sasl_initial_response(mechanism, data)[5:]


@fuzz
@given(der=st.binary(max_size=60), cut=st.integers(0, 60))
def test_certificates(der, cut):
    """Whatever a server shows: a hash, of SHA-256, 384 or 512, or nothing."""
    assert end_point_hash_or_none(SIGNED) is not None
    assert len(end_point_hash_or_none(SIGNED[:cut] + der) or bytes(32)) in (32, 48, 64)


@fuzz
@given(data=st.data(), credentials=st.sampled_from(CREDENTIALS))
def test_servers_that_are_logged_in_to(data, credentials):
    login = ServerLogin("alice", "shop", credentials, {})
    login.runs_on(None, is_local=True)
    login.start()
    requests = st.one_of(
        st.tuples(
            st.just(messages.AUTHENTICATION), st.builds(request, st.integers(0, 13), st.one_of(strings, scram_messages))
        ),
        st.tuples(st.sampled_from(b"RSKEZNvD"), strings),
    )
    with contextlib.suppress(ProtocolViolation):
        for _ in range(6):
            login.receive(*data.draw(requests))
    assert login.state is not LoginState.FAILED or login.error is not None


def request(kind: int, data: bytes) -> bytes:
    return kind.to_bytes(4, "big") + data
