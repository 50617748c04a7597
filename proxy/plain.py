"""Runs the sources where compiled modules lie beside them: `PGHEADROOM_PLAIN=1`, for tests and for a debugger.

Owns: what an import of one of our modules finds then.
Does not know: what is compiled.
"""

from collections.abc import Sequence
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from types import ModuleType


class PlainImporter:
    """An importer that knows sources only. What has no source cannot be imported, as where nothing was compiled."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not name.startswith("proxy.") or path is None:
            return None
        for folder in path:
            spec = FileFinder(folder, (SourceFileLoader, SOURCE_SUFFIXES)).find_spec(name, target)
            if spec is not None and spec.loader is not None:
                return spec
        raise ModuleNotFoundError(f"{name} has no source", name=name)
