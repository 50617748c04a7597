"""SCRAM-SHA-256 against the RFC's vector, against itself, and against damage."""

import pytest

from proxy.wire.errors import ProtocolViolation
from proxy.wire.saslprep import prepare_password
from proxy.wire.scram import (
    ScramClient,
    ScramKeys,
    ScramKeysDoNotFit,
    ScramServer,
    derive_keys,
    make_mock_verifier,
    make_verifier,
    parse_verifier_or_none,
    salt_of_user,
)

# RFC 7677, section 3. The server's part of the nonce follows the client's.
SALT = bytes.fromhex("5b6d99689d12358eeca04b141236fa81")
CLIENT_NONCE = "rOprNGfwEbeRWgbNEkqO"
SERVER_NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
CLIENT_FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
SERVER_FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
WITHOUT_PROOF = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
CLIENT_FINAL = WITHOUT_PROOF + b",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

# The same password and salt as a stored secret: PostgreSQL 15 took it for a role, and psql logged in with "pencil".
FROM_PG_AUTHID = (
    "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
    "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)


@pytest.fixture
def server():
    return ScramServer(make_verifier("pencil", SALT), nonce=SERVER_NONCE)


def exchange(client: ScramClient, server: ScramServer) -> bytes | None:
    return server.final(client.final(server.first(client.first())))


def test_the_server_speaks_the_vector_of_the_rfc(server):
    assert server.first(CLIENT_FIRST) == SERVER_FIRST
    assert server.final(CLIENT_FINAL) == SERVER_FINAL


def test_the_client_speaks_the_vector_of_the_rfc():
    client = ScramClient("pencil", user="user", nonce=CLIENT_NONCE)
    assert client.first() == CLIENT_FIRST
    assert client.final(SERVER_FIRST) == CLIENT_FINAL
    assert client.is_signed(SERVER_FINAL)


def test_a_verifier_has_the_form_the_server_stores():
    verifier = make_verifier("pencil", SALT)
    assert verifier.format() == FROM_PG_AUTHID
    assert parse_verifier_or_none(FROM_PG_AUTHID) == verifier


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        FROM_PG_AUTHID.replace("256", "512"),
        FROM_PG_AUTHID.replace("4096", "0"),
        FROM_PG_AUTHID.replace("4096", "-1"),
        FROM_PG_AUTHID.replace("4096", "9" * 5000),
        FROM_PG_AUTHID.replace("4096", "4\u0660"),
        FROM_PG_AUTHID.replace("W22Z", "????"),
        FROM_PG_AUTHID.replace("W22ZaJ0SNY7soEsUEjb6gQ==", ""),
        FROM_PG_AUTHID.replace("wfPL", ""),
        FROM_PG_AUTHID + "$",
        FROM_PG_AUTHID[:-1],
        "SCRAM-SHA-256$4096:\u00e9$\u00e9:\u00e9",
    ],
)
def test_what_is_no_verifier_is_not_read_as_one(text):
    assert parse_verifier_or_none(text) is None


@pytest.mark.parametrize("password", ["pencil", "", "caf\u00e9", "\u2168", "not utf-8 \udcff", "a" * 1000])
def test_each_side_convinces_the_other(password):
    client = ScramClient(password)
    server = ScramServer(make_verifier(password, b"salt", 10))
    server_final = exchange(client, server)
    assert server_final is not None
    assert client.is_signed(server_final)


def test_a_wrong_password_is_told_at_the_end(server):
    assert exchange(ScramClient("pencils"), server) is None
    assert server.client_key == b""


def test_the_proof_reveals_a_key_that_logs_in_where_the_verifier_is_the_same(server):
    exchange(ScramClient("pencil"), server)
    verifier = make_verifier("pencil", SALT)
    keys = ScramKeys(verifier, server.client_key)
    assert keys == derive_keys("pencil", SALT, 4096)
    client, upstream = ScramClient(keys), ScramServer(verifier)
    server_final = exchange(client, upstream)
    assert server_final is not None
    assert client.is_signed(server_final)


@pytest.mark.parametrize("other", [make_verifier("pencil", b"another salt"), make_verifier("pencil", SALT, 4097)])
def test_keys_of_another_verifier_say_that_they_do_not_fit(other):
    client = ScramClient(derive_keys("pencil", SALT, 4096))
    with pytest.raises(ScramKeysDoNotFit):
        exchange(client, ScramServer(other))


