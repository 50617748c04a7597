"""Prepared statements of the protocol in transaction mode: shared on the server, private to the eye of each client."""

from tests.support.eventually import eventually
from tests.support.running import Running, RunProxy
from tests.support.wire_client import FLUSH, SYNC, WireClient, bind, close, describe, execute, parse, query

ONE = {"classes": {"all": {"limit": 1, "pinned_limit": 1}}, "budget": {"total": 2}}
TWO = {"classes": {"all": {"limit": 2, "pinned_limit": 2}}, "budget": {"total": 3}}


async def prepare(client: WireClient, name: str, sql: str, types: tuple[int, ...] = ()) -> None:
    await client.send(parse(sql, name, types), SYNC)
    assert (await client.answer()).kinds == "1Z"


async def run_prepared(client: WireClient, name: str, *values: str) -> str | None:
    await client.send(bind(*values, statement=name), execute(), SYNC)
    answer = await client.answer()
    assert answer.error is None, answer.error
    assert answer.kinds == "2DCZ"
    return answer.rows[0][0]


async def on_the_other_server(proxy: Running, client: WireClient) -> WireClient:
    """A client in a transaction that holds the server connection which `client` has used last."""
    holder = await proxy.connect()
    pid = await client.value("select pg_backend_pid()")
    await holder.query("begin")
    assert await holder.value("select pg_backend_pid()") == pid
    return holder


async def server_statements(client: WireClient) -> list[str | None]:
    """The texts that this client's server connection has prepared."""
    return [row[0] for row in (await client.query("select statement from pg_prepared_statements order by 1")).rows]


async def test_a_statement_is_executed_on_whatever_connection_serves(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**TWO)
    client = await proxy.connect()
    await prepare(client, "s", "select $1::int + 1")
    assert proxy.controller.in_use == 0
    holder = await on_the_other_server(proxy, client)
    assert await run_prepared(client, "s", "41") == "42"
    assert await client.value("select pg_backend_pid()") != await holder.value("select pg_backend_pid()")
    await holder.query("commit")
    assert proxy.controller.in_use == 0
    assert proxy.measures.pins == {}


async def test_clients_with_the_same_text_share_it_and_the_same_name_is_told_apart(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE)
    first, second = await proxy.connect(), await proxy.connect()
    await prepare(first, "a", "select 'same'")
    await prepare(second, "b", "select 'same'")
    await prepare(second, "a", "select 'another'")
    for _ in range(2):
        assert await run_prepared(first, "a") == "same"
        assert await run_prepared(second, "a") == "another"
        assert await run_prepared(second, "b") == "same"
    assert await server_statements(first) == ["select 'another'", "select 'same'"]


async def test_parameter_types_are_part_of_a_statement(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE)
    client = await proxy.connect()
    text, integer = 25, 23
    await prepare(client, "as_text", "select pg_typeof($1)", (text,))
    await prepare(client, "as_integer", "select pg_typeof($1)", (integer,))
    assert await run_prepared(client, "as_text", "1") == "text"
    assert await run_prepared(client, "as_integer", "1") == "integer"


async def test_a_constant_is_read_by_the_settings_of_the_client(run_proxy: RunProxy) -> None:
    """Constants are folded when a statement is parsed: shared across settings it would return another's time."""
    proxy = await run_proxy(**ONE)
    tokyo, utc = await proxy.connect(TimeZone="Asia/Tokyo"), await proxy.connect(TimeZone="UTC")
    sql = "select extract(epoch from timestamptz '2020-01-01 00:00')::int"
    for client in (tokyo, utc):
        await prepare(client, "s", sql)
    for client, expected in [(tokyo, 1577804400), (utc, 1577836800)] * 2:
        assert await run_prepared(client, "s") == str(expected)


async def test_a_date_is_read_by_the_date_style_of_the_client(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE)
    american, european = await proxy.connect(DateStyle="ISO, MDY"), await proxy.connect(DateStyle="ISO, DMY")
    for client in (american, european):
        await prepare(client, "s", "select date '01/02/2020'")
    for _ in range(2):
        assert await run_prepared(american, "s") == "2020-01-02"
        assert await run_prepared(european, "s") == "2020-02-01"


async def test_what_is_parsed_under_a_local_setting_stays_with_its_transaction(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE)
    client, other = await proxy.connect(TimeZone="UTC"), await proxy.connect(TimeZone="UTC")
    sql = "select extract(epoch from timestamptz '2020-01-01 00:00')::int"
    await client.query("begin; set local timezone = 'Asia/Tokyo'")
    await prepare_in_transaction(client, "s", sql)
    assert await run_prepared(client, "s") == "1577804400"
    await client.query("commit")
    await prepare(other, "s", sql)
    assert await run_prepared(other, "s") == "1577836800"
    assert await run_prepared(client, "s") == "1577836800"


