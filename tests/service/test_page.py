"""The live page in a real browser, over the real HTTP server and a view that is only numbers."""

from dataclasses import replace
from datetime import UTC

import pytest

from proxy.admission.classes import ClassSettings, ClassState, Mode
from proxy.admission.holds import HoldBounds
from proxy.service.http import HttpServer, HttpSettings
from proxy.service.schedule import Effect, Window
from proxy.service.view import ScheduleNow, Unmatched, UnmatchedName
from tests.support.browser import CHROMIUM, open_page
from tests.support.fake_view import SETTINGS, STARTED, FakeView, bad_day

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

BULK = "[...document.querySelectorAll('.class')].find(row => row.querySelector('.name').textContent.startsWith('bulk'))"


def button(label):
    return f"[...{BULK}.querySelectorAll('.act button')].find(one => one.textContent === '{label}')"


async def give_order(page, label, length=""):
    await page.evaluate(f"{button(label)}.click()")
    await page.evaluate("document.getElementById('by').value = 'anna'")
    await page.evaluate("document.getElementById('reason').value = 'import storm'")
    await page.evaluate(f"document.getElementById('length').value = '{length}'")
    await page.evaluate("document.getElementById('send').click()")


@pytest.fixture
def view():
    return bad_day()


@pytest.fixture
async def server(view):
    server = HttpServer(view, HttpSettings(port=0))
    yield server
    await server.stop()


@pytest.fixture
async def page(server, tmp_path):
    port = await server.start()
    async with open_page(f"http://127.0.0.1:{port}/", tmp_path / "profile") as page:
        await page.until("document.querySelectorAll('.class').length === 4")
        yield page


async def test_the_page_shows_the_bad_day_and_nothing_is_blocked(page):
    assert await page.evaluate(f"{BULK}.querySelector('.count').textContent") == "40"
    assert "28 borrowed" in await page.evaluate(f"{BULK}.textContent")
    assert await page.evaluate("document.querySelectorAll('#chart path').length") == 4
    assert page.problems == []


async def test_what_is_worth_a_look_is_told(page):
    told = await page.evaluate("document.getElementById('warnings').textContent")
    assert "budget.keep_free: 7 connections are not the proxy's" in told
    assert "Past the proxy: pgadmin 4 of postgres from 10.0.0.9: 5" in told
    assert "import of app from 10.0.0.7 in bulk probably waits for itself" in told
    first = await page.evaluate("document.querySelector('#identities-rows tr').textContent")
    assert first == "bulkimportapp10.0.0.7612536"
    assert page.problems == []


async def test_the_numbers_move_without_a_reload(page, view):
    view.ask("web", 3)

    await page.until("document.getElementById('headroom-note').textContent.startsWith('46 of 50')")


async def test_pause_from_the_page(page, view):
    await give_order(page, "Pause")

    await page.until(f"{BULK}.querySelector('.ordered').textContent.includes('anna')")
    assert view.snapshot().of_class("bulk").state is ClassState.PAUSED
    assert await page.evaluate(f"{button('Pause')}.disabled")
    assert not await page.evaluate(f"{button('Resume')}.disabled")
    assert not await page.evaluate("document.getElementById('dialog').open")


@pytest.mark.parametrize(
    ("label", "state"),
    [("Drain", ClassState.DRAINING), ("Reject", ClassState.REJECTING)],
)
async def test_the_other_orders_from_the_page_and_back(page, view, label, state):
    await give_order(page, label, length="15m")

    await page.until(f"{BULK}.querySelector('.pill').textContent === '{state.value}'")
    switch = view.switches["bulk"]
    assert (switch.state, switch.until - switch.at) == (state, 900)
    await give_order(page, "Resume")
    await page.until(f"{BULK}.querySelector('.pill').hidden")
    assert view.snapshot().of_class("bulk").state is ClassState.RUNNING


async def test_the_page_asks_for_the_token_where_orders_need_one(view, tmp_path):
    server = HttpServer(view, HttpSettings(port=0, switch_token="correct-horse"))
    port = await server.start()
    async with open_page(f"http://127.0.0.1:{port}/", tmp_path / "profile") as page:
        await page.until("document.querySelectorAll('.class').length === 4")
        await give_order(page, "Pause")
        await page.until("document.getElementById('problem').textContent.includes('http.switch_token')")
        assert view.snapshot().of_class("bulk").state is ClassState.RUNNING
        await page.evaluate("document.getElementById('token').value = 'correct-horse'")
        await page.evaluate("document.getElementById('send').click()")
        await page.until(f"{BULK}.querySelector('.ordered').textContent.includes('anna')")
    await server.stop()


