"""Clients that replicate: their own class, a server connection each that is never shared, bytes as they come."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
import pytest

from proxy.demo.postgres import SUPERUSER, EmbeddedPostgres
from proxy.session import clock
from proxy.session.client import Phase
from proxy.session.server_leg import ServerState
from proxy.wire.messages import message
from proxy.wire.startup import encode_startup
from tests.session.fake_server import FakeServer, Session
from tests.support.eventually import eventually
from tests.support.running import Running, RunProxy
from tests.support.wire_client import COPY_DONE, TERMINATE, WireClient, copy_data, query

pytestmark = pytest.mark.once

SETTINGS: dict[str, Any] = {
    "budget": {"total": 6},
    "replication_class": "standbys",
    "classes": {
        "standbys": {"limit": 2, "pool_mode": "session", "queue": {"timeout": "20s"}},
        "all": {"limit": 3, "queue": {"timeout": "20s"}},
    },
}
COPY_BOTH = "W"
SLEEPING = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'"


@pytest.fixture(scope="module")
def primary() -> Iterator[EmbeddedPostgres]:
    """A server that can be replicated from, also logically."""
    with EmbeddedPostgres(
        18, settings={"wal_level": "logical", "max_wal_senders": "3", "wal_keep_size": "64MB"}
    ) as one:
        one.psql(f"alter role {SUPERUSER} password '{SUPERUSER}-secret'")
        yield one


async def standby(proxy: Running, replication: str = "database", **parameters: str) -> WireClient:
    return await proxy.connect(SUPERUSER, "app", replication=replication, **parameters)


def slots_of(proxy: Running, name: str) -> int:
    (found,) = (one for one in proxy.controller.snapshot(clock.now()).classes if one.name == name)
    return found.used


def walsenders(primary: EmbeddedPostgres) -> int:
    return int(primary.psql("select count(*) from pg_stat_activity where backend_type = 'walsender'"))


@pytest.mark.parametrize("replication", ["true", "on", "1", "database"])
async def test_a_walsender_answers_and_holds_a_slot_of_its_class(
    run_proxy: RunProxy, primary: EmbeddedPostgres, replication: str
) -> None:
    proxy = await run_proxy(primary.url("app"), **SETTINGS)
    client = await standby(proxy, replication, application_name="standby 1")
    answer = await client.query("IDENTIFY_SYSTEM")
    assert (len(answer.rows), answer.status) == (1, "I")
    assert answer.rows[0][3] == ("app" if replication == "database" else None)
    assert (await client.query("SHOW application_name")).value == "standby 1", "its startup parameters are the server's"
    assert (slots_of(proxy, "standbys"), slots_of(proxy, "all")) == (1, 0)
    assert len(proxy.registry.connections) == 2, "one of the proxy's own, one for this client alone"
    assert walsenders(primary) == 1
    await client.leave()
    await proxy.until_free()
    await eventually(lambda: walsenders(primary) == 0)
    assert len(proxy.registry.connections) == 1, "it is not kept"


async def test_it_is_greeted_as_by_the_server(run_proxy: RunProxy, primary: EmbeddedPostgres) -> None:
    proxy = await run_proxy(primary.url("app"), **SETTINGS)
    client = await standby(proxy, options="-c statement_timeout=7s -c TimeZone=Asia/Tokyo", client_encoding="LATIN1")
    assert client.parameters["TimeZone"] == "Asia/Tokyo"
    assert client.parameters["client_encoding"] == "LATIN1"
    assert client.parameters["server_version"].startswith("18")
    assert await client.value("show statement_timeout") == "7s"


async def test_on_a_second_upstream_its_own_class_and_budget_count(
    run_proxy: RunProxy, primary: EmbeddedPostgres, postgres: Any
) -> None:
    """Where the server of the database has no class for it, replication is refused, in words that name the setting."""
    budget = {"total": 5, "keep_free": 0}
    upstreams = {
        "first": {"url": postgres.url("app"), "databases": ["other"], "budget": budget, "default_class": "all"},
        "second": {
            "url": primary.url("app"),
            "database": "app",
            "budget": budget,
            "default_class": "rest",
            "replication_class": "standbys",
        },
    }
    classes = {"all": {"limit": 3}, "rest": {"limit": 2}, "standbys": {"limit": 1}}
    short_form = {"budget": None, "default_class": None}
    proxy = await run_proxy("", upstreams=upstreams, classes=classes, **short_form)
    first, second = proxy.process.upstreams
    client = await proxy.connect(SUPERUSER, "anything", replication="database")
    assert (await client.query("IDENTIFY_SYSTEM")).rows[0][3] == "app"
    used = {one.name: one.used for one in second.controller.snapshot(clock.now()).classes}
    assert (used["standbys"], first.controller.in_use, walsenders(primary)) == (1, 0, 1)
    refused = await proxy.open()
    await refused.send(encode_startup({"user": SUPERUSER, "database": "other", "replication": "database"}))
    error = (await refused.answer()).error
    assert "replication_class" in str(error)
    await client.leave()
    await eventually(lambda: second.controller.in_use == 0)


async def test_a_false_replication_is_an_ordinary_client(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**SETTINGS)
    client = await proxy.connect(replication="off")
    assert (await client.query("select 1")).status == "I"
    assert slots_of(proxy, "standbys") == 0
    assert proxy.controller.in_use == 0


async def test_what_the_server_refuses_is_refused_in_its_words(run_proxy: RunProxy, primary: EmbeddedPostgres) -> None:
    proxy = await run_proxy(primary.url("app"), **SETTINGS)
    client = await proxy.open()
    await client.send(encode_startup({"user": "app", "database": "app", "replication": "true"}))
    answer = await client.answer()
    assert answer.codes == ["42501"], "app may not replicate"
    assert await client.is_at_end()
    await proxy.until_free()


async def test_a_server_without_walsenders_names_its_setting(run_proxy: RunProxy, postgres: Any) -> None:
    if postgres.psql("show max_wal_senders") != "0":
        pytest.skip("this server has walsenders")
    postgres.psql(f"alter role {SUPERUSER} password '{SUPERUSER}-secret'")
    proxy = await run_proxy(**SETTINGS)
    client = await proxy.open()
    await client.send(encode_startup({"user": SUPERUSER, "database": "app", "replication": "true"}))
    answer = await client.answer()
    assert answer.codes == ["53400"]
    assert answer.error is not None
    assert "max_wal_senders" in str(answer.error.hint)


async def test_over_the_limit_it_waits_and_gets_the_next_slot(run_proxy: RunProxy, primary: EmbeddedPostgres) -> None:
    proxy = await run_proxy(primary.url("app"), **SETTINGS)
    first, second = await standby(proxy), await standby(proxy)
    third = await proxy.open()
    await third.send(encode_startup({"user": SUPERUSER, "database": "app", "replication": "true"}))
    await third.send(query("IDENTIFY_SYSTEM"))
    await eventually(lambda: proxy.waiting() == 1)
    await first.abort()
    assert (await third.answer()).status == "I"
    assert len((await third.answer()).rows) == 1, "what it sent ahead is answered"
    assert second.process_id != 0


async def test_whoever_waits_for_a_slot_to_replicate_gets_it_from_the_class_that_a_reload_names_for_it(
    run_proxy: RunProxy, primary: EmbeddedPostgres
) -> None:
    classes = {"standbys": SETTINGS["classes"]["standbys"] | {"limit": 1}, "all": {"limit": 1}}
    proxy = await run_proxy(primary.url("app"), **SETTINGS | {"classes": classes})
    first, waiter = await standby(proxy), asyncio.create_task(standby(proxy))
    await eventually(lambda: proxy.waiting() == 1)
    proxy.reload(replication_class="streams", classes={"streams": {"limit": 1}, "all": {"limit": 1}})
    second = await waiter
    assert len((await second.query("IDENTIFY_SYSTEM")).rows) == 1
    assert (slots_of(proxy, "standbys"), slots_of(proxy, "streams")) == (1, 1)
    assert {client.class_name for client in proxy.desk.clients} == {"streams"}
    await first.leave()
    await eventually(lambda: proxy.controller.in_use == 1)


async def test_a_waiter_that_leaves_is_forgotten(run_proxy: RunProxy, primary: EmbeddedPostgres) -> None:
    proxy = await run_proxy(primary.url("app"), **SETTINGS)
    held = [await standby(proxy), await standby(proxy)]
    leaver = await proxy.open()
    await leaver.send(encode_startup({"user": SUPERUSER, "database": "app", "replication": "true"}))
    await eventually(lambda: proxy.waiting() == 1)
    await leaver.abort()
    await eventually(lambda: proxy.waiting() == 0)
    assert len(held) == len(proxy.desk.clients)


async def test_max_clients_of_the_class_holds(run_proxy: RunProxy, primary: EmbeddedPostgres) -> None:
    standbys = {**SETTINGS["classes"]["standbys"], "max_clients": 1, "queue": {"max": 0}}
    classes = {**SETTINGS["classes"], "standbys": standbys}
    proxy = await run_proxy(primary.url("app"), **{**SETTINGS, "classes": classes})
    await standby(proxy)
    second = await proxy.open()
    await second.send(encode_startup({"user": SUPERUSER, "database": "app", "replication": "true"}))
    answer = await second.answer()
    assert (answer.kinds, answer.codes) == ("RE", ["53300"])
    assert proxy.measures.refusals_outside_queue["standbys", "max_clients"] == 1


async def test_a_stream_flows_in_both_directions(run_proxy: RunProxy, primary: EmbeddedPostgres) -> None:
    """CopyBoth: WAL to the client, status updates and the end of the copy to the server, at any time."""
    proxy = await run_proxy(primary.url("app"), **SETTINGS)
    client = await standby(proxy, "true")
    ((_, timeline, position, _),) = (await client.query("IDENTIFY_SYSTEM")).rows
    assert position is not None
    await client.send(query(f"START_REPLICATION PHYSICAL {position} TIMELINE {timeline}"))
    assert (await client.reply())[0] == COPY_BOTH
    primary.psql("create table streamed as select generate_series(1, 10000); drop table streamed")
    kinds = set()
    while "w" not in kinds:
        kind, payload = await client.reply()
        assert kind == "d"
        kinds.add(chr(payload[0]))
    await client.send(copy_data(b"r" + bytes(32) + b"\1"))  # a status update that asks for a reply
    while (await client.reply())[1][:1] != b"k":
        pass
    await client.send(COPY_DONE)
    answer = await client.answer()
    assert answer.kinds.lstrip("d").startswith("c")
    assert answer.status == "I"
    assert (await client.query("SHOW server_version")).status == "I", "the connection lives on"


async def test_the_walsender_of_a_vanished_client_ends(run_proxy: RunProxy, primary: EmbeddedPostgres) -> None:
    proxy = await run_proxy(primary.url("app"), **SETTINGS)
    streaming, working = await standby(proxy, "true"), await standby(proxy, "database")
    ((_, timeline, position, _),) = (await streaming.query("IDENTIFY_SYSTEM")).rows
    await streaming.send(query(f"START_REPLICATION PHYSICAL {position} TIMELINE {timeline}"))
    assert (await streaming.reply())[0] == COPY_BOTH
    await working.send(query("select pg_sleep(60)"))
    await eventually(
        lambda: int(primary.psql("select count(*) from pg_stat_activity where wait_event = 'PgSleep'")) == 1
    )
    await streaming.abort()
    await working.abort()
    await proxy.until_free()
    assert walsenders(primary) == 0


async def test_a_query_of_a_walsender_is_cancelled_by_its_key(run_proxy: RunProxy, primary: EmbeddedPostgres) -> None:
    proxy = await run_proxy(primary.url("app"), **SETTINGS)
    client = await standby(proxy)
    await client.send(query("select pg_sleep(60)"))
    await eventually(
        lambda: int(primary.psql("select count(*) from pg_stat_activity where wait_event = 'PgSleep'")) == 1
    )
    await client.ask_to_cancel()
    assert (await client.answer()).codes == ["57014"]
    assert (await client.query("select 1")).value == "1"


async def test_a_walsender_that_is_ended_passes_its_error_on(run_proxy: RunProxy, primary: EmbeddedPostgres) -> None:
    proxy = await run_proxy(primary.url("app"), **SETTINGS)
    client = await standby(proxy)
    primary.psql("select pg_terminate_backend(pid) from pg_stat_activity where backend_type = 'walsender'")
    answer = await client.answer()
    assert (answer.codes, answer.status) == (["57P01"], "")
    await proxy.until_free()


async def test_a_drain_does_not_wait_for_a_stream(run_proxy: RunProxy, primary: EmbeddedPostgres) -> None:
    proxy = await run_proxy(primary.url("app"), shutdown={"drain_timeout": "30s"}, **SETTINGS)
    client = await standby(proxy)
    async with asyncio.timeout(10):
        await proxy.process.drain_and_stop()
    assert await client.is_at_end()


async def test_it_is_counted_in_the_budget_and_makes_no_other_wait_forever(
    run_proxy: RunProxy, primary: EmbeddedPostgres
) -> None:
    """An idle pooled connection makes room for it, and it makes room for nobody until it leaves."""
    proxy = await run_proxy(primary.url("app"), **{**SETTINGS, "budget": {"total": 3}})
    ordinary = [await proxy.connect(user) for user in ("app", "web", "bulk")]
    assert len(proxy.registry.connections) == 3
    await standby(proxy)
    assert len(proxy.registry.connections) == 3
    assert proxy.registry.count <= proxy.registry.total
    assert [await client.value("select 1") for client in ordinary] == ["1", "1", "1"]


async def test_a_client_that_leaves_while_it_is_dialled_for_leaves_no_connection(
    fake_server: FakeServer, run_proxy: RunProxy
) -> None:
    dialled = asyncio.Event()

    async def slow(session: Session) -> None:
        assert session.startup is not None
        if session.startup.replication:
            await dialled.wait()
        session.greet()

    fake_server.on_startup = slow
    proxy = await run_proxy(fake_server.url, **SETTINGS)
    client = await proxy.open()
    await client.send(encode_startup({"user": "app", "database": "app", "replication": "true"}))
    await eventually(lambda: len(fake_server.of("app")) == 1)
    await client.abort()
    await proxy.until_free()
    dialled.set()
    await eventually(lambda: [one.state for one in proxy.registry.connections] == [ServerState.IDLE])


async def test_a_client_that_reads_nothing_stops_the_stream_and_not_the_proxy(
    fake_server: FakeServer, run_proxy: RunProxy
) -> None:
    """Neither is more than a bound held for it, nor does its end leave anything."""
    sent, is_cancelled = 0, asyncio.Event()

    async def cancelled(_: int) -> None:
        is_cancelled.set()

    async def flood(session: Session, kind: str, payload: bytes) -> None:
        nonlocal sent
        if payload != b"flood\0":
            session.obey(kind, payload)
            return
        while not is_cancelled.is_set():
            session.send(message(ord("d"), bytes(100_000)))
            sent += 100_000
            await session.writer.drain()

    fake_server.on_message, fake_server.on_cancel = flood, cancelled
    proxy = await run_proxy(fake_server.url, **SETTINGS)
    client, other = await proxy.connect(replication="true"), await proxy.connect()
    client.reader._transport.pause_reading()  # type: ignore[attr-defined]  # its kernel's buffers fill up
    await client.send(query("flood"))
    (stuck,) = (one for one in proxy.desk.clients if one.process_id == client.process_id)
    last = -1
    while last != sent:
        last = sent
        assert (await other.query("select")).status == "I"
        await asyncio.sleep(0.2)  # "nothing more comes" can only be seen by looking again
        assert stuck.transport.get_write_buffer_size() < 2_000_000
    await client.abort()
    await proxy.until_free()


# -- the programs of PostgreSQL ----------------------------------------------------------------------------------------


def program(primary: EmbeddedPostgres, name: str) -> str:
    return primary.installation.program(name)


def environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C", "PGPASSWORD": f"{SUPERUSER}-secret"}


async def finished(*command: str) -> subprocess.CompletedProcess[str]:
    run = subprocess.run
    return await asyncio.to_thread(run, command, capture_output=True, text=True, env=environment(), timeout=60)


@asynccontextmanager
async def started(*command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *command, env=environment(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        print((await process.communicate())[0].decode())


async def test_psql_in_replication_mode(run_proxy: RunProxy, primary: EmbeddedPostgres) -> None:
    proxy = await run_proxy(primary.url("app"), **SETTINGS)
    url = f"{proxy.url(SUPERUSER)}&replication=database"
    script = ["-c", "IDENTIFY_SYSTEM", "-c", "select 40 + 2"]
    told = await finished(program(primary, "psql"), "-XAt", url, *script)
    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines()[0].split("|")[3] == "app"
    assert told.stdout.splitlines()[1] == "42"


@pytest.mark.parametrize("wal", ["fetch", "stream"])
async def test_pg_basebackup_copies_a_server(
    run_proxy: RunProxy, primary: EmbeddedPostgres, tmp_path: Path, wal: str
) -> None:
    """With the WAL streamed beside it, it needs a second connection at the same time."""
    proxy = await run_proxy(primary.url("app"), **SETTINGS)
    target = tmp_path / "backup"
    address = ["-h", "127.0.0.1", "-p", str(proxy.port), "-U", SUPERUSER]
    options = ["-D", str(target), "-X", wal, "-c", "fast", "--manifest-checksums", "sha256"]
    told = await finished(program(primary, "pg_basebackup"), *address, *options)
    assert told.returncode == 0, told.stderr
    files = json.loads((target / "backup_manifest").read_bytes())["Files"]
    assert len(files) > 500
    for one in files:
        assert sha256((target / one["Path"]).read_bytes()).hexdigest() == one["Checksum"]
    await proxy.until_free()


async def test_pg_receivewal_streams_until_it_is_stopped(
    run_proxy: RunProxy, primary: EmbeddedPostgres, tmp_path: Path
) -> None:
    proxy = await run_proxy(primary.url("app"), **SETTINGS)
    address = ["-h", "127.0.0.1", "-p", str(proxy.port), "-U", SUPERUSER]
    async with started(program(primary, "pg_receivewal"), *address, "-D", str(tmp_path), "--no-loop") as receiver:
        await eventually(lambda: proxy.phases() == [Phase.LINKED])
        primary.psql("select pg_logical_emit_message(true, 'any', 'WAL')")  # there is none behind a fresh segment
        await eventually(lambda: list(tmp_path.glob("*.partial")), within_seconds=10)
        primary.psql("select pg_switch_wal()")
        await eventually(lambda: any(len(one.name) == 24 for one in tmp_path.iterdir()), within_seconds=10)
        receiver.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(receiver.wait(), 10) == 0
    await proxy.until_free()
    assert proxy.measures.cancels_forwarded == 0, "a farewell is enough for a walsender"


async def test_pg_recvlogical_streams_changes(run_proxy: RunProxy, primary: EmbeddedPostgres, tmp_path: Path) -> None:
    proxy = await run_proxy(primary.url("app"), **SETTINGS)
    primary.psql("create table decoded (n int); create publication decoded for table decoded", database="app")
    file, url = tmp_path / "changes", f"{proxy.url(SUPERUSER)}"
    tool = [program(primary, "pg_recvlogical"), "-d", url, "--slot", "decoding"]
    made = await finished(*tool, "--create-slot", "--plugin", "pgoutput")
    assert made.returncode == 0, made.stderr
    options = ["-o", "proto_version=1", "-o", "publication_names=decoded", "-f", str(file), "-F", "1", "--no-loop"]
    async with started(*tool, "--start", *options) as receiver:
        await eventually(lambda: proxy.phases() == [Phase.LINKED])
        primary.psql("insert into decoded values (4711)", database="app")
        await eventually(lambda: file.exists() and b"4711" in file.read_bytes(), within_seconds=10)
        receiver.send_signal(signal.SIGINT)
        await asyncio.wait_for(receiver.wait(), 10)
    dropped = await finished(*tool, "--drop-slot")
    assert dropped.returncode == 0, dropped.stderr
    await proxy.until_free()


async def test_a_standby_with_tls_or_scram_logs_in_as_anybody(run_proxy: RunProxy, primary: EmbeddedPostgres) -> None:
    proxy = await run_proxy(primary.url("app"), auth={"method": "scram"}, **SETTINGS)
    url = f"{proxy.url(SUPERUSER)}&replication=database"
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        row = await (await connection.execute("IDENTIFY_SYSTEM")).fetchone()
        assert row is not None
        assert row[3] == "app"
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        await psycopg.AsyncConnection.connect(url.replace("-secret", "-wrong"))


async def test_refused_where_no_class_is_named(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client = await proxy.open()
    await client.send(encode_startup({"user": "app", "database": "app", "replication": "true"}), TERMINATE)
    answer = await client.answer()
    assert answer.codes == ["0A000"]
    assert answer.error is not None
    assert "replication_class" in str(answer.error.hint)
