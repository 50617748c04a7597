"""Clients that connect again and again: how many get in, how late the others are told, what it costs nobody else."""

import asyncio
from time import monotonic

import psycopg
import pytest

from proxy.admission.classes import ClassState
from proxy.wire.startup import encode_startup
from tests.support.eventually import eventually
from tests.support.running import Running, RunProxy
from tests.support.wire_client import Answer, WireClient

NEVER_LATE = {"refusals": {"delay": 0}}


def connects(**per_identity: object) -> dict[str, object]:
    return {"classes": {"all": {"limit": 2, "connects": {"per_identity": per_identity}}}}


FEW = connects(rate=0.001, burst=2)


async def knocks(proxy: Running, **parameters: str) -> tuple[WireClient, float]:
    """A client that has said who it is, and when."""
    client = await proxy.open()
    await client.send(encode_startup({"user": "app", "database": "app", **parameters}))
    return client, monotonic()


async def told(client: WireClient, since: float) -> tuple[Answer, float]:
    """The answer, and how late it came."""
    answer = await client.answer()
    return answer, monotonic() - since


async def attempt(proxy: Running, **parameters: str) -> Answer:
    """A client that asks for nothing and leaves again, if it is let in."""
    before = len(proxy.desk.clients)
    client, since = await knocks(proxy, **parameters)
    answer, _ = await told(client, since)
    if answer.error is None:
        await client.abort()
        await eventually(lambda: len(proxy.desk.clients) == before)
    return answer


async def test_who_connects_too_often_for_nothing_is_told_which_setting_decides(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**FEW, **NEVER_LATE)
    assert [(await attempt(proxy)).error for _ in range(2)] == [None, None]
    answer = await attempt(proxy)
    error = answer.error
    assert error is not None
    assert [kind for kind, _ in answer.replies] == ["R", "E"], "before AuthenticationOk libpq would dial again at once"
    assert (error.severity, error.code) == ("FATAL", "53300")
    assert "connects.per_identity" in error.message
    assert "reason=rate" in (error.detail or "")
    assert "classes.all.connects.per_identity.rate" in (error.hint or "")
    assert proxy.controller.snapshot(0.0).of_class("all").refusals == {"rate": 1}
    assert proxy.measures.connects["all"] == 3


async def test_the_bucket_of_the_class_is_named_where_it_decides(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**NEVER_LATE, classes={"all": {"limit": 2, "connects": {"rate": 0.001, "burst": 1}}})
    await attempt(proxy, application_name="one")
    error = (await attempt(proxy, application_name="other")).error
    assert error is not None
    assert "classes.all.connects.rate" in (error.hint or "")


async def test_another_identity_is_let_in_meanwhile(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**FEW, **NEVER_LATE)
    storm = [await attempt(proxy, application_name="storm") for _ in range(5)]
    assert sum(answer.error is not None for answer in storm) == 3
    assert (await attempt(proxy, application_name="web")).error is None


async def test_who_works_may_connect_as_often_as_it_likes(run_proxy: RunProxy) -> None:
    """A script that connects for each query has nothing to do with a storm."""
    proxy = await run_proxy(**FEW)
    for number in range(12):
        client = await proxy.connect()
        assert await client.value(f"select {number}") == str(number)
        await client.abort()
        await eventually(lambda: not proxy.desk.clients)


async def test_who_stays_is_no_attempt_in_vain(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**FEW)
    for _ in range(5):
        await proxy.connect()


