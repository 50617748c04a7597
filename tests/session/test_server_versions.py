"""Every supported major version of the server: the budget is read from it, and what sessions do works on it."""

import asyncio
from collections.abc import Callable

import pytest

from tests.support.npm_postgres import NpmPostgres
from tests.support.running import RunProxy
from tests.support.wire_client import COPY_DONE, SYNC, bind, copy_data, execute, parse, query

pytestmark = pytest.mark.once

AUTO = {"budget": {"total": "auto", "instances": 1, "keep_free": 90}}  # of the 97 that a server of 100 gives


@pytest.mark.parametrize("version", range(13, 19))
async def test_a_server_of_each_version_serves(
    run_proxy: RunProxy, npm_postgres: Callable[[int], NpmPostgres], version: int
) -> None:
    server = await asyncio.to_thread(npm_postgres, version)
    proxy = await run_proxy(server.url("app"), **AUTO)
    assert proxy.registry.total == 7
    one, other = await proxy.connect(TimeZone="Asia/Tokyo"), await proxy.connect()
    assert (await one.value("show server_version") or "").startswith(f"{version}.")
    await one.send(parse("select $1::int + 1", "s"), SYNC)
    await one.answer()
    for _ in range(2):
        assert await other.value("show timezone") != "Asia/Tokyo"
        await one.send(bind("41", statement="s"), execute(), SYNC)
        assert (await one.answer()).value == "42"
        assert await one.value("show timezone") == "Asia/Tokyo"
    for statement in ("begin", "create table copied_by_version (n int)"):
        assert (await one.query(statement)).errors == []
    await one.send(query("copy copied_by_version from stdin"), copy_data(b"1\n2\n"), COPY_DONE)
    assert (await one.answer()).tags == ["COPY 2"]
    assert (await one.query("rollback")).status == "I"
    await one.query("listen by_version")
    await other.query("notify by_version, 'heard'")
    assert (await one.reply())[1][4:] == b"by_version\0heard\0"
    await one.query("unlisten *")
    await proxy.until_free()


@pytest.mark.parametrize("version", range(13, 19))
async def test_a_query_on_a_server_of_each_version_is_cancelled(
    run_proxy: RunProxy, npm_postgres: Callable[[int], NpmPostgres], version: int
) -> None:
    server = await asyncio.to_thread(npm_postgres, version)
    proxy = await run_proxy(server.url("app"))
    client = await proxy.connect()
    assert await client.value("select 1") == "1"
    await client.send(query("select pg_sleep(30)"))
    assert (await client.cancelled()).codes == ["57014"]
