"""What is compiled, what runs where nothing is, and what of it an import finds."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import setuptools
from setuptools.command.build_ext import build_ext
from setuptools.dist import Distribution
from setuptools.errors import CompileError

import proxy
from tests.support.compiled import COMPILED_MODULES, IS_COMPILED, source_of

ROOT = Path(proxy.__file__).parents[1]


@pytest.fixture
def asked_of_setup(monkeypatch):
    """What setup.py calls setup() with."""
    asked = {}
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: asked.update(arguments))
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    return asked


def test_types_and_sources_go_together(asked_of_setup):
    """A .pxd without its module in the list would be read by nobody; the inline ones are read where they are used."""
    inline = {"proxy.session.clock", "proxy.wire.prefilter"}
    typed = {source_of(path.with_suffix("")) for path in (ROOT / "proxy").glob("*/*.pxd") if path.stem != "__init__"}
    assert {one.name for one in asked_of_setup["ext_modules"]} == typed - inline


def test_without_a_compiler_everything_is_installed_and_nothing_half(asked_of_setup, monkeypatch, tmp_path):
    """The third module fails: the two that were built go, because compiled modules hold each other's types."""
    command = asked_of_setup["cmdclass"]["build_ext"](Distribution({"ext_modules": asked_of_setup["ext_modules"]}))
    command.ensure_finalized()
    command.build_lib = str(tmp_path)
    built = []

    def build_one(self, extension):
        if len(built) == 2:
            raise CompileError("no compiler here")
        path = Path(self.get_ext_fullpath(extension.name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        built.append(path)

    monkeypatch.setattr(build_ext, "build_extension", build_one)
    command.inplace = False
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    command.build_extensions()
    assert len(built) == 2
    assert not any(path.exists() for path in built)
    assert command.extensions == []


def run(script: str, plain: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PGHEADROOM_PLAIN": plain, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return done.stdout.strip()


def test_the_environment_can_ask_for_the_sources():
    script = "import sys, proxy.session.frontdesk; print([name for name, one in sys.modules.items()"
    script += " if name.startswith('proxy') and not one.__file__.endswith('.py')])"
    assert run(script, "1") == "[]"


@pytest.mark.skipif(not IS_COMPILED, reason="nothing is compiled here")
@pytest.mark.parametrize("name", COMPILED_MODULES)
def test_compiled_modules_are_what_an_import_finds(name):
    assert run(f"import {name}; print({name}.__file__)", "").endswith(".so")
