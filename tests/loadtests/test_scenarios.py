"""Scenarios as data: they read, they hold in the simulator, their bounds can fail, and a small one runs for real."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from loadtests.pgbouncer import find_pgbouncer
from loadtests.scenarios import real, scenario, simulated
from loadtests.scenarios.__main__ import BEGIN, FINISH, Played, into_readme, remarks, report
from loadtests.scenarios.record import FIGURES, ClassState, JobOver, NotSeen, Record, Sample, StateSample, Window
from loadtests.scenarios.scenario import Scenario, UnknownName, load_file
from loadtests.scenarios.verdict import verdicts
from proxy.service.config.errors import ConfigError

SMALL = """
story: four workers beside a little web, paused and resumed
connections: 6
pgbouncer: {web: 3, bulk: 3}
proxy:
  budget: {total: 6}
  default_class: bulk
  classes:
    web: {match: [{application_name: "web*"}], priority: 1, reserved: 2, limit: 4}
    bulk: {priority: 9, reserved: 1, lendable: 1, limit: 3, queue: {timeout: 30s}}
traffic:
  duration: 4s
  sources:
    web: {application_name: web-1, user: web, arrivals: {poisson: 20}, hold: 2ms, clients: 4}
    workers: {application_name: bulk-1, user: bulk, arrivals: {closed: {workers: 4}}, hold: 20ms}
events:
  - {at: 1s, do: pause, class: bulk}
  - {at: 3s, do: resume, class: bulk}
windows:
  paused: {from: 2s, to: 3s}
expect:
  - {figure: bulk.active_most, in: paused, at_most: 0}
  - {figure: bulk.used_most, in: whole, at_most: 3}
  - {figure: workers.failed, in: whole, at_most: 0}
  - {figure: bulk.done, in: whole, at_least: 20}
  - {figure: web.failed, in: whole, at_most: 0}
  - {figure: server_refusals, in: whole, at_most: 0}
