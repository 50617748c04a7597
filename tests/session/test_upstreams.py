"""Several upstreams: each server has a budget of its own, and what happens on one is nothing to the other."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psycopg
import pytest

from proxy.admission.classes import ClassState
from proxy.demo.postgres import DATABASE, EmbeddedPostgres, free_port, password_of
from proxy.service.process import BudgetCannotHold
from proxy.service.traffic.observed import observed
from proxy.service.traffic.record import hours_of
from proxy.session.server import ServerState
from tests.support.eventually import eventually
from tests.support.running import Running, RunProxy
from tests.support.wire_client import WireClient, query

TOTAL = {"primary": 5, "replica": 4}
REPLICA = "app_ro"  # what clients call the database of the replica


class Pair:
    """A proxy in front of two servers."""

    def __init__(self, proxy: Running, primary: EmbeddedPostgres, replica: EmbeddedPostgres) -> None:
        self.proxy = proxy
        self.servers = {"primary": primary, "replica": replica}
        self.upstreams = {one.name: one for one in proxy.process.upstreams}

    def used(self, name: str) -> int:
        return self.upstreams[name].controller.in_use

    async def on(self, name: str, user: str = "app", **parameters: str) -> WireClient:
        return await self.proxy.connect(user, DATABASE if name == "primary" else REPLICA, **parameters)

    async def major_version(self, client: WireClient) -> str:
        return str(await client.value("show server_version_num"))[:2]


def settings(primary: str, replica: str, **changes: Any) -> dict[str, Any]:
    """What run_proxy is told; of the two upstreams `changes` are those of the whole file."""
    upstreams = {
        "replica": {
            "url": replica,
            "databases": [REPLICA, "reports*"],
            "database": DATABASE,
            "budget": {"total": TOTAL["replica"], "keep_free": 0},
            "default_class": "reports",
        },
        "primary": {
            "url": primary,
            "budget": {"total": TOTAL["primary"], "keep_free": 0},
            "default_class": "rest",
        },
    }
    queue = {"timeout": "20s", "max": 1000}
    classes = {
        "web": {"upstream": "primary", "match": [{"application_name": "web*"}], "reserved": 2, "limit": 4},
        "rest": {"limit": 4, "queue": queue},
        "dashboards": {"upstream": "replica", "match": [{"application_name": "web*"}], "limit": 3, "queue": queue},
        "reports": {"limit": 3, "queue": queue},
    }
    short_form = {"budget": None, "default_class": None}
    return short_form | {"upstreams": upstreams, "classes": classes, "pool": {"listen_connections": 1}} | changes


@pytest.fixture
async def pair(
    run_proxy: RunProxy, embedded_postgres_18: EmbeddedPostgres, embedded_postgres_16: EmbeddedPostgres
) -> Pair:
    return await start(run_proxy, embedded_postgres_18, embedded_postgres_16)


@pytest.fixture
async def exact_pair(run_proxy: RunProxy, make_postgres: Callable[..., EmbeddedPostgres]) -> Pair:
    """The servers can give exactly what the budgets say, and are the test's own."""
    primary = make_postgres(18, max_connections=TOTAL["primary"] + 3)
    replica = make_postgres(16, max_connections=TOTAL["replica"] + 3)
    return await start(run_proxy, primary, replica)


async def start(
    run_proxy: RunProxy, primary: EmbeddedPostgres, replica: EmbeddedPostgres, user: str = "app", **changes: Any
) -> Pair:
    proxy = await run_proxy("", **settings(primary.url(user), replica.url(user), **changes))
    return Pair(proxy, primary, replica)


# -- who goes where ---------------------------------------------------------------------------------------------------


async def test_the_database_that_a_client_names_chooses_the_server(pair: Pair) -> None:
    clients = {name: await pair.proxy.connect(database=name) for name in (DATABASE, REPLICA, "reports_2026")}
    found = {name: await pair.major_version(client) for name, client in clients.items()}
    assert found == {DATABASE: "18", REPLICA: "16", "reports_2026": "16"}
    assert await clients["reports_2026"].value("select current_database()") == DATABASE


async def test_only_classes_of_that_upstream_are_matched(pair: Pair) -> None:
    for name in ("primary", "replica"):
        for application in ("web-1", "cron"):
            await pair.on(name, application_name=application)
    told = sorted(client.class_name for client in pair.proxy.desk.clients)
    assert told == ["dashboards", "reports", "rest", "web"]
    assert pair.proxy.desk.unmatched_clients == 2
    names = [(one.application_name, one.upstream) for one in pair.proxy.process.view.unmatched().names]
    assert names == [("cron", "primary"), ("cron", "replica")]


