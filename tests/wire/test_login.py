"""Both halves of a login, against each other and against liars."""

import pytest

from proxy.wire import messages
from proxy.wire.errors import ProtocolViolation
from proxy.wire.framing import BACKEND_TYPES, FRONTEND_TYPES, Cursor
from proxy.wire.login import METHODS, ClientLogin, Credentials, LoginState, ServerLogin
from proxy.wire.messages import ErrorFields
from proxy.wire.passwords import StoredPassword, md5_hash
from proxy.wire.scram import derive_keys, make_verifier
from proxy.wire.startup import parse_startup_packet

KEYS = derive_keys("pencil", b"salt", 10)
PLAINTEXT = StoredPassword.parse("pencil")
MD5 = StoredPassword.parse(md5_hash("alice", "pencil"))
SCRAM = StoredPassword.parse(KEYS.verifier.format())
SAYS_NO = ErrorFields("FATAL", "28P01", 'password authentication failed for user "alice"')


def framed(stream: bytes, known: bytes):
    cursor = Cursor(known, known=known)
    _, facts = cursor.feed(stream)
    assert cursor.at_boundary
    return [(kind, stream[start + 5 : end]) for kind, start, end in facts]


def log_in(client: ServerLogin, server: ClientLogin) -> None:
    """Let the proxy's client half log in at its server half, to AuthenticationOk or a refusal."""
    to_client = server.start()
    while server.state is LoginState.WAITING and client.state is LoginState.WAITING:
        to_server = b"".join(client.receive(*message) for message in framed(to_client, BACKEND_TYPES))
        to_client = b"".join(server.receive(*message) for message in framed(to_server, FRONTEND_TYPES))
    to_client += messages.authentication_ok() if server.state is LoginState.ACCEPTED else b""
    for message in framed(to_client, BACKEND_TYPES):
        client.receive(*message)


def proxy_to_server(credentials, **options) -> ServerLogin:
    login = ServerLogin("alice", "shop", credentials, {}, **options)
    login.start()
    return login


def finish(login: ServerLogin) -> None:
    login.receive(messages.READY_FOR_QUERY, b"I")


@pytest.mark.parametrize(
    ("method", "stored", "credentials"),
    [
        ("trust", None, Credentials()),
        ("cleartext", PLAINTEXT, Credentials(password="pencil")),
        ("cleartext", MD5, Credentials(password="pencil")),
        ("cleartext", SCRAM, Credentials(password="pencil")),
        ("md5", PLAINTEXT, Credentials(password="pencil")),
        ("md5", PLAINTEXT, Credentials(md5_hash=MD5.secret)),
        ("md5", MD5, Credentials(password="pencil")),
        ("md5", MD5, Credentials(md5_hash=MD5.secret)),
        ("md5", SCRAM, Credentials(password="pencil")),
        ("scram", PLAINTEXT, Credentials(password="pencil")),
        ("scram", SCRAM, Credentials(password="pencil")),
        ("scram", SCRAM, Credentials(scram_keys=KEYS)),
    ],
)
def test_who_knows_the_secret_is_accepted(method, stored, credentials):
    server, client = ClientLogin("alice", method, stored), proxy_to_server(credentials, allow_cleartext=True)
    log_in(client, server)
    finish(client)
    assert (server.state, client.state) == (LoginState.ACCEPTED, LoginState.DONE)


@pytest.mark.parametrize("method", ["cleartext", "md5", "scram"])
@pytest.mark.parametrize("stored", [None, PLAINTEXT, MD5, SCRAM])
def test_who_does_not_is_refused_in_the_same_words_known_or_not(method, stored):
    server = ClientLogin("alice", method, stored, mock_secret=b"secret")
    client = proxy_to_server(Credentials(password="pencils"), allow_cleartext=True)
    log_in(client, server)
    assert server.state is LoginState.REFUSED
    assert server.error == SAYS_NO
    assert server.reason is not None
    assert server.credentials == Credentials()


def test_a_user_nobody_knows_is_refused_whatever_the_method_and_the_log_says_why():
    for method in set(METHODS) - {"trust"}:
        server = ClientLogin("alice", method, None, mock_secret=b"secret")
        log_in(proxy_to_server(Credentials(password="pencil"), allow_cleartext=True), server)
        assert server.error == SAYS_NO
        assert server.reason == 'no password is stored for user "alice"'


