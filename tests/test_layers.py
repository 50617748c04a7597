"""Each layer imports only what stands before it, and the two inner ones know neither sockets, clocks nor logs."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import proxy

ROOT = Path(proxy.__file__).parent
LAYERS = ("wire", "admission", "session", "service", "demo", "cli")
PURE = ("wire", "admission")
IMPURE_MODULES = {"asyncio", "logging", "select", "selectors", "socket", "structlog", "threading", "time", "uvloop"}
MODULES = sorted(path for path in ROOT.rglob("*.py") if path.parent != ROOT)


def imported(source: str, package: str) -> Iterator[str]:
    """Every module that `source` imports, also inside functions; relative names are made absolute."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from _names_of(node, package)


def _names_of(node: ast.ImportFrom, package: str) -> Iterator[str]:
    base = node.module or ""
    if node.level:
        parents = package.split(".")[: -(node.level - 1) or None]
        base = ".".join([*parents, base] if base else parents)
    yield base
    yield from (f"{base}.{alias.name}" for alias in node.names)


def layer_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "proxy" and len(parts) > 1 and parts[1] in LAYERS else None


def forbidden(layer: str, source: str, package: str) -> list[str]:
    """The imports of `source` that a module of `layer` may not have."""
    allowed = {*LAYERS[: LAYERS.index(layer) + 1]} - ({"wire"} if layer == "admission" else set())
    found = set(imported(source, package))
    upward = {name for name in found if (one := layer_of(name)) is not None and one not in allowed}
    impure = {name for name in found if layer in PURE and name.split(".")[0] in IMPURE_MODULES}
    return sorted(upward | impure)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_stands_before_its_layer(path: Path) -> None:
    relative = path.relative_to(ROOT)
    assert relative.parts[0] in LAYERS, "a folder that is no layer"
    package = ".".join(["proxy", *relative.parts[:-1]])
    assert forbidden(relative.parts[0], path.read_text(), package) == []


@pytest.mark.parametrize("layer", PURE)
def test_compiled_sources_are_as_pure_as_the_others(layer: str) -> None:
    for path in (ROOT / layer).rglob("*.pyx"):
        words = {line.split()[1].split(".")[0] for line in path.read_text().splitlines() if _is_import(line)}
        assert not words & IMPURE_MODULES, path


def _is_import(line: str) -> bool:
    return line.lstrip().startswith(("import ", "from ", "cimport "))


@pytest.mark.parametrize(
    ("layer", "source"),
    [
        ("wire", "import asyncio"),
        ("wire", "from proxy.admission import ledger"),
        ("admission", "from time import monotonic"),
        ("admission", "from proxy.wire.messages import query"),
        ("admission", "def f():\n    import proxy.session.pool"),
        ("session", "from proxy.service import view"),
        ("session", "from proxy import service"),
        ("session", "from ..service import view"),
        ("service", "if True:\n    from proxy.cli.main import main"),
    ],
)
def test_the_check_sees_what_is_forbidden(layer: str, source: str) -> None:
    assert forbidden(layer, source, f"proxy.{layer}") != []
