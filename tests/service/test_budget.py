"""The numbers that the admission core is given."""

import pytest

from proxy.admission.classes import ClassSettings, ConnectSettings
from proxy.service.budget import (
    budget_settings,
    capacity,
    classifier,
    overcommitted_slots,
    pinned_limit,
    server_capacity,
    total_in_force,
    usable_total,
)
from proxy.service.config.loading import load_config_text
from proxy.service.config.parts import parts
from proxy.service.server_facts import ServerFacts

TEXT = """\
upstream: {url: "postgresql://proxy@db.example/app"}
budget: {total: %s, keep_free: 5, instances: %d, headroom: {size: 4, for: [web, admin]}}
default_class: bulk
classes:
  admin: {match: [{application_name: psql, user: "dba_*"}], priority: 0, reserved: 3, limit: 5, pool_mode: session}
  web: {match: [{application_name: "web*"}], priority: 1, reserved: 40, lendable: 20, limit: 70}
  local: {match: [{address: local}, {address: 10.1.0.0/16}], limit: 3}
  bulk:
    {priority: 9, limit: 40, weight: 2, max_clients: 50, max_clients_per_identity: 4, pinned_limit: 1, lend_memory: 20s,
     notify_after: 3s, connects: {rate: 20.5, burst: 200, per_identity: {rate: 0, burst: 7}}}
"""


def config(total="auto", instances=1):
    return load_config_text(TEXT % (total, instances), {})


def part(total="auto", instances=1):
    return parts(config(total, instances))[0]


def test_ordinary_users_get_what_is_not_kept_for_others():
    assert server_capacity(100, 3) == 97
    assert server_capacity(100, 3, 10) == 87
    assert server_capacity(2, 3) == 0


def test_a_limit_of_the_database_bounds_what_the_server_gives():
    assert capacity(ServerFacts(100, 3, 0, database_connection_limit=40)) == 40
    assert capacity(ServerFacts(100, 3, 0, database_connection_limit=400)) == 97


@pytest.mark.parametrize(
    ("total", "instances", "slots"), [("auto", 1, 92), ("auto", 3, 30), ("auto", 200, 0), ("50", 1, 50), ("50", 3, 50)]
)
def test_auto_is_shared_by_all_instances_and_a_number_is_each_instances_own(total, instances, slots):
    assert usable_total(part(total, instances), ServerFacts(100, 3, 0)) == slots


def test_auto_is_unknown_without_the_server():
    assert usable_total(part(), None) is None
    assert usable_total(part("50"), None) == 50


def test_the_core_is_told_every_number():
    settings = budget_settings(part(), 92)
    assert (settings.total, settings.headroom, settings.headroom_for) == (92, 4, {"web", "admin"})
    assert settings.validate() == []
    assert settings.classes[-1] == ClassSettings(
        "bulk",
        limit=40,
        priority=9,
        weight=2.0,
        queue_max=500,
        queue_timeout_seconds=5.0,
        refuse_hopeless=True,
        pinned_limit=1,
        max_clients=50,
        max_clients_per_identity=4,
        lend_memory_seconds=20.0,
        notify_after_seconds=3.0,
        slow_start_seconds=2.0,
        connects=ConnectSettings(rate=20.5, burst=200, identity_rate=None, identity_burst=7),
    )


def test_the_proxys_own_connections_are_part_of_the_budget():
    internal = [one for one in budget_settings(part(), 92).classes if one.name == "internal"]
    assert [(one.priority, one.reserved, one.lendable) for one in internal] == [(0, 1, 0)]


def test_an_empty_pinned_limit_is_the_limit():
    classes = config().classes
    for name in ("admin", "web", "local"):
        assert classes[name].pinned_limit is None
        assert pinned_limit(classes[name]) == classes[name].limit
    assert pinned_limit(classes["bulk"]) == 1


@pytest.mark.parametrize(
    ("client", "name", "matched"),
    [
        (("web-7", "app", "shop", "192.0.2.1"), "web", True),
        (("psql", "dba_anna", "shop", None), "admin", True),
        (("psql", "app", "shop", "192.0.2.1"), "bulk", False),
        (("x", "app", "shop", None), "local", True),
        (("x", "app", "shop", "10.1.9.9"), "local", True),
        (("", "app", "shop", "10.2.0.1"), "bulk", False),
    ],
)
def test_clients_find_their_class_in_the_order_of_the_file(client, name, matched):
    found = classifier(part()).classify(*client)
    assert (found.class_name, found.matched) == (name, matched)


@pytest.mark.parametrize(
    ("total", "instances", "facts", "in_force", "missing"),
    [
        (40, 1, ServerFacts(100), 40, 0),
        (40, 1, ServerFacts(33), 30, 10),
        (40, 2, ServerFacts(63), 30, 20),
        (40, 1, ServerFacts(100, external_connections=57), 40, 0),
        (40, 1, ServerFacts(100, external_connections=60), 40, 3),
        (40, 1, ServerFacts(100, external_connections=60, database_connection_limit=50), 40, 3),
        (40, 1, ServerFacts(200, external_in_database=15, database_connection_limit=50), 40, 5),
        (40, 1, ServerFacts(10, is_behind_pooler=True), 40, 0),
        ("auto", 1, ServerFacts(100, external_connections=5), 92, 0),
        ("auto", 1, ServerFacts(100, external_connections=9), 92, 4),
    ],
)
def test_what_is_in_force_and_what_is_missing_follow_the_server(total, instances, facts, in_force, missing):
    one = config(total, instances)
    assert total_in_force(one, facts) == in_force
    assert overcommitted_slots(one, facts) == missing


def test_without_the_server_the_number_is_in_force():
    assert (total_in_force(config(40), None), total_in_force(config("auto"), None)) == (40, None)
