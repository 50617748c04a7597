"""What the start-up check refuses, and what it warns about."""

import pytest

from proxy.service.check import findings
from proxy.service.check_classes import CLIENT_PATIENCE_SECONDS
from proxy.service.config.errors import ConfigError
from proxy.service.config.loading import load_config_text
from proxy.service.config.parts import parts
from proxy.service.customers import customer_class
from proxy.service.findings import Severity
from proxy.service.server_facts import ServerFacts, Strangers

SERVER_OF_100 = ServerFacts(100, 3, 0)
SERVER_OF_200 = ServerFacts(200, 3, 0)

# A configuration that nobody has anything to say about, on a server of 100.
SOUND = """\
upstream: {url: "postgresql://proxy@127.0.0.1/app"}
auth: {method: trust}
budget: {total: 92, keep_free: 5, headroom: {size: 4, for: [web]}}
default_class: other
classes:
  admin: {match: [{application_name: psql, user: dba}], priority: 0, reserved: 3, limit: 5, pool_mode: session}
  web: {match: [{application_name: "web*"}], priority: 1, reserved: 40, lendable: 20, limit: 70}
  bulk: {match: [{application_name: "bulk*"}], priority: 8, reserved: 4, lendable: 2, limit: 40}
  other: {priority: 9, reserved: 2, lendable: 1, limit: 5}
"""


def check(text, facts=SERVER_OF_100):
    return findings(load_config_text(text, {}, file="f.yaml"), facts)


def told(text, facts=SERVER_OF_100):
    return [(finding.severity.value, finding.key) for finding in check(text, facts)]


def replaced(*pairs):
    text = SOUND
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


def test_a_sound_configuration_has_no_findings():
    assert check(SOUND) == []


def test_a_class_for_replication_needs_nobody_to_match():
    standbys = "  standbys: {limit: 2, pool_mode: session}\n"
    assert told(SOUND + standbys) == [("warning", "classes.standbys.match")]
    assert told(SOUND + standbys + "replication_class: standbys\n") == []


def test_80_5_10_60_45_of_200_is_refused_because_superuser_slots_are_missing():
    classes = {"web": 80, "admin": 5, "queue": 10, "jobs": 60, "reports": 45}
    lines = [f"  {name}: {{match: [{{user: {name}}}], reserved: {n}, limit: {n}}}" for name, n in classes.items()]
    text = replaced(("total: 92", "total: 200"), ("headroom: {size: 4, for: [web]}", "headroom: {size: 0}"))
    text = text[: text.index("classes:")].replace("other", "reports") + "classes:\n" + "\n".join(lines)
    errors = [finding for finding in check(text, SERVER_OF_200) if finding.severity is Severity.ERROR]
    assert errors[0].text == "total 200, but the server can give 197: 200 max_connections - 3 for superusers"
    assert errors[0].hint == "set budget.total to at most 192, or raise max_connections to 203 or more"
    assert errors[1].text == (
        "reservations and headroom are web 80 + admin 5 + queue 10 + jobs 60 + reports 45 + internal 1 = 201, "
        "more than the 200 slots of the budget"
    )


def test_the_same_sums_are_refused_when_the_server_is_asked_for_the_total():
    text = replaced(
        ("total: 92", "total: auto, instances: 1"), ("reserved: 40", "reserved: 80"), ("limit: 70", "limit: 80")
    )
    finding = check(text)[0]
    assert (finding.severity, finding.key) == (Severity.ERROR, "budget.total")
    assert "web 80 + bulk 4 + other 2 + headroom 4 + internal 1 = 94, more than the 92 slots" in finding.text


