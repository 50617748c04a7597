"""What the start-up check says of who gets in: methods, rules, users."""

import pytest

from proxy.service.check import findings
from proxy.service.config.loading import load_config_text
from proxy.service.server_facts import ServerFacts
from tests.support.certificates import make_certificates

BASE = """\
upstream: {{url: "postgresql://proxy@127.0.0.1/app"}}
budget: {{total: 10, keep_free: 5}}
default_class: web
classes: {{web: {{limit: 8, reserved: 2}}}}
listen: {listen}
auth: {auth}
"""
OPEN = "{host: 0.0.0.0}"
BY_SOCKET = '{host: "", unix_socket_dir: /tmp}'
RULES = "{{users: {{web: pw}}, rules: [{}]}}"


def check(auth, listen="{}"):
    return findings(load_config_text(BASE.format(listen=listen, auth=auth), {}, file="f.yaml"), ServerFacts(100, 3, 0))


def told(auth, listen="{}"):
    return [(finding.severity.value, finding.key) for finding in check(auth, listen)]


def rules(*entries):
    return RULES.format(", ".join(f"{{{entry}}}" for entry in entries))


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """The section `listen` with TLS, open to others."""
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder)
    return (
        f"{{host: 0.0.0.0, tls: {{cert: {folder}/server.crt, key: {folder}/server.key, client_ca: {folder}/ca.crt}}}}"
    )


@pytest.mark.parametrize(
    "auth",
    [
        "{method: trust}",
        "{method: scram, users: {web: pw}}",
        "{method: scram-sha-256, users: {web: pw}}",
        "{auth_query: 'SELECT usename, passwd FROM pg_shadow WHERE usename = $1'}",
        rules("method: trust, address: local", "method: scram"),
        rules("method: trust, address: 127.0.0.1/32", "method: md5, user: old*", "method: reject"),
    ],
)
def test_what_is_sound(auth):
    assert check(auth) == []


@pytest.mark.parametrize(
    ("auth", "listen", "severity", "key"),
    [
        ("{method: scram}", "{}", "error", "auth.users_file"),
        ("{method: scram, users_file: /nowhere/users}", "{}", "error", "auth.users_file"),
        ("{method: trust}", OPEN, "warning", "auth.method"),
        ("{method: cleartext, users: {web: pw}}", "{}", "error", "auth.method"),
        ("{method: passthrough}", OPEN, "error", "auth.method"),
        ("{method: cert}", "{}", "error", "auth.method"),
        ("{method: scram, users: {web: pw}, rules: [{method: scram}]}", "{}", "error", "auth.method"),
        (rules("method: scram, tls: required"), "{}", "error", "auth.rules[0]"),
        (rules("method: trust"), OPEN, "warning", "auth.rules[0]"),
        (rules("method: trust, address: 10.0.0.0/8"), OPEN, "warning", "auth.rules[0]"),
        (rules("method: scram", "method: reject, address: 10.0.0.0/8"), "{}", "warning", "auth.rules[1]"),
        ("{auth_query: select 1}", "{}", "error", "auth.auth_query"),
        ("{method: trust, auth_query: select $1}", "{}", "warning", "auth.auth_query"),
        ('{users: {web: "md5abcdefabcdefabcdefabcdefabcdefab"}}', "{}", "warning", "auth.users"),
    ],
)
def test_what_is_not(auth, listen, severity, key):
    assert told(auth, listen) == [(severity, key)]


@pytest.mark.parametrize(
    "auth",
    [
        "{method: cert}",
        "{method: passthrough}",
        "{method: cleartext, users: {web: pw}}",
        rules("method: cert, tls: required, user: dba*", "method: scram"),
    ],
)
def test_what_needs_tls_is_sound_where_it_is_offered(auth, tls):
    assert check(auth, tls) == []


def test_what_needs_tls_is_sound_on_a_unix_socket_and_trust_is_too():
    assert check("{method: passthrough}", BY_SOCKET) == []
    assert check("{method: trust}", BY_SOCKET) == []


def test_trust_for_one_user_of_one_address_is_what_was_meant():
    assert check(rules("method: trust, address: 10.0.0.7, user: probe", "method: scram"), OPEN) == []


# Users


def users_file(tmp_path, content, mode=0o600):
    path = tmp_path / "users.txt"
    path.write_text(content)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(
    ("method", "content", "mode", "expected"),
    [
        ("scram", '"web" "pw"', 0o600, None),
        ("scram", '"web" "pw"', 0o644, ("warning", "every user of this machine can read")),
        ("scram", "", 0o600, ("error", "names no user")),
        ("scram", "web pw", 0o600, ("error", "users.txt:1: not a user")),
        ("scram", '"web" "md5abc"', 0o600, ("warning", "what is stored of web is an md5 hash")),
        ("md5", '"web" "SCRAM-SHA-256$4096:x$y:z"', 0o600, None),  # who is stored so is asked by SCRAM
    ],
)
def test_the_users_file_is_read(tmp_path, method, content, mode, expected):
    path = users_file(tmp_path, content, mode)
    found = check(f"{{method: {method}, users_file: {path}}}")
    if expected is None:
        assert found == []
    else:
        assert found[0].severity.value == expected[0]
        assert expected[1] in found[0].text


def test_a_user_in_two_places_is_told(tmp_path):
    path = users_file(tmp_path, '"web" "pw"')
    (finding,) = check(f"{{users_file: {path}, users: {{web: other}}}}")
    assert (finding.severity.value, finding.text) == ("warning", "web also in auth.users, which wins")