def get(url: str) -> bytes:
    with urlopen(url) as answer:
        return bytes(answer.read())


async def test_demand_is_recorded_for_each_and_each_gets_a_budget_recommended(pair: Pair) -> None:
    for name, clients in (("primary", 2), ("replica", 1)):
        for _ in range(clients):
            await (await pair.on(name, application_name="web-1")).query("begin")
    traffic = pair.proxy.process.traffic

    def both_were_seen() -> bool:
        seen = observed(hours_of(traffic.frozen(), 0))
        return seen.seconds >= 1.0 and [one.most for one in seen.upstreams.values()] == [1, 2]

    await eventually(both_were_seen, within_seconds=10)
    answer = await asyncio.to_thread(get, f"http://127.0.0.1:{pair.proxy.process.http.port}/recommend?at_least=1")
    documents = {one["upstream"]: one for one in json.loads(answer)["upstreams"]}
    assert {name: one["total"]["most"] for name, one in documents.items()} == {"primary": 2, "replica": 1}
    totals = {name: one["suggestion"]["total"]["value"] for name, one in documents.items()}
    assert totals == TOTAL


async def test_a_database_that_no_upstream_serves_is_refused_in_words(
    run_proxy: RunProxy,
) -> None:
    changes = settings("postgresql://app@127.0.0.1:1/app", "postgresql://app@127.0.0.1:2/app")
    changes["upstreams"]["primary"]["databases"] = [DATABASE]
    proxy = await run_proxy("", **changes)
    refused = await proxy.connect_or_error(database="elsewhere")
    assert (refused.code, refused.hint) == ("3D000", "see upstreams.<name>.databases")  # type: ignore[union-attr]
    assert proxy.measures.login_failures["unknown_database"] == 1


@pytest.mark.parametrize(
    "auth",
    [
        {"method": "scram", "auth_query": "SELECT usename, passwd FROM pg_shadow WHERE usename = $1"},
        {"rules": [{"method": "passthrough", "address": "local"}]},
    ],
    ids=["auth_query", "passthrough"],
)
async def test_the_server_of_the_database_says_who_may_log_in(
    run_proxy: RunProxy, make_postgres: Callable[..., EmbeddedPostgres], tmp_path: Path, auth: dict[str, Any]
) -> None:
    """The same name has another password there; what one server has said is not believed of the other."""
    primary, replica = make_postgres(18), make_postgres(16)
    replica.psql("ALTER ROLE web PASSWORD 'another'")
    port = free_port()
    listen = {"port": port, "unix_socket_dir": str(tmp_path)}
    method = {"users_file": None, "method": None, **auth}
    await start(run_proxy, primary, replica, "postgres", listen=listen, auth=method)
    passwords = {DATABASE: password_of("web"), REPLICA: "another"}
    for database, password in passwords.items():
        keys = {"host": str(tmp_path), "port": port, "user": "web", "dbname": database}
        connection = await psycopg.AsyncConnection.connect(**keys, password=password)
        assert connection.info.server_version // 10_000 == (18 if database == DATABASE else 16)
        await connection.close()
        (wrong,) = set(passwords.values()) - {password}
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            await psycopg.AsyncConnection.connect(**keys, password=wrong)


# -- budgets ----------------------------------------------------------------------------------------------------------


async def test_a_flood_on_the_replica_leaves_the_primary_alone(exact_pair: Pair) -> None:
    """Each budget is used whole and never exceeded: the servers could not give one connection more."""
    pair = exact_pair
    flood = [await pair.on("replica", application_name="job") for _ in range(12)]
    for client in flood:
        await client.send(query("select pg_sleep(0.2)"))
    await eventually(lambda: pair.used("replica") == 3)
    others = [await pair.on("primary", application_name=name) for name in ("web-1", "web-2", "cron", "shell")]
    for client in others:
        assert await client.value("begin; select 1") == "1"
    assert (pair.used("primary"), pair.upstreams["primary"].controller.waiting) == (4, 0)
    assert pair.upstreams["replica"].controller.waiting > 0
    for client in others:
        await client.query("commit")
    answers = [await client.answer() for client in flood]
    assert [answer.errors for answer in answers] == [[]] * len(flood)
    for name, server in pair.servers.items():
        assert pair.upstreams[name].registry.count <= TOTAL[name]
        assert server.refusals_in_log() == 0


