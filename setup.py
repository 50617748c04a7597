"""The one thing pyproject.toml cannot say: what is compiled, and that nothing need be.

The modules of the hot path are compiled from the same sources that run without a compiler: next to each `x.py` lies an
`x.pxd` that tells Cython the types. They hold each other's types, so all of them are built or none.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, ExecError, LinkError, PlatformError

COMPILED = (
    "proxy/wire/_compiled.pyx",
    "proxy/admission/demand.py",
    "proxy/admission/queue_pace.py",
    "proxy/admission/queues.py",
    "proxy/admission/ledger.py",
    "proxy/admission/rule.py",
    "proxy/admission/controller.py",
    "proxy/session/histogram.py",
    "proxy/session/measures.py",
    "proxy/session/awaited.py",
    "proxy/session/parameters.py",
    "proxy/session/statements.py",
    "proxy/session/holder.py",
    "proxy/session/injected.py",
    "proxy/session/server_leg.py",
    "proxy/session/server.py",
    "proxy/session/idle.py",
    "proxy/session/backlog.py",
    "proxy/session/session_state.py",
    "proxy/session/registry.py",
    "proxy/session/pool.py",
    "proxy/session/examination.py",
    "proxy/session/gate.py",
    "proxy/session/holding.py",
    "proxy/session/linked.py",
    "proxy/session/short_ways.py",
    "proxy/session/client.py",
)


class BuildAllOrNone(build_ext):
    """Without a compiler the install goes on, and the sources run as they are."""

    def build_extensions(self) -> None:
        self.parallel = os.cpu_count()
        try:
            super().build_extensions()
        except (CompileError, LinkError, ExecError, PlatformError) as error:
            print(f"pgheadroom: nothing is compiled, it will run slower: {error}")
            for extension in self.extensions:
                Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
            self.extensions[:] = []


setup(
    cmdclass={"build_ext": BuildAllOrNone},
    ext_modules=cythonize(
        [
            Extension(path.rpartition(".")[0].replace("/", "."), [path], extra_compile_args=["-O2", "-g0"])
            for path in COMPILED
        ],
        build_dir="build",
        compiler_directives={
            "language_level": "3",
            "annotation_typing": False,  # the .pxd files say what is a C type; annotations are for readers and mypy
            "auto_pickle": False,
            "binding": False,
            "nonecheck": True,  # a mistake is an exception in one connection, not the end of the process
        },
    ),
)