def test_a_server_that_does_not_know_the_verifier_is_found_out(server):
    client = ScramClient("pencil")
    client.final(server.first(client.first()))
    assert not client.is_signed(SERVER_FINAL)
    assert not client.is_signed(b"e=other-error")
    with pytest.raises(ProtocolViolation):
        client.is_signed(b"v=?")


def test_a_server_that_never_sent_a_challenge_has_signed_nothing():
    assert not ScramClient("pencil").is_signed(b"v=")


def test_an_unknown_user_gets_the_same_salt_each_time_and_no_password_fits():
    one, again, other = (make_mock_verifier(user, b"secret") for user in ("a", "a", "b"))
    assert one == again
    assert one.salt != other.salt
    assert one.salt != make_mock_verifier("a", b"another secret").salt
    genuine = make_verifier("x", b"s" * 16)
    assert [len(part) for part in (one.salt, one.stored_key)] == [len(genuine.salt), len(genuine.stored_key)]
    assert one.iterations == genuine.iterations
    assert exchange(ScramClient("x"), ScramServer(one)) is None


def test_a_client_that_saw_no_channel_binding_offered_may_say_so(server):
    challenge = server.first(b"y,,n=,r=abc")
    assert challenge.startswith(b"r=abc" + SERVER_NONCE.encode())
    without_proof = b"c=eSws," + challenge.partition(b",")[0]
    assert server.final(without_proof + b",p=" + b"A" * 43 + b"=") is None  # read to the end; only the proof is wrong


def test_a_bound_exchange_repeats_the_hash_and_is_accepted():
    client, server = ScramClient("pencil", binding=b"hash"), bound_server(b"hash")
    assert client.is_signed(server.final(client.final(server.first(client.first(), plus=True))))
    assert not server.is_bound_elsewhere


def test_a_client_that_saw_another_certificate_is_told_apart_from_a_wrong_password():
    """Somebody between two TLS legs passes every message on as it is."""
    client, server = ScramClient("pencil", binding=b"his"), bound_server(b"ours")
    assert server.final(client.final(server.first(client.first(), plus=True))) is None
    assert server.is_bound_elsewhere
    stranger, server = ScramClient("pencils", binding=b"ours"), bound_server(b"ours")
    assert server.final(stranger.final(server.first(stranger.first(), plus=True))) is None
    assert not server.is_bound_elsewhere


@pytest.mark.parametrize(
    ("client_first", "plus", "sentence"),
    [
        (b"p=tls-server-end-point,,n=,r=abc", False, "does not fit the SASL mechanism"),
        (b"n,,n=,r=abc", True, "does not fit the SASL mechanism"),
        (b"p=tls-unique,,n=,r=abc", True, "other than tls-server-end-point"),
        (b"y,,n=,r=abc", False, "believes that channel binding was not offered"),
    ],
)
def test_what_a_client_says_of_channel_binding_has_to_fit_what_was_offered(client_first, plus, sentence):
    with pytest.raises(ProtocolViolation, match=sentence):
        bound_server(b"hash").first(client_first, plus=plus)


def test_a_client_need_not_bind_although_it_was_offered():
    client, server = ScramClient("pencil"), bound_server(b"hash")
    assert client.is_signed(exchange(client, server))


def test_a_client_that_could_bind_says_so_where_that_was_not_offered():
    assert ScramClient("pencil", could_bind=True).first().startswith(b"y,,")
    assert ScramClient("pencil", binding=b"hash", could_bind=True).first().startswith(b"p=tls-server-end-point,,")


def bound_server(binding: bytes) -> ScramServer:
    return ScramServer(make_verifier("pencil", SALT), binding=binding)


def test_a_mock_verifier_shows_the_salt_of_a_password_kept_in_the_clear_and_nothing_fits_it():
    mock = make_mock_verifier("alice", b"secret", 4000)
    assert (mock.salt, mock.iterations) == (salt_of_user("alice", b"secret"), 4000)
    assert mock.salt != salt_of_user("bob", b"secret")
    assert exchange(ScramClient(""), ScramServer(mock)) is None


def test_extensions_behind_the_known_attributes_are_let_be(server):
    challenge = server.first(b"n,,n=,r=abc,x=later")
    assert server.final(b"c=biws," + challenge.partition(b",")[0] + b",x=later,p=" + b"A" * 43 + b"=") is None


