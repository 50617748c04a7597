"""The budget is checked again for as long as the proxy runs: others eat into it, the server becomes smaller."""

import asyncio
from collections.abc import Callable
from typing import Any

import psycopg
from structlog.testing import capture_logs

from proxy.demo.postgres import EmbeddedPostgres, password_of
from proxy.service.upstream_reading import UpstreamReading
from tests.support.running import Running, RunProxy

MakePostgres = Callable[..., EmbeddedPostgres]
BUDGET = {"total": "auto", "keep_free": 2, "instances": 1}
CLASSES = {"all": {"reserved": 4, "limit": 8, "queue": {"timeout": "8s"}}}


async def small_server(make_postgres: MakePostgres, max_connections: int = 20) -> EmbeddedPostgres:
    return await asyncio.to_thread(make_postgres, 18, max_connections=max_connections, superuser_reserved_connections=3)


async def stranger(server: EmbeddedPostgres, name: str, user: str = "web") -> psycopg.AsyncConnection[Any]:
    parameters = psycopg.conninfo.conninfo_to_dict(server.url(user, password=password_of(user)))
    return await psycopg.AsyncConnection.connect(**{**parameters, "application_name": name})


def told(log: list[Any], event: str) -> list[Any]:
    return [line for line in log if line["event"] == event]


def only(proxy: Running) -> UpstreamReading:
    (reading,) = proxy.process.view.upstreams()
    return reading


async def ask(proxy: Running) -> None:
    """As every minute."""
    await proxy.process.upstreams[0].watch.ask()


async def test_connections_past_the_proxy_that_eat_into_the_budget_are_named_once(
    make_postgres: MakePostgres, run_proxy: RunProxy
) -> None:
    server = await small_server(make_postgres)
    proxy = await run_proxy(server.url("app"), budget=BUDGET, classes=CLASSES)
    assert (proxy.registry.total, only(proxy).overcommitted_slots, only(proxy).problems) == (15, 0, ())
    with capture_logs() as log:
        others = [await stranger(server, name) for name in ("pgadmin", "pgadmin", "pgadmin", "dump")]
        for _ in range(3):
            await ask(proxy)
    assert only(proxy).overcommitted_slots == 2  # 15 + 4 - (20 - 3)
    facts = proxy.watch.facts
    assert facts is not None
    assert [(one.application_name, one.user, one.connections) for one in facts.strangers] == [
        ("pgadmin", "web", 3),
        ("dump", "web", 1),
    ]
    [line] = told(log, "budget_does_not_hold")
    assert "4 connections are not the proxy's (pgadmin of web" in line["finding"]
    assert (line["overcommitted_slots"], line["external_connections"]) == (2, 4)
    with capture_logs() as log:
        for one in others:
            await one.close()
        while only(proxy).overcommitted_slots:
            await ask(proxy)
    assert len(told(log, "budget_holds_again")) == 1
    assert only(proxy).problems == ()


async def test_the_proxys_own_connections_are_never_taken_for_strangers(
    make_postgres: MakePostgres, run_proxy: RunProxy
) -> None:
    server = await small_server(make_postgres)
    proxy = await run_proxy(server.url("app"), budget=BUDGET, classes=CLASSES)
    clients = [await proxy.connect() for _ in range(6)]
    working = [asyncio.create_task(client.query("select pg_sleep(0.2)")) for client in clients]
    for _ in range(10):
        await ask(proxy)
        facts = proxy.watch.facts
        assert facts is not None
        assert facts.strangers == ()
        assert facts.external_connections == 0
    await asyncio.gather(*working)


async def test_a_server_that_comes_back_smaller_makes_the_budget_smaller_and_that_is_told(
    make_postgres: MakePostgres, run_proxy: RunProxy
) -> None:
    """A number was checked at the start; nobody looked again, and the server refused what was promised."""
    server = await small_server(make_postgres)
    proxy = await run_proxy(server.url("app"), budget={"total": 12, "keep_free": 2, "instances": 1}, classes=CLASSES)
    assert proxy.registry.total == 12
    with capture_logs() as log:
        await asyncio.to_thread(server.restart, max_connections="10")
        await proxy.until_up()
        await ask(proxy)
    assert proxy.registry.total == 7  # 10 - 3
    assert only(proxy).overcommitted_slots == 5
    [problem] = [one for one in only(proxy).problems if one.severity.value == "error"]
    assert "total 12, but the server can give 7: 10 max_connections - 3 for superusers" in problem.text
    assert any("total 12, but the server can give 7" in line["finding"] for line in told(log, "budget_does_not_hold"))
    await asyncio.to_thread(server.restart, max_connections="20")
    await proxy.until_up()
    await ask(proxy)
    assert (proxy.registry.total, only(proxy).overcommitted_slots) == (12, 0)


async def test_reservations_that_do_not_fit_a_smaller_server_are_told(
    make_postgres: MakePostgres, run_proxy: RunProxy
) -> None:
    server = await small_server(make_postgres)
    classes = {"all": {"reserved": 12, "limit": 14}}
    proxy = await run_proxy(server.url("app"), budget=BUDGET, classes=classes)
    assert only(proxy).problems == ()
    await asyncio.to_thread(server.restart, max_connections="10")
    await proxy.until_up()
    await ask(proxy)
    assert proxy.registry.total == 5
    [problem] = only(proxy).problems
    assert problem.severity.value == "error"
    assert "reservations and headroom are all 12 + internal 1 = 13, more than the 5 slots" in problem.text