async def test_a_zone_set_inside_a_function_is_not_shared(run_proxy: RunProxy) -> None:
    """Nobody can see it before the server reports it, behind what was parsed in the same breath."""
    proxy = await run_proxy(**ONE)
    client, other = await proxy.connect(TimeZone="UTC"), await proxy.connect(TimeZone="UTC")
    await client.query(
        "create or replace function sets_zone() returns void language plpgsql as"
        " $$ begin execute 'set timezone = ''Asia/Tokyo'''; end $$"
    )
    sql = "select extract(epoch from timestamptz '2020-01-01 00:00')::int"
    await client.send(parse("select sets_zone()"), bind(), execute(), parse(sql, "s"), SYNC)
    assert (await client.answer()).error is None
    await prepare(other, "s", sql)
    assert await run_prepared(other, "s") == "1577836800"
    await client.query("drop function sets_zone()")


async def prepare_in_transaction(client: WireClient, name: str, sql: str) -> None:
    await client.send(parse(sql, name), SYNC)
    answer = await client.answer()
    assert (answer.kinds, answer.status) == ("1Z", "T")


async def test_errors_name_what_the_client_named(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE)
    client = await proxy.connect()
    await client.send(bind(statement="nobody"), execute(), SYNC)
    answer = await client.answer()
    assert answer.error is not None
    assert (answer.error.code, answer.error.message) == ("26000", 'prepared statement "nobody" does not exist')
    await prepare(client, "s", "select 1")
    await client.send(parse("select 2", "s"), SYNC)
    answer = await client.answer()
    assert answer.error is not None
    assert (answer.error.code, answer.error.message) == ("42P05", 'prepared statement "s" already exists')
    assert await run_prepared(client, "s") == "1"


async def test_a_closed_statement_is_gone_for_the_client_and_kept_for_the_next(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE)
    client = await proxy.connect()
    await prepare(client, "s", "select 1")
    granted = proxy.controller.snapshot(0.0).classes
    await client.send(close("S", "s"), SYNC)
    assert (await client.answer()).kinds == "3Z"
    assert [c.admissions for c in proxy.controller.snapshot(0.0).classes] == [c.admissions for c in granted]
    await client.send(bind(statement="s"), SYNC)
    assert (await client.answer()).codes == ["26000"]
    await prepare(client, "again", "select 1")
    assert await run_prepared(client, "again") == "1"
    assert await server_statements(client) == ["select 1"]


async def test_a_pipeline_of_everything_is_answered_as_by_a_server_of_its_own(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**TWO)
    client = await proxy.connect()
    await prepare(client, "known", "select 'known'")
    holder = await on_the_other_server(proxy, client)
    await client.send(
        bind(statement="known"), describe(), execute(),
        parse("select 'new'", "new"), describe("S", "new"), bind(statement="new"), execute(),
        close("S", "known"), bind(statement="new"), execute(), SYNC,
        bind(statement="known"), execute(), parse("select 'skipped'", "skipped"), close("S", "new"), SYNC,
        parse("select 'known'", "known"), bind(statement="known"), execute(), bind(statement="new"), execute(), SYNC,
    )  # fmt: skip
    answer = await client.answer()
    assert (answer.kinds, answer.rows) == ("2TDC1tT2DC32DCZ", [("known",), ("new",), ("new",)])
    answer = await client.answer()
    assert (answer.kinds, answer.codes) == ("EZ", ["26000"])
    answer = await client.answer()
    assert (answer.kinds, answer.rows) == ("12DC2DCZ", [("known",), ("new",)])
    await prepare(client, "skipped", "select 1")
    await holder.query("commit")


async def test_an_error_in_the_middle_takes_back_what_was_behind_it(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE)
    client = await proxy.connect()
    await prepare(client, "s", "select 's'")
    await client.send(
        parse("select 1", "before"), parse("select nothing", "bad"), parse("select 2", "behind"), close("S", "s"), SYNC
    )
    answer = await client.answer()
    assert (answer.kinds, answer.codes) == ("1EZ", ["42703"])
    assert await run_prepared(client, "before") == "1"
    assert await run_prepared(client, "s") == "s"
    for name in ("bad", "behind"):
        await prepare(client, name, f"select '{name}'")
        assert await run_prepared(client, name) == name


async def test_in_a_failed_transaction_nothing_is_prepared_but_its_end(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE)
    client = await proxy.connect()
    await prepare(client, "known", "select 1")
    await prepare(client, "end", "rollback")
    await client.query("begin")
    await client.query("select 1/0")
    await client.send(parse("select 1", "again"), SYNC)
    assert (await client.answer()).codes == ["25P02"]
    await client.send(parse("select 1", "known"), SYNC)
    assert (await client.answer()).codes == ["25P02"]
    await client.send(parse("rollback", "other_end"), bind(statement="other_end"), execute(), SYNC)
    answer = await client.answer()
    assert (answer.kinds, answer.status) == ("12CZ", "I")
    await prepare(client, "again", "select 1")


