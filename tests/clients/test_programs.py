"""What is missing on a machine is told apart from what is broken, and a program that hangs is not waited for twice."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.clients.programs import Driver, Ecosystem, Program, Programs
from tests.support.eventually import eventually_sync
from tests.support.not_here import EXCUSED, NotHere, skip_or_fail
from tests.support.processes import runs

ECHO = """
import json, subprocess, sys, time
for line in sys.stdin:
    asked = json.loads(line)
    if asked["scenario"] == "hang":
        time.sleep(60)
    if asked["scenario"] == "end":
        sys.exit(1)
    if asked["scenario"] == "start":
        child = subprocess.Popen(["sleep", "60"])
        print(json.dumps({"result": child.pid}), flush=True)
        continue
    answer = {"failure": "no"} if asked["scenario"] == "fail" else {"result": {"url": asked["url"]}}
    print(json.dumps(answer), flush=True)
"""


def ecosystem(folder: Path, script: str, *, tools: tuple[str, ...] = ("sh",)) -> Ecosystem:
    (folder / "lock").write_text("1")
    return Ecosystem(str(folder), tools=tools, locked_by=("lock",), install=(("sh", "-c", script),))


def driver(folder: Path) -> Driver:
    (folder / "echo.py").write_text(ECHO)
    return Driver("echo", "echo", ecosystem(folder, "true"), (sys.executable, str(folder / "echo.py")))


def test_two_at_a_time_install_it_once(tmp_path: Path) -> None:
    """Two workers of one run of tests ask for the same driver."""
    one = ecosystem(tmp_path, "echo begun >>log; sleep 0.2; echo done >>log")
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda _: one.make_ready(), range(2)))
    assert (tmp_path / "log").read_text() == "begun\ndone\n"


def test_it_is_installed_once_and_again_where_its_lock_changed(tmp_path: Path) -> None:
    one = ecosystem(tmp_path, "echo done >>log")
    for lock in ("1", "1", "2"):
        (tmp_path / "lock").write_text(lock)
        one.make_ready()
    assert (tmp_path / "log").read_text().count("done") == 2


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'npm error code ENOTFOUND'; exit 1", "the registry of sh does not answer"),
        ("echo 'dial tcp: lookup proxy: no such host' >&2; exit 1", "the registry of sh does not answer"),
        ("echo 'not installed: Python 3.13'; exit 1", "not installed: Python 3.13"),
    ],
)
def test_what_cannot_be_had_here_is_named(tmp_path: Path, script: str, words: str) -> None:
    with pytest.raises(NotHere, match=words) as missing:
        ecosystem(tmp_path, script).make_ready()
    assert missing.value.is_outage is ("registry" in words)


def test_a_missing_tool_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotHere, match="no-such-tool not installed"):
        ecosystem(tmp_path, "true", tools=("sh", "no-such-tool")).make_ready()


@pytest.mark.parametrize("excused", ["no-such-tool", "other no-such-tool", ""])
def test_a_tool_that_no_registry_could_give_is_nobody_s_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, excused: str
) -> None:
    monkeypatch.setenv(EXCUSED, excused)
    with pytest.raises(NotHere) as missing:
        ecosystem(tmp_path, "true", tools=("no-such-tool",)).make_ready()
    assert missing.value.is_outage is bool(excused)


@pytest.mark.parametrize("is_outage", [True, False])
@pytest.mark.parametrize("is_ci", [True, False])
def test_in_ci_a_driver_is_skipped_only_where_its_registry_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, is_ci: bool, is_outage: bool
) -> None:
    """And wherever it is skipped, the reason is told."""
    monkeypatch.setenv("CI", "true" if is_ci else "")
    outcome = pytest.fail.Exception if is_ci and not is_outage else pytest.skip.Exception
    with pytest.raises(outcome, match="pgx: no go"):
        skip_or_fail("pgx", NotHere("no go", is_outage=is_outage))


def test_a_mistake_of_ours_is_no_excuse(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="syntax error in main"):
        ecosystem(tmp_path, "echo syntax error in main; exit 1").make_ready()


def test_a_program_that_hung_ended_or_failed_is_started_again(tmp_path: Path) -> None:
    programs = Programs()
    program: Program = programs.of(driver(tmp_path))
    try:
        assert program.ask("hang", "", within_seconds=0.5) == {"failure": "no answer within 0.5 s"}
        assert program.ask("end", "") == {"failure": "the program ended"}
        assert program.ask("fail", "") == {"failure": "no"}
        assert program.ask("anything", "a url") == {"result": {"url": "a url"}}
    finally:
        programs.stop()


def test_what_a_program_has_started_ends_with_it(tmp_path: Path) -> None:
    """A queue's workers outlived a program that was too slow, and stayed connected through all later tests."""
    programs = Programs()
    child = programs.of(driver(tmp_path)).ask("start", "")["result"]
    programs.stop()
    eventually_sync(lambda: not runs(child))
