"""A configuration file, from text to validated settings or to findings that tell what to change."""

import pytest

from proxy.service.config.errors import ConfigError
from proxy.service.config.loading import config_hash, load_config, load_config_text

SMALLEST = """\
upstream: {url: "postgresql://proxy:hush@db.example/app"}
default_class: web
classes:
  web: {limit: 10}
"""


def load(text, **environ):
    return load_config_text(text, environ, file="f.yaml")


def findings(text, **environ):
    with pytest.raises(ConfigError) as caught:
        load(text, **environ)
    return [str(finding) for finding in caught.value.findings]


def test_the_smallest_file_has_safe_defaults():
    config = load(SMALLEST)
    assert (config.listen.host, config.listen.port) == ("127.0.0.1", 6432)
    assert (config.http.host, config.http.switches_from) == ("127.0.0.1", "loopback")
    assert config.auth.method == "scram"
    assert config.budget.total == "auto"
    assert config.budget.keep_free == 5
    assert config.classes["web"].pool_mode == "transaction"


def test_a_mistake_names_file_line_key_what_was_read_and_what_is_allowed():
    assert findings(SMALLEST.replace("limit: 10", "limit: 10, reserved: forty")) == [
        "f.yaml:4: classes.web.reserved: read 'forty', allowed: a whole number >= 0"
    ]


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file():
    text = SMALLEST.replace("limit: 10", "limit: ten") + 'log: {level: loud}\nhttp: {port: "${PORT}"}\n'
    told = findings(text)
    assert [line.split(": ")[1] for line in told] == ["classes.web.limit", "log.level", "http.port"]
    assert "the environment variable PORT is not set" in told[2]


@pytest.mark.parametrize(
    ("added", "told"),
    [
        ("pol: {}", 'pol: unknown setting; did you mean "pool"?'),
        ("listen: {prot: 1}", 'listen.prot: unknown setting; did you mean "port"?'),
        ("shutdown: {x: 1}", "shutdown.x: unknown setting; allowed: drain_timeout"),
        ("budget: {headroom: {size: 1, for_classes: [web]}}", "for_classes: unknown setting"),
    ],
)
def test_an_unknown_setting_comes_with_a_suggestion(added, told):
    assert told in findings(SMALLEST + added)[0]


@pytest.mark.parametrize(
    ("added", "told"),
    [
        ("listen: 5", "listen: read 5, allowed: a section with host, port"),
        ("listen: {port: 70000}", "listen.port: read 70000, allowed: a whole number from 0 to 65535"),
        ("listen: {port: true}", "listen.port: read true, allowed: a whole number"),
        ("pool: {max_dials: 1.5}", "pool.max_dials: read 1.5, allowed: a whole number >= 1"),
        ("pool: {dial_timeout: 0}", "pool.dial_timeout: read 0, allowed: a length of time, more than 0"),
        ("pool: {dial_timeout: fast}", "read 'fast', allowed: a length of time"),
        ("limits: {max_startup_bytes: 10}", "read 10, allowed: bytes from 1000 to 1048576"),
        ("auth: {method: off}", "auth.method: read 'off', allowed: scram, md5, cleartext, trust, cert, passthrough"),
        ("auth: {rules: [{method: kerberos}]}", "auth.rules[0].method: read 'kerberos', allowed: scram, md5"),
        ("auth: {method: reject}", "auth.method: read 'reject', allowed: scram, md5"),
        ("auth: {users: [web, hush]}", "auth.users: not a section"),
        ("auth: {users: {web: 4711}}", 'auth.users: the secret of user "web" is no text; write it in quotes'),
        ('auth: {users: {web: ""}}', 'auth.users: the secret of user "web" is empty'),
        ("auth: {cert_users: {web: [a]}}", "auth.cert_users: read a section with web, allowed: names with a user each"),
        ("auth: {cert_users: web}", "auth.cert_users: read 'web', allowed: names with a user each"),
        ("budget: {total: all}", "budget.total: read 'all', allowed: a whole number >= 1 or auto"),
        ("budget: {headroom: {for: web}}", "budget.headroom.for: read 'web', allowed: a list"),
        ("budget: {headroom: {for: [wep]}}", "budget.headroom.for[0]: read 'wep', allowed: web; did you mean \"web\"?"),
        ("replication_class: wep", "replication_class: read 'wep', allowed: web; did you mean \"web\"?"),
        ("pool: {cancel_on_disconnect: maybe}", "pool.cancel_on_disconnect: read 'maybe', allowed: true, false"),
        ("pool: {cancel_on_disconnect: 1}", "pool.cancel_on_disconnect: read 1, allowed: true, false"),
        ("http: {port: null, host: 5}", None),
    ],
)
def test_what_is_not_allowed_is_told(added, told):
    if told is None:
        assert load(SMALLEST + added).http.host == "5"
    else:
        assert told in findings(SMALLEST + added)[0]