def test_an_md5_hash_cannot_be_checked_by_scram_and_the_log_says_so():
    server = ClientLogin("alice", "scram", MD5, mock_secret=b"secret")
    log_in(proxy_to_server(Credentials(password="pencil")), server)
    assert server.error == SAYS_NO
    assert "md5 hash" in server.reason
    assert 'set method "md5"' in server.reason


def test_an_empty_password_is_refused_even_where_it_is_stored():
    server = ClientLogin("alice", "cleartext", StoredPassword.parse(""))
    server.start()
    server.receive(messages.PASSWORD_MESSAGE, b"\0")
    assert server.state is LoginState.REFUSED


@pytest.mark.parametrize(
    ("method", "stored", "learnt"),
    [
        ("trust", None, Credentials()),
        ("trust", PLAINTEXT, Credentials(password="pencil")),
        ("trust", MD5, Credentials(md5_hash=MD5.secret)),
        ("trust", SCRAM, Credentials()),
        ("cleartext", SCRAM, Credentials(password="pencil")),
        ("md5", PLAINTEXT, Credentials(password="pencil")),
        ("md5", MD5, Credentials(md5_hash=MD5.secret)),
        ("scram", PLAINTEXT, Credentials(password="pencil")),
        ("scram", SCRAM, Credentials(scram_keys=KEYS)),
    ],
)
def test_what_is_learnt_logs_in_to_the_server(method, stored, learnt):
    server = ClientLogin("alice", method, stored)
    log_in(proxy_to_server(Credentials(password="pencil"), allow_cleartext=True), server)
    assert server.credentials == learnt


def test_credentials_do_not_show():
    assert "pencil" not in repr(Credentials(password="pencil", md5_hash="md5pencil", scram_keys=KEYS))


def test_a_sasl_client_may_send_its_first_data_when_asked_again():
    server = ClientLogin("alice", "scram", SCRAM)
    server.start()
    empty = server.receive(messages.PASSWORD_MESSAGE, b"SCRAM-SHA-256\0\xff\xff\xff\xff")
    assert empty == messages.authentication_sasl_continue(b"")
    assert server.receive(messages.PASSWORD_MESSAGE, b"n,,n=,r=abc")[9:].startswith(b"r=abc")


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256-PLUS", "PLAIN", ""])
def test_a_mechanism_that_was_not_offered_is_a_violation(mechanism):
    server = ClientLogin("alice", "scram", SCRAM)
    server.start()
    with pytest.raises(ProtocolViolation, match="not offered"):
        server.receive(*framed(messages.sasl_initial_response(mechanism, b"n,,n=,r=a"), FRONTEND_TYPES)[0])


@pytest.mark.parametrize("method", ["scram", "md5", "cleartext"])
def test_a_client_that_does_not_answer_what_was_asked_breaks_the_protocol(method):
    server = ClientLogin("alice", method, PLAINTEXT)
    server.start()
    with pytest.raises(ProtocolViolation, match="expected a password response, got Query"):
        server.receive(messages.QUERY, b"select 1\0")
    with pytest.raises(ProtocolViolation):
        server.receive(messages.PASSWORD_MESSAGE, b"")


# -- the proxy as the client ------------------------------------------------------------------------------------------


def test_the_startup_message_names_user_database_and_parameters():
    start = ServerLogin("alice", "shop", None, {"application_name": "web"}).start()
    assert parse_startup_packet(start[4:]).parameters == {
        "user": "alice",
        "database": "shop",
        "application_name": "web",
    }


def test_a_login_collects_what_the_server_tells_until_it_is_ready():
    login = proxy_to_server(None)
    told = (
        messages.negotiate_protocol_version(0, [])
        + messages.notice_response(ErrorFields("WARNING", "01000", "collation version mismatch"))
        + messages.authentication_ok()
        + messages.parameter_status("TimeZone", "UTC")
        + messages.parameter_status("TimeZone", "Europe/Berlin")
        + messages.backend_key_data(42, b"k" * 32)
    )
    assert all(login.receive(*message) == b"" for message in framed(told, BACKEND_TYPES))
    assert login.state is LoginState.WAITING
    finish(login)
    assert login.state is LoginState.DONE
    assert (login.parameters, login.process_id, login.secret_key) == ({"TimeZone": "Europe/Berlin"}, 42, b"k" * 32)


def test_the_servers_own_error_is_kept_to_the_byte():
    login = proxy_to_server(None)
    payload = b'SFATAL\0VFATAL\0C3D000\0Mdatabase "shop" does not exist\0Fpostinit.c\0\0'
    login.receive(messages.ERROR_RESPONSE, payload)
    assert login.state is LoginState.FAILED
    assert login.raw_error == payload
    assert login.error == ErrorFields("FATAL", "3D000", 'database "shop" does not exist')


