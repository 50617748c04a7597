"""`pool_mode: statement`: single statements are pooled as ever, and no transaction block is opened."""

import psycopg
import pytest

from proxy.session.statement_mode import block_opens_at
from proxy.wire import messages
from proxy.wire.framing import client_cursor
from tests.support.running import RunProxy
from tests.support.wire_client import FLUSH, SYNC, bind, execute, parse, query, run

SINGLE = {"all": {"limit": 2, "pool_mode": "statement", "queue": {"timeout": "20s"}, "pinned_limit": 2}}


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
@pytest.mark.parametrize(
    "sql", ["begin", "START TRANSACTION read only", "/* hello */ begin work", "begin isolation level serializable"]
)
async def test_a_transaction_block_is_refused_and_fails_to_its_end(
    run_proxy: RunProxy, sql: str, extended: bool
) -> None:
    """With status "I" the statements behind it would each commit by themselves."""
    proxy = await run_proxy(classes=SINGLE)
    client = await proxy.connect()
    ask = client.extended if extended else client.query
    answer = await ask(sql)
    assert (answer.codes, answer.status) == (["0A000"], "E")
    error = answer.error
    assert error is not None
    assert '"all"' in error.message
    assert error.hint is not None
    assert "classes.all.pool_mode" in error.hint
    answer = await ask("create table never_made_by_statement (n int)")
    assert (answer.codes, answer.status) == (["25P02"], "E")
    answer = await ask("commit")
    assert (answer.tags, answer.status) == (["ROLLBACK"], "I")
    assert (await ask("select to_regclass('never_made_by_statement')")).value is None
    assert proxy.controller.in_use == 0


async def test_a_text_that_ends_its_block_is_one_statement_to_us(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(classes=SINGLE)
    client = await proxy.connect()
    answer = await client.query("begin; select 1; commit")
    assert (answer.tags, answer.status) == (["BEGIN", "SELECT 1", "COMMIT"], "I")
    answer = await client.query("select 1; begin; select 2")
    assert (answer.codes, answer.status) == (["0A000"], "E")
    assert (await client.query("rollback")).status == "I"


async def test_several_statements_of_one_query_and_of_one_batch_run(run_proxy: RunProxy) -> None:
    """Their implicit transaction ends with their own ReadyForQuery."""
    proxy = await run_proxy(classes=SINGLE)
    client = await proxy.connect()
    assert (await client.query("select 1; select 2")).tags == ["SELECT 1", "SELECT 1"]
    await client.send(run("select 1"), run("select 2"), SYNC)
    assert (await client.answer()).tags == ["SELECT 1", "SELECT 1"]
    assert proxy.controller.in_use == 0


async def test_a_block_behind_other_statements_in_a_pipeline_is_refused_in_its_turn(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(classes=SINGLE)
    client = await proxy.connect()
    await client.send(query("select 'before'"), run("select 'batch'"), SYNC, query("begin"), query("select 'within'"))
    await client.send(query("commit"), run("begin"), SYNC, run("rollback"), SYNC, query("select 'behind'"))
    answers = [await client.answer() for _ in range(8)]
    assert [(one.tags, one.codes, one.status) for one in answers] == [
        (["SELECT 1"], [], "I"),
        (["SELECT 1"], [], "I"),
        ([], ["0A000"], "E"),
        ([], ["25P02"], "E"),
        (["ROLLBACK"], [], "I"),
        ([], ["0A000"], "E"),
        (["ROLLBACK"], [], "I"),
        (["SELECT 1"], [], "I"),
    ]
    assert answers[7].value == "behind"
    assert proxy.controller.in_use == 0


async def test_a_block_prepared_by_name_is_refused_where_it_is_parsed(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(classes=SINGLE)
    client = await proxy.connect()
    await client.send(parse("begin", name="opens"), SYNC)
    answer = await client.answer()
    assert (answer.codes, answer.status) == (["0A000"], "I"), "nothing would have run"
    await client.send(bind(statement="opens"), execute(), SYNC)
    assert (await client.answer()).codes == ["26000"]


async def test_where_it_cannot_be_refused_by_itself_the_client_is_sent_away(run_proxy: RunProxy) -> None:
    """In the middle of a batch, or on a connection that is pinned: the answers would change places with others."""
    proxy = await run_proxy(classes=SINGLE)
    in_batch, pinned = await proxy.connect(), await proxy.connect()
    await in_batch.send(run("select 1"), FLUSH)
    await in_batch.answer("C")
    await in_batch.send(run("begin"), SYNC)
    answer = await in_batch.answer()
    assert (answer.codes, answer.status) == (["0A000"], "")
    await pinned.query("create temp table pinned_in_statement_mode (n int)")
    await pinned.send(query("select 1"), query("begin"))
    assert (await pinned.answer()).value == "1"
    answer = await pinned.answer()
    assert (answer.codes, answer.status) == (["0A000"], "")
    await proxy.until_free()


async def test_a_text_too_long_to_be_looked_at_names_its_setting(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(classes=SINGLE, limits={"max_inspected_bytes": 1000})
    client = await proxy.connect()
    answer = await client.query(f"select '{'x' * 2000}'")
    assert answer.codes == ["0A000"]
    assert answer.error is not None
    assert "limits.max_inspected_bytes" in str(answer.error.hint)
    assert (await client.query("select 1")).status == "I"


async def test_a_new_class_brings_its_own_mode(run_proxy: RunProxy) -> None:
    single = {**SINGLE["all"], "match": [{"application_name": "single*"}]}
    proxy = await run_proxy(classes={"single": single, "all": {"limit": 2}})
    client = await proxy.connect(application_name="single file")
    assert (await client.query("begin")).codes == ["0A000"]
    await client.query("rollback")
    await client.query("set application_name = 'other'")
    assert (await client.query("begin")).status == "T"
    await client.query("commit")


async def test_a_driver_that_opens_transactions_is_told_and_one_in_autocommit_is_served(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(classes=SINGLE)
    async with await psycopg.AsyncConnection.connect(proxy.url()) as connection:
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="single statements"):
            await connection.execute("select 1")
        await connection.rollback()
    async with await proxy.psycopg() as connection:
        for n in range(3):
            assert await (await connection.execute("select %s::int", [n], prepare=False)).fetchone() == (n,)


def first_block(*parts: bytes) -> int:
    cursor = client_cursor(b"QPSF", max_held_bytes=1000, max_message_bytes=100_000)
    buffer, facts = cursor.feed(b"".join(parts))
    return block_opens_at(buffer, facts, backslash_escapes=False)


@pytest.mark.parametrize(
    "harmless",
    ["select 'begin'", "select beginning from starts", "commit", "begin; commit", "-- begin\nselect 1", "savepoint a"],
)
def test_what_opens_no_block(harmless: str) -> None:
    assert first_block(query(harmless)) == first_block(run(harmless), SYNC) == -1


def test_the_unit_that_opens_one_is_found_at_its_beginning() -> None:
    before, batch = query("select 1"), run("select 1") + SYNC
    assert first_block(query("begin")) == 0
    assert first_block(before, batch, query("begin")) == len(before + batch)
    assert first_block(before, batch, run("select 2"), run("begin"), SYNC) == len(before + batch)
    assert first_block(before, messages.query("select '" + "x" * 2000 + "'")) == len(before)
