"""A class for a single unit of work, by a comment of its first statement; and what a RESET does to a class."""

import asyncio
from typing import Any

import asyncpg
import pytest

from tests.support.eventually import eventually
from tests.support.running import Running, RunProxy
from tests.support.wire_client import SYNC, WireClient, bind, close, execute, parse, query, run

CLASSES = {
    "vip": {"match": [{"application_name": "vip*"}], "priority": 0, "limit": 2},
    "web": {"match": [{"application_name": "web*"}], "priority": 1, "limit": 4},
    "bulk": {"match": [{"application_name": "import*"}], "priority": 9, "limit": 2, "queue": {"timeout": "20s"}},
    "other": {"priority": 5, "limit": 2},
}


def tagged(comments: str = "lower", **more: str) -> dict[str, Any]:
    tags = {"comments": comments, **more}
    return {"budget": {"total": 8}, "default_class": "other", "classes": CLASSES, "tags": tags}


def used(proxy: Running, class_name: str) -> int:
    return proxy.controller.snapshot(0.0).of_class(class_name).used


def granted(proxy: Running) -> dict[str, int]:
    """Slots that each class was granted so far."""
    classes = proxy.controller.snapshot(0.0).classes
    counts = {one.name: sum(one.admissions.values()) for one in classes if one.name != "internal"}
    return {name: count for name, count in counts.items() if count}


async def web_client(proxy: Running) -> WireClient:
    """One that is known already: what was granted at its login is not counted."""
    client = await proxy.connect(application_name="web-1")
    await client.query("select 0")
    return client


SPELLINGS = {
    "simple": lambda sql: [query(sql)],
    "unnamed": lambda sql: [run(sql), SYNC],
    "named": lambda sql: [parse(sql, "s"), bind(statement="s"), execute(), SYNC],
}


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_a_tag_moves_the_unit_that_begins_with_it_and_no_other(run_proxy: RunProxy, spelling: str) -> None:
    proxy = await run_proxy(**tagged())
    client = await web_client(proxy)
    before = granted(proxy)
    for sql in ("select 1 /*class='bulk'*/", "/*class='bulk'*/ select 1", "select 1", "select 1 /*class='other'*/"):
        await client.send(*SPELLINGS[spelling](sql))
        assert (await client.answer()).rows == [("1",)]
        if spelling == "named":
            await client.send(close(name="s"), SYNC)
            await client.answer()
    gained = {name: count - before.get(name, 0) for name, count in granted(proxy).items()}
    assert (gained["bulk"], gained["other"]) == (2, 1)
    assert proxy.measures.tagged_units == {("web", "followed"): 3}


async def test_a_prepared_statement_moves_each_unit_that_begins_with_it(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**tagged())
    client = await web_client(proxy)
    await client.send(parse("select 1 /*class='bulk'*/", "slow"), parse("select 1", "quick"), SYNC)
    await client.answer()
    before = granted(proxy)
    for name in ("slow", "quick", "quick", "slow", "slow"):
        await client.send(bind(statement=name), execute(), SYNC)
        assert (await client.answer()).rows == [("1",)]
    after = granted(proxy)
    assert (after["bulk"] - before.get("bulk", 0), after["web"] - before["web"]) == (3, 2)


async def test_asyncpg_tags_a_statement_and_a_transaction(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**tagged())
    connection = await asyncpg.connect(proxy.url().partition("?")[0], server_settings={"application_name": "web-1"})
    assert await connection.fetchval("select $1::int /*class='bulk'*/", 7) == 7
    count = granted(proxy)["bulk"]
    await connection.execute("begin /*class='bulk'*/")
    assert used(proxy, "bulk") == 1
    await connection.fetchval("select 1 /*class='other'*/")
    assert (used(proxy, "bulk"), used(proxy, "other")) == (1, 0)
    await connection.execute("commit")
    assert granted(proxy)["bulk"] == count + 1
    await connection.close()


async def test_inside_a_transaction_no_tag_is_looked_at(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**tagged())
    client = await web_client(proxy)
    await client.query("begin")
    await client.query("select 1 /*class='bulk'*/")
    assert (used(proxy, "web"), used(proxy, "bulk")) == (1, 0)
    await client.query("commit /*class='bulk'*/")
    assert "bulk" not in granted(proxy)
    assert not proxy.measures.tagged_units


