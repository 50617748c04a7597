"""pgheadroom: connection admission for PostgreSQL."""

from importlib.metadata import version

__version__ = version("pgheadroom")
