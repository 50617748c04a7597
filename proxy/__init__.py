"""pgheadroom: connection admission for PostgreSQL."""

import os
import sys
from importlib.metadata import version

__version__ = version("pgheadroom")

if os.environ.get("PGHEADROOM_PLAIN") == "1":
    from proxy.plain import PlainImporter

    sys.meta_path.insert(0, PlainImporter())