async def test_a_tagged_unit_waits_where_its_class_is_full(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**tagged())
    holders = [await proxy.connect(application_name="import") for _ in range(2)]
    for holder in holders:
        await holder.query("begin")
    client = await web_client(proxy)
    await client.send(query("select 1 /*class='bulk'*/"))
    await eventually(proxy.waiting)
    for holder in holders:
        await holder.query("commit")
    assert (await client.answer()).value == "1"


async def test_a_tag_never_raises_a_class_unless_trusted(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**tagged())
    client = await web_client(proxy)
    for name in ("vip", "web"):
        assert (await client.query(f"select 1 /*class='{name}'*/")).codes == []
    assert "vip" not in granted(proxy)
    assert proxy.measures.tagged_units == {("web", "not_lower"): 2}


async def test_a_trusted_tag_raises_a_class(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**tagged("trust"))
    client = await web_client(proxy)
    await client.query("select 1 /*class='vip'*/")
    assert granted(proxy)["vip"] == 1


@pytest.mark.parametrize("name", ["nobody", "internal", "%0Abulk"])
async def test_a_name_that_is_no_class_is_ignored_and_counted(run_proxy: RunProxy, name: str) -> None:
    proxy = await run_proxy(**tagged("trust"))
    client = await web_client(proxy)
    before = granted(proxy)
    assert await client.value(f"select 1 /*class='{name}'*/") == "1"
    assert granted(proxy) == {**before, "web": before["web"] + 1}
    assert proxy.measures.tagged_units == {("web", "unknown"): 1}


async def test_without_the_setting_nothing_is_looked_at(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**tagged("off"))
    client = await web_client(proxy)
    await client.query("select 1 /*class='bulk'*/")
    assert "bulk" not in granted(proxy)
    assert not proxy.measures.tagged_units


async def test_the_key_and_what_it_holds_can_be_chosen(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**tagged(key="application", value="application_name"))
    client = await web_client(proxy)
    await client.query("select 1 /*application='import-7',class='other'*/")
    assert granted(proxy)["bulk"] == 1
    await client.query("select 1 /*application='matches nothing'*/")
    assert "other" not in granted(proxy)
    assert proxy.measures.tagged_units == {("web", "followed"): 1, ("web", "unknown"): 1}


async def test_a_reload_begins_and_ends_the_reading_of_tags(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**tagged("off"))
    client = await web_client(proxy)
    proxy.reload(tags={"comments": "lower"})
    await client.query("select 1 /*class='bulk'*/")
    assert granted(proxy)["bulk"] == 1
    proxy.reload(tags={"comments": "off"})
    await client.query("select 1 /*class='bulk'*/")
    assert granted(proxy)["bulk"] == 1


async def test_pipelined_units_each_have_their_class_while_none_waits_for_the_other(run_proxy: RunProxy) -> None:
    """What is sent behind a unit goes with it: no slot is given back in between."""
    proxy = await run_proxy(**tagged())
    clients = [await web_client(proxy) for _ in range(3)]
    for client in clients:
        await client.send(query("select 1 /*class='bulk'*/"), query("select 2"), query("select 3 /*class='other'*/"))
    for client in clients:
        assert [(await client.answer()).value for _ in range(3)] == ["1", "2", "3"]
    await asyncio.gather(*(client.value("select 4") for client in clients))
    assert {one.class_name for one in proxy.desk.clients} == {"web"}


# -- RESET ------------------------------------------------------------------------------------------------------------


def class_of(proxy: Running) -> str:
    (client,) = proxy.desk.clients
    return client.class_name


@pytest.mark.parametrize(
    "reset", ["reset application_name", "reset all", "discard all", "set application_name to default"]
)
async def test_a_reset_never_raises_a_class(run_proxy: RunProxy, reset: str) -> None:
    proxy = await run_proxy(**tagged("off"))
    client = await proxy.connect(application_name="web-1")
    await client.query("set application_name to 'import-1'")
    assert class_of(proxy) == "bulk"
    assert (await client.query(reset)).codes == []
    await proxy.until_free()
    assert await client.value("show application_name") == "web-1"
    assert class_of(proxy) == "bulk"
    await client.query("set application_name to 'web-1'")
    await client.query("set application_name to 'web-2'")
    assert class_of(proxy) == "web"


@pytest.mark.parametrize("reset", ["reset application_name", "reset all"])
async def test_a_reset_may_lower_a_class(run_proxy: RunProxy, reset: str) -> None:
    proxy = await run_proxy(**tagged("off"))
    client = await proxy.connect(application_name="import-1")
    await client.query("set application_name to 'web-1'")
    assert class_of(proxy) == "web"
    await client.query(reset)
    await proxy.until_free()
    assert class_of(proxy) == "bulk"