def test_what_comes_after_a_failure_is_not_looked_at():
    login = proxy_to_server(None)
    login.receive(messages.ERROR_RESPONSE, b"C3D000\0\0")
    assert login.receive(messages.DATA_ROW, b"") == b""
    assert login.state is LoginState.FAILED


@pytest.mark.parametrize(
    ("request_", "credentials", "missing"),
    [
        (messages.authentication_sasl(["SCRAM-SHA-256"]), None, "SCRAM keys"),
        (messages.authentication_sasl(["SCRAM-SHA-256"]), Credentials(md5_hash=MD5.secret), "SCRAM keys"),
        (messages.authentication_sasl(["OAUTHBEARER"]), Credentials(password="x"), "only OAUTHBEARER"),
        (messages.authentication_md5(b"salt"), None, "md5 hash"),
        (messages.authentication_md5(b"salt"), Credentials(scram_keys=KEYS), "md5 hash"),
        (messages.authentication_cleartext(), Credentials(password="x"), "not encrypted"),
        (messages.message(messages.AUTHENTICATION, b"\0\0\0\7"), None, "GSS authentication"),
        (messages.message(messages.AUTHENTICATION, b"\0\0\0\x09"), None, "SSPI authentication"),
        (messages.message(messages.AUTHENTICATION, b"\0\0\0\2"), None, "KERBEROS_V5 authentication"),
    ],
)
def test_what_cannot_be_answered_fails_naming_the_user_and_what_is_missing(request_, credentials, missing):
    login = proxy_to_server(credentials)
    assert login.receive(*framed(request_, BACKEND_TYPES)[0]) == b""
    assert login.state is LoginState.FAILED
    assert 'user "alice"' in login.error.message
    assert missing in login.error.message


def test_a_cleartext_password_that_is_not_known_is_missed_by_name():
    login = proxy_to_server(Credentials(md5_hash=MD5.secret), allow_cleartext=True)
    login.receive(*framed(messages.authentication_cleartext(), BACKEND_TYPES)[0])
    assert "unknown here: the password itself" in login.error.message


def test_keys_of_another_verifier_fail_with_the_remedy():
    server = ClientLogin("alice", "scram", StoredPassword.parse(make_verifier("pencil", b"other").format()))
    client = proxy_to_server(Credentials(scram_keys=KEYS))
    client_first = client.receive(*framed(server.start(), BACKEND_TYPES)[0])
    challenge = server.receive(*framed(client_first, FRONTEND_TYPES)[0])
    client.receive(*framed(challenge, BACKEND_TYPES)[0])
    assert client.state is LoginState.FAILED
    assert "another SCRAM secret" in client.error.message
    assert "pg_authid" in client.error.hint


@pytest.fixture
def in_exchange():
    """A login at the point where the server is to prove itself."""
    server, client = ClientLogin("alice", "scram", SCRAM), proxy_to_server(Credentials(password="pencil"))
    to_server = client.receive(*framed(server.start(), BACKEND_TYPES)[0])
    client.receive(*framed(server.receive(*framed(to_server, FRONTEND_TYPES)[0]), BACKEND_TYPES)[0])
    return client


def test_a_server_with_a_wrong_signature_is_not_the_one_it_claims_to_be(in_exchange):
    in_exchange.receive(messages.AUTHENTICATION, messages.authentication_sasl_final(b"v=" + b"A" * 43 + b"=")[5:])
    assert in_exchange.state is LoginState.FAILED
    assert "not the one it claims to be" in in_exchange.error.message


def test_a_server_that_skips_its_proof_is_not_believed(in_exchange):
    in_exchange.receive(messages.AUTHENTICATION, messages.authentication_ok()[5:])
    assert in_exchange.state is LoginState.FAILED
    assert "without proving" in in_exchange.error.message


@pytest.mark.parametrize(
    "out_of_order",
    [
        messages.authentication_sasl_continue(b"r=x,s=AAAA,i=1"),
        messages.authentication_sasl_final(b"v=AAAA"),
        messages.ready_for_query(b"I"),
        messages.data_row(["x"]),
        messages.message(messages.AUTHENTICATION, b"\0\0\0\x63"),
    ],
)
def test_what_has_no_place_in_a_login_is_a_violation(out_of_order):
    with pytest.raises(ProtocolViolation):
        proxy_to_server(None).receive(*framed(out_of_order, BACKEND_TYPES)[0])
