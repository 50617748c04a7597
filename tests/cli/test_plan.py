"""The command `pgheadroom plan` as a person and as a program see it."""

import json

import pytest
from click.testing import CliRunner

from proxy.cli.plan import command
from proxy.service import server_watch
from proxy.service.config.loading import load_config_text
from proxy.service.server_facts import ServerFacts, ServerUnreachable

NOON = """\
services:
  web: {processes: 12, pool: 10, reason: "noon"}
  workers: {processes: 10, pool: 5}
  retries: {processes: 8, pool: 5}
  reports: {processes: 4, pool: 3}
"""
CONFIG = """\
upstream: {url: "postgresql://proxy@127.0.0.1/app"}
budget: {total: TOTAL, instances: 2}
default_class: web
classes: {web: {limit: 10}}
"""


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(NOON)
    return path


@pytest.fixture
def server(monkeypatch):
    asked = []

    def read_server_facts(upstream, server_name=None):
        asked.append(upstream.shown())
        if "down" in upstream.shown():
            raise ServerUnreachable("connection refused")
        return ServerFacts(300, 3)

    monkeypatch.setattr(server_watch, "read_server_facts", read_server_facts)
    return asked


def run(*arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def slots(*arguments):
    document = json.loads(run(*arguments, "--json").output)
    return document["slots"], document["slots_from"]


def test_the_sum_of_all_pools_is_told_and_whether_it_fits(plan):
    result = run(plan, "--preset", "postgresql")
    assert result.exit_code == 0, result.output
    assert "12 x 10" in result.output
    assert "222 connections can be asked for at once, and there are 92" in result.output
    assert "130 too many" in result.output
    assert "budget:\n  total: 92\n" in result.output


def test_without_a_server_there_is_a_sum_and_no_suggestion(plan):
    result = run(plan)
    assert "222 connections can be asked for at once. What the server can give is not known" in result.output
    assert "classes:" not in result.output


def test_the_slots_come_from_the_first_that_is_given(plan, server, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(CONFIG.replace("TOTAL", "40"))
    everything = ["--budget", 77, "--url", "postgresql://u@127.0.0.1/d", "--preset", "neon:1", "-c", config]
    assert slots(plan, *everything) == (77, "--budget")
    assert slots(plan, *everything[2:])[0] == 292
    assert slots(plan, *everything[4:])[0] == 407
    assert slots(plan, *everything[6:]) == (80, f"budget.total in {config}")


def test_a_configuration_that_says_auto_asks_its_server(plan, server, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(CONFIG.replace("TOTAL", "auto"))
    assert slots(plan, "-c", config)[0] == 292
    config.write_text(CONFIG.replace("TOTAL", "auto").replace("/app", "/down"))
    result = run(plan, "-c", config)
    assert result.exit_code == 1
    assert "budget.total is auto, and the server cannot be asked: connection refused" in result.output


def test_programs_read_json(plan):
    document = json.loads(run(plan, "--budget", "192", "--json").output)
    assert (document["connections"], document["fits"], document["missing"]) == (222, False, 30)
    assert document["services"][0] == {"service": "web", "formula": "12 x 10", "connections": 120, "reason": "noon"}
    text = document["suggestion_yaml"] + "upstream: {url: 'postgresql://h/d'}"
    assert load_config_text(text, {}).budget.total == document["suggestion"]["total"] == 192


def test_too_few_slots_are_told(plan):
    assert "No budget to suggest: 9 slots are too few" in run(plan, "--budget", "9").output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--preset", "rsd"], 'Error: "rsd" is no preset; did you mean "rds"?'),
        (["--url", "mysql://h"], "Error: --url: not a connection URI"),
        (["--url", "postgresql://u:hush@h/down"], "Error: the server cannot be asked: connection refused"),
        (["-c", "/nowhere.yaml"], "Error: the configuration cannot be used"),
    ],
)
def test_a_users_mistake_is_a_sentence(plan, server, arguments, told):
    result = run(plan, *arguments)
    assert result.exit_code == 1
    assert told in result.output
    assert "hush" not in result.output
    assert "Traceback" not in result.output


def test_a_plan_with_mistakes_is_told(plan):
    plan.write_text("services: {web: {pool: ten}}")
    result = run(plan)
    assert result.exit_code == 1
    assert "services.web.pool: read 'ten', allowed: a whole number >= 0" in result.output
