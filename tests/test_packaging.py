"""What setup.py asks of the build."""

import runpy
from pathlib import Path

import setuptools

SETUP = Path(__file__).parents[1] / "setup.py"


def test_a_missing_compiler_does_not_break_the_install(monkeypatch):
    """`optional` was given to the Extension, and cythonize() makes new ones without it: no compiler, no install."""
    asked = {}
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: asked.update(arguments))
    monkeypatch.chdir(SETUP.parent)
    runpy.run_path(str(SETUP))
    assert [one.name for one in asked["ext_modules"]] == ["proxy.wire._compiled"]
    assert all(one.optional for one in asked["ext_modules"])