async def test_prepared_with_a_flush_only_holds_no_slot(run_proxy: RunProxy) -> None:
    """asyncpg's prepare() sends Parse, Describe and Flush, and its Sync with the first execution: maybe never."""
    proxy = await run_proxy(**ONE)
    client, other = await proxy.connect(), await proxy.connect()
    await client.send(parse("select $1::int", "s"), describe("S", "s"), FLUSH)
    assert (await client.answer("T")).kinds == "1tT"
    await proxy.until_free()
    assert await other.value("select 1") == "1"
    await client.send(bind("7", statement="s"), execute(), SYNC)
    answer = await client.answer()
    assert (answer.kinds, answer.rows) == ("2DCZ", [("7",)])


async def test_an_error_behind_a_flush_holds_no_slot_and_skips_up_to_the_sync(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE)
    client, other = await proxy.connect(), await proxy.connect()
    await client.send(parse("select nothing", "s"), FLUSH)
    assert (await client.answer("E")).codes == ["42703"]
    await proxy.until_free()
    assert await other.value("select 1") == "1"
    await client.send(bind(statement="s"), execute(), query("select 'skipped'"))
    await client.send(SYNC, query("select 'served'"))
    assert (await client.answer()).kinds == "Z"
    assert (await client.answer()).value == "served"


async def test_a_portal_keeps_the_connection_until_its_sync(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**TWO)
    client = await proxy.connect()
    await prepare(client, "s", "select generate_series(1, 3)")
    await client.send(bind(statement="s", portal="p"), execute("p", 1), FLUSH)
    assert (await client.answer("s")).rows == [("1",)]
    assert proxy.controller.in_use == 1
    await client.send(execute("p", 2), SYNC)
    assert (await client.answer()).rows == [("2",), ("3",)]
    await proxy.until_free()


async def test_the_unnamed_statement_is_the_client_s_own_wherever_it_is_used(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE)
    client, other = await proxy.connect(), await proxy.connect()
    await client.send(parse("select 'own'"), SYNC)
    await client.answer()
    await other.send(parse("select 'other'"), SYNC)
    await other.answer()
    await prepare(client, "s", "select 's'")
    await client.send(bind(statement="s"), execute(), bind(), execute(), SYNC)
    assert (await client.answer()).rows == [("s",), ("own",)]
    await other.send(bind(), execute(), SYNC)
    assert (await other.answer()).rows == [("other",)]
    await client.query("select")
    await client.send(bind(), execute(), SYNC)
    answer = await client.answer()
    assert (answer.kinds, answer.codes) == ("EZ", ["26000"])


async def test_a_connection_keeps_the_statements_used_last(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE, pool={"max_prepared_statements": 3})
    client = await proxy.connect()
    for number in range(5):
        await prepare(client, f"s{number}", f"select {number}")
    await run_prepared(client, "s2")
    await run_prepared(client, "s0")
    assert await server_statements(client) == ["select 0", "select 2", "select 4"]
    for number in range(5):
        assert await run_prepared(client, f"s{number}") == str(number)


async def test_a_client_cannot_make_the_proxy_hold_without_a_bound(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE, limits={"max_statement_bytes": 1000})
    client = await proxy.connect()
    await prepare(client, "s", "select 1" + " " * 500)
    await client.send(parse("select 2" + " " * 500, "t"), SYNC)
    answer = await client.answer()
    assert answer.error is not None
    assert answer.error.code == "54000"
    assert "limits.max_statement_bytes" in (answer.error.hint or "")
    await client.send(close("S", "s"), SYNC)
    await client.answer()
    await prepare(client, "t", "select 2" + " " * 500)


async def test_deallocate_by_name_and_of_all(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**TWO)
    client = await proxy.connect()
    for name in ("s", "_pg3_0"):
        await prepare(client, name, f"select '{name}'")
    holder = await on_the_other_server(proxy, client)  # the text to be deallocated is not known to the one that serves
    assert (await client.query("deallocate s")).tags == ["DEALLOCATE"]
    assert (await client.query('DEALLOCATE PREPARE "_pg3_0"')).tags == ["DEALLOCATE"]
    assert (await client.query("deallocate s")).codes == ["26000"]
    await prepare(client, "s", "select 1")
    await client.send(parse("deallocate s"), bind(), execute(), SYNC)
    assert (await client.answer()).tags == ["DEALLOCATE"]
    await prepare(client, "s", "select 2")
    for everything in ("deallocate all", "discard all"):
        assert (await client.query(everything)).errors == []
        await client.send(bind(statement="s"), SYNC)
        assert (await client.answer()).codes == ["26000"]
        await prepare(client, "s", "select 3")
        assert await run_prepared(client, "s") == "3"
    await holder.query("commit")


