"""Every pool that can wake up, added; and a budget that follows from it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.service.check import findings
from proxy.service.config.errors import ConfigError
from proxy.service.config.loading import load_config_text
from proxy.service.plan import PlanFile, Slots, facts_of_file, load_plan, load_plan_text, make_plan, slots_of_server
from proxy.service.plan_suggestion import TooFewSlots, as_yaml, suggest
from proxy.service.providers import PRESETS, UnknownPreset, preset_facts
from proxy.service.server_facts import ServerFacts

NOON = """\
services:
  web: {processes: 12, pool: 10}
  workers: {processes: 10, pool: 5}
  retries: {processes: 8, pool: 5}
  reports: {processes: 4, pool: 3}
"""


def load(text):
    return load_plan_text(text, {}, file="plan.yaml")


def service(text):
    return load(f"services: {{one: {{{text}}}}}").services["one"]


def test_all_pools_together_are_222():
    plan = make_plan(load(NOON), Slots(192, "a server of 200"))
    assert [row.connections for row in plan.rows] == [120, 50, 40, 12]
    assert (plan.connections, plan.missing) == (222, 30)
    assert (
        "222 connections can be asked for at once, and there are 192 (a server of 200): 30 too many" in plan.verdict()
    )


def test_what_fits_is_said_with_what_is_left():
    plan = make_plan(load(NOON), Slots(300, "--budget"))
    assert plan.missing == 0
    assert "it fits, 78 to spare" in plan.verdict()


def test_without_a_server_only_the_sum_is_told():
    plan = make_plan(load(NOON), None)
    assert plan.missing == 0
    assert "What the server can give is not known" in plan.verdict()


@pytest.mark.parametrize(
    ("text", "connections", "formula"),
    [
        ("kind: queue_worker, children: 8", 23, "1 x (3 + 2 overflow + 2 listen + 8 children x 2)"),
        ("kind: queue_worker", 7, "1 x (3 + 2 overflow + 2 listen)"),
        ("kind: queue_producer", 15, "1 x (5 + 10 overflow)"),
        ("kind: sqlalchemy, processes: 4", 60, "4 x (5 + 10 overflow)"),
        ("kind: sqlalchemy, overflow: 0", 5, "1 x 5"),
        ("kind: node-postgres", 10, "1 x 10"),
        ("kind: postgres.js", 10, "1 x 10"),
        ("kind: prisma, processes: 3", 30, "3 x 10"),
        ("kind: drizzle", 10, "1 x 10"),
        ("kind: knex, pool: 20", 20, "1 x 20"),
        ("pool: 3, children: 4, child_pool: 5, processes: 2", 46, "2 x (3 + 4 children x 5)"),
    ],
)
def test_what_one_service_opens(text, connections, formula):
    assert (service(text).connections(), service(text).formula()) == (connections, formula)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("services: {}", "services: read an empty section, allowed: at least one"),
        ("services: {web: {}}", "plan.yaml:1: services.web: neither pool nor kind"),
        ("services: {web: {pol: 1}}", 'services.web.pol: unknown setting; did you mean "pool"?'),
        ("services: {web: {kind: rails}}", "services.web.kind: read 'rails', allowed: asyncpg, django"),
        ("services: {web: {pool: 1, children: 2}}", "services.web.children: children without child_pool"),
        ("services: {admin: {pool: 1}}", "services.admin: the classes admin, other, internal are suggested anyway"),
        ("services: {web: {pool: 1}}\nserver: {preset: rsd}", 'server.preset: "rsd" is no preset; did you mean "rds"?'),
        ("services: {web: {pool: 1}, web: {pool: 2}}", "services.web: written twice"),
    ],
)
def test_mistakes_in_the_plan_are_told(text, told):
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert told in str(caught.value)


def test_a_plan_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_plan(tmp_path / "none.yaml")


# Providers


@pytest.mark.parametrize(
    ("preset", "max_connections", "superusers"),
    [
        ("postgresql", 100, 3),
        ("postgresql:250", 250, 3),
        ("supabase:nano", 60, 3),
        ("supabase:16XL", 500, 3),
        ("neon:0.25", 104, 7),
        ("neon:8CU", 3357, 7),
        ("neon:56", 4000, 7),
        ("rds:1GiB", 112, 3),
        ("rds:4GiB", 450, 3),
        ("rds:256GiB", 5000, 3),
        ("planetscale:200", 200, 3),
    ],
)
def test_presets(preset, max_connections, superusers):
    assert preset_facts(preset) == ServerFacts(max_connections, superusers)


@pytest.mark.parametrize(
    "preset", ["planetscale", "rds", "rds:4", "supabase:huge", "neon:0.3", "neon:57", "postgresql:0", "orcl"]
)
def test_a_preset_that_is_none_says_what_is_allowed(preset):
    with pytest.raises(UnknownPreset, match=r"example|allowed"):
        preset_facts(preset)


def test_every_example_of_a_preset_works():
    assert all(preset_facts(preset.example).max_connections > 0 for preset in PRESETS.values())


def test_slots_are_what_neither_superusers_nor_others_need():
    assert slots_of_server(ServerFacts(200, 3, 10), "the server").count == 182
    assert slots_of_server(ServerFacts(5), "the server").count == 0


def test_the_plan_may_say_what_the_server_gives():
    assert facts_of_file(load(NOON)) is None
    assert facts_of_file(load(NOON + "server: {preset: 'neon:1'}")) == ServerFacts(419, 7)
    assert facts_of_file(load(NOON + "server: {max_connections: 50, preset: 'neon:1'}")) == ServerFacts(50)


# The suggestion


def checked(plan: PlanFile, total: int) -> list[str]:
    """What the check says about the suggestion, on a server that has just enough."""
    text = as_yaml(suggest(plan, total), 5)
    config = load_config_text(text + 'upstream: {url: "postgresql://x@127.0.0.1/d"}\nauth: {method: trust}\n', {})
    return [str(finding) for finding in findings(config, ServerFacts(total + 8))]


def test_the_suggestion_for_222_connections_on_a_server_of_100():
    suggestion = suggest(load(NOON), 92)
    web, workers, *_ = suggestion.classes
    assert (web.reserved, web.lendable, web.limit) == (41, 20, 84)
    assert (workers.reserved, workers.lendable, workers.limit) == (9, 8, 50)
    assert web.reason == "120 connections in the plan: web 12 x 10"
    assert checked(load(NOON), 92) == []


def test_services_of_one_class_are_added():
    plan = load("services: {a: {pool: 5, class: web}, b: {pool: 7, class: web}, c: {pool: 1}}")
    assert [one.name for one in suggest(plan, 50).classes] == ["web", "c"]
    assert suggest(plan, 50).classes[0].reason == "12 connections in the plan: a 1 x 5, b 1 x 7"


def test_a_class_whose_name_begins_like_another_is_matched_first():
    plan = load("services: {web: {pool: 5}, web-jobs: {pool: 7}}")
    config = load_config_text(as_yaml(suggest(plan, 50), 5) + "upstream: {url: 'postgresql://x@h/d'}", {})
    assert [name for name in config.classes if name.startswith("web")] == ["web-jobs", "web"]


def test_too_few_slots_are_told_with_how_many_would_do():
    with pytest.raises(TooFewSlots, match=r"10 slots are too few to divide among 4 classes; 17 would do"):
        suggest(load(NOON), 10)
    assert checked(load(NOON), 17) == []


services = st.dictionaries(
    st.from_regex(r"[a-z]{1,5}(-[a-z]{1,3})?", fullmatch=True).filter(
        lambda name: name not in {"admin", "other", "internal"}
    ),
    st.fixed_dictionaries({"processes": st.integers(1, 60), "pool": st.integers(1, 40)}),
    min_size=1,
    max_size=8,
)


@given(services, st.integers(1, 600))
def test_every_suggestion_passes_the_check_without_a_word(drawn, total):
    plan = PlanFile.model_validate({"services": drawn})
    try:
        told = checked(plan, total)
    except TooFewSlots:
        return
    assert told == []
