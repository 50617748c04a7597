"""`pgheadroom simulate`: files in, tables or JSON out, mistakes as sentences."""

import io
import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from proxy.cli.simulate import ProgressLine, command

EXAMPLES = Path(__file__).parents[2] / "config" / "examples"

CONFIG = """
upstream: {url: "postgresql://app@127.0.0.1/app"}
budget: {total: 20, headroom: {size: 2, for: [web]}}
default_class: bulk
classes:
  web: {match: [{application_name: "web*"}], priority: 1, reserved: 6, lendable: 3, limit: 15}
  bulk: {priority: 9, reserved: 2, lendable: 1, limit: 15, max_clients: 30, queue: {timeout: 10s, max: 2000}}
  shell: {match: [{application_name: psql, user: dba}], priority: 0, limit: 2, pool_mode: session}
"""

TRAFFIC = """
duration: 20s
seed: 3
sources:
  web: {application_name: web-1, arrivals: {poisson: 50}, hold: {lognormal: {median: 5ms, p99: 50ms}}}
  import: {class: bulk, arrivals: {burst: {at: 5s, workers: 40, jobs: 3}}, hold: 100ms}
"""


class Files:
    """A configuration and a traffic file in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.config, self.traffic = folder / "config.yaml", folder / "traffic.yaml"
        self.config.write_text(CONFIG)
        self.traffic.write_text(TRAFFIC)

    def simulate(self, *options: str) -> Result:
        return CliRunner().invoke(command, [str(self.config), "--traffic", str(self.traffic), *options])

    def document(self, *options: str) -> dict:
        result = self.simulate("--json", *options)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def class_of(document: dict, policy: str, name: str) -> dict:
    (report,) = (one for one in document["policies"] if one["policy"] == policy)
    return next(one for one in report["classes"] if one["class_name"] == name)


def test_the_table_shows_every_class_under_every_policy(files):
    lines = files.simulate().output.splitlines()
    for class_name in ("web", "bulk"):
        for policy in ("pgheadroom", "shared FIFO", "static pools"):
            assert any(line.split("  ")[0] == class_name and policy in line for line in lines)


def test_the_table_shows_how_long_each_burst_took(files):
    (line,) = (line for line in files.simulate().output.splitlines() if line.startswith("import "))
    assert line.split()[:2] == ["import", "5s"]


def test_json_is_for_programs(files):
    document = files.document()
    assert (document["total"], document["seed"], document["duration_seconds"]) == (20, 3, 20.0)
    web = class_of(document, "pgheadroom", "web")
    assert web["arrived"] == web["served"] + web["still_there"]


def test_a_burst_that_is_not_done_is_null_in_json(files):
    files.traffic.write_text(TRAFFIC.replace("jobs: 3", "jobs: 300"))
    assert class_of(files.document(), "pgheadroom", "bulk")["drain_seconds"] is None


def test_a_burst_that_is_not_done_is_said_in_the_table(files):
    files.traffic.write_text(TRAFFIC.replace("jobs: 3", "jobs: 300"))
    assert "not done" in files.simulate().output


def test_the_same_seed_prints_the_same_figures(files):
    assert files.document("--seed", "8")["policies"] == files.document("--seed", "8")["policies"]


def test_another_seed_is_other_traffic(files):
    assert files.document("--seed", "8")["policies"] != files.document("--seed", "9")["policies"]


def test_the_total_can_be_tried_out(files):
    assert files.document("--total", "40")["total"] == 40


def test_auto_needs_a_total_because_no_server_is_asked(files):
    files.config.write_text(CONFIG.replace("total: 20", "total: auto"))
    result = files.simulate()
    assert (result.exit_code, "give --total" in result.output) == (1, True)
    assert files.simulate("--total", "20").exit_code == 0


def test_a_budget_that_cannot_hold_is_not_simulated(files):
    result = files.simulate("--total", "5")
    assert result.exit_code == 1
    assert "but budget.total is 5" in result.output


def test_mistakes_in_the_traffic_name_file_and_line(files):
    files.traffic.write_text(TRAFFIC.replace("class: bulk", "class: blk"))
    result = files.simulate()
    assert result.exit_code == 1
    assert f"{files.traffic}:6: sources.import.class: read 'blk'" in result.output


def test_mistakes_in_the_configuration_name_file_and_line(files):
    files.config.write_text(CONFIG.replace("limit: 2,", "limits: 2,"))
    result = files.simulate()
    assert result.exit_code == 1
    assert f"{files.config}:8: classes.shell.limits: unknown setting" in result.output


def test_what_falls_into_the_default_class_is_noted(files):
    files.traffic.write_text(TRAFFIC.replace("class: bulk", "application_name: cron"))
    assert "import matches no class: it is in the default class bulk" in files.document()["notes"]


def test_what_is_not_simulated_is_noted(files):
    assert any("max_clients (30) is not simulated" in note for note in files.document()["notes"])


def test_sessions_are_noted(files):
    shell = "  dba: {application_name: psql, user: dba, arrivals: {constant: 0.2}, hold: 1s}\n"
    files.traffic.write_text(TRAFFIC + shell)
    assert any("shell is in session mode" in note for note in files.document()["notes"])


@pytest.mark.parametrize("name", ["traffic-noon-import.yaml", "traffic-hour.yaml"])
def test_the_examples_can_be_simulated(name, tmp_path):
    """The first minutes of each: what is published has to run."""
    text = (EXAMPLES / name).read_text().replace("duration: 1h", "duration: 1m").replace("at: 10m", "at: 20s")
    (tmp_path / name).write_text(text)
    arguments = [str(EXAMPLES / "fifty-slots.yaml"), "--traffic", str(tmp_path / name), "--json"]
    result = CliRunner().invoke(
        command, arguments, env={"PGHEADROOM_UPSTREAM_URL": None, "PGHEADROOM_USERS_FILE": None}
    )
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["total"], document["notes"]) == (50, [])
    assert document["policies"][0]["steps"] == []
    ours, theirs = (
        class_of(document, policy, "web")["wait_in_burst"]["p99"] for policy in ("pgheadroom", "shared FIFO")
    )
    assert ours < 0.005 < 0.1 < theirs


def test_an_hour_at_200_jobs_per_second_costs_less_than_a_minute_of_cpu(tmp_path):
    """Two minutes of it, in CPU time: a whole hour and a busy machine have no place in a test."""
    (tmp_path / "traffic.yaml").write_text(
        (EXAMPLES / "traffic-hour.yaml").read_text().replace("duration: 1h", "duration: 2m")
    )
    started = time.process_time()
    arguments = [str(EXAMPLES / "fifty-slots.yaml"), "--traffic", str(tmp_path / "traffic.yaml")]
    assert CliRunner().invoke(command, arguments).exit_code == 0
    assert (time.process_time() - started) * 30 < 60


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_long_run_tells_how_far_it_is_and_cleans_up(monkeypatch):
    monkeypatch.setattr("proxy.cli.simulate.QUIET_SECONDS", 0.0)
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    line = ProgressLine(3600.0)
    line.show("shared FIFO", 900.0)
    line.clear()
    assert terminal.getvalue() == "\r\x1b[Kshared FIFO: 25% of 1h\r\x1b[K"


def test_a_short_run_tells_nothing(monkeypatch):
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    line = ProgressLine(3600.0)
    line.show("shared FIFO", 900.0)
    line.clear()
    assert terminal.getvalue() == ""


def test_refusals_are_shown_by_reason(files):
    files.config.write_text(CONFIG.replace("{timeout: 10s, max: 2000}", "{timeout: 10s, max: 5}"))
    lines = files.simulate().output.splitlines()
    assert any(line.split()[:3] == ["bulk", "pgheadroom", "queue_full"] for line in lines)


def test_a_run_without_refusals_has_no_table_of_them(files):
    assert "Refusals" not in files.simulate().output


SLOW = """
duration: 150s
server: {parallel: 4, slow: [{from: 60s, to: 90s, slower: 5}]}
sources:
  web: {class: web, arrivals: {poisson: 60}, hold: {lognormal: {median: 8ms, p99: 60ms}}}
  import: {class: bulk, arrivals: {closed: {workers: 20}}, hold: {exponential: 200ms}}
