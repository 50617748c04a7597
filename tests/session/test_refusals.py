"""What clients are told when the answer is no, and what they can do afterwards."""

import asyncio
import os
import subprocess

import psycopg
import pytest

from proxy.admission.classes import ClassState
from proxy.demo.installation import embedded_installation
from proxy.session.client import Phase
from proxy.wire.startup import encode_startup
from tests.support.eventually import eventually
from tests.support.running import Running, RunProxy
from tests.support.wire_client import SYNC, TERMINATE, WireClient, bind, execute, function_call, parse, query, run


def one_slot(**queue: object) -> dict[str, object]:
    return {"classes": {"all": {"limit": 1, "queue": queue, "notify_after": "10s"}}}


IMPATIENT = one_slot(timeout="50ms")
NO_QUEUE = one_slot(max=0)


async def held(proxy: Running) -> WireClient:
    """A client that keeps the only slot."""
    holder = await proxy.connect(application_name="holder")
    await holder.query("begin")
    return holder


async def test_a_queue_timeout_says_which_settings_decide(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**IMPATIENT)
    holder, client = await held(proxy), await proxy.connect()
    answer = await client.query("select 1")
    assert (answer.kinds, answer.status) == ("EZ", "I")
    error = answer.error
    assert error is not None
    assert (error.severity, error.code) == ("ERROR", "53300")
    assert error.message.startswith('class "all" had no server connection free within 0.')
    assert "1 of 1 server connections in use" in error.message
    assert error.detail is not None
    facts = dict(fact.split("=") for fact in error.detail.split())
    assert facts.keys() == {"class", "reason", "in_use", "limit", "waiting", "retry_after_ms"}
    assert (facts["class"], facts["reason"], facts["in_use"], facts["limit"]) == ("all", "queue_timeout", "1", "1")
    assert "classes.all.queue.timeout" in (error.hint or "")
    await holder.query("commit")
    assert await client.value("select 1") == "1"


async def test_a_full_queue_refuses_at_once(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**one_slot(max=1, timeout="20s"))
    holder, waiting, client = await held(proxy), await proxy.connect(), await proxy.connect()
    await waiting.send(query("select 'served later'"))
    await eventually(lambda: proxy.waiting() == 1)
    answer = await client.query("select 1")
    assert answer.error is not None
    assert (answer.error.code, answer.status) == ("53300", "I")
    assert "reason=queue_full" in (answer.error.detail or "")
    assert "classes.all.queue.max" in (answer.error.hint or "")
    await holder.query("commit")
    assert (await waiting.answer()).value == "served later"


async def test_a_class_without_a_queue_refuses_at_its_limit(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**NO_QUEUE)
    await held(proxy)
    client = await proxy.connect()
    answer = await client.query("select 1")
    assert answer.error is not None
    assert answer.error.code == "53300"
    assert "does not queue" in answer.error.message
    assert "reason=limit" in (answer.error.detail or "")


