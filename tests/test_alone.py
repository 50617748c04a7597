"""A test marked `alone` has the machine to itself, while the others run beside each other."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PLUGIN = "from tests.support.alone import *"
# Each of two files runs in a worker of its own: the first tests meet, and every test tells when it ran.
TESTS = """
import json, time
from pathlib import Path
import pytest

HERE = Path(__file__).parent

@pytest.fixture(autouse=True)
def told(request):
    began = time.monotonic()
    yield
    (HERE / f"{request.node.name}.json").write_text(json.dumps([began, time.monotonic()]))

def test_meets_OTHER():
    (HERE / "THIS").touch()
    end = time.monotonic() + 10
    while not (HERE / "OTHER").exists():
        assert time.monotonic() < end, "the other worker does not run meanwhile"
        time.sleep(0.01)

@pytest.mark.parametrize("n", range(20))
def test_quick_THIS(n):
    time.sleep(0.005)

@pytest.mark.alone
def test_alone_THIS():
    time.sleep(0.05)

@pytest.mark.parametrize("n", range(20))
def test_later_THIS(n):
    time.sleep(0.005)
"""


@pytest.fixture
def ran(tmp_path: Path) -> dict[str, tuple[float, float]]:
    """When each test began and ended, by its name."""
    (tmp_path / "conftest.py").write_text(PLUGIN)
    for this, other in (("a", "b"), ("b", "a")):
        (tmp_path / f"test_{this}.py").write_text(TESTS.replace("THIS", this).replace("OTHER", other))
    arguments = ["-m", "pytest", "-q", "-n", "2", "--dist=loadfile", "--rootdir", str(tmp_path), str(tmp_path)]
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}


def test_nobody_else_runs_while_one_is_alone(ran: dict[str, tuple[float, float]]) -> None:
    for name in ("test_alone_a", "test_alone_b"):
        began, ended = ran[name]
        beside = [other for other, (at, until) in ran.items() if other != name and at < ended and began < until]
        assert beside == []