@pytest.mark.parametrize(
    ("change", "severity", "key"),
    [
        (("total: 92", "total: 98"), "error", "budget.total"),
        (("total: 92", "total: 96"), "warning", "budget.total"),
        (("total: 92", "total: 60, instances: 2"), "error", "budget.total"),
        (("total: 92", "total: auto"), "warning", "budget.instances"),
        (("total: 92, keep_free: 5", "total: auto, instances: 1, keep_free: 97"), "error", "budget.total"),
        (("keep_free: 5", "keep_free: 0"), "warning", "budget.keep_free"),
        (("size: 4, for: [web]", "size: 4"), "error", "budget.headroom.for"),
        (("reserved: 40", "reserved: 71"), "error", "classes.web.reserved"),
        (("lendable: 20", "lendable: 41"), "error", "classes.web.lendable"),
        (("limit: 70", "limit: 70, pinned_limit: 71"), "error", "classes.web.pinned_limit"),
        (("limit: 70", "limit: 100"), "warning", "classes.web.limit"),
        (("limit: 70", "limit: 70, max_clients: 1"), "warning", "classes.web.limit"),
        (
            ("limit: 40", "limit: 40, max_clients: 50, max_clients_per_identity: 51"),
            "warning",
            "classes.bulk.max_clients_per_identity",
        ),
        (("limit: 40", "limit: 40, pinned_limit: 40"), None, None),
        (("limit: 40", "limit: 60, pinned_limit: 50"), "warning", "classes.bulk.pinned_limit"),
        (("limit: 40", "limit: 50, pool_mode: session"), "warning", "classes.bulk.limit"),
        (("limit: 40", "limit: 40, queue: {timeout: 10s}"), "warning", "classes.bulk.queue.timeout"),
        (("limit: 40", "limit: 40, queue: {timeout: 60s, max: 0}"), None, None),
        (("limit: 40", "limit: 71"), "warning", "classes.bulk.limit"),
        (("reserved: 4,", "reserved: 41,"), "error", "classes.bulk.reserved"),
        (("priority: 9", "priority: 0"), "warning", "default_class"),
        (
            ("priority: 9, reserved: 2, lendable: 1, limit: 5", "priority: 9, reserved: 24, limit: 24"),
            "warning",
            "default_class",
        ),
        (("for: [web]", "for: [web, other]"), "warning", "default_class"),
        (("application_name: psql, user: dba", "application_name: psql"), "warning", "classes.admin.match[0]"),
        (
            ("application_name: psql, user: dba", 'application_name: psql, user: "*"'),
            "warning",
            "classes.admin.match[0]",
        ),
        (('match: [{application_name: "bulk*"}], ', ""), "warning", "classes.bulk.match"),
        (('"web*"', '"*"'), "warning", "classes.bulk.match"),
        (('"bulk*"', '"web*"'), "warning", "classes.bulk.match"),
        (("auth:", "http: {host: 0.0.0.0}\nauth:"), "warning", "http.host"),
        (("auth:", "http: {port: 6432}\nauth:"), "error", "http.port"),
        (("auth:", 'listen: {host: ""}\nauth:'), "error", "listen.host"),
        (("auth:", "listen: {unix_socket_dir: /nowhere}\nauth:"), "error", "listen.unix_socket_dir"),
        (("auth:", "listen: {tls: {mode: require}}\nauth:"), "error", "listen.tls.cert"),
        (("auth:", "listen: {tls: {cert: /nowhere}}\nauth:"), "error", "listen.tls.key"),
        (("auth:", "listen: {tls: {key: /nowhere}}\nauth:"), "error", "listen.tls.cert"),
        (
            ("auth:", "listen: {tls: {mode: verify, cert: /dev/null, key: /dev/null}}\nauth:"),
            "error",
            "listen.tls.client_ca",
        ),
        (("127.0.0.1/app", "127.0.0.1:6432/app"), "error", "upstream.url"),
        (("127.0.0.1/app", "db.example/app"), "warning", "upstream.url"),
        (("127.0.0.1/app", "db.example/app?sslrootcert=system"), None, None),
        (("127.0.0.1/app", "db.example/app?sslmode=verify-full&sslrootcert=/nowhere"), "error", "upstream.url"),
        (("127.0.0.1/app", "127.0.0.1,127.0.0.2/app"), "warning", "upstream.url"),
        (("auth:", "pool: {retry_min: 10s}\nauth:"), "error", "pool.retry_min"),
        (("auth:", "listen: {tls: {cert: /dev/null, key: /dev/null}}\nauth:"), "error", "listen.tls"),
    ],
)
def test_each_rule_names_the_setting_that_decides(change, severity, key):
    found = told(replaced(change))
    assert found == [] if key is None else (severity, key) in found


def test_every_finding_says_what_to_change_and_where_it_stands():
    finding = check(replaced(("reserved: 40", "reserved: 71")))[0]
    assert finding.hint == "raise classes.web.limit or lower reserved"
    assert str(finding).startswith("f.yaml:7: error: classes.web.reserved: 71 slots are reserved, but limit is 70 (")


