"""`mode: warn`: clients are let pass, and told what would have been."""

from typing import Any

from proxy.admission.classes import ClassState
from tests.support.eventually import eventually
from tests.support.running import Running, RunProxy
from tests.support.wire_client import WireClient, query


def warning(**bulk: Any) -> dict[str, Any]:
    classes = {
        "web": {"match": [{"application_name": "web"}], "priority": 1, "reserved": 2, "limit": 4},
        "bulk": {"priority": 9, "limit": 1, "mode": "warn", "queue": {"timeout": "200ms", "max": 1}, **bulk},
    }
    return {"budget": {"total": 6}, "default_class": "bulk", "classes": classes}


def would_refuse(proxy: Running) -> dict[str, int]:
    reading = proxy.controller.snapshot(0.0).of_class("bulk")
    outside = {key[1]: n for key, n in proxy.measures.would_refuse_outside_queue.items() if key[0] == "bulk"}
    return {reason.value: count for reason, count in reading.would_refuse.items()} | outside


async def in_transactions(proxy: Running, count: int, **parameters: str) -> list[WireClient]:
    clients = [await proxy.connect(**parameters) for _ in range(count)]
    for client in clients:
        assert (await client.query("begin")).status == "T"
    return clients


async def test_above_its_limit_a_class_that_warns_is_served_and_told(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**warning())
    await in_transactions(proxy, 1)
    client, other = await proxy.connect(), await proxy.connect()
    answer = await client.query("begin")
    assert answer.status == "T"
    (notice,) = answer.notices
    assert (notice.severity, notice.code) == ("WARNING", "01000")
    assert notice.message == 'class "bulk" would have let this wait: 1 of 1 server connections in use'
    assert notice.detail == "class=bulk would=queue in_use=1 limit=1"
    (notice,) = (await other.query("select 1")).notices
    assert notice.message == 'class "bulk" would have refused this: queue_full'
    assert proxy.controller.snapshot(0.0).of_class("bulk").would_queue == 1
    assert would_refuse(proxy) == {"queue_full": 1}


async def test_a_client_is_told_once_in_a_minute(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**warning())
    await in_transactions(proxy, 1)
    client = await proxy.connect()
    notices = [len((await client.query("select 1")).notices) for _ in range(5)]
    assert notices == [1, 0, 0, 0, 0]
    assert proxy.controller.snapshot(0.0).of_class("bulk").would_queue == 5


async def test_what_is_reserved_for_others_is_not_taken_and_who_waits_is_not_refused(run_proxy: RunProxy) -> None:
    """Six slots: one for the proxy itself, two of web, three for whoever comes."""
    proxy = await run_proxy(**warning())
    holders = await in_transactions(proxy, 3)
    client = await proxy.connect()
    await client.send(query("select 1"))
    await eventually(proxy.waiting)
    web = await in_transactions(proxy, 2, application_name="web")
    await web[0].query("select pg_sleep(0.4)")  # longer than the queue of bulk lets anybody wait
    assert proxy.waiting() == 1
    await holders[0].query("commit")
    answer = await client.answer()
    assert (answer.value, answer.codes) == ("1", [])
    assert would_refuse(proxy)["queue_timeout"] == 1


async def test_one_client_too_many_comes_in(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**warning(max_clients=1))
    await proxy.connect()
    other = await proxy.connect()
    assert [one.message for one in other.greeting.notices] == ['class "bulk" would have refused this: max_clients']
    assert await other.value("select 1") == "1"
    assert would_refuse(proxy) == {"max_clients": 1}


async def test_a_pin_above_the_limit_is_let_be(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**warning(limit=3, pinned_limit=0))
    client = await proxy.connect()
    answer = await client.query("create temp table modes_temp (n int)")
    assert answer.codes == []
    assert [one.message for one in answer.notices] == ['class "bulk" would have refused this: pinned_limit']


async def test_drivers_show_the_warning(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**warning())
    await in_transactions(proxy, 1)
    connection = await proxy.psycopg()
    told: list[str | None] = []
    connection.add_notice_handler(lambda notice: told.append(notice.sqlstate))
    await connection.execute("select 1")
    assert told == ["01000"]
    await connection.close()


async def test_an_operators_order_holds(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**warning())
    client = await proxy.connect()
    proxy.process.set_state("bulk", ClassState.REJECTING, by="test", reason="")
    assert (await client.query("select 1")).codes == ["53300"]


async def test_a_reload_makes_it_decide(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**warning())
    await in_transactions(proxy, 3)
    proxy.reload(classes=warning(mode="enforce", queue={"timeout": "200ms", "max": 0})["classes"])
    client = await proxy.connect()
    assert (await client.query("select 1")).codes == ["53300"]