async def test_a_pool_of_a_hundred_opens_at_once_with_the_settings_as_they_are(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    await asyncio.gather(*(proxy.connect(application_name="pool") for _ in range(100)))
    assert proxy.measures.logins == 100


# Late answers


LATE = {"refusals": {"delay": "1s", "max_delay": "1s"}}


async def test_the_first_refusal_is_told_at_once_and_those_behind_it_late_but_within_a_second(
    run_proxy: RunProxy,
) -> None:
    proxy = await run_proxy(**FEW, **LATE)
    for _ in range(2):
        await attempt(proxy)
    answers = [await told(*await knocks(proxy)) for _ in range(3)]
    assert all(answer.error is not None for answer, _ in answers)
    delays = [seconds for _, seconds in answers]
    assert delays[0] < 0.4
    assert all(0.45 < seconds < 1.4 for seconds in delays[1:])


async def test_other_clients_are_served_while_answers_wait(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**connects(rate=0.001, burst=1), refusals={"delay": "1m", "max_delay": "1m"})
    await attempt(proxy, application_name="storm")
    for _ in range(21):
        await knocks(proxy, application_name="storm")
    await eventually(lambda: proxy.desk.connects.late.held == 20)
    assert await (await proxy.connect(application_name="web")).value("select 1") == "1"
    assert proxy.measures.refusals_late["all"] == 20
    assert not proxy.controller.in_use


async def test_the_sockets_that_wait_are_bounded_and_above_that_the_answer_comes_at_once(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**connects(rate=0.001, burst=1), refusals={"delay": "1m", "max_delay": "1m", "max_held": 2})
    await attempt(proxy)
    for _ in range(4):
        await knocks(proxy)
    await eventually(lambda: proxy.desk.connects.late.held == 2)
    assert (await attempt(proxy)).error is not None


async def test_who_hangs_up_meanwhile_is_forgotten(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**connects(rate=0.001, burst=1), refusals={"delay": "1m", "max_delay": "1m"})
    await attempt(proxy)
    await attempt(proxy)
    client, _ = await knocks(proxy)
    await eventually(lambda: proxy.desk.connects.late.held == 1)
    await client.abort()
    await eventually(lambda: proxy.desk.connects.late.held == 0)
    await eventually(lambda: proxy.desk.connected == 0)


async def test_whatever_it_sends_meanwhile_changes_nothing(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**connects(rate=0.001, burst=1), refusals={"delay": "500ms", "max_delay": "500ms"})
    await attempt(proxy)
    await attempt(proxy)
    client, since = await knocks(proxy)
    await eventually(lambda: proxy.desk.connects.late.held == 1)
    await client.send(b"Q\0\0\0\x0dselect 1\0", b"nonsense" * 100)
    answer, _ = await told(client, since)
    assert [kind for kind, _ in answer.replies] == ["R", "E"]


async def test_the_end_of_the_process_answers_those_who_wait(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**connects(rate=0.001, burst=1), refusals={"delay": "1m", "max_delay": "1m"})
    await attempt(proxy)
    await attempt(proxy)
    client, since = await knocks(proxy)
    await eventually(lambda: proxy.desk.connects.late.held == 1)
    ending = asyncio.create_task(proxy.process.drain_and_stop())
    answer, _ = await told(client, since)
    assert answer.error is not None
    await ending


# Refused for another reason, and coming again

FULL = {
    "classes": {"all": {"limit": 1, "pool_mode": "session", "queue": {"max": 0}}},
    "refusals": {"delay": "600ms", "max_delay": "600ms"},
}


async def refusals_in_a_row(proxy: Running, count: int) -> list[tuple[str, float]]:
    """The reasons of so many attempts one after the other, and how late each was told."""
    found = []
    for _ in range(count):
        answer, seconds = await told(*await knocks(proxy))
        assert answer.error is not None
        found.append(((answer.error.detail or "").partition("reason=")[2].partition(" ")[0], seconds))
    return found


def told_late_from_the_second_on(found: list[tuple[str, float]]) -> bool:
    return found[0][1] < 0.25 and all(0.28 < seconds < 1.0 for _, seconds in found[1:])


async def test_a_full_class_tells_who_reconnects_late(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**FULL)
    await proxy.connect(application_name="holder")
    found = await refusals_in_a_row(proxy, 3)
    assert {reason for reason, _ in found} == {"limit"}
    assert told_late_from_the_second_on(found)


@pytest.mark.parametrize("replicates", [False, True])
async def test_a_refusal_that_is_told_late_keeps_no_place_of_the_class(run_proxy: RunProxy, replicates: bool) -> None:
    """It waits for its answer and for nothing else. A mutex stood still for as long as somebody was kept from it."""
    proxy = await run_proxy(
        replication_class="all",
        classes={"all": {"limit": 1, "pool_mode": "session", "max_clients": 2, "queue": {"max": 0}}},
        refusals={"delay": "1m", "max_delay": "1m"},
    )
    await proxy.connect(application_name="holder")
    kind = {"replication": "database"} if replicates else {}
    assert (await told(*await knocks(proxy, **kind)))[0].error is not None
    await knocks(proxy, **kind)
    await eventually(lambda: proxy.desk.connects.late.held == 1)
    assert proxy.upstream.door.places.taken("all") == 1
    proxy.desk.connects.end()


async def test_so_does_one_with_as_many_clients_as_it_may_have(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(
        classes={"all": {"limit": 1, "max_clients": 1, "queue": {"max": 0}}}, refusals=FULL["refusals"]
    )
    await proxy.connect(application_name="holder")
    found = await refusals_in_a_row(proxy, 3)
    assert {reason for reason, _ in found} == {"max_clients"}
    assert told_late_from_the_second_on(found)


async def test_so_does_one_that_is_switched_off(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(classes={"all": {"limit": 1, "pool_mode": "session"}}, refusals=FULL["refusals"])
    proxy.process.set_state("all", ClassState.REJECTING, by="anna", reason="storm")
    found = await refusals_in_a_row(proxy, 3)
    assert {reason for reason, _ in found} == {"class_rejecting"}
    assert told_late_from_the_second_on(found)


async def test_what_was_waited_in_the_queue_counts(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(
        classes={"all": {"limit": 1, "pool_mode": "session", "queue": {"timeout": "700ms", "refuse_hopeless": False}}},
        refusals=FULL["refusals"],
    )
    await proxy.connect(application_name="holder")
    found = await refusals_in_a_row(proxy, 3)
    assert all(0.65 < seconds < 1.1 for _, seconds in found)
    assert not proxy.measures.refusals_late["all"]


async def test_who_waits_for_its_answer_holds_neither_slot_nor_place(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**{**FULL, "refusals": {"delay": "1m", "max_delay": "1m"}})
    holder = await proxy.connect(application_name="holder")
    await refusals_in_a_row(proxy, 1)
    client, _ = await knocks(proxy)
    await eventually(lambda: proxy.desk.connects.late.held == 1)
    await holder.abort()
    await proxy.until_free()
    assert await (await proxy.connect(application_name="next")).value("select 1") == "1"
    await client.abort()
    await eventually(lambda: proxy.desk.connects.late.held == 0)


async def test_the_end_of_the_process_answers_those_at_the_door_too(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**{**FULL, "refusals": {"delay": "1m", "max_delay": "1m"}})
    await proxy.connect(application_name="holder")
    await refusals_in_a_row(proxy, 1)
    client, since = await knocks(proxy)
    await eventually(lambda: proxy.desk.connects.late.held == 1)
    ending = asyncio.create_task(proxy.process.drain_and_stop())
    answer, _ = await told(client, since)
    assert answer.error is not None
    await ending


async def test_status_names_who_comes_again_and_again(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**{**FULL, "refusals": {"delay": 0}})
    await proxy.connect(application_name="holder")
    await refusals_in_a_row(proxy, 3)
    [worst] = proxy.process.view.refused_identities()
    assert (worst.class_name, worst.refusals) == ("all", 3)
    assert worst.identity.split(" ") == ["app", "127.0.0.1", '""']


async def test_a_real_driver_reads_reason_and_setting(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**FEW, **NEVER_LATE)
    for _ in range(2):
        await (await psycopg.AsyncConnection.connect(proxy.url())).close()
        await eventually(lambda: not proxy.desk.clients)
    with pytest.raises(psycopg.OperationalError) as caught:
        await psycopg.AsyncConnection.connect(proxy.url())
    assert "connects.per_identity" in str(caught.value)
    assert proxy.measures.connects["all"] == 3, "libpq has dialled again because of the error"
