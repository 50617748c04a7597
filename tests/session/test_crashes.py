"""A bug of ours ends one connection: it is counted, keeps no slot, and keeps nobody else from an answer."""

import asyncio
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from proxy.admission.classes import BudgetSettings, ClassSettings, ClientId
from proxy.admission.controller import Controller
from proxy.service.process import Process
from proxy.session import clock
from proxy.session.crashes import count_crashes
from proxy.session.gate import Gate
from proxy.session.measures import Measures
from tests.support.eventually import eventually
from tests.support.running import Running, RunProxy, config_of
from tests.support.wire_client import query


class Guest:
    """Asks for a slot; `crashes` is raised by whatever it is told."""

    def __init__(self, number: int, gate: Gate, crashes: Exception | None = None) -> None:
        self.id = ClientId(number)
        self.told: list[str] = []
        self._gate = gate
        self._crashes = crashes

    def _tell(self, what: str) -> None:
        self.told.append(what)
        if self._crashes is not None:
            raise self._crashes

    def granted(self, grant: object) -> None:
        self._tell("granted")

    def refused(self, refusal: object) -> None:
        self._tell("refused")

    def still_waiting(self, event: object) -> None:
        self._tell("still waiting")

    def crashed(self) -> None:
        self.told.append("crashed")
        self._gate.release(self.id, clock.now())


@pytest.fixture
async def desk():
    """One slot."""
    loop, measures = asyncio.get_running_loop(), Measures()
    count_crashes(loop, measures)
    settings = BudgetSettings(1, classes=(ClassSettings("all", priority=1, limit=1),))
    gate = Gate(Controller(settings, now=clock.now()), measures, loop)
    yield SimpleNamespace(gate=gate, measures=measures, loop=loop)
    gate.close()
    loop.set_exception_handler(None)


async def test_a_guest_whose_grant_crashes_gives_its_slot_back_and_the_next_is_served(desk):
    first, second, third = Guest(1, desk.gate), Guest(2, desk.gate, ZeroDivisionError("ours")), Guest(3, desk.gate)
    for guest in (first, second, third):
        desk.gate.request(guest, "all", "flow")
    with capture_logs() as lines:
        desk.gate.release(first.id, clock.now())
        await asyncio.sleep(0)
    assert (second.told, third.told) == (["granted", "crashed"], ["granted"])
    assert [line["event"] for line in lines] == ["callback_crashed"]
    assert desk.measures.crashes == 1


async def test_what_the_machine_lacks_is_no_crash_of_ours(desk, caplog):
    desk.loop.call_exception_handler({"message": "accept() out of system resource", "exception": OSError(24, "files")})
    assert desk.measures.crashes == 0
    assert "out of system resource" in caplog.text


async def test_a_client_that_crashed_is_gone_with_its_slot(run_proxy: RunProxy) -> None:
    proxy: Running = await run_proxy(budget={"total": 2})
    client = await proxy.connect()
    await client.query("begin")
    assert proxy.controller.in_use == 1
    (session,) = proxy.desk.clients
    session.crashed()
    assert await client.is_at_end()
    other = await proxy.connect()
    assert await other.value("select 1") == "1"


async def test_a_callback_that_crashes_is_counted_by_the_process(run_proxy: RunProxy) -> None:
    """By one that was started as it is served: proxies of tests tell crashes to their test instead."""
    other = await run_proxy()
    process = Process(config_of(other.settings, other.folder))
    await process.start()
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await eventually(lambda: process.measures.crashes == 1)
    await process.drain_and_stop()


async def test_a_waiting_client_whose_connection_is_cut_by_a_crash_leaves_the_queue(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(budget={"total": 2}, classes={"all": {"limit": 1}})
    holder, waiting = await proxy.connect(), await proxy.connect()
    await holder.query("begin")
    await waiting.send(query("select 1"))
    await eventually(lambda: proxy.waiting() == 1)
    for session in list(proxy.desk.clients):
        if not session.holds_slot:
            session.crashed()
    assert await waiting.is_at_end()
    await eventually(lambda: proxy.waiting() == 0)