async def test_a_deallocate_that_fails_has_deallocated_nothing(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE)
    client = await proxy.connect()
    await prepare(client, "s", "select 1")
    await client.query("begin")
    assert (await client.query("discard all")).codes == ["25001"]
    assert (await client.query("deallocate s")).codes == ["25P02"]
    await client.query("rollback")
    assert await run_prepared(client, "s") == "1"


async def test_other_clients_go_on_after_one_deallocates_all(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE)
    client, other = await proxy.connect(), await proxy.connect()
    await prepare(client, "s", "select 1")
    await prepare(other, "s", "select 1")
    await client.query("deallocate all")
    assert await run_prepared(other, "s") == "1"


async def test_a_result_that_has_changed_is_told_once_to_each_and_mended_by_preparing_again(
    run_proxy: RunProxy,
) -> None:
    proxy = await run_proxy(**TWO)
    client, other = await proxy.connect(), await proxy.connect()
    await client.query("drop table if exists changes; create table changes (a int); insert into changes values (1)")
    for one in (client, other):
        await prepare(one, "s", "select * from changes")
        await run_prepared(one, "s")
    await client.query("alter table changes add column b text default 'b'")
    for one in (client, other):
        await one.send(bind(statement="s"), execute(), SYNC)
        answer = await one.answer()
        assert answer.codes == ["0A000"]
        assert answer.error is not None
        assert answer.error.message == "cached plan must not change result type"
    holder = await on_the_other_server(proxy, client)
    await other.send(bind(statement="s"), execute(), SYNC)
    assert (await other.answer()).codes == ["0A000"], "also where the connection has never parsed it"
    await holder.query("commit")
    for one in (client, other):
        await one.send(close("S", "s"), parse("select * from changes", "s"), bind(statement="s"), execute(), SYNC)
        assert (await one.answer()).rows == [("1", "b")]
    await client.query("drop table changes")


async def test_a_refused_pin_by_a_named_statement(run_proxy: RunProxy) -> None:
    """What a statement leaves in the session counts when it is executed, whenever it was prepared."""
    proxy = await run_proxy(classes={"all": {"limit": 3, "pinned_limit": 1, "queue": {"timeout": "100ms"}}})
    holder, client = await proxy.connect(), await proxy.connect()
    for one in (holder, client):
        await prepare(one, "s", "create temp table pinned_by_name (n int)")
    assert proxy.controller.in_use == 0
    await holder.send(bind(statement="s"), execute(), SYNC)
    assert (await holder.answer()).tags == ["CREATE TABLE"]
    assert proxy.controller.in_use == 1
    await client.send(bind(statement="s"), execute(), SYNC)
    assert (await client.answer()).codes == ["53300"]
    await holder.query("discard all")
    await proxy.until_free()


async def test_a_refused_begin_of_a_named_statement_fails_up_to_its_commit(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(classes={"all": {"limit": 1, "queue": {"max": 0}}})
    client, holder = await proxy.connect(), await proxy.connect()
    for name in ("begin", "commit"):
        await prepare(client, name, name)
    await holder.query("begin")
    await client.send(bind(statement="begin"), execute(), SYNC)
    answer = await client.answer()
    assert (answer.codes, answer.status) == (["53300"], "E")
    await client.send(parse("select 1"), bind(), execute(), SYNC)
    assert (await client.answer()).codes == ["25P02"]
    await client.send(bind(statement="commit"), execute(), SYNC)
    answer = await client.answer()
    assert (answer.tags, answer.status) == (["ROLLBACK"], "I")
    await holder.query("rollback")


async def test_a_long_bind_is_renamed_while_it_streams(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE)
    client = await proxy.connect()
    await prepare(client, "s", "select length($1)")
    value = "x" * 3_000_000
    message = bind(value, statement="s")
    for at in range(0, len(message), 100_000):
        await client.send(message[at : at + 100_000])
    await client.send(execute(), SYNC)
    assert (await client.answer()).rows == [(str(len(value)),)]
    for at in range(0, 30):
        await client.send(message[at : at + 1])
    await client.send(message[30:], execute(), SYNC)
    assert (await client.answer()).rows == [(str(len(value)),)]


async def test_a_unit_in_any_pieces_is_the_same_unit(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**ONE)
    client = await proxy.connect()
    await prepare(client, "s", "select $1::text")
    unit = bind("v", statement="s") + describe() + execute() + parse("select 2", "t") + bind(statement="t") + execute()
    for cut in range(1, len(unit)):
        await client.send(unit[:cut])
        await eventually(lambda: True)
        await client.send(unit[cut:], close("S", "t"), SYNC)
        answer = await client.answer()
        assert (answer.kinds, answer.rows) == ("2TDC12DC3Z", [("v",), ("2",)]), cut
