"""The core decides from its arguments alone: no event loop, no clock, no input or output, no log."""

import ast
from pathlib import Path

import pytest

import proxy.admission

ALLOWED = {
    "bisect",
    "collections",
    "dataclasses",
    "enum",
    "fnmatch",
    "functools",
    "heapq",
    "ipaddress",
    "itertools",
    "math",
    "operator",
    "proxy",
    "re",
    "typing",
}
MODULES = sorted(Path(proxy.admission.__path__[0]).glob("*.py"))


def imported(module: Path) -> set[str]:
    tree = ast.parse(module.read_text())
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_a_module_of_the_core_imports_nothing_that_acts(module: Path) -> None:
    assert imported(module) <= ALLOWED
