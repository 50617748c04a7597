"""Slots of the class `internal`, for what the proxy does of its own."""

import asyncio
from itertools import count
from types import SimpleNamespace

import pytest

from proxy.admission.classes import INTERNAL_CLASS, BudgetSettings, ClassSettings, ClientId
from proxy.admission.controller import Controller
from proxy.admission.decisions import RefusalReason
from proxy.session import clock
from proxy.session.gate import Gate
from proxy.session.internal import InternalSlot
from proxy.session.measures import Measures


@pytest.fixture
async def upstream():
    """One slot, for the class internal."""
    loop = asyncio.get_running_loop()
    settings = BudgetSettings(1, classes=(ClassSettings(INTERNAL_CLASS, priority=0, reserved=1, limit=1),))
    gate = Gate(Controller(settings, now=clock.now()), Measures(), loop)
    ids = count(1)
    desk = SimpleNamespace(loop=loop, next_client_id=lambda: ClientId(next(ids)))
    yield SimpleNamespace(desk=desk, gate=gate)
    gate.close()


async def hold(upstream, entered: asyncio.Event) -> None:
    async with InternalSlot(upstream):
        entered.set()
        await asyncio.Event().wait()


async def test_a_query_that_is_cancelled_while_it_waits_leaves_the_queue(upstream):
    """A grant that came later met a cancelled future, and the slot was never given back."""
    entered = asyncio.Event()
    async with InternalSlot(upstream):
        waiting = asyncio.create_task(hold(upstream, entered))
        await asyncio.sleep(0)
        assert upstream.gate.controller.waiting == 1
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert upstream.gate.controller.waiting == 0
    assert not entered.is_set()
    assert upstream.gate.controller.in_use == 0


async def test_a_grant_in_the_same_turn_as_the_cancellation_is_given_back(upstream):
    first = InternalSlot(upstream)
    await first.__aenter__()
    waiting = asyncio.create_task(hold(upstream, asyncio.Event()))
    await asyncio.sleep(0)
    await first.__aexit__()
    assert upstream.gate.controller.in_use == 1
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert upstream.gate.controller.in_use == 0


@pytest.mark.parametrize("is_refused", [False, True])
async def test_an_answer_that_comes_between_a_timeout_and_its_task_takes_no_slot(upstream, is_refused):
    """A timeout cancels the wait at once, and the task that waited learns it a moment later.

    A slot that was given back in between went to nobody and was lost for good: every canary that is late could do that.
    """
    crashes: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: crashes.append(context))
    first = InternalSlot(upstream)
    await first.__aenter__()
    waiting = asyncio.create_task(hold(upstream, asyncio.Event()))
    await asyncio.sleep(0)
    waiting.cancel()
    if is_refused:
        upstream.gate.refuse_all_waiting(RefusalReason.SHUTTING_DOWN)
    await first.__aexit__()
    await asyncio.gather(waiting, return_exceptions=True)
    assert (upstream.gate.controller.in_use, upstream.gate.controller.waiting, crashes) == (0, 0, [])
