"""The one thing pyproject.toml cannot say: an extension that may fail to build.

`optional=True` lets the install go on without a compiler; `proxy.wire.framing` then uses the plain module.
"""

from Cython.Build import cythonize
from setuptools import Extension, setup

setup(
    ext_modules=cythonize(
        [Extension("proxy.wire._compiled", ["proxy/wire/_compiled.pyx"], optional=True)],
        compiler_directives={"language_level": "3"},
    )
)