def test_what_is_missing_is_told_with_its_meaning():
    assert findings("") == [
        "f.yaml: upstream: missing; required: the server",
        "f.yaml: default_class: missing; required: class of clients that match nothing",
        "f.yaml: classes: missing; required: the classes, in the order of matching",
    ]
    assert (
        "f.yaml:4: classes.web.limit: missing; required: most slots" in findings(SMALLEST.replace("{limit: 10}", ""))[0]
    )


def test_a_default_class_that_does_not_exist_is_told():
    assert findings(SMALLEST.replace("default_class: web", "default_class: wbe")) == [
        "f.yaml:2: default_class: read 'wbe', allowed: web; did you mean \"web\"?"
    ]


def test_the_name_of_the_proxys_own_class_is_taken():
    assert "classes.internal: the proxy's own connections" in findings(SMALLEST + "  internal: {limit: 2}\n")[0]


def test_an_entry_that_matches_everything_is_refused():
    told = findings(SMALLEST.replace("limit: 10", "limit: 10, match: [{user: ''}]"))
    assert "classes.web.match[0]: read a section with user, allowed: at least one of application_name" in told[0]


def test_a_section_or_value_left_empty_keeps_its_default():
    config = load(SMALLEST + "pool:\nlisten: {port: null, tls: null}\n")
    assert config.listen.port == 6432
    assert config.pool.max_dials == 2


def test_no_finding_shows_the_password_of_the_upstream_url():
    for url in (
        "postgresql://u:hush@h:12x/d",
        "postgresql://u:hush/x@h/d",
        "mysql://u:hush@h",
        "postgresql://u:hush@h?x=1",
    ):
        told = findings(SMALLEST.replace("postgresql://proxy:hush@db.example/app", url))
        assert told[0].startswith("f.yaml:1: upstream.url: ")
        assert "hush" not in "".join(told)
    assert "hush" not in repr(load(SMALLEST))


def test_numbers_durations_and_choices_can_come_from_the_environment():
    text = (
        SMALLEST.replace("limit: 10", 'limit: "${LIMIT}", queue: {timeout: "${WAIT}"}')
        + 'budget: {total: "${T:-auto}"}'
    )
    config = load(text, LIMIT="30", WAIT="250ms")
    assert config.classes["web"].limit == 30
    assert config.classes["web"].queue.timeout == 0.25
    assert config.budget.total == "auto"


def test_an_empty_variable_leaves_an_optional_setting_unset():
    assert load(SMALLEST + 'auth: {users_file: "${USERS:-}"}').auth.users_file is None