@pytest.mark.parametrize(
    ("client_first", "sentence"),
    [
        (b"p=tls-server-end-point,,n=,r=abc", "channel binding, which was not offered"),
        (b"n,a=root,n=,r=abc", "authorization identity"),
        (b"x,,n=,r=abc", "channel binding flag"),
        (b"n", "authorization identity"),
        (b"n,,m=mandatory,n=,r=abc", "expected the attributes"),
        (b"n,,r=abc,n=", "expected the attributes"),
        (b"n,,n=", "expected the attributes"),
        (b"n,,n=,r=", "nonce"),
        (b"n,,n=,r=a\x7fb", "nonce"),
        (b"", "channel binding flag"),
    ],
)
def test_a_malformed_first_message_is_a_violation(server, client_first, sentence):
    with pytest.raises(ProtocolViolation, match=sentence):
        server.first(client_first)


@pytest.mark.parametrize(
    ("client_final", "sentence"),
    [
        (b"", "expected the attributes"),
        (WITHOUT_PROOF, "expected the attributes|channel binding"),
        (CLIENT_FINAL.replace(b"biws", b"eSws"), "channel binding"),
        (CLIENT_FINAL.replace(b"biws", b"????"), "base64"),
        (CLIENT_FINAL.replace(b"k0,", b"k1,"), "nonce does not match"),
        (WITHOUT_PROOF + b",p=QUJD", "wrong length"),
        (WITHOUT_PROOF + b",p=?", "base64"),
        (WITHOUT_PROOF + b",p=\xff", "base64"),
    ],
)
def test_a_malformed_final_message_is_a_violation(server, client_final, sentence):
    server.first(CLIENT_FIRST)
    with pytest.raises(ProtocolViolation, match=sentence):
        server.final(client_final)


@pytest.mark.parametrize(
    ("server_first", "sentence"),
    [
        (b"", "expected the attributes"),
        (SERVER_FIRST.replace(b"rOpr", b"xxxx"), "does not extend"),
        (b"r=" + CLIENT_NONCE.encode() + b",s=AAAA,i=1", "does not extend"),
        (SERVER_FIRST.replace(b"W22Z", b"????"), "base64"),
        (SERVER_FIRST.replace(b"4096", b"0"), "iteration count"),
        (SERVER_FIRST.replace(b"4096", b"-1"), "iteration count"),
        (SERVER_FIRST.replace(b"4096", b"9" * 5000), "iteration count"),
        (SERVER_FIRST.replace(b"4096", b"2000000000"), "2000000000 SCRAM iterations"),
    ],
)
def test_a_malformed_challenge_is_a_violation(server_first, sentence):
    with pytest.raises(ProtocolViolation, match=sentence):
        ScramClient("pencil", user="user", nonce=CLIENT_NONCE).final(server_first)


def test_a_user_name_is_escaped_where_one_is_sent():
    assert ScramClient("x", user="a=b,c", nonce="n").first() == b"n,,n=a=3Db=2Cc,r=n"


def test_secrets_do_not_show_in_representations():
    keys = derive_keys("pencil", SALT, 4096)
    assert repr(keys.client_key) not in repr(keys)
    assert repr(keys.verifier.stored_key) not in repr(keys)


@pytest.mark.parametrize(
    ("password", "prepared"),
    [
        ("ascii\x07", b"ascii\x07"),
        ("I\u00adX", b"IX"),
        ("\u00aa", b"a"),
        ("\u2168", b"IX"),
        ("a\u00a0b", b"a b"),
        ("\u00e9", "\u00e9".encode()),
        ("e\u0301", "\u00e9".encode()),
        ("\u06271", "\u06271".encode()),  # right-to-left that does not end so has no form: raw
        ("\u0627a\u0628", "\u0627a\u0628".encode()),
        ("\u0627\u0628", "\u0627\u0628".encode()),
        ("\u00e9\x07", "\u00e9\x07".encode()),  # control characters are prohibited: raw
        ("\u0221", "\u0221".encode()),
        ("\u00ad", "\u00ad".encode()),  # nothing would be left: raw
        ("\udcff\udce9", b"\xff\xe9"),
    ],
)
def test_passwords_are_prepared_as_the_server_prepares_them(password, prepared):
    assert prepare_password(password) == prepared
