"""Both halves of a login, against each other and against liars."""

import pytest

from proxy.wire import messages
from proxy.wire.channel_binding import end_point_hash_or_none
from proxy.wire.errors import ProtocolViolation
from proxy.wire.framing import BACKEND_TYPES, FRONTEND_TYPES, Cursor
from proxy.wire.login import METHODS, ClientLogin, Credentials, LoginFailure, LoginState
from proxy.wire.messages import ErrorFields
from proxy.wire.passwords import StoredPassword, md5_hash
from proxy.wire.scram import derive_keys, make_verifier
from proxy.wire.server_login import ChannelBinding, ServerLogin
from proxy.wire.startup import parse_startup_packet

CERTIFICATE = bytes.fromhex("30163003020100300b06092a864886f70d01010b03020000")  # no more than is read of it
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


def proxy_to_server(credentials, *, shown=None, is_local=False, **options) -> ServerLogin:
    login = ServerLogin("alice", "shop", credentials, {}, **options)
    login.runs_on(shown, is_local=is_local)
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
    server, client = ClientLogin("alice", method, stored), proxy_to_server(credentials, is_local=True)
    log_in(client, server)
    finish(client)
    assert (server.state, client.state) == (LoginState.ACCEPTED, LoginState.DONE)


@pytest.mark.parametrize("method", ["cleartext", "md5", "scram"])
@pytest.mark.parametrize("stored", [None, PLAINTEXT, MD5, SCRAM])
def test_who_does_not_is_refused_in_the_same_words_known_or_not(method, stored):
    server = ClientLogin("alice", method, stored, mock_secret=b"secret")
    client = proxy_to_server(Credentials(password="pencils"), is_local=True)
    log_in(client, server)
    assert server.state is LoginState.REFUSED
    assert server.error == SAYS_NO
    assert server.reason is not None
    assert server.credentials == Credentials()


def test_a_user_nobody_knows_is_refused_whatever_the_method_and_the_log_says_why():
    for method in set(METHODS) - {"trust", "passthrough"}:
        server = ClientLogin("alice", method, None, mock_secret=b"secret")
        log_in(proxy_to_server(Credentials(password="pencil"), is_local=True), server)
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
    log_in(proxy_to_server(Credentials(password="pencil"), is_local=True), server)
    assert server.credentials == learnt


@pytest.mark.parametrize(
    ("method", "stored", "password", "failure"),
    [
        ("scram", None, "pencil", LoginFailure.UNKNOWN_USER),
        ("scram", SCRAM, "pencils", LoginFailure.WRONG_PASSWORD),
        ("scram", MD5, "pencil", LoginFailure.UNUSABLE_SECRET),
        ("cleartext", None, "pencil", LoginFailure.UNKNOWN_USER),
        ("passthrough", None, "", LoginFailure.WRONG_PASSWORD),
    ],
)
def test_a_failure_has_a_name_for_the_metrics(method, stored, password, failure):
    server = ClientLogin("alice", method, stored, mock_secret=b"secret")
    log_in(proxy_to_server(Credentials(password=password), is_local=True), server)
    assert (server.state, server.failure) == (LoginState.REFUSED, failure)


@pytest.mark.parametrize("stored", [PLAINTEXT, SCRAM])
def test_over_tls_the_exchange_is_bound_to_the_certificate_both_see(stored):
    server = ClientLogin("alice", "scram", stored, binding=end_point_hash_or_none(CERTIFICATE))
    client = proxy_to_server(Credentials(password="pencil"), shown=CERTIFICATE, channel_binding=ChannelBinding.REQUIRE)
    log_in(client, server)
    finish(client)
    assert (server.state, client.state) == (LoginState.ACCEPTED, LoginState.DONE)


def test_a_client_behind_somebody_elses_tls_is_told_of_the_binding_and_not_of_its_password():
    server = ClientLogin("alice", "scram", SCRAM, binding=b"what the client did not see")
    log_in(proxy_to_server(Credentials(password="pencil"), shown=CERTIFICATE), server)
    assert (server.state, server.failure) == (LoginState.REFUSED, LoginFailure.CHANNEL_BINDING)
    assert "channel binding" in server.error.message
    assert "channel_binding=disable" in server.error.hint


def test_a_password_that_is_handed_on_is_judged_by_the_server():
    server = handing_on("pencil")
    assert server.credentials == Credentials(password="pencil")
    server.server_accepted()
    assert server.state is LoginState.ACCEPTED


