"""Prometheus's own tool on its configuration and on the alerts, and the few things the tool cannot know."""

import shutil
import subprocess

import pytest
import yaml

from tests.deploy.artifacts import DEPLOY, ROOT, alerts, dashboard_queries, read_yaml

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="no promtool on this machine")


def promtool(*arguments):
    command = [PROMTOOL, *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


@needs_promtool
def test_the_configuration_and_its_rules_are_accepted():
    code, output = promtool("check", "config", DEPLOY / "prometheus/prometheus.yml")

    assert code == 0, output
    assert f"{len(alerts())} rules found" in output


@needs_promtool
def test_each_alert_fires_when_it_has_to_and_only_then():
    code, output = promtool("test", "rules", ROOT / "tests/deploy/alerts_test.yaml")

    assert code == 0, output


@needs_promtool
def test_every_query_of_the_dashboard_can_be_read(tmp_path):
    rules = [
        {"record": f"panel:{number}", "expr": query.replace("$__rate_interval", "1m")}
        for number, (where, query) in enumerate(dashboard_queries())
        if not where.startswith("variable")
    ]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))

    code, output = promtool("check", "rules", file)

    assert code == 0, output
    assert f"{len(rules)} rules found" in output


def test_every_alert_is_tried_out():
    tried = (ROOT / "tests/deploy/alerts_test.yaml").read_text()

    assert [rule["alert"] for rule in alerts() if rule["alert"] not in tried] == []


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_and_what_to_do(rule):
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description"}


def test_the_job_is_called_as_alerts_and_dashboard_expect():
    (job,) = read_yaml("prometheus/prometheus.yml")["scrape_configs"]

    assert job["job_name"] == "pgheadroom"
    assert job["static_configs"] == [{"targets": ["pgheadroom:9432"]}]
