"""State that cannot be shared keeps its connection with its client, within `pinned_limit`."""

import pytest

from proxy.service.running_view import RunningView
from proxy.service.view import PinKey
from tests.session.fake_server import FakeServer
from tests.support.eventually import eventually
from tests.support.running import RunProxy
from tests.support.wire_client import SYNC, query, run

# LISTEN pins where it is not shared (test_listening.py shows the sharing).
UNSHARED = {"pool": {"listen_connections": 0}}
TIGHT = {**UNSHARED, "classes": {"all": {"limit": 3, "pinned_limit": 1, "queue": {"timeout": "150ms"}}}}

PINNING = {
    "listen": "listen pins_listen",
    "temporary_table": "create temp table pins_temp (n int)",
    "advisory_lock": "select pg_advisory_lock(4711)",
    "prepare": "prepare pins_prepared as select 1",
    "set": "set seed to 0.5",
    "with_hold_cursor": "declare pins_cursor cursor with hold for select 1",
}


@pytest.mark.parametrize("reason", PINNING)
@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
async def test_state_that_cannot_be_followed_keeps_the_connection(
    run_proxy: RunProxy, reason: str, extended: bool
) -> None:
    proxy = await run_proxy(**UNSHARED)
    client, other = await proxy.connect(), await proxy.connect()
    pid = await client.value("select pg_backend_pid()")
    answer = await (client.extended if extended else client.query)(PINNING[reason])
    assert (answer.codes, answer.status) == ([], "I")
    assert proxy.controller.in_use == 1
    for _ in range(3):
        assert await other.value("select pg_backend_pid()") != pid
        assert await client.value("select pg_backend_pid()") == pid
    assert proxy.measures.pins == {("all", reason): 1}
    assert (await client.query("discard all")).tags == ["DISCARD ALL"]
    await proxy.until_free()


@pytest.mark.parametrize(
    ("pin", "clear"),
    [("listen a", "unlisten *"), ("select pg_advisory_lock(1)", "select pg_advisory_unlock_all()"),
     ("prepare p as select 1", "deallocate all"), ("set seed to 0.5", "reset all"),
     ("create temp table cleared (n int)", "discard temp")],
)  # fmt: skip
async def test_clearing_the_state_gives_the_connection_back(run_proxy: RunProxy, pin: str, clear: str) -> None:
    proxy = await run_proxy(**TIGHT)
    client, other = await proxy.connect(), await proxy.connect()
    for _ in range(3):
        await client.query(pin)
        assert proxy.controller.in_use == 1
        assert (await client.query(clear)).errors == []
        await proxy.until_free()
        assert (await other.query("listen b")).errors == [], "the pin was given back as well"
        await other.query("unlisten *")
        await proxy.until_free()


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
async def test_over_the_pinned_limit_a_pin_is_refused_and_the_client_goes_on(
    run_proxy: RunProxy, extended: bool
) -> None:
    proxy = await run_proxy(**TIGHT)
    holder, client = await proxy.connect(), await proxy.connect()
    await holder.query("listen a")
    ask = client.extended if extended else client.query
    answer = await ask("listen b")
    assert answer.error is not None
    assert (answer.error.severity, answer.error.code, answer.status) == ("ERROR", "53300", "I")
    assert "reason=pinned_limit" in (answer.error.detail or "")
    assert "classes.all.pinned_limit" in (answer.error.hint or "")
    assert await client.value("select count(*) from pg_listening_channels()") == "0"
    assert proxy.controller.in_use == 1
    await holder.leave()
    await proxy.until_free()
    assert (await ask("listen b")).errors == []


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
async def test_over_the_pinned_limit_in_a_transaction_the_transaction_fails(
    run_proxy: RunProxy, extended: bool
) -> None:
    proxy = await run_proxy(**TIGHT)
    holder, client = await proxy.connect(), await proxy.connect()
    await holder.query("create table if not exists pin_refused (n int)")
    await holder.query("listen a")
    await client.query("begin; insert into pin_refused values (1)")
    answer = await (client.extended if extended else client.query)("listen b")
    assert (answer.codes, answer.status) == (["53300"], "E")
    await eventually(lambda: proxy.controller.in_use == 1)
    assert (await client.query("insert into pin_refused values (2)")).codes == ["25P02"]
    assert (await client.query("commit")).tags == ["ROLLBACK"]
    assert await client.value("select count(*) from pin_refused") == "0"
    await holder.query("unlisten *; drop table pin_refused")