async def test_the_page_shows_what_a_schedule_does_and_what_is_set(page, view):
    window = Window(frozenset({0}), 540, 1080, UTC, 10, None, "customers first", "mon 9:00-18:00 UTC")
    view.schedules["bulk"] = ScheduleNow(Effect(10, None, (window,)), STARTED, Effect())
    view.order_set({"classes.web.limit": 9}, by="anna", reason="rush")

    await page.until(
        f"{BULK}.querySelector('.ordered').textContent.includes('limit 10 by schedule (mon 9:00-18:00 UTC)')"
    )
    assert "customers first" in await page.evaluate(f"{BULK}.querySelector('.ordered').textContent")
    shown = await page.evaluate("document.getElementById('overrides').textContent")
    assert "classes.web.limit is 9 instead of 30, by anna" in shown
    assert ": rush" in shown


async def test_a_class_that_only_warns_shows_the_limit_it_would_have(tmp_path):
    only_warns = ClassSettings("new", mode=Mode.WARN, priority=5, limit=2, queue_max=1)
    view = FakeView(replace(SETTINGS, classes=(*SETTINGS.classes, only_warns)))
    view.ask("new", 5)
    row = (
        "[...document.querySelectorAll('.class')].find(one => one.querySelector('.name').textContent.startsWith('new'))"
    )
    server = HttpServer(view, HttpSettings(port=0))
    port = await server.start()
    async with open_page(f"http://127.0.0.1:{port}/", tmp_path / "profile") as page:
        await page.until("document.querySelectorAll('.class').length === 5")
        assert await page.evaluate(f"{row}.querySelector('.pill').textContent") == "only warns"
        facts = await page.evaluate(f"{row}.querySelector('.facts').textContent")
        assert facts == "5 used0 reserved2 limit5 borrowed2 would have been refused1 would have queued"
        assert page.problems == []
    await server.stop()


async def test_what_has_happened_to_a_class_is_told_and_nothing_else(page, view):
    more = f"{BULK}.querySelector('details ul').textContent"
    await page.evaluate(f"{BULK}.querySelector('details').open = true")
    await page.until(f"{more} !== ''")
    assert await page.evaluate(more) == "refused so far: queue_full 10, max_clients 2"

    view.bounds["bulk"] = HoldBounds(query=300.0)
    view.seen_measures.holds_ended["bulk", "import", "query"] += 7
    view.seen_measures.tagged_units["bulk", "not_lower"] += 3

    await page.until(f"{more}.includes('import was cut off 7 times (query)')")
    told = await page.evaluate(more)
    assert "bounds of holds: query 5 minimport was cut off" in told, "no bound but those that are set"
    assert "units of work with a tag: not_lower 3" in told
    assert "7 cut off (query)" in await page.evaluate(f"{BULK}.querySelector('.facts').textContent")


async def test_of_several_upstreams_each_class_and_each_trouble_says_whose_it_is(page, view):
    (first,) = view.upstreams()
    assert await page.evaluate(f"{BULK}.querySelector('.upstream').hidden")
    only_reports = replace(first.budget, classes=(replace(first.budget.of_class("bulk"), name="reports"),))
    view.others = (replace(first, name="replica", budget=only_reports),)
    view.locks = 3

    await page.until(f"!{BULK}.querySelector('.upstream').hidden")
    assert await page.evaluate(f"{BULK}.querySelector('.upstream').textContent") == "main"
    told = await page.evaluate("document.getElementById('upstreams').innerText")
    assert "3 server processes waiting for a lock" in told.split("replica")[0]
    assert page.problems == []


async def test_a_name_chosen_by_a_client_stays_text(page, view):
    view.seen_unmatched = Unmatched(1, (UnmatchedName("<img src=x onerror=document.title='taken'>", 1, 0.0),))

    await page.until("document.getElementById('unmatched-names').textContent.includes('onerror')")
    assert await page.evaluate("document.querySelector('#unmatched-names img') === null")


async def test_a_proxy_that_is_gone_is_said_and_the_last_numbers_stay(page, server):
    await server.stop()

    await page.until("!document.getElementById('lost').hidden")
    assert "does not answer" in await page.evaluate("document.getElementById('lost').textContent")
    assert await page.evaluate(f"{BULK}.querySelector('.count').textContent") == "40"


async def test_nobody_looking_means_no_polling(page, view):
    await page.evaluate("Object.defineProperty(document, 'visibilityState', {get: () => 'hidden'})")
    await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    await page.evaluate(
        "window.asked = 0; const real = fetch; fetch = (...all) => { asked += 1; return real(...all); }"
    )

    assert await page.evaluate("new Promise(done => setTimeout(() => done(asked), 2500))") == 0
