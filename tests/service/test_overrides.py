"""Numbers set beside the file: which can be, how they are read, and which hold."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.service.check import findings
from proxy.service.config.loading import load_config_text
from proxy.service.config.settable import NotSettable, read_setting, settable, shown, value_at, with_values
from proxy.service.findings import Severity
from proxy.service.overrides import check_values, read_all, those_that_hold
from proxy.service.switchboard import OrderRefused, Override

TEXT = """
upstream: {url: postgresql://h/d}
auth: {method: trust}
budget: {total: 20, instances: 1, headroom: {size: 2, for: [web]}}
default_class: bulk
classes:
  web: {match: [{application_name: "web*"}], limit: 12, reserved: 8, lendable: 4, priority: 1}
  bulk: {limit: 10, reserved: 1, queue: {timeout: 8s}, pinned_limit: 2}
"""
CONFIG = load_config_text(TEXT, {}, file="pgheadroom.yaml")


def override(key, value, at=0.0):
    return Override(key, value, "anna", "", at)


def test_numbers_that_need_no_restart_can_be_set():
    keys = settable(CONFIG)

    assert {
        "budget.total", "budget.headroom.size", "classes.bulk.limit", "classes.bulk.reserved", "classes.bulk.weight",
        "classes.bulk.queue.max", "classes.bulk.queue.timeout", "classes.bulk.max_clients", "classes.web.lendable",
        "pool.max_dials", "limits.max_waiting_bytes", "shutdown.drain_timeout",
    } <= set(keys)  # fmt: skip
    assert {"adaptive.mode", "classes.bulk.mode", "canary.interval", "auth.cache.ttl", "refusals.delay"} <= set(keys)
    assert not {"listen.port", "http.port", "http.switches_from", "auth.method", "upstream.server_name"} & set(keys)


@pytest.mark.parametrize(
    ("key", "written", "value", "text"),
    [
        ("classes.bulk.limit", "20", 20, "20"),
        ("classes.bulk.limit", 20, 20, "20"),
        ("classes.bulk.queue.timeout", "90s", 90.0, "90s"),
        ("classes.bulk.queue.timeout", "0.5", 0.5, "500ms"),
        ("classes.bulk.weight", "2.5", 2.5, "2.5"),
        ("classes.bulk.max_clients", "", None, "empty"),
        ("limits.max_waiting_bytes", "1MiB", 1 << 20, "1MiB"),
        ("budget.total", "auto", "auto", "auto"),
        ("adaptive.mode", "observe", "observe", "observe"),
        ("classes.bulk.mode", "warn", "warn", "warn"),
        ("pool.cancel_on_disconnect", "false", False, "false"),
        ("reload.watch", True, True, "true"),
    ],
)
def test_a_value_is_read_as_the_file_would_be(key, written, value, text):
    read = read_setting(CONFIG, key, written)

    assert read == value
    assert shown(CONFIG, key, read) == text
    assert value_at(with_values(CONFIG, {key: read}), settable(CONFIG)[key]) == value


@pytest.mark.parametrize("written", [[1], {"a": 1}])
def test_a_list_or_an_object_is_no_number_also_where_the_setting_may_be_empty(written):
    with pytest.raises(NotSettable, match=r"classes\.bulk\.max_clients: read"):
        read_setting(CONFIG, "classes.bulk.max_clients", written)


@pytest.mark.parametrize(
    ("key", "written", "words"),
    [
        ("classes.bulk.limti", "20", 'did you mean "classes.bulk.limit"?'),
        ("classes.blk.limit", "20", "did you mean"),
        ("nonsense", "20", "config/README.md"),
        ("listen.port", "20", "restart"),
        ("canary.query", "select 2", "write it into the file and reload"),
        ("http.switches_from", "anywhere", "no order changes: write it into the file and reload"),
        ("listen.tls.mode", "disable", "the files beside it: write it into the file and reload"),
        ("adaptive", "on", "adaptive is a section: name one of its settings, as adaptive.mode"),
        ("adaptive.mode", "sometimes", "read 'sometimes', allowed: off, observe, on"),
        ("pool.cancel_on_disconnect", "perhaps", "allowed: true, false"),
        ("classes.bulk.limit", "twenty", "read 'twenty', allowed: a whole number >= 1"),
        ("classes.bulk.limit", "", "allowed: a whole number >= 1"),
        ("classes.bulk.limit", True, "allowed: a whole number >= 1"),
        ("classes.bulk.queue.timeout", "soon", "a length of time"),
    ],
)
def test_what_cannot_be_set_is_said_with_the_way_out(key, written, words):
    with pytest.raises(NotSettable) as problem:
        read_setting(CONFIG, key, written)
    assert words in str(problem.value)


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(OrderRefused) as refusal:
        read_all(CONFIG, {"classes.bulk.limti": "1", "classes.bulk.limit": "x", "classes.web.limit": "5"})
    assert len(str(refusal.value).splitlines()) == 2


def test_numbers_are_checked_as_at_a_reload_and_refused_in_the_same_words():
    with pytest.raises(OrderRefused) as refusal:
        check_values(CONFIG, {"classes.web.reserved": 18}, findings)
    same = [str(one) for one in findings(with_values(CONFIG, {"classes.web.reserved": 18})) if one.severity == "error"]
    assert str(refusal.value).splitlines()[1:] == same
    assert "pgheadroom.yaml:4" in same[0]


def test_what_is_unwise_is_done_and_told():
    (warning,) = check_values(CONFIG, {"classes.bulk.queue.timeout": 40.0}, findings)
    assert "their own pools give up first" in warning


def test_values_leave_the_configuration_of_the_file_alone():
    changed = with_values(CONFIG, {"classes.bulk.queue.max": 7, "budget.headroom.size": 0})

    assert (CONFIG.classes["bulk"].queue.max, CONFIG.budget.headroom.size) == (500, 2)
    assert (changed.classes["bulk"].queue.max, changed.budget.headroom.size) == (7, 0)
    assert changed.line_of(("classes", "bulk", "limit")) == CONFIG.line_of(("classes", "bulk", "limit"))


class TestWhatHolds:
    """Another file, or an end: what is set beside it may not all hold any more."""

    def test_all_of_it_where_it_does(self):
        kept, dropped = those_that_hold(CONFIG, [override("classes.bulk.limit", 15)], findings)
        assert (list(kept), dropped) == (["classes.bulk.limit"], [])

    def test_a_class_that_is_gone_takes_its_numbers_with_it(self):
        kept, ((one, why),) = those_that_hold(CONFIG, [override("classes.cron.limit", 15)], findings)
        assert (kept, one.key, why) == ({}, "classes.cron.limit", "there is no such setting any more")

    def test_the_older_of_two_that_exclude_each_other_stays(self):
        older, newer = override("classes.bulk.reserved", 6, at=1.0), override("classes.web.reserved", 12, at=2.0)
        kept, ((one, why),) = those_that_hold(CONFIG, [newer, older], findings)
        assert (list(kept), one) == (["classes.bulk.reserved"], newer)
        assert "reservations and headroom" in why

    def test_one_that_holds_only_beside_a_newer_one_stays_with_it(self):
        reserved, limit = override("classes.bulk.reserved", 8, at=1.0), override("classes.web.reserved", 5, at=2.0)
        gone = override("classes.web.lendable", 9, at=3.0)
        kept, ((one, _),) = those_that_hold(CONFIG, [reserved, limit, gone], findings)
        assert (set(kept), one) == ({"classes.bulk.reserved", "classes.web.reserved"}, gone)


KEYS = ["classes.web.reserved", "classes.web.lendable", "classes.web.limit", "classes.bulk.reserved",
        "classes.bulk.limit", "classes.bulk.pinned_limit", "budget.total", "budget.headroom.size"]  # fmt: skip


@given(st.dictionaries(st.sampled_from(KEYS), st.integers(1, 22), max_size=5), st.randoms())
@settings(max_examples=60, deadline=None)
def test_what_is_kept_holds_and_nothing_more_could_be_kept(values, random):
    overrides = [override(key, value, at=random.random()) for key, value in values.items()]

    kept, dropped = those_that_hold(CONFIG, overrides, findings)

    def holds(some):
        numbers = {one.key: one.value for one in some}
        return not [one for one in findings(with_values(CONFIG, numbers)) if one.severity is Severity.ERROR]

    assert holds(kept.values())
    assert {one.key for one, _ in dropped} | set(kept) == set(values)
    assert not any(holds([*kept.values(), one]) for one, _ in dropped)


@pytest.mark.parametrize(
    ("written", "is_unknown"),
    [({"classes.bulk.limti": "1"}, True), ({"classes.bulk.limit": "x"}, False), ({"listen.port": "1"}, False)],
)
def test_what_is_no_setting_is_told_from_what_cannot_be_set_to_that(written, is_unknown):
    with pytest.raises(OrderRefused) as refused:
        read_all(CONFIG, written)
    assert refused.value.is_unknown == is_unknown