"""


def steps_of(files: Files, mode: str) -> dict[str, list[dict]]:
    files.config.write_text(f"{CONFIG}adaptive: {mode}\n")
    files.traffic.write_text(SLOW)
    return {one["policy"]: one["steps"] for one in files.document()["policies"]}


def test_adaptive_limits_are_simulated_where_they_are_on(files):
    steps = steps_of(files, "on")
    assert (steps["shared FIFO"], steps["static pools"]) == ([], [])
    first = steps["pgheadroom"][0]
    assert (first["class_name"], first["direction"]) == ("bulk", "cut")
    assert first["cause"] in ("hold_time", "queue_wait")
    assert 60 < first["at_seconds"] < 65
    assert first["limit"] < first["was"] == 15
    assert "Steps of adaptive limits" in files.simulate().output


def test_observing_shows_the_steps_and_says_that_none_was_made(files):
    assert steps_of(files, "observe")["pgheadroom"]
    assert any("none was" in note for note in files.document()["notes"])


def test_nothing_is_said_of_steps_where_limits_do_not_adapt(files):
    assert steps_of(files, "off")["pgheadroom"] == []
    assert "Steps" not in files.simulate().output


def test_the_example_of_a_slow_database_is_held_through():
    arguments = [
        str(EXAMPLES / "fifty-slots.yaml"),
        "--traffic",
        str(EXAMPLES / "traffic-slow-database.yaml"),
        "--json",
    ]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    steps = json.loads(result.stdout)["policies"][0]["steps"]
    assert 100 < steps[0]["at_seconds"] <= 105
    assert steps[-1]["at_seconds"] <= 220
    assert steps[-1]["limit"] == 40