async def test_a_rejecting_class_refuses_its_units_and_names_the_command(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client = await proxy.connect()
    proxy.process.set_state("all", ClassState.REJECTING, by="test", reason="")
    answer = await client.query("select 1")
    assert answer.error is not None
    assert (answer.error.code, answer.status) == ("53300", "I")
    assert "reason=class_rejecting" in (answer.error.detail or "")
    assert "pgheadroom resume all" in (answer.error.hint or "")
    proxy.process.set_state("all", ClassState.RUNNING, by="test", reason="")
    assert await client.value("select 1") == "1"


async def test_clients_of_a_paused_class_wait_and_are_served_on_resume(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client = await proxy.connect()
    proxy.process.set_state("all", ClassState.PAUSED, by="test", reason="")
    await client.send(query("select 'after the pause'"))
    await eventually(lambda: proxy.waiting() == 1)
    proxy.process.set_state("all", ClassState.RUNNING, by="test", reason="")
    assert (await client.answer()).value == "after the pause"


async def test_a_wait_in_a_paused_class_ends_with_the_reason_paused(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**IMPATIENT)
    client = await proxy.connect()
    proxy.process.set_state("all", ClassState.PAUSED, by="test", reason="")
    answer = await client.query("select 1")
    assert answer.error is not None
    assert "reason=paused" in (answer.error.detail or "")
    assert "pgheadroom resume all" in (answer.error.hint or "")


async def test_a_pause_does_not_stop_a_transaction_that_runs(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client = await proxy.connect()
    await client.query("begin")
    proxy.process.set_state("all", ClassState.PAUSED, by="test", reason="")
    assert (await client.query("select 1")).status == "T"
    assert (await client.query("commit")).tags == ["COMMIT"]


async def test_an_identity_at_its_bound_is_refused_by_name_while_others_come_in(run_proxy: RunProxy) -> None:
    of_all = {"limit": 2, "max_clients": 9, "max_clients_per_identity": 2, "queue": {"timeout": "80ms"}}
    proxy = await run_proxy(classes={"all": of_all})
    first = await proxy.connect(application_name="worker")
    await proxy.connect(application_name="worker")
    with pytest.raises(psycopg.OperationalError) as caught:
        await proxy.psycopg(application_name="worker")
    assert 'class "all" has as many clients of this identity as it may have: 2 of 2, 1 waiting' in str(caught.value)
    assert "raise classes.all.max_clients_per_identity" in str(caught.value)
    assert proxy.measures.refusals_outside_queue["all", "max_clients"] == 1
    other = await proxy.connect(application_name="another worker")
    assert await other.value("select 1") == "1"
    await first.abort()
    await eventually(lambda: len(proxy.desk.clients) == 2)
    await (await proxy.psycopg(application_name="worker")).close()


async def test_who_is_one_identity_is_said_by_the_flow_key(run_proxy: RunProxy) -> None:
    of_all = {"limit": 2, "max_clients_per_identity": 1, "flow_key": "user", "queue": {"max": 0}}
    proxy = await run_proxy(classes={"all": of_all})
    await proxy.connect("app", application_name="one")
    with pytest.raises(psycopg.OperationalError, match="max_clients_per_identity"):
        await proxy.psycopg("app", application_name="two")
    await proxy.connect("web", application_name="one")


async def test_over_max_clients_a_login_is_queued_and_then_refused_after_authentication_ok(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(classes={"all": {"limit": 2, "max_clients": 1, "queue": {"timeout": "80ms"}}})
    first = await proxy.connect()
    second = await proxy.open()
    await second.send(encode_startup({"user": "app", "database": "app"}))
    answer = await second.answer()
    assert answer.kinds == "RE", "drivers dial again in plain text after an error before AuthenticationOk"
    error = answer.error
    assert error is not None
    assert (error.severity, error.code) == ("FATAL", "53300")
    assert "reason=max_clients" in (error.detail or "") or "reason=queue_timeout" in (error.detail or "")
    assert "max_clients" in (error.hint or "")
    third = asyncio.create_task(proxy.connect())
    await eventually(lambda: proxy.phases().count(Phase.ENTERING) == 1)
    await first.leave()
    assert await (await third).value("select 1") == "1"


async def test_a_session_class_takes_its_slot_at_login_and_is_refused_there(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(classes={"all": {"limit": 1, "pool_mode": "session", "queue": {"timeout": "80ms"}}})
    first = await proxy.connect()
    pid = await first.value("select pg_backend_pid()")
    assert proxy.controller.in_use == 1
    second = await proxy.open()
    await second.send(encode_startup({"user": "app", "database": "app"}))
    answer = await second.answer()
    assert answer.kinds == "RE"
    assert answer.error is not None
    assert (answer.error.severity, answer.error.code) == ("FATAL", "53300")
    await first.query("set search_path to pg_catalog")
    assert await first.value("select pg_backend_pid()") == pid
    await first.leave()
    await proxy.until_free()
    third = await proxy.connect()
    assert await third.value("show search_path") != "pg_catalog"


async def test_a_refused_batch_is_discarded_up_to_its_sync(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**IMPATIENT)
    holder, client = await held(proxy), await proxy.connect()
    await client.send(parse("select 1"), bind())
    assert (await client.answer("E")).codes == ["53300"]
    await client.send(execute(), run("select 2"))
    await client.send(SYNC)
    answer = await client.answer()
    assert (answer.kinds, answer.status) == ("Z", "I")
    await holder.query("commit")
    assert (await client.extended("select 3")).value == "3"


async def test_every_unit_of_a_pipeline_is_refused_by_itself(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**NO_QUEUE)
    holder, client = await held(proxy), await proxy.connect()
    await client.send(query("select 1"), run("select 2"), SYNC, query("select 3"), SYNC)
    answers = [await client.answer() for _ in range(4)]
    assert [answer.kinds for answer in answers] == ["EZ", "EZ", "EZ", "Z"]
    await holder.query("commit")
    assert await client.value("select 4") == "4"


async def test_a_refused_function_call_is_answered_like_a_query(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**NO_QUEUE)
    await held(proxy)
    client = await proxy.connect()
    await client.send(function_call(1, b"\0"))
    answer = await client.answer()
    assert (answer.kinds, answer.codes, answer.status) == ("EZ", ["53300"], "I")


async def test_a_long_pipeline_is_refused_to_its_end(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**NO_QUEUE)
    holder, client = await held(proxy), await proxy.connect()
    await client.send(*(query(f"select {n}") for n in range(3000)), SYNC)
    for _ in range(3000):
        assert (await client.answer()).codes == ["53300"]
    assert (await client.answer()).kinds == "Z"
    await holder.query("commit")
    assert await client.value("select 4") == "4"


async def test_a_long_pipeline_of_unknown_statements_is_refused_to_its_end(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    client = await proxy.connect()
    await client.send(*(bind() + execute() + SYNC for n in range(2000)))
    for _ in range(2000):
        assert (await client.answer()).codes == ["26000"]
    assert await client.value("select 4") == "4"


@pytest.mark.parametrize("end", ["commit", "rollback", "COMMIT WORK", "end;", "abort -- done"])
async def test_a_refused_begin_fails_until_the_end_of_its_block(run_proxy: RunProxy, end: str) -> None:
    proxy = await run_proxy(**IMPATIENT)
    holder, client = await held(proxy), await proxy.connect()
    answer = await client.query("begin")
    assert (answer.tags, answer.status) == (["BEGIN"], "T")
    answer = await client.query("select 1")
    assert (answer.codes, answer.status) == (["53300"], "E")
    assert "reason=queue_timeout" in (answer.errors[0].detail or "")
    await holder.query("commit")
    for sql in ("insert into no_such_table values (1)", "select 1", "savepoint s", "rollback to s"):
        answer = await client.query(sql)
        assert (answer.codes, answer.status) == (["25P02"], "E"), sql
    answer = await client.extended("select 1")
    assert (answer.codes, answer.status) == (["25P02"], "E")
    answer = await client.query(end)
    assert (answer.tags, answer.status) == (["ROLLBACK"], "I")
    assert proxy.controller.in_use == 0
    assert await client.value("select 1") == "1"


@pytest.mark.parametrize(("end", "tag"), [("commit", "COMMIT"), ("END", "COMMIT"), ("rollback", "ROLLBACK")])
@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
async def test_a_refused_begin_in_whose_block_nothing_is_done_ends_as_one(
    run_proxy: RunProxy, end: str, tag: str, extended: bool
) -> None:
    """Drivers keep a connection whose BEGIN failed, or pool it as it is: the block begins, and its first work fails."""
    proxy = await run_proxy(**IMPATIENT)
    await held(proxy)
    client = await proxy.connect()
    answer = await client.query("START TRANSACTION ISOLATION LEVEL SERIALIZABLE;")
    assert (answer.tags, answer.status) == (["START TRANSACTION"], "T")
    assert (await client.query("")).status == "T"
    answer = await (client.extended if extended else client.query)(end)
    assert (answer.tags, answer.status, answer.errors) == ([tag], "I", [])
    assert proxy.controller.in_use == 1


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_the_first_work_in_a_refused_block_may_be_of_the_extended_protocol(run_proxy: RunProxy, end: str) -> None:
    proxy = await run_proxy(**IMPATIENT)
    await held(proxy)
    client = await proxy.connect()
    await client.query("begin")
    answer = await client.extended("select 1")
    assert (answer.codes, answer.status) == (["53300"], "E")
    answer = await client.extended("select 1")
    assert (answer.codes, answer.status) == (["25P02"], "E")
    answer = await client.extended(end)
    assert (answer.tags, answer.status) == (["ROLLBACK"], "I")


async def test_a_refused_begin_by_the_extended_protocol_fails_until_the_end_of_its_block(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**IMPATIENT)
    holder, client = await held(proxy), await proxy.connect()
    answer = await client.extended("begin")
    assert (answer.codes, answer.status) == (["53300"], "E")
    await holder.query("commit")
    answer = await client.extended("select 1")
    assert (answer.codes, answer.status) == (["25P02"], "E")
    answer = await client.extended("commit")
    assert (answer.tags, answer.status, answer.errors) == (["ROLLBACK"], "I", [])
    assert (await client.extended("select 1")).value == "1"


@pytest.mark.parametrize("chain", ["commit and chain", "ROLLBACK AND CHAIN;", "end and chain"])
@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
async def test_a_chain_out_of_a_refused_begin_begins_the_transaction_anew(
    run_proxy: RunProxy, chain: str, extended: bool
) -> None:
    """A script that only ever chains would never leave the failed block."""
    proxy = await run_proxy(**IMPATIENT)
    holder, client = await held(proxy), await proxy.connect()
    ask = client.extended if extended else client.query
    assert (await ask("begin")).status == ("E" if extended else "T")
    answer = await ask(chain)
    refused = (["53300"], "E") if extended else ([], "T")
    assert (answer.codes, answer.status) == refused, "there is no slot for the next one either"
    await holder.query("commit")
    answer = await ask(chain)
    assert (answer.tags, answer.status) == (["BEGIN"], "T")
    assert (await ask("select 1")).status == "T"
    assert (await ask("commit")).tags == ["COMMIT"]


async def test_a_chain_stays_failed_where_the_transaction_had_options(run_proxy: RunProxy) -> None:
    """The next one would have to be serializable too, and would not be."""
    proxy = await run_proxy(**IMPATIENT)
    holder, client = await held(proxy), await proxy.connect()
    assert (await client.query("begin isolation level serializable")).status == "T"
    assert (await client.query("select 1")).status == "E"
    await holder.query("commit")
    answer = await client.query("commit and chain")
    assert (answer.codes, answer.status) == (["25P02"], "E")
    assert (await client.query("rollback")).status == "I"


@pytest.mark.parametrize(
    "refused", [query("begin; select 1"), run("select 1")], ids=["in a failed block", "before its Sync"]
)
@pytest.mark.parametrize("at_once", [True, False], ids=["with it", "behind it"])
async def test_a_farewell_after_a_refusal_ends_the_client(run_proxy: RunProxy, refused: bytes, at_once: bool) -> None:
    """It was taken for one more message to be ignored, and the socket stayed until the client closed it."""
    proxy = await run_proxy(**IMPATIENT)
    await held(proxy)
    client = await proxy.connect()
    await client.send(refused, TERMINATE if at_once else b"")
    assert (await client.answer("E")).codes == ["53300"]
    if not at_once:
        await client.send(TERMINATE)
    assert (await client.answer("")).kinds in ("", "Z")
    assert len(proxy.desk.clients) == 1


async def test_a_query_that_opens_and_ends_its_transaction_is_refused_with_idle_status(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**IMPATIENT)
    await held(proxy)
    client = await proxy.connect()
    answer = await client.query("begin; select 1; commit")
    assert (answer.codes, answer.status) == (["53300"], "I")
    answer = await client.query("begin; select 1")
    assert (answer.codes, answer.status) == (["53300"], "E")
    assert (await client.query("rollback")).status == "I"


async def test_a_script_whose_begin_is_refused_changes_nothing(run_proxy: RunProxy) -> None:
    """psql goes on after an error: with status "I" both updates would have run in autocommit."""
    proxy = await run_proxy(**IMPATIENT)
    holder = await proxy.connect()
    await holder.query("create table scripted (n int); insert into scripted values (1)")
    await holder.query("begin")
    script = "begin;\n\\! touch {flag}\nupdate scripted set n = 2;\nupdate scripted set n = 3;\ncommit;\n"
    flag = proxy.folder / "begin-was-refused"
    file = proxy.folder / "script.sql"
    file.write_text(script.format(flag=flag))

    async def free_the_slot() -> None:
        await eventually(flag.exists)
        await holder.query("commit")

    psql = [embedded_installation(18).program("psql"), "-X", "-f", str(file), proxy.url()]
    finished, _ = await asyncio.gather(
        asyncio.to_thread(subprocess.run, psql, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}),
        free_the_slot(),
    )
    assert finished.stderr.count("ERROR:  current transaction is aborted") == 1
    assert finished.stdout.split() == ["BEGIN", "ROLLBACK"]
    assert await holder.value("select n from scripted") == "1"
    await holder.query("drop table scripted")


async def test_a_waiting_client_is_told_once_after_notify_after(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(classes={"all": {"limit": 1, "notify_after": "20ms", "queue": {"timeout": "250ms"}}})
    await held(proxy)
    client = await proxy.connect()
    answer = await client.query("select 1")
    assert answer.codes == ["53300"]
    (notice,) = answer.notices
    assert (notice.severity, notice.code) == ("NOTICE", "00000")
    assert 'class "all"' in notice.message
    assert "position=1" in (notice.detail or "")


async def test_drivers_see_a_refusal_as_an_error_and_go_on(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**IMPATIENT)
    holder = await held(proxy)
    async with await proxy.psycopg() as connection:
        with pytest.raises(psycopg.errors.TooManyConnections) as refusal:
            await connection.execute("select 1")
        assert "reason=queue_timeout" in (refusal.value.diag.message_detail or "")
        assert not connection.closed
        await holder.query("commit")
        row = await (await connection.execute("select 1")).fetchone()
        assert row == (1,)


async def test_a_driver_whose_begin_is_refused_rolls_back_and_goes_on(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**IMPATIENT)
    holder = await held(proxy)
    async with await proxy.psycopg() as connection:
        with pytest.raises(psycopg.errors.TooManyConnections):
            async with connection.transaction():
                await connection.execute("select 1")
        await connection.rollback()
        await holder.query("commit")
        async with connection.transaction():
            assert await (await connection.execute("select 2")).fetchone() == (2,)


async def test_who_would_wait_in_vain_is_told_at_once_how_long_it_would_take(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**one_slot(timeout="400ms"))
    workers = [await proxy.connect() for _ in range(3)]
    crowd = [await proxy.connect() for _ in range(12)]

    async def work(client: WireClient) -> None:
        while not found:
            await client.query("select pg_sleep(0.06)")

    async def hopeless() -> list[str]:
        answers = await asyncio.gather(*(client.query("select pg_sleep(0.06)") for client in crowd))
        details = [answer.error.detail or "" for answer in answers if answer.error is not None]
        return [detail for detail in details if "reason=deadline" in detail]

    found: list[str] = []
    working = [asyncio.create_task(work(client)) for client in workers]
    found += await eventually(hopeless)
    await asyncio.gather(*working)
    assert all("expected_wait_ms=" in detail for detail in found)
    assert proxy.process.view.snapshot().of_class("all").refusals["deadline"] >= len(found)


async def test_the_notice_tells_the_place_in_the_queue(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(classes={"all": {"limit": 1, "notify_after": "50ms"}})
    holder, client = await held(proxy), await proxy.connect()
    await client.send(query("select 1"))
    kind, payload = await client.reply()
    assert kind == "N"
    assert b"position=1\0" in payload
    await holder.query("commit")