def test_every_number_may_carry_its_reason():
    text = SMALLEST.replace(
        "limit: 10",
        'limit: {value: 10, reason: "p95 is 8"}, reason: "the shop", queue: {timeout: {value: 2s, reason: "pool: 5s"}}',
    )
    config = load(text)
    assert config.classes["web"].limit == 10
    assert config.classes["web"].queue.timeout == 2.0
    assert config.reason_of(("classes", "web", "limit")) == "p95 is 8"
    assert config.reason_of(("classes", "web", "reserved")) == "the shop"
    assert config.reason_of(("budget", "total")) is None
    assert config.reasons() == {"classes.web.limit": "p95 is 8", "classes.web.queue.timeout": "pool: 5s"}


def test_classes_named_value_and_reason_are_classes():
    config = load(SMALLEST + "  value: {limit: 1}\n  reason: {limit: 2}\n")
    assert list(config.classes) == ["web", "value", "reason"]
    assert config.reasons() == {}


def test_classes_keep_their_order_and_lines():
    config = load(SMALLEST + "  admin: {limit: 1}\n  bulk:\n    limit: 2\n")
    assert list(config.classes) == ["web", "admin", "bulk"]
    assert config.line_of(("classes", "bulk", "limit")) == 7
    assert config.line_of(("classes", "bulk", "weight")) == 7


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("10.1.2.3/16", "10.1.0.0/16"),
        ("'::1'", "::1/128"),
        ("10.1.*", "10.1.*"),
        ("local", "local"),
        ("10.0.0.7", "10.0.0.7/32"),
    ],
)
def test_addresses_are_networks_globs_or_the_unix_socket(written, kept):
    config = load(SMALLEST.replace("limit: 10", f"limit: 10, match: [{{address: {written}}}]"))
    assert config.classes["web"].match[0].address == kept


@pytest.mark.parametrize("written", ["web", "10.1.0.0/33", "'::ffff:10.0.0.1'", "5", "'*.example'"])
def test_what_is_no_address_is_told(written):
    told = findings(SMALLEST.replace("limit: 10", f"limit: 10, match: [{{address: {written}}}]"))
    assert "classes.web.match[0].address: read" in told[0]
    assert "allowed: an address, a block or a glob" in told[0]


def test_relative_paths_count_from_the_file(tmp_path, monkeypatch):
    path = tmp_path / "etc" / "pgheadroom.yaml"
    path.parent.mkdir()
    path.write_text(SMALLEST + "auth: {users_file: users.txt}\nlisten: {unix_socket_dir: /run/pg}\n")
    monkeypatch.chdir(tmp_path)
    config = load_config("etc/pgheadroom.yaml", {})
    assert config.auth.users_file == tmp_path / "etc" / "users.txt"
    assert str(config.listen.unix_socket_dir) == "/run/pg"
    assert config.file == "etc/pgheadroom.yaml"


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_file_that_cannot_be_read_is_a_finding(tmp_path, content):
    path = tmp_path / "f.yaml"
    if content:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(path, {})


def test_the_environments_libpq_variables_fill_what_the_url_leaves_open():
    config = load(SMALLEST.replace("proxy:hush@", ""), PGUSER="metrics", PGPASSWORD="pw", PGHOST="elsewhere")
    assert config.upstream.url.user == "metrics"
    assert config.upstream.url.password == "pw"
    assert config.upstream.url.hosts == (("db.example", 5432),)


def test_the_hash_follows_settings_and_not_the_password():
    assert config_hash(load(SMALLEST)) == config_hash(load(SMALLEST.replace("hush", "other")))
    assert config_hash(load(SMALLEST)) != config_hash(load(SMALLEST.replace("limit: 10", "limit: 11")))


def test_secrets_of_users_are_shown_by_nothing_that_shows_a_configuration():
    text = SMALLEST + "auth: {users: {app: hunter2}}\n"
    config = load(text)
    assert config.auth.users["app"].secret == "hunter2"
    assert "hunter2" not in f"{config!r} {config} {config.auth!r}"
    assert config_hash(config) == config_hash(load(text.replace("hunter2", "hunter3")))
    assert config_hash(config) != config_hash(load(text.replace("app:", "web:")))