"""


def written(folder: Path, text: str = SMALL) -> Scenario:
    path = folder / "small.yaml"
    path.write_text(text)
    return load_file(path)


def shortfalls(one: Scenario, record: Record) -> Sequence[str]:
    return [f"{verdict.expected}: {verdict.value}" for verdict in verdicts(one, record) if verdict.holds is False]


@pytest.mark.parametrize("name", scenario.names())
def test_every_scenario_holds_in_the_simulator(name: str) -> None:
    one = scenario.load(name)
    assert shortfalls(one, simulated.run(one, lambda at: None)) == []


def test_the_scenarios_of_the_field_are_there() -> None:
    assert {
        "noon-import",
        "cold-start",
        "retry-storm",
        "slow-database",
        "pause-resume",
        "reload",
        "starvation",
        "long-holds",
    } <= {*scenario.names()}


def test_a_pause_that_does_nothing_falls_short(tmp_path: Path) -> None:
    one = written(tmp_path, SMALL.replace("do: pause", "do: resume"))
    assert [text.partition(":")[0] for text in shortfalls(one, simulated.run(one, lambda at: None))] == [
        "bulk.active_most in paused <= 0"
    ]


def test_a_small_scenario_runs_for_real(tmp_path: Path) -> None:
    one = written(tmp_path)
    record = real.run(one, real.pgheadroom, lambda at: None)
    assert shortfalls(one, record) == []
    assert all(verdict.holds for verdict in verdicts(one, record)), "every figure can be told"


@pytest.mark.skipif(find_pgbouncer() is None, reason="no pgbouncer binary in PATH, /usr/sbin or $PGBOUNCER")
def test_pgbouncer_plays_what_has_no_switches(tmp_path: Path) -> None:
    text = SMALL.replace("  - {at: 1s, do: pause, class: bulk}\n  - {at: 3s, do: resume, class: bulk}\n", "")
    one = written(tmp_path, text.replace("events:\n", "").replace("duration: 4s", "duration: 1s"))
    record = real.run(one, real.pgbouncer_per_user, lambda at: None)
    assert [job for job in record.jobs if job.error] == []
    assert record.states == [], "it has no classes to tell of"
    with pytest.raises(real.CannotPlay, match="has no pause"):
        real.run(written(tmp_path), real.pgbouncer_per_user, lambda at: None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("bulk.active_most", "there is no figure"),
        ("in: paused", "no window is called"),
        (", at_most: 0", "is expected to be what"),
    ],
)
def test_a_name_that_means_nothing_is_told(tmp_path: Path, change: str, words: str) -> None:
    replaced = {"bulk.active_most": "bulk.p98", "in: paused": "in: lunch", ", at_most: 0": ""}[change]
    with pytest.raises(UnknownName, match=words):
        written(tmp_path, SMALL.replace(change, replaced))


def test_what_is_no_setting_is_told_by_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"small.yaml:2.*storey"):
        written(tmp_path, SMALL.replace("story:", "storey:"))


def job(at: float, seconds: float, error: str | None = None, attempts: int = 1) -> JobOver:
    return JobOver("workers", "bulk", at, at + seconds, attempts, 1, error)


RECORD = Record(
    jobs=[job(0.0, 0.1), job(1.0, 0.3, attempts=3), job(2.0, 0.2, error="53300", attempts=4), job(9.0, 1.0, "08006")],
    samples=[Sample(0.5, 7, {"bulk": 2}), Sample(1.5, 9, {"bulk": 4}), Sample(9.5, 3, {})],
    states=[
        StateSample(number, 8, in_use, {"bulk": ClassState(in_use, limit, 0)})
        for number, (in_use, limit) in enumerate([(9, 10), (8, 6), (10, 6), (4, 8), (4, 10), (3, 9)])
    ],
    refusals_in_server_log=2,
)


@pytest.mark.parametrize(
    ("figure", "value"),
    [
        ("p50", 0.1),
        ("p99", 0.3),
        ("worst", 0.3),
        ("failed", 2),
        ("dropped", 1),
        ("done", 2),
        ("goodput", 0.2),
        ("amplification", 9 / 4),
        ("connects", 0.4),
        ("drain", 10.0),
        ("active_mean", 2.0),
        ("active_most", 4),
        ("active_least", 0),
        ("connections_most", 9),
        ("used_mean", 38 / 6),
        ("used_most", 10),
        ("limit_least", 6),
        ("limit_last", 9),
        ("reversals", 2),
        ("rises_over_budget", 1),
        ("server_refusals", 2),
    ],
)
def test_a_figure_is_what_its_name_says(figure: str, value: float) -> None:
    assert FIGURES[figure](RECORD, "bulk", Window(0.0, 10.0)) == pytest.approx(value)


def test_every_figure_is_tested_above() -> None:
    marks = [mark for mark in test_a_figure_is_what_its_name_says.pytestmark if mark.name == "parametrize"]  # type: ignore[attr-defined]
    assert {name for name, _ in marks[0].args[1]} == {*FIGURES}


def test_a_window_in_which_nothing_was_seen_can_tell_nothing() -> None:
    for figure in ("p99", "active_most", "amplification", "drain", "used_most"):
        with pytest.raises(NotSeen):
            FIGURES[figure](RECORD, "bulk", Window(20.0, 30.0))


def test_the_table_goes_between_its_marks(tmp_path: Path) -> None:
    one = written(tmp_path)
    record = simulated.run(one, lambda at: None)
    played = [Played("small", "simulated", verdicts(one, record)), Played("small", "direct", (), "it cannot")]
    table = report({"small": one}, played, ["simulated", "direct"])
    assert "✓" in table
    assert list(remarks(played)) == ["small, direct: not played, it cannot"]
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{FINISH}\nafter\n")
    into_readme(readme, table)
    assert readme.read_text() == f"before\n{BEGIN}\n{table}\n{FINISH}\nafter\n"
    with pytest.raises(ValueError, match="no place for the table"):
        into_readme(tmp_path / "small.yaml", table)
