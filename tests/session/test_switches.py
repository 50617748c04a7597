"""Every way to stop a class, with real clients on the other side: nobody loses a place, and no slot is lost."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import psycopg
import pytest
from structlog.testing import capture_logs

from proxy.admission.classes import ClassState
from proxy.wire.messages import ErrorFields
from tests.support.eventually import eventually
from tests.support.running import Running, RunProxy
from tests.support.wire_client import WireClient, query

CLASSES = {
    "web": {"limit": 3, "match": [{"application_name": "web*"}], "priority": 1},
    "bulk": {"limit": 3, "queue": {"timeout": "20s"}},
}


class Operator:
    """Gives orders as the page and the commands do."""

    def __init__(self, proxy: Running, session: aiohttp.ClientSession) -> None:
        self.proxy = proxy
        self._session = session

    async def order(self, order: str, class_name: str = "bulk", **more: Any) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.proxy.process.http.port}/classes/{class_name}/{order}"
        async with self._session.post(url, json={"by": "anna", "reason": "storm", **more}) as answer:
            document: dict[str, Any] = await answer.json()
            assert answer.status == 200, document
            return document

    async def status(self, class_name: str = "bulk") -> dict[str, Any]:
        async with self._session.get(f"http://127.0.0.1:{self.proxy.process.http.port}/status") as answer:
            document = await answer.json()
        return next(one for one in document["classes"] if one["name"] == class_name)


Operate = Callable[..., Awaitable[Operator]]


@pytest.fixture
async def operate(run_proxy: RunProxy) -> Any:
    """Starts a proxy with the classes web and bulk, and an operator for it."""
    async with aiohttp.ClientSession() as session:

        async def start(**changes: Any) -> Operator:
            settings = {"budget": {"total": 5}, "default_class": "bulk", "classes": CLASSES} | changes
            return Operator(await run_proxy(**settings), session)

        yield start


async def bulk_client(proxy: Running) -> WireClient:
    return await proxy.connect(application_name="import")


def state(proxy: Running, class_name: str = "bulk") -> ClassState:
    return proxy.controller.state_of(class_name)


async def is_running(proxy: Running, class_name: str = "bulk") -> None:
    await eventually(lambda: state(proxy, class_name) is ClassState.RUNNING)


async def test_waiters_of_a_paused_class_keep_their_places_and_others_are_served(operate: Operate) -> None:
    operator = await operate()
    proxy = operator.proxy
    clients = [await bulk_client(proxy) for _ in range(6)]
    await operator.order("pause")
    for place, client in enumerate(clients):
        await client.send(query(f"select '{place}', pg_sleep(0.02)"))
        await eventually(lambda place=place: proxy.waiting() == place + 1)
    web = await proxy.psycopg(application_name="web-1")
    assert await (await web.execute("select 1")).fetchone() == (1,)
    await web.close()
    assert proxy.waiting() == 6
    served: list[str] = []

    async def wait(client: WireClient) -> None:
        served.append((await client.answer()).rows[0][0] or "")

    waits = [asyncio.create_task(wait(client)) for client in clients]
    await operator.order("resume")
    await asyncio.gather(*waits)
    # Three at a time, and a slow one may be overtaken: at most two of those before are still at work.
    assert all(at >= int(place) - 2 for at, place in enumerate(served)), served


async def test_who_works_in_a_paused_class_finishes_its_transaction(operate: Operate) -> None:
    operator = await operate()
    client = await operator.proxy.psycopg(application_name="import")
    async with client.transaction():
        await client.execute("select 1")
        await operator.order("pause")
        await client.execute("select 2")
    assert (await operator.status())["used"] == 0
    await operator.order("resume")
    await client.close()


async def test_a_rejecting_class_refuses_waiters_and_newcomers_in_words(operate: Operate) -> None:
    operator = await operate()
    proxy = operator.proxy
    newcomer = await asyncpg.connect(
        proxy.url().partition("?")[0], server_settings={"application_name": "import"}, timeout=10
    )
    waiting = await bulk_client(proxy)
    await operator.order("pause")
    await waiting.send(query("select 1"))
    await eventually(lambda: proxy.waiting() == 1)
    await operator.order("reject")
    error = (await waiting.answer()).error
    assert isinstance(error, ErrorFields)
    assert error.code == "53300"
    assert "reason=class_rejecting" in (error.detail or "")
    with pytest.raises(asyncpg.TooManyConnectionsError, match='class "bulk" is switched off') as refusal:
        await newcomer.fetch("select 1")
    assert "pgheadroom resume bulk" in (refusal.value.hint or "")
    await operator.order("resume")
    assert await newcomer.fetchval("select 7") == 7
    await newcomer.close()


async def test_draining_tells_how_much_is_left_until_nothing_is(operate: Operate) -> None:
    operator = await operate()
    client = await bulk_client(operator.proxy)
    await client.query("begin")
    assert (await operator.order("drain"))["state"] == "draining"
    assert (await operator.status())["used"] == 1
    waiting = await bulk_client(operator.proxy)
    await waiting.send(query("select 'kept its place'"))
    await client.query("commit")
    await eventually(lambda: operator.proxy.controller.in_use == 0)
    status = await operator.status()
    assert (status["state"], status["used"], status["waiting"]) == ("draining", 0, 1)
    await operator.order("resume")
    assert (await waiting.answer()).value == "kept its place"


async def test_an_order_is_in_effect_well_within_a_second(operate: Operate) -> None:
    """From sending the order until a client that begins afterwards waits, and from a resume until it is served."""
    operator = await operate()
    proxy = operator.proxy
    client = await bulk_client(proxy)
    seconds = []
    for _ in range(5):
        ordered = time.monotonic()
        await operator.order("pause")
        await client.send(query("select 1"))
        await eventually(lambda: proxy.waiting() == 1)
        seconds.append(time.monotonic() - ordered)
        ordered = time.monotonic()
        await operator.order("resume")
        await client.answer()
        seconds.append(time.monotonic() - ordered)
    assert max(seconds) < 1.0, seconds


async def test_a_pause_for_a_while_ends_by_itself_and_says_so(operate: Operate) -> None:
    operator = await operate()
    client = await bulk_client(operator.proxy)
    with capture_logs() as lines:
        ordered = time.monotonic()
        await operator.order("pause", **{"for": "300ms"})
        answer = await client.query("select 'later'")
        waited = time.monotonic() - ordered
    assert answer.value == "later"
    assert 0.3 <= waited < 1.3
    ended = next(line for line in lines if line["event"] == "switch_ended")
    assert (ended["class_name"], ended["was"], ended["by"]) == ("bulk", "paused", "anna")
    assert (await operator.status())["switch"] is None


async def test_who_resumed_a_class_is_told_when_nothing_is_in_force_any_more(operate: Operate) -> None:
    operator = await operate()
    await operator.order("pause")
    await operator.order("resume", reason="storm is over")
    seen = await operator.status()
    assert seen["switch"] is None
    last = seen["last_switch"]
    assert (last["state"], last["by"], last["reason"]) == ("running", "anna", "storm is over")


async def test_a_later_order_replaces_the_end_of_the_one_before(operate: Operate) -> None:
    operator = await operate()
    await operator.order("pause", **{"for": "100ms"})
    await operator.order("reject")
    await operator.order("pause", "web", **{"for": "150ms"})
    await is_running(operator.proxy, "web")
    assert state(operator.proxy) is ClassState.REJECTING


class TestRestart:
    async def test_a_pause_is_in_force_before_the_first_client_is_served(
        self, operate: Operate, tmp_path: Path
    ) -> None:
        kept = {"state_file": str(tmp_path / "orders.json")}
        first = await operate(switches=kept)
        await first.order("pause")
        await first.proxy.process.drain_and_stop()
        second = await operate(switches=kept)
        assert state(second.proxy) is ClassState.PAUSED
        switch = (await second.status())["switch"]
        assert (switch["by"], switch["reason"]) == ("anna", "storm")
        client = await bulk_client(second.proxy)
        await client.send(query("select 'after all'"))
        await eventually(lambda: second.proxy.waiting() == 1)
        await second.order("resume")
        assert (await client.answer()).value == "after all"
        await second.proxy.process.drain_and_stop()
        assert state((await operate(switches=kept)).proxy) is ClassState.RUNNING

    async def test_the_order_is_on_the_disk_when_it_is_answered(self, operate: Operate, tmp_path: Path) -> None:
        path = tmp_path / "orders.json"
        operator = await operate(switches={"state_file": str(path)})
        for order, expected in [("pause", ["paused"]), ("drain", ["draining"]), ("resume", [])]:
            answer = await operator.order(order)
            assert answer["not_saved"] is None
            assert [one["state"] for one in json.loads(path.read_text())["switches"]] == expected

    async def test_what_ended_while_the_process_was_down_is_not_restored(
        self, operate: Operate, tmp_path: Path
    ) -> None:
        kept = {"state_file": str(tmp_path / "orders.json")}
        first = await operate(switches=kept)
        until = (await first.order("pause", **{"for": "50ms"}))["until"]
        # Its end comes too late for this process: the clock of orders is a wall clock, and this one stands still.
        first.proxy.process.steering._now = lambda: 0.0
        await first.proxy.process.drain_and_stop()
        await eventually(lambda: time.time() > until)
        with capture_logs() as lines:
            second = await operate(switches=kept)
        assert state(second.proxy) is ClassState.RUNNING
        assert (await second.status())["switch"] is None
        # Not for a moment either: restored and then ended, it would have refused the first clients.
        events = [line["event"] for line in lines if "switch" in line["event"]]
        assert events == ["switch_ended_meanwhile"]

    @pytest.mark.alone  # the restart has to be over before the pause is
    async def test_what_goes_on_after_a_restart_ends_at_its_time(self, operate: Operate, tmp_path: Path) -> None:
        kept = {"state_file": str(tmp_path / "orders.json")}
        first = await operate(switches=kept)
        await first.order("pause", **{"for": "3s"})
        await first.proxy.process.drain_and_stop()
        second = await operate(switches=kept)
        assert state(second.proxy) is ClassState.PAUSED
        await is_running(second.proxy)

    async def test_a_damaged_file_is_said_and_kept_and_the_proxy_serves(self, operate: Operate, tmp_path: Path) -> None:
        path = tmp_path / "orders.json"
        path.write_text('{"version": 1, "switches": [{"cl')
        with capture_logs() as lines:
            operator = await operate(switches={"state_file": str(path)})
        assert [line["event"] for line in lines if line["log_level"] == "error"] == ["orders_unreadable"]
        assert (tmp_path / "orders.json.unreadable").exists()
        assert await (await bulk_client(operator.proxy)).value("select 1") == "1"

    async def test_orders_that_cannot_be_saved_are_in_force_and_say_so(self, operate: Operate, tmp_path: Path) -> None:
        operator = await operate(switches={"state_file": str(tmp_path / "nowhere" / "orders.json")})
        answer = await operator.order("pause")
        assert "nowhere" in answer["not_saved"]
        assert state(operator.proxy) is ClassState.PAUSED


class TestFlagFiles:
    async def test_a_file_pauses_and_its_removal_resumes(self, operate: Operate, tmp_path: Path) -> None:
        operator = await operate(switches={"dir": str(tmp_path)})
        client = await bulk_client(operator.proxy)
        written = time.monotonic()
        (tmp_path / "pause-bulk").write_text("import storm\n")
        await eventually(lambda: state(operator.proxy) is ClassState.PAUSED)
        assert time.monotonic() - written < 1.0
        await eventually(
            lambda: operator.proxy.process.steering.board.flags["bulk"].reason == "import storm"
        )  # read again where the file was seen before it was written
        await client.send(query("select 1"))
        await eventually(lambda: operator.proxy.waiting() == 1)
        removed = time.monotonic()
        (tmp_path / "pause-bulk").unlink()
        await client.answer()
        assert time.monotonic() - removed < 1.0

    async def test_a_file_is_obeyed_from_the_start_and_no_order_goes_past_it(
        self, operate: Operate, tmp_path: Path
    ) -> None:
        (tmp_path / "reject-bulk").touch()
        operator = await operate(switches={"dir": str(tmp_path)})
        assert state(operator.proxy) is ClassState.REJECTING
        with pytest.raises(AssertionError, match=r"rejecting by a file; remove .*reject-bulk"):
            await operator.order("resume")

    async def test_a_file_counts_for_a_class_that_comes_by_a_reload(self, operate: Operate, tmp_path: Path) -> None:
        """The directory had not changed, so its files were not looked at again: the class that somebody had stopped
        before it came was let loose."""
        (tmp_path / "pause-cron").touch()
        operator = await operate(switches={"dir": str(tmp_path)})
        operator.proxy.reload(classes=CLASSES | {"cron": {"limit": 1}})
        assert state(operator.proxy, "cron") is ClassState.PAUSED

    async def test_a_file_goes_on_counting_for_a_class_that_is_renamed(self, operate: Operate, tmp_path: Path) -> None:
        """The rename resumed what the file had paused, without a word."""
        (tmp_path / "pause-bulk").write_text("import storm")
        operator = await operate(switches={"dir": str(tmp_path)})
        with capture_logs() as lines:
            operator.proxy.reload(
                default_class="jobs", classes={"web": CLASSES["web"], "jobs": {"limit": 3, "renamed_from": "bulk"}}
            )
        assert state(operator.proxy, "jobs") is ClassState.PAUSED
        assert not [line for line in lines if line["event"] in ("switch", "switch_file_of_no_class")]
        (tmp_path / "pause-bulk").unlink()
        await is_running(operator.proxy, "jobs")

    async def test_a_file_of_a_class_that_left_is_said_and_counts_again_when_it_is_back(
        self, operate: Operate, tmp_path: Path
    ) -> None:
        (tmp_path / "pause-web").touch()
        operator = await operate(switches={"dir": str(tmp_path)})
        with capture_logs() as lines:
            operator.proxy.reload(classes={"bulk": CLASSES["bulk"]})
        assert [line["event"] for line in lines].count("switch_file_of_no_class") == 1
        operator.proxy.reload(classes=CLASSES)
        assert state(operator.proxy, "web") is ClassState.PAUSED

    async def test_a_file_of_no_class_is_said_once(self, operate: Operate, tmp_path: Path) -> None:
        (tmp_path / "pause-bulkk").touch()
        with capture_logs() as lines:
            operator = await operate(switches={"dir": str(tmp_path)})
            (tmp_path / "pause-bulk").touch()
            await eventually(lambda: state(operator.proxy) is ClassState.PAUSED)
        assert [line["event"] for line in lines].count("switch_file_of_no_class") == 1


class TestAudit:
    async def test_every_order_and_every_end_leaves_a_line(self, operate: Operate, tmp_path: Path) -> None:
        path = tmp_path / "audit.jsonl"
        operator = await operate(switches={"audit_file": str(path), "dir": str(tmp_path)})
        with capture_logs() as logged:
            await operator.order("pause", **{"for": "50ms"})
            await is_running(operator.proxy)
            (tmp_path / "drain-web").touch()
            await eventually(lambda: state(operator.proxy, "web") is ClassState.DRAINING)
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert [line["event"] for line in lines] == ["switch", "switch_ended", "switch"]
        first, _, flag = lines
        assert {key: first[key] for key in ("class_name", "order", "state", "by", "reason", "source")} == {
            "class_name": "bulk", "order": "pause", "state": "paused", "by": "anna", "reason": "storm",
            "source": "http 127.0.0.1",
        }  # fmt: skip
        assert first["until"]
        assert (flag["order"], flag["source"]) == ("drain", str(tmp_path / "drain-web"))
        in_log = [line for line in logged if line["event"].startswith("switch")]
        assert [line["event"] for line in in_log] == ["switch", "switch_ended", "switch"]
        assert all(line["log_level"] == "warning" for line in in_log)

    async def test_an_audit_file_that_cannot_be_written_stops_no_order(self, operate: Operate, tmp_path: Path) -> None:
        operator = await operate(switches={"audit_file": str(tmp_path)})
        with capture_logs() as lines:
            await operator.order("pause")
        assert state(operator.proxy) is ClassState.PAUSED
        assert "audit_not_written" in [line["event"] for line in lines]


async def test_orders_reach_a_class_under_load_and_nobody_is_lost(operate: Operate) -> None:
    """Clients of psycopg work through pauses, drains and refusals; each gets an answer to everything it asked."""
    operator = await operate()
    proxy = operator.proxy
    stop = asyncio.Event()
    done = {"served": 0, "refused": 0}

    async def work() -> None:
        client = await proxy.psycopg(application_name="import")
        while not stop.is_set():
            try:
                await client.execute("select pg_sleep(0.002)")
                done["served"] += 1
            except psycopg.errors.TooManyConnections as refusal:
                done["refused"] += "class_rejecting" in (refusal.diag.message_detail or "")
                await asyncio.sleep(0.005)
        await client.close()

    workers = [asyncio.create_task(work()) for _ in range(10)]
    for order in ("pause", "resume", "reject", "resume", "drain", "resume") * 3:
        await operator.order(order)
        if order in ("pause", "drain"):
            await eventually(lambda: proxy.controller.in_use == 0)
        else:
            before = done["served"] + done["refused"]
            await eventually(lambda before=before: done["served"] + done["refused"] > before + 20)
    stop.set()
    await asyncio.gather(*workers)
    assert done["refused"] > 0
