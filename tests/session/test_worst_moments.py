"""A client that goes on, or leaves, at the worst moment: nobody is told what is another's, nothing runs as another."""

import asyncio

import pytest

from tests.support.eventually import eventually
from tests.support.running import RunProxy
from tests.support.wire_client import (
    COPY_DONE,
    COPY_FAIL,
    FLUSH,
    SYNC,
    TERMINATE,
    WireClient,
    bind,
    close,
    copy_data,
    execute,
    parse,
    query,
)

ONE = {"classes": {"all": {"limit": 1, "pinned_limit": 1}}, "budget": {"total": 2}}


@pytest.mark.parametrize("settings", [{"TimeZone": "Asia/Tokyo"}, {}], ids=["other settings", "the same"])
async def test_work_ahead_of_a_farewell_keeps_the_connection_until_it_is_done(
    run_proxy: RunProxy, settings: dict[str, str]
) -> None:
    """The SETs ahead of it were answered, and the connection was handed on although the work was still running."""
    proxy = await run_proxy(**ONE)
    leaver = await proxy.connect(**settings)
    other = await proxy.connect()
    await other.query("create table if not exists farewell_work (n int); truncate farewell_work")
    await leaver.query("select 1")
    assert await other.value("select 2") == "2"
    await leaver.send(query("insert into farewell_work select 7 from pg_sleep(0.2)"), TERMINATE)
    await eventually(lambda: proxy.controller.in_use == 1)
    assert await other.value("select 'mine'") == "mine"
    assert await other.value("select count(*) from farewell_work") == "1"
    await other.query("drop table farewell_work")


async def test_what_waits_for_a_discard_runs_under_the_client_s_settings(run_proxy: RunProxy) -> None:
    """on_session_state: ignore. What the client sent meanwhile went to the connection that had just been reset."""
    classes = {"all": {"limit": 1, "pinned_limit": 1, "on_session_state": "ignore"}}
    proxy = await run_proxy(classes=classes, budget={"total": 2})
    client = await proxy.connect(TimeZone="Asia/Tokyo")
    for _ in range(3):
        await client.send(query("create temp table t (n int)"))
        answer = await client.answer()
        assert answer.codes == []
        await client.send(query("show timezone"))
        assert (await client.answer()).value == "Asia/Tokyo"
    await client.send(query("listen there"), query("set timezone = 'Europe/Rome'"))
    assert [(await client.answer()).codes for _ in range(2)] == [[], []]
    assert await client.value("show timezone") == "Europe/Rome"


async def prepared_copy(client: WireClient) -> None:
    await client.query("create table if not exists prepared_copy (n int); truncate prepared_copy")
    await client.send(parse("select 'behind'", "s"), SYNC)
    assert (await client.answer()).kinds == "1Z"
    await client.send(parse("copy prepared_copy from stdin", "c"), bind(statement="c"), execute(), SYNC)
    assert (await client.answer("G")).kinds == "12G"


@pytest.mark.parametrize("end", [COPY_FAIL, copy_data(b"no number\n") + COPY_DONE], ids=["CopyFail", "wrong data"])
async def test_a_prepared_copy_that_fails_with_its_sync_behind_it_is_over(run_proxy: RunProxy, end: bytes) -> None:
    """The Sync in one piece with the end of the copy was not expected, and the next unit was skipped."""
    proxy = await run_proxy(**ONE)
    client = await proxy.connect()
    await prepared_copy(client)
    await client.send(end, SYNC)
    assert (await client.answer()).kinds == "EZ"
    await client.send(bind(statement="s"), execute(), SYNC)
    assert (await client.answer()).kinds == "2DCZ"
    assert await client.value("select 1") == "1"
    await proxy.until_free()


async def test_a_pipeline_may_follow_the_end_of_a_prepared_copy(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE)
    client = await proxy.connect()
    await prepared_copy(client)
    more = parse("select 'behind'", "t") + bind(statement="t") + execute() + SYNC
    await client.send(copy_data(b"1\n"), COPY_DONE, SYNC, more)
    assert (await client.answer()).kinds == "CZ"
    assert (await client.answer()).kinds == "12DCZ"
    await proxy.until_free()