def test_errors_come_first():
    severities = [one for one, _ in told(replaced(("keep_free: 5", "keep_free: 0"), ("lendable: 20", "lendable: 41")))]
    assert severities == ["error", "warning"]


def test_without_the_server_a_number_is_checked_as_far_as_it_goes():
    assert told(SOUND, None) == []
    assert told(replaced(("total: 92", "total: 50")), None)[0] == ("error", "budget.total")
    assert told(replaced(("total: 92", "total: auto, instances: 1")), None) == [("warning", "budget.total")]


def test_a_class_that_can_never_get_a_slot_is_refused():
    text = replaced(
        ("reserved: 4, lendable: 2, limit: 40", "limit: 40"),
        ("reserved: 40, lendable: 20", "reserved: 80, lendable: 0"),
    )
    text = text.replace("limit: 70", "limit: 80").replace("reserved: 2, lendable: 1", "reserved: 4, lendable: 0")
    finding = check(text)[0]
    assert (finding.severity, finding.key) == (Severity.ERROR, "classes.bulk.limit")
    assert finding.text.startswith("no slot can ever be given to this class")


def test_connections_past_the_proxy_count_against_what_the_server_gives():
    crowded = ServerFacts(100, 3, 0, external_connections=12)
    assert told(SOUND, crowded) == [("warning", "budget.total")]
    assert told(replaced(("total: 92", "total: auto, instances: 1")), crowded) == [("warning", "budget.keep_free")]
    assert told(replaced(("total: 92", "total: auto, instances: 1"), ("keep_free: 5", "keep_free: 12")), crowded) == []


def test_they_are_named():
    strangers = tuple(Strangers(name, "postgres", "", 9 - i) for i, name in enumerate(("pgadmin", "", "dump", "x")))
    crowded = ServerFacts(100, external_connections=30, strangers=strangers)
    [finding] = [one for one in check(SOUND, crowded) if one.key == "budget.total"]
    assert "(pgadmin of postgres: 9, no name of postgres: 8, dump of postgres: 7, ...)" in finding.text


def test_other_instances_are_not_taken_for_strangers():
    text = replaced(("total: 92", "total: auto, instances: 1"))
    assert told(text.replace("instances: 1", "instances: 2"), ServerFacts(200, 3, 0, external_connections=90)) == []


def test_connections_reserved_for_a_role_are_named():
    finding = check(SOUND, ServerFacts(100, 3, 10))[0]
    assert "the server can give 87: 100 max_connections - 3 for superusers - 10 reserved_connections" in finding.text


def test_a_limit_of_the_database_is_named():
    finding = check(SOUND, ServerFacts(100, 3, 0, database_connection_limit=40))[0]
    assert "the server can give 40: the database's own CONNECTION LIMIT" in finding.text


def test_the_pools_that_give_up_first_are_named():
    finding = check(replaced(("limit: 40", "limit: 40, queue: {timeout: 30s}")))[0]
    assert "clients may wait 30s" in finding.text
    for pool in ("Prisma pool_timeout 10s", "SQLAlchemy pool_timeout 30s", "HikariCP connectionTimeout 30s"):
        assert pool in finding.text
    assert "Knex" not in finding.text
    assert "below 10s" in finding.hint


def test_the_default_queue_timeout_suits_every_known_pool():
    config = load_config_text(SOUND, {})
    assert config.classes["web"].queue.timeout < min(CLIENT_PATIENCE_SECONDS.values())


@pytest.mark.parametrize(
    ("section", "keys"),
    [
        ("switches: {dir: nowhere}", ["switches.dir"]),
        ("switches: {dir: here, state_file: here/orders, audit_file: here/audit}\ntraffic: {file: here/seen}", []),
        ("switches: {state_file: here, audit_file: here}", ["switches.state_file", "switches.audit_file"]),
        (
            "switches: {state_file: nowhere/orders}\ntraffic: {file: nowhere/seen}",
            ["switches.state_file", "traffic.file"],
        ),
    ],
)
def test_what_could_not_be_kept_is_told_before_somebody_counts_on_it(tmp_path, section, keys):
    """A pause that the next restart forgets, or a flag file that nobody looks at, is found out on the worst day."""
    (tmp_path / "here").mkdir()
    config = load_config_text(f"{SOUND}{section}\n", {}, file="f.yaml", directory=tmp_path)
    assert [(one.severity.value, one.key) for one in findings(config, SERVER_OF_100)] == [
        ("warning", key) for key in keys
    ]