async def test_one_server_that_is_down_leaves_the_other_served(exact_pair: Pair) -> None:
    pair = exact_pair
    clients = {name: await pair.on(name) for name in ("primary", "replica")}
    pair.servers["replica"].stop()
    await eventually(lambda: pair.upstreams["replica"].registry.count == 0)
    refused = await clients["replica"].query("select 1")
    assert refused.error is not None
    assert refused.error.code.startswith(("08", "57"))
    await eventually(lambda: pair.upstreams["replica"].registry.connector.down is not None)
    assert await clients["primary"].value("select 1") == "1"
    is_ready, why = pair.proxy.process.view.ready()
    assert (is_ready, why) == (True, "upstream replica: no server login is possible")
    pair.servers["primary"].stop()
    await eventually(lambda: pair.upstreams["primary"].registry.count == 0)
    assert (await clients["primary"].query("select 1")).error is not None
    await eventually(lambda: not pair.proxy.process.view.ready()[0])
    for server in pair.servers.values():
        server.start()
    await eventually(lambda: pair.proxy.process.view.ready() == (True, "ready"), within_seconds=20)
    for client in clients.values():
        assert await client.value("select 1") == "1"


# -- what the proxy does on each --------------------------------------------------------------------------------------


async def test_a_cancel_reaches_the_server_of_its_client(pair: Pair) -> None:
    clients = {name: await pair.on(name) for name in ("primary", "replica")}
    for client in clients.values():
        await client.send(query("select pg_sleep(30)"))
    await eventually(lambda: pair.used("primary") == pair.used("replica") == 1)
    answer = await clients["replica"].cancelled()
    assert answer.codes == ["57014"]
    assert pair.used("primary") == 1
    answer = await clients["primary"].cancelled()
    assert answer.codes == ["57014"]


async def test_clients_listen_on_the_server_of_their_database(pair: Pair) -> None:
    listeners = {name: await pair.on(name) for name in ("primary", "replica")}
    for client in listeners.values():
        assert (await client.query("listen news")).errors == []
    for name, upstream in pair.upstreams.items():
        assert upstream.upstream.listen_hubs.counts().connections == 1, name
    for name, payload in (("replica", "of 16"), ("primary", "of 18")):
        await (await pair.on(name)).query(f"notify news, '{payload}'")
        answer = await listeners[name].answer(until="A")
        assert [one.endswith(f"news\0{payload}\0".encode()) for one in answer.payloads("A")] == [True]


async def test_a_switch_finds_the_upstream_of_its_class(pair: Pair) -> None:
    pair.proxy.process.set_state("reports", ClassState.PAUSED, by="test", reason="")
    stopped, served = await pair.on("replica"), await pair.on("primary")
    await stopped.send(query("select 1"))
    await eventually(lambda: pair.upstreams["replica"].controller.waiting == 1)
    assert await served.value("select 1") == "1"
    pair.proxy.process.set_state("reports", ClassState.RUNNING, by="test", reason="")
    assert (await stopped.answer()).value == "1"


# -- reload -----------------------------------------------------------------------------------------------------------


async def test_a_reload_changes_the_budget_of_one(pair: Pair) -> None:
    upstreams = pair.proxy.settings["upstreams"]
    smaller = upstreams["replica"] | {"budget": {"total": 2, "keep_free": 0}}
    changes = pair.proxy.reload(upstreams=upstreams | {"replica": smaller})
    assert changes == ["upstreams.replica.budget.total: 4 -> 2"]
    assert {name: one.registry.total for name, one in pair.upstreams.items()} == {"primary": 5, "replica": 2}
    clients = [await pair.on("replica") for _ in range(3)]
    for client in clients:
        await client.send(query("select pg_sleep(0.1)"))
    await eventually(lambda: pair.used("replica") == 1)  # the other slot is that of the proxy itself
    assert [(await client.answer()).errors for client in clients] == [[], [], []]


@pytest.mark.parametrize("total", [600, 1])
async def test_numbers_that_cannot_hold_on_one_server_are_refused_whole(pair: Pair, total: int) -> None:
    upstreams = pair.proxy.settings["upstreams"]
    wrong = upstreams["primary"] | {"budget": {"total": total, "keep_free": 0}}
    with pytest.raises(BudgetCannotHold, match=r"upstreams\.primary\.budget\.total"):
        pair.proxy.reload(upstreams=upstreams | {"primary": wrong})
    assert pair.upstreams["primary"].registry.total == TOTAL["primary"]