@pytest.mark.parametrize(
    "unseen",
    ["do $$ begin execute 'deallocate all'; end $$", "begin; deallocate all; rollback"],
    ids=["in a function", "rolled back"],
)
async def test_statements_that_vanished_unseen_are_parsed_again(run_proxy: RunProxy, unseen: str) -> None:
    """Each client met the error for ever, on that one connection."""
    proxy = await run_proxy(**ONE)
    client, other = await proxy.connect(), await proxy.connect()
    for one in (client, other):
        await one.send(parse("select 'there'", "s"), SYNC)
        await one.answer()
    await client.query(unseen)
    for one in (other, client):
        for _ in range(2):
            await one.send(bind(statement="s"), execute(), SYNC)
            answer = await one.answer()
    assert answer.codes == []
    assert answer.value == "there"


@pytest.mark.parametrize("count", [1, 2])
async def test_a_query_that_is_skipped_with_the_farewell_behind_it_keeps_no_slot(
    run_proxy: RunProxy, count: int
) -> None:
    """All in one piece: the farewell waited for an answer that the server never gives."""
    proxy = await run_proxy(**ONE)
    client, other = await proxy.connect(), await proxy.connect()
    await client.send(parse("select nothing from nowhere"), query("select 1") * count, TERMINATE)
    async with asyncio.timeout(4):
        assert await other.value("select 2") == "2"


async def test_a_long_message_begun_while_a_unit_is_ended_is_gone_on_with(run_proxy: RunProxy) -> None:
    """Its beginning was kept, its rest was kept too, and nobody was left to go on."""
    classes = {"all": {"limit": 1, "pinned_limit": 1, "on_session_state": "ignore"}}
    proxy = await run_proxy(classes=classes, budget={"total": 2})
    client, other = await proxy.connect(TimeZone="Asia/Tokyo"), await proxy.connect()
    await client.send(parse("select length($1::text) || current_setting('timezone')", "s"), SYNC)
    await client.answer()
    long = bind("x" * 300_000, statement="s")
    async with asyncio.timeout(8):
        for _ in range(3):
            await client.query("create temp table t (n int)")
            await client.send(long[:100_000])
            assert await proxy.registry.loop.run_in_executor(None, lambda: True)
            await client.send(long[100_000:], execute(), SYNC)
            assert (await client.answer()).value == "300000Asia/Tokyo"
            await client.send(parse("select nothing from nowhere"), FLUSH)
            assert (await client.answer("E")).codes == ["42P01"]
            await client.send(long[:100_000])
            await client.send(long[100_000:], SYNC)
            assert (await client.answer()).kinds == "Z"
            assert await other.value("select 2") == "2"


async def test_a_changed_result_is_noticed_also_with_more_behind_it(run_proxy: RunProxy) -> None:
    """The next unit had come before the error: preparing again met the same error once more."""
    proxy = await run_proxy(classes={"all": {"limit": 2, "pinned_limit": 1}}, budget={"total": 3})
    client, other = await proxy.connect(), await proxy.connect()
    await client.query("drop table if exists changes; create table changes as select 1 as a")
    await other.query("begin")
    unit = bind(statement="s") + execute() + SYNC
    await client.send(parse("select * from changes", "s"), SYNC)
    assert (await client.answer()).kinds == "1Z"
    await other.query("alter table changes add b int")
    await client.send(unit)
    await eventually(lambda: proxy.linked() == 2)
    await client.send(parse("select 7", "other"), SYNC)
    await other.value("select pg_sleep(0.05)")
    await other.query("commit")
    assert (await client.answer()).codes == ["0A000"]
    assert (await client.answer()).kinds == "1Z"
    await client.send(close("S", "s"), parse("select * from changes", "s"), unit)
    assert (await client.answer()).kinds == "312DCZ"
    await client.query("drop table changes")


async def test_what_would_clear_a_pin_is_executed_before_it_goes(run_proxy: RunProxy) -> None:
    """A Bind of UNLISTEN without an Execute gave a connection that listens to the next client."""
    proxy = await run_proxy(pool={"listen_connections": 0}, **ONE)
    client = await proxy.connect()
    await client.query("listen there")
    await client.send(parse("unlisten *", "u"), bind(statement="u"), SYNC)
    assert (await client.answer()).kinds == "12Z"
    assert proxy.controller.in_use == 1
    await client.send(bind(statement="u"), execute(), SYNC)
    assert (await client.answer()).kinds == "2CZ"
    await proxy.until_free()