def test_customer_traffic_is_the_most_important_class_that_shares_and_matches_somebody():
    assert customer_class(parts(load_config_text(SOUND, {}))[0]) == "web"
    only_default = SOUND[: SOUND.index("classes:")].replace("[web]", "[other]") + "classes:\n  other: {limit: 5}\n"
    assert customer_class(parts(load_config_text(only_default, {}))[0]) is None


def test_one_class_alone_has_nobody_to_be_compared_with():
    text = (
        SOUND[: SOUND.index("classes:")].replace("[web]", "[other]") + "classes:\n  other: {reserved: 50, limit: 80}\n"
    )
    assert check(text) == []


@pytest.mark.parametrize(
    ("total", "pool", "is_warned"),
    [
        (54, "{}", True),
        (55, "{}", False),
        (56, "{listen_connections: 3}", True),
        (54, "{listen_connections: 0}", False),
    ],
)
def test_a_shared_listen_connection_wants_a_slot_that_is_not_reserved(total, pool, is_warned):
    found = told(replaced(("total: 92", f"total: {total}")) + f"pool: {pool}\n")
    assert (("warning", "pool.listen_connections") in found) is is_warned


SCHEDULED = """
upstream: {url: postgresql://h/d}
auth: {method: trust}
budget: {total: 20, instances: 1}
default_class: bulk
classes:
  bulk:
    limit: 10
    reserved: 4
    schedules:
      - {days: [mon-fri], from: "9:00", to: "18:00", time_zone: Europe/Berlin, %s}
      - {days: [fri-sun], from: "17:00", to: "19:00", time_zone: Europe/Berlin, %s}
"""


def about_schedules(first, second):
    config = load_config_text(SCHEDULED % (first, second), {})
    return [(str(one.severity), one.key) for one in findings(config) if "schedules" in one.key]


def test_windows_that_overlap_and_disagree_are_warned_about():
    second = "classes.bulk.schedules[1]"
    assert about_schedules("limit: 6", "limit: 8") == [("warning", second)]
    assert about_schedules("state: paused", "state: rejecting, limit: 8") == [("warning", second)]
    assert about_schedules("limit: 6", "limit: 6") == []
    assert about_schedules("limit: 6", "state: paused") == []


def test_a_window_below_the_reservation_cannot_hold():
    assert about_schedules("limit: 3", "state: paused") == [("error", "classes.bulk.schedules[0].limit")]


def test_a_window_above_what_can_ever_be_given_is_warned_about():
    assert about_schedules("limit: 20", "state: paused") == [("warning", "classes.bulk.schedules[0].limit")]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("time_zone: Europe/Berlni, limit: 5", 'no time zone, as Europe/Berlin or UTC; did you mean "Europe/Berlin"?'),
        ("time_zone: ../../etc/passwd, limit: 5", "no time zone"),
        ("days: [monday], limit: 5", "mon-fri"),
        ("from: '25:00', limit: 5", "a time of day"),
        ("from: '9:60', limit: 5", "a time of day"),
        ("from: '9:00', to: '9:00', limit: 5", "a whole day is 0:00 to 24:00"),
        ("from: '9:00'", "a limit or a state"),
        ("state: asleep", "running, paused, draining, rejecting"),
    ],
)
def test_a_window_that_cannot_be_read_is_a_mistake_in_words(wrong, words):
    text = "upstream: {url: postgresql://h/d}\ndefault_class: b\nclasses: {b: {limit: 5, schedules: [{%s}]}}\n"
    with pytest.raises(ConfigError) as mistake:
        load_config_text(text % wrong, {})
    assert words in str(mistake.value)
    assert "schedules[0]" in str(mistake.value)


@pytest.mark.parametrize(
    ("holds", "key"),
    [
        ("{idle_in_transaction: 60s, borrowed_idle_in_transaction: 60s}", "borrowed_idle_in_transaction"),
        ("{transaction: 5m, query: 10m}", "query"),
    ],
)
def test_a_bound_behind_another_that_ends_the_same_is_warned_about(holds, key):
    text = replaced(("reserved: 4, lendable: 2, limit: 40}", f"reserved: 4, lendable: 2, limit: 40, holds: {holds}}}"))
    assert told(text) == [("warning", f"classes.bulk.holds.{key}")]