def test_a_password_that_the_server_refuses_is_kept_nowhere():
    server = handing_on("pencils")
    server.server_refused(SAYS_NO, LoginFailure.SERVER_REFUSED, "it says no")
    assert (server.state, server.error, server.reason) == (LoginState.REFUSED, SAYS_NO, "it says no")
    assert server.credentials == Credentials()


def handing_on(password):
    server = ClientLogin("alice", "passthrough", None)
    log_in(proxy_to_server(Credentials(password=password), is_local=True), server)
    assert server.state is LoginState.HANDED_ON
    return server


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


def test_the_servers_own_error_is_kept():
    login = proxy_to_server(None)
    payload = b'SFATAL\0VFATAL\0C3D000\0Mdatabase "shop" does not exist\0Fpostinit.c\0\0'
    login.receive(messages.ERROR_RESPONSE, payload)
    assert login.state is LoginState.FAILED
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
    login = proxy_to_server(Credentials(md5_hash=MD5.secret), is_local=True)
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


SCRAM_AND_PLUS = messages.authentication_sasl(["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"])
SCRAM_ALONE = messages.authentication_sasl(["SCRAM-SHA-256"])


def answered(request_, **options):
    """The mechanism and the first data that the proxy answers with."""
    login = proxy_to_server(Credentials(password="pencil"), **options)
    reply = login.receive(*framed(request_, BACKEND_TYPES)[0])
    assert login.state is LoginState.WAITING, login.error
    return messages.parse_sasl_initial_response(reply[5:])


@pytest.mark.parametrize(
    ("request_", "shown", "mode", "mechanism", "flag"),
    [
        (SCRAM_AND_PLUS, CERTIFICATE, "prefer", "SCRAM-SHA-256-PLUS", b"p=tls-server-end-point,,"),
        (SCRAM_AND_PLUS, CERTIFICATE, "require", "SCRAM-SHA-256-PLUS", b"p=tls-server-end-point,,"),
        (SCRAM_AND_PLUS, CERTIFICATE, "disable", "SCRAM-SHA-256", b"n,,"),
        (SCRAM_AND_PLUS, b"signed by nothing with a hash", "prefer", "SCRAM-SHA-256", b"n,,"),
        (SCRAM_ALONE, CERTIFICATE, "prefer", "SCRAM-SHA-256", b"y,,"),
        (SCRAM_ALONE, CERTIFICATE, "disable", "SCRAM-SHA-256", b"n,,"),
        (SCRAM_ALONE, None, "prefer", "SCRAM-SHA-256", b"n,,"),
    ],
)
def test_a_login_binds_where_it_may_and_can(request_, shown, mode, mechanism, flag):
    selected, data = answered(request_, shown=shown, channel_binding=ChannelBinding(mode))
    assert (selected, data.startswith(flag)) == (mechanism, True)


@pytest.mark.parametrize(
    ("request_", "shown", "why"),
    [
        (SCRAM_ALONE, CERTIFICATE, "the server does not offer it"),
        (SCRAM_ALONE, None, "the leg is not encrypted"),
        (SCRAM_AND_PLUS, b"no certificate", "names no hash function"),
        (messages.authentication_md5(b"salt"), CERTIFICATE, "the server asks for MD5_PASSWORD without it"),
        (messages.authentication_cleartext(), CERTIFICATE, "the server asks for CLEARTEXT_PASSWORD without it"),
        (messages.authentication_ok(), CERTIFICATE, "the server lets us in without it"),
    ],
)
def test_a_required_binding_that_cannot_be_ends_the_login_before_anything_is_sent(request_, shown, why):
    login = proxy_to_server(Credentials(password="x"), shown=shown, channel_binding=ChannelBinding.REQUIRE)
    assert login.receive(*framed(request_, BACKEND_TYPES)[0]) == b""
    assert login.state is LoginState.FAILED
    assert why in login.error.message
    assert "channel_binding" in login.error.hint


def test_channel_binding_offered_without_tls_is_a_sign_of_somebody_in_between():
    login = proxy_to_server(Credentials(password="x"))
    login.receive(*framed(SCRAM_AND_PLUS, BACKEND_TYPES)[0])
    assert "not encrypted" in login.error.message


@pytest.mark.parametrize(("shown", "is_local"), [(CERTIFICATE, False), (None, True)])
def test_a_cleartext_password_is_sent_where_nobody_listens(shown, is_local):
    login = proxy_to_server(Credentials(password="x"), shown=shown, is_local=is_local)
    assert login.receive(*framed(messages.authentication_cleartext(), BACKEND_TYPES)[0]) == messages.password_message(
        "x"
    )


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
