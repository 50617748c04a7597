"""Starts the proxy for tests, with a configuration that differs from a plain one only where the test says so.

Owns: the plain configuration and the fixture.
Does not know: what is tested.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from proxy.demo.postgres import ROLES, free_port, password_of
from proxy.demo.serving import ProxyProcess
from tests.support.servers import Postgres

PLAIN_CLASSES = {
    "web": {"match": [{"application_name": "web*"}], "priority": 1, "reserved": 4, "lendable": 2, "limit": 8},
    "bulk": {"reason": "may always wait", "priority": 9, "reserved": 1, "limit": 4, "queue": {"timeout": "10s"}},
}


def plain_config(postgres: Postgres, **changes: Any) -> dict[str, Any]:
    """A configuration in front of `postgres` with free ports. `changes` replace whole top-level sections, except that
    a dict is merged into the section's dict (one level)."""
    config: dict[str, Any] = {
        "listen": {"host": "127.0.0.1", "port": free_port()},
        "http": {"host": "127.0.0.1", "port": free_port()},
        "upstream": {"url": postgres.url("app")},
        "auth": {"method": "scram", "users_file": "users.txt"},
        "budget": {"total": 10},
        "default_class": "bulk",
        "classes": copy.deepcopy(PLAIN_CLASSES),
    }
    for section, value in changes.items():
        merge = isinstance(value, dict) and isinstance(config.get(section), dict) and section != "classes"
        config[section] = {**config[section], **value} if merge else value
    return config


def users_file() -> str:
    return "".join(f'"{role}" "{password_of(role)}"\n' for role in ROLES)


@pytest.fixture
def make_proxy() -> Iterator[Callable[..., ProxyProcess]]:
    """Starts proxies for this test: make_proxy(postgres, budget={"total": 5}) or make_proxy(config=whole_config)."""
    with ExitStack() as stack:

        def make(
            postgres: Postgres | None = None, *, config: dict[str, Any] | None = None, **changes: Any
        ) -> ProxyProcess:
            assert (postgres is None) != (config is None), "a server to stand in front of, or a whole configuration"
            whole = config if postgres is None else plain_config(postgres, **changes)
            assert whole is not None
            return stack.enter_context(ProxyProcess(whole, files={"users.txt": users_file()}))

        yield make