async def test_an_upstream_does_not_come_or_go_by_a_reload(pair: Pair) -> None:
    upstreams = pair.proxy.settings["upstreams"]
    third = {"url": upstreams["primary"]["url"], "databases": ["third"], "default_class": "third"}
    classes = pair.proxy.settings["classes"] | {"third": {"limit": 1}}
    with pytest.raises(BudgetCannotHold, match="third is new, and upstreams do not come or go by a reload"):
        pair.proxy.reload(upstreams={**upstreams, "third": third}, classes=classes)


async def test_databases_come_go_and_move_between_upstreams(pair: Pair) -> None:
    """Who is connected stays where it is, in a transaction too; whoever comes later goes by the new file."""
    proxy, upstreams = pair.proxy, pair.proxy.settings["upstreams"]
    here = await proxy.connect(database="reports_2026")
    await here.query("begin")
    replica = upstreams["replica"] | {"databases": [REPLICA, "added"]}
    primary = upstreams["primary"] | {"databases": [DATABASE, "reports*"], "database": DATABASE}
    changes = proxy.reload(upstreams={"replica": replica, "primary": primary})
    assert f"upstreams.replica.databases: {REPLICA}, reports* -> {REPLICA}, added (for new connections)" in changes
    assert await pair.major_version(here) == "16"
    assert (await here.query("commit")).tags == ["COMMIT"]
    assert (await pair.major_version(here), pair.used("replica")) == ("16", 0)
    found = {}
    for name in (DATABASE, REPLICA, "added", "reports_2026"):
        client = await proxy.connect(database=name)
        found[name] = await pair.major_version(client), await client.value("select current_database()")
    assert found == {
        DATABASE: ("18", "app"),
        REPLICA: ("16", "app"),
        "added": ("16", "app"),
        "reports_2026": ("18", "app"),
    }
    gone = await proxy.connect_or_error(database="anything_else")
    assert getattr(gone, "code", None) == "3D000"


async def test_a_class_that_goes_to_another_upstream(pair: Pair) -> None:
    """Its slots are those of the other server from the reload on; who holds one here gives it back here."""
    holder = await pair.on("primary", application_name="web-1")
    await holder.query("begin")
    classes = pair.proxy.settings["classes"]
    pair.proxy.reload(classes=classes | {"web": classes["web"] | {"upstream": "replica"}})
    web = {one.name: one.controller.has_class("web") for one in pair.upstreams.values()}
    assert web == {"primary": True, "replica": True}, "on the primary it drains"
    assert (await holder.query("commit")).tags == ["COMMIT"]
    assert (pair.used("primary"), pair.used("replica")) == (0, 0)
    other = await pair.on("replica", application_name="web-1")
    await other.query("begin")
    assert pair.used("replica") == 1
    assert {one.class_name for one in pair.proxy.desk.clients} == {"rest", "web"}
    await other.query("commit")


async def test_a_class_that_moves_to_the_other_upstream_gets_its_slots_there(pair: Pair) -> None:
    client = await pair.on("primary", application_name="web-1")
    classes = pair.proxy.settings["classes"]
    web = classes["web"] | {"upstream": "replica"}
    narrow = {"limit": 1, "upstream": "replica"}
    pair.proxy.reload(classes=classes | {"web": web, "dashboards": narrow})
    assert await client.value("select 1") == "1"
    assert [one.class_name for one in pair.proxy.desk.clients] == ["rest"]
    other = await pair.on("replica", application_name="web-1")
    assert await pair.major_version(other) == "16"
    assert pair.proxy.process.upstream_with("web").name == "replica"


# -- what is shown ----------------------------------------------------------------------------------------------------


async def test_each_upstream_is_shown_by_itself_and_internal_once(pair: Pair) -> None:
    held = await pair.on("replica")
    await held.query("begin")
    first, second = pair.proxy.process.view.upstreams()
    assert [first.name, second.name] == ["replica", "primary"]
    assert (first.budget.total, first.budget.in_use, second.budget.in_use) == (4, 1, 0)
    assert (first.max_connections, second.max_connections) == (100, 100)
    assert first.servers.in_use == 1
    together = pair.proxy.process.view.snapshot()
    assert (together.total, together.in_use) == (9, 1)
    assert [one.name for one in together.classes].count("internal") == 1
    states = {server.state for server in pair.upstreams["primary"].registry.connections}
    assert states <= {ServerState.IDLE}
    await held.query("commit")