async def test_a_refused_pin_does_not_open_the_way_for_the_next(run_proxy: RunProxy) -> None:
    """What was asked for in the refused unit was remembered as granted, so a pin in a transaction passed unasked."""
    proxy = await run_proxy(**TIGHT)
    holder, client = await proxy.connect(), await proxy.connect()
    await holder.query("listen a")
    assert (await client.query("listen b")).codes == ["53300"]
    await client.query("begin")
    answer = await client.query("listen b")
    assert (answer.codes, answer.status) == (["53300"], "E")
    await client.query("rollback")


async def test_a_plain_query_behind_a_refused_pin_in_a_pipeline_is_served(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**TIGHT)
    holder, client = await proxy.connect(), await proxy.connect()
    await holder.query("listen a")
    await client.send(run("listen b"), SYNC, query("select 1"))
    assert (await client.answer()).codes == ["53300"]
    assert (await client.answer()).value == "1"


async def test_a_pinned_client_that_leaves_gives_back_a_clean_connection(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(budget={"total": 2}, classes={"all": {"limit": 1, "pinned_limit": 1}})
    client, other = await proxy.connect(), await proxy.connect()
    await client.query("set work_mem = '1MB'; listen a; create temp table left_by_pinned (n int)")
    pid = await client.value("select pg_backend_pid()")
    await client.leave()
    answer = await other.query("select pg_backend_pid(), current_setting('work_mem'), to_regclass('left_by_pinned')")
    assert answer.rows == [(pid, "4MB", None)]


async def test_a_pinned_client_is_told_of_notifications(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**UNSHARED)
    client, other = await proxy.connect(), await proxy.connect()
    await client.query("listen told")
    await other.query("notify told, 'hello'")
    kind, payload = await client.reply()
    assert kind == "A"
    assert payload.endswith(b"told\0hello\0")


async def test_discard_all_unpins_with_a_pipelined_query_behind_it(
    fake_server: FakeServer, run_proxy: RunProxy
) -> None:
    """Sent in two pieces: the reset was answered with a restoring SET behind a query that was not answered yet."""
    proxy = await run_proxy(fake_server.url)
    client = await proxy.connect(TimeZone="Europe/Berlin")
    for reset in ("reset all", "discard all"):
        await client.send(query(reset))
        await eventually(lambda reset=reset: reset in fake_server.queries())
        await client.send(query("select"))
        for _ in range(2):
            assert (await client.answer()).status == "I"
        await proxy.until_free()


# -- on_session_state -------------------------------------------------------------------------------------------------


def behaving(on_session_state: str) -> dict[str, object]:
    return {**UNSHARED, "classes": {"all": {"limit": 1, "pinned_limit": 1, "on_session_state": on_session_state}}}


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
async def test_a_class_may_reject_what_would_pin(run_proxy: RunProxy, extended: bool) -> None:
    proxy = await run_proxy(**behaving("reject"))
    client = await proxy.connect()
    ask = client.extended if extended else client.query
    answer = await ask("listen rejected")
    assert answer.error is not None
    assert (answer.error.code, answer.status) == ("0A000", "I")
    assert "classes.all.on_session_state" in (answer.error.hint or "")
    await client.query("begin")
    answer = await ask("create temp table rejected (n int)")
    assert (answer.codes, answer.status) == (["0A000"], "E")
    await client.query("rollback")
    assert (await ask("set work_mem = '1MB'")).errors == [], "what follows the client is no matter"
    assert await client.value("show work_mem") == "1MB"
    assert proxy.measures.pins == {}


async def test_a_class_may_ignore_what_would_pin_and_it_is_gone_with_the_transaction(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**behaving("ignore"), budget={"total": 2})
    client, other = await proxy.connect(TimeZone="Asia/Tokyo"), await proxy.connect()
    await client.query("set work_mem = '1MB'")
    await client.query("begin; create temp table ignored (n int); select pg_advisory_lock(4712)")
    assert await client.value("select to_regclass('ignored')") == "ignored"
    await client.query("commit")
    await proxy.until_free()
    for one in (other, client):
        answer = await one.query("select to_regclass('ignored'), count(*) from pg_locks where locktype = 'advisory'")
        assert answer.rows == [(None, "0")]
    assert await client.value("show work_mem") == "1MB"
    assert await client.value("show timezone") == "Asia/Tokyo"
    assert await other.value("show work_mem") == "4MB"
    assert proxy.measures.pins == {}


async def test_who_is_pinned_and_why_is_shown_by_application(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**UNSHARED)
    for name, statement in (("cron", "listen a"), ("cron", "listen a; create temp table shown (n int)")):
        await (await proxy.connect(application_name=name)).query(statement)
    view = RunningView(proxy.process)
    assert view.pins() == {PinKey("all", "cron", "listen"): 2, PinKey("all", "cron", "temporary_table"): 1}
