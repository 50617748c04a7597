"""The one thing pyproject.toml cannot say: an extension that may fail to build.

`optional` lets the install go on without a compiler; `proxy.wire.framing` then uses the plain module.
"""

from Cython.Build import cythonize
from setuptools import Extension, setup

extensions = cythonize(
    [Extension("proxy.wire._compiled", ["proxy/wire/_compiled.pyx"])],
    compiler_directives={"language_level": "3"},
)
for extension in extensions:
    extension.optional = True  # set here: cythonize() makes new extensions and forgets it

setup(ext_modules=extensions)
