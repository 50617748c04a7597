"""Which modules are compiled, and whether this run uses them."""

from pathlib import Path

import proxy
from proxy.admission import rule

ROOT = Path(proxy.__file__).parent
# Compiled functions call each other without a look at the module: what is replaced there is not called.
IS_COMPILED = not str(rule.__file__).endswith(".py")


def source_of(path: Path) -> str:
    """The name of a module, from its path without a suffix."""
    return ".".join(("proxy", *path.relative_to(ROOT).parts))


COMPILED_MODULES = sorted(source_of(path.with_name(path.name.split(".")[0])) for path in ROOT.glob("*/*.so"))


def stale() -> list[str]:
    """Compiled modules that are older than the sources they were made of."""
    return [
        str(path.relative_to(ROOT.parent))
        for built in ROOT.glob("*/*.so")
        for path in built.parent.glob(built.name.split(".")[0] + ".p*")
        if path.stat().st_mtime > built.stat().st_mtime
    ]
