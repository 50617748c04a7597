"""Reload while clients work: nobody is dropped, places are kept, and what changes is told class by class."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from structlog.testing import capture_logs

from proxy.admission.classes import ClassState
from proxy.service.config.loading import load_config, load_config_text
from proxy.service.config.model import Config
from proxy.service.config_watch import ConfigWatch
from proxy.service.findings import BudgetCannotHold
from proxy.service.reload_report import ReloadReport
from proxy.session import clock
from tests.support.eventually import eventually
from tests.support.running import Running, RunProxy, config_of, merged
from tests.support.servers import Postgres
from tests.support.wire_client import WireClient, query

BUDGET = {"total": 8}
WATCHED = "reload: {watch: true}\nupstream: {url: postgresql://h/d}\ndefault_class: a\nclasses: {a: {limit: 1}}\n"
BULK = {"limit": 2, "match": [{"application_name": "import*"}]}


def report(proxy: Running, **changes: Any) -> ReloadReport:
    """What a reload from here to there would say."""
    return proxy.process.plan(config_of(merged(proxy.settings, changes), proxy.folder))


def rows(found: ReloadReport) -> list[tuple[object, ...]]:
    return [(one.class_name, one.setting, one.before, one.after, one.change, one.in_use) for one in found.changes]


async def bulk_client(proxy: Running) -> WireClient:
    return await proxy.connect(application_name="import-1")


async def waiting_in_order(proxy: Running, clients: list[WireClient]) -> list[WireClient]:
    """Each asks for its own number once those before it wait."""
    for place, client in enumerate(clients):
        await client.send(query(f"select {place}"))
        await eventually(lambda place=place: proxy.waiting() == place + 1)
    return clients


async def test_the_difference_says_who_gains_who_loses_and_what_is_in_use(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(budget=BUDGET, classes={"bulk": BULK, "all": {"limit": 4, "queue": {"timeout": "5s"}}})
    client = await bulk_client(proxy)
    await client.query("begin")
    found = report(
        proxy,
        budget={"total": 9},
        classes={"bulk": BULK | {"limit": 1}, "all": {"limit": 6, "queue": {"timeout": "8s"}}, "new": {"limit": 1}},
        listen={"port": 6439},
        limits={"max_message_bytes": "1MiB"},
    )
    assert rows(found) == [
        ("", "listen.port", "0", "6439", "after a restart", None),
        ("", "budget.total", "8", "9", "gains 1", None),
        ("", "limits.max_message_bytes", "1GiB", "1MiB", "for new connections", None),
        ("bulk", "limit", "2", "1", "loses 1", 1),
        ("all", "limit", "4", "6", "gains 2", 0),
        ("all", "queue.timeout", "5s", "8s", "", 0),
        ("new", "class", "", "limit 1, reserved 0", "new", None),
    ]
    assert found.config_hash != proxy.process.config_hash
    assert proxy.controller.settings.total == 8
    await client.query("rollback")


async def test_the_difference_shows_no_secret(run_proxy: RunProxy, postgres: Postgres) -> None:
    """It goes to the terminal, into the log and into the audit."""
    proxy = await run_proxy(http={"switch_token": "correct-horse"}, auth={"users": {"app": "hunter2-old"}})
    url = postgres.url("app", password="hunter2-url")
    found = report(
        proxy, http={"switch_token": "battery-staple"}, auth={"users": {"app": "hunter2-new"}}, upstream={"url": url}
    )
    said = "\n".join(found.lines())
    assert {"http.switch_token", "auth.users", "upstream.url"} <= {one.setting for one in found.changes}
    assert not [secret for secret in ("horse", "battery", "hunter2") if secret in said]


async def test_a_renamed_class_goes_on_with_holders_waiters_and_orders(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(budget=BUDGET, classes={"bulk": BULK, "all": {"limit": 2}})
    holders = [await bulk_client(proxy) for _ in range(2)]
    for holder in holders:
        await holder.query("begin")
    waiters = await waiting_in_order(proxy, [await bulk_client(proxy) for _ in range(3)])
    proxy.process.steering.set({"classes.bulk.queue.max": 50}, by="anna", reason="", source="test")
    proxy.process.steering.switch("bulk", ClassState.PAUSED, by="anna", reason="", source="test")
    said = proxy.reload(classes={"batch": BULK | {"renamed_from": "bulk"}, "all": {"limit": 2}})
    assert "batch.class: bulk -> batch (renamed)" in said
    assert proxy.waiting() == 3
    assert proxy.controller.state_of("batch") is ClassState.PAUSED
    assert [one.order.key for one in proxy.process.steering.overrides()] == ["classes.batch.queue.max"]
    assert (await holders[0].query("commit")).tags == ["COMMIT"]
    proxy.process.steering.switch("batch", ClassState.RUNNING, by="anna", reason="", source="test")
    assert [(await waiter.answer()).value for waiter in waiters] == ["0", "1", "2"]
    assert {client.class_name for client in proxy.desk.clients} == {"batch"}
    await holders[1].query("commit")
    assert await holders[1].value("select 1") == "1"
    assert proxy.reload(classes={"batch": BULK | {"renamed_from": "bulk"}, "all": {"limit": 3}})


async def test_who_waits_in_a_removed_class_is_served_in_the_class_that_it_belongs_to_now(run_proxy: RunProxy) -> None:
    """By its time of arrival: the second of bulk came between the two of all. Not one is refused."""
    classes = {"bulk": BULK | {"limit": 1}, "all": {"limit": 1, "queue": {"timeout": "20s"}}}
    proxy = await run_proxy(budget=BUDGET, classes=classes)
    holders = [await bulk_client(proxy), await proxy.connect()]
    for holder in holders:
        await holder.query("begin")
    clients = [await proxy.connect(), await bulk_client(proxy), await proxy.connect(), await bulk_client(proxy)]
    waiters = await waiting_in_order(proxy, clients)
    order: list[int] = []

    async def work(place: int) -> None:
        assert (await waiters[place].answer()).value == str(place)
        order.append(place)

    said = proxy.reload(classes={"all": classes["all"]})
    assert any("who waits does so there, by its time of arrival" in line for line in said)
    assert proxy.waiting() == 4
    assert {client.class_name for client in proxy.desk.clients} == {"all"}
    counts = {one.name: (one.used, one.waiting) for one in proxy.controller.snapshot(clock.now()).classes}
    assert (counts["bulk"], counts["all"]) == ((1, 0), (1, 4)), "what it held is its own until it is given back"
    async with asyncio.TaskGroup() as group:
        for place in range(4):
            group.create_task(work(place))
        await holders[1].query("commit")
    assert order == [0, 1, 2, 3]
    assert (await holders[0].query("commit")).tags == ["COMMIT"]
    assert proxy.controller.in_use == 0


async def test_only_whom_the_other_queue_has_no_room_for_is_refused_in_its_words(
    run_proxy: RunProxy,
) -> None:
    proxy = await run_proxy(budget=BUDGET, classes={"bulk": BULK | {"limit": 1}, "all": {"limit": 1}})
    holders = [await bulk_client(proxy), await proxy.connect()]
    for holder in holders:
        await holder.query("begin")
    waiters = await waiting_in_order(proxy, [await bulk_client(proxy) for _ in range(3)])
    proxy.reload(classes={"all": {"limit": 1, "queue": {"timeout": "20s", "max": 2}}})
    error = (await waiters[2].answer()).error
    assert error is not None
    assert error.message == 'class "all" is full: 1 of 1 server connections in use, 2 clients waiting'
    assert error.hint == "raise classes.all.limit or classes.all.queue.max"
    await holders[1].query("commit")
    assert [(await waiter.answer()).value for waiter in waiters[:2]] == ["0", "1"]
    assert await waiters[2].value("select 'goes on'") == "goes on"
    await holders[0].query("commit")


async def test_who_waits_for_a_place_in_a_removed_class_comes_in_with_the_other(run_proxy: RunProxy) -> None:
    """A mutex is dissolved: its guest and whoever waited to be the next belong to a class with room for both."""
    mutex = BULK | {"max_clients": 1, "queue": {"timeout": "20s"}}
    proxy = await run_proxy(budget=BUDGET, classes={"bulk": mutex, "all": {"limit": 2, "max_clients": 2}})
    guest, waiter = await bulk_client(proxy), asyncio.create_task(bulk_client(proxy))
    await eventually(lambda: proxy.places.waiting("bulk") == 1)
    proxy.reload(classes={"all": {"limit": 2, "max_clients": 2, "queue": {"timeout": "20s"}}})
    second = await waiter
    assert [await one.value("select 1") for one in (guest, second)] == ["1", "1"]
    assert proxy.places.taken("all") == 2
    third = asyncio.create_task(proxy.connect())
    await eventually(lambda: proxy.places.waiting("all") == 1)
    await guest.leave()
    assert await (await third).value("select 1") == "1"


async def test_a_login_that_waits_for_the_slot_of_its_session_gets_one_of_the_other_class(run_proxy: RunProxy) -> None:
    session = BULK | {"limit": 1, "pool_mode": "session"}
    proxy = await run_proxy(budget=BUDGET, classes={"bulk": session, "all": {"limit": 1}})
    holder, waiter = await bulk_client(proxy), asyncio.create_task(bulk_client(proxy))
    await eventually(lambda: proxy.waiting() == 1)
    proxy.reload(classes={"all": {"limit": 1}})
    assert await (await waiter).value("select 1") == "1"
    found = {one.name: (one.used, one.pinned) for one in proxy.controller.snapshot(clock.now()).classes}
    assert (found["bulk"], found["all"]) == ((1, 1), (1, 1))
    await holder.leave()
    await eventually(lambda: proxy.controller.in_use == 1)


async def test_a_removed_class_drains_and_says_so(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(budget=BUDGET, classes={"bulk": BULK, "all": {"limit": 2}})
    holder = await bulk_client(proxy)
    await holder.query("begin")
    said = proxy.reload(classes={"all": {"limit": 2}})
    assert any(line.startswith("bulk leaves: 1 slots in use drain") for line in said)
    assert (await holder.query("commit")).tags == ["COMMIT"]
    assert await holder.value("select 1") == "1"


async def test_what_is_set_beside_the_file_stays_where_it_holds_and_is_told(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(budget=BUDGET, classes={"all": {"limit": 4}})
    steering = proxy.process.steering
    steering.set({"classes.all.limit": 6}, by="anna", reason="", source="test")
    steering.set({"classes.all.reserved": 5}, by="anna", reason="", source="test")
    said = proxy.reload(budget={"total": 5}, classes={"all": {"limit": 3}})
    assert "classes.all.limit stays set to 6 by anna; the file says 3" in said
    assert any(line.startswith("classes.all.reserved is no longer set to 5: ") for line in said)
    assert set(steering.board.overrides) == {"classes.all.limit"}


class FromFile:
    """A proxy whose configuration stands in a file, as `serve` has it."""

    def __init__(self, proxy: Running, session: aiohttp.ClientSession) -> None:
        self.proxy = proxy
        self.path = proxy.folder / "pgheadroom.yaml"
        self._session = session
        proxy.process._read = lambda: load_config(self.path, {})

    def write(self, **changes: Any) -> None:
        text = yaml.safe_dump(merged(self.proxy.settings, changes), sort_keys=False)
        self.path.write_text(text)

    async def reload(self, **more: Any) -> tuple[int, dict[str, Any]]:
        url = f"http://127.0.0.1:{self.proxy.process.http.port}/reload"
        async with self._session.post(url, json={"by": "anna"} | more) as answer:
            return answer.status, await answer.json()


@pytest.fixture
async def from_file(run_proxy: RunProxy) -> Any:
    async with aiohttp.ClientSession() as session:

        async def start(**changes: Any) -> FromFile:
            settings = {"budget": BUDGET, "classes": {"all": {"limit": 4}}} | changes
            return FromFile(await run_proxy(**settings), session)

        yield start


def limit(one: FromFile) -> int:
    return one.proxy.controller.snapshot(0.0).of_class("all").limit


async def test_a_reload_over_http_with_and_without_doing_it(from_file: Any) -> None:
    one = await from_file()
    one.write(classes={"all": {"limit": 3}})
    status, document = await one.reload(dry_run=True)
    assert (status, document["changes"][0]["change"], limit(one)) == (200, "loses 1", 4)
    with capture_logs() as lines:
        status, document = await one.reload(reason="the launch")
    assert (status, document["changes"][0]["after"], limit(one)) == (200, "3", 3)
    (line,) = [line for line in lines if line["event"] == "reloaded"]
    assert (line["by"], line["reason"], line["source"]) == ("anna", "the launch", "http 127.0.0.1")
    assert line["changes"] == ["all.limit: 4 -> 3 (loses 1)"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classes": {"all": {"limit": 2, "reserved": 7}}}, "7 slots are reserved, but limit is 2"),
        ({"classes": {"all": {"limti": 2}}}, 'did you mean "limit"?'),
        ({"default_class": "web"}, "allowed: all"),
        (
            {"classes": {"all": {"limit": 3}, **{one: {"limit": 1, "renamed_from": "old"} for one in ("a", "b")}}},
            "'old' goes on as a already",
        ),
        ({"listen": {"tls": {"cert": "nowhere.pem", "key": "nowhere.key"}}}, "nowhere.pem"),
    ],
)
async def test_what_cannot_hold_is_refused_whole_with_file_and_line(
    from_file: Any, changes: dict[str, Any], words: str
) -> None:
    one = await from_file()
    one.write(budget={"total": 7}, **changes)
    status, document = await one.reload()
    assert status == 409
    assert words in document["error"]
    assert "pgheadroom.yaml:" in document["error"]
    assert "nothing has changed" in document["error"]
    assert one.proxy.controller.settings.total == 8


async def test_who_may_give_orders_is_taken_over(from_file: Any) -> None:
    one = await from_file()
    one.write(http={"switch_token": "correct-horse-battery"})
    assert (await one.reload())[0] == 200
    status, document = await one.reload()
    assert (status, "http.switch_token" in document["error"]) == (401, True)


async def test_a_watched_file_is_taken_over_when_it_is_written(from_file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.service.config_watch.LOOK_EVERY_SECONDS", 0.05)
    one = await from_file()
    one.write(reload={"watch": True})
    await one.reload()
    one.write(reload={"watch": True}, classes={"all": {"limit": 3}})
    await eventually(lambda: limit(one) == 3)
    with capture_logs() as lines:
        one.path.write_text("classes: [")
        await eventually(lambda: "reload_refused" in [line["event"] for line in lines])
    assert limit(one) == 3
    replacement = one.path.with_name("new.yaml")
    one.write(reload={"watch": False}, classes={"all": {"limit": 2}})
    one.path.rename(replacement)
    replacement.rename(one.path)
    await eventually(lambda: limit(one) == 2)
    one.write(classes={"all": {"limit": 1}})
    await asyncio.sleep(0.3)  # nothing may happen, and there is nothing to wait for
    assert limit(one) == 2


async def test_a_half_written_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pgheadroom.yaml"
    path.write_text(WATCHED)
    config = load_config_text(WATCHED, {}, file=str(path))
    reloads: list[str] = []
    watch = ConfigWatch(lambda: reloads.append(path.read_text()), asyncio.get_running_loop(), config)
    watch.adopt(config)
    watch._look()
    for part in (WATCHED[:20], WATCHED[:60], WATCHED + "# more\n"):
        path.write_text(part)
        watch._look()
        assert reloads == []
    watch._look()
    watch._look()
    assert reloads == [WATCHED + "# more\n"]
    watch.close()


async def test_what_is_written_while_the_file_is_being_read_is_seen_afterwards(
    from_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stamp was taken when all was adopted: a second write during the reload counted as known for ever."""
    monkeypatch.setattr("proxy.service.config_watch.LOOK_EVERY_SECONDS", 0.05)
    one = await from_file()
    one.write(reload={"watch": True})
    await one.reload()
    read = one.proxy.process._read

    def read_and_written_to() -> Config:
        config = read()
        one.proxy.process._read = read
        one.write(reload={"watch": True}, classes={"all": {"limit": 2}})
        return config

    one.write(reload={"watch": True}, classes={"all": {"limit": 3}})
    one.proxy.process._read = read_and_written_to
    await one.reload()
    assert limit(one) == 3
    await eventually(lambda: limit(one) == 2)


async def test_what_is_written_while_the_proxy_starts_is_seen_afterwards(tmp_path: Path) -> None:
    """A start asks the servers, which takes seconds where one does not answer."""
    path = tmp_path / "pgheadroom.yaml"
    path.write_text(WATCHED)
    reloads: list[str] = []
    config = load_config_text(WATCHED, {}, file=str(path))
    watch = ConfigWatch(lambda: reloads.append(path.read_text()), asyncio.get_running_loop(), config)
    path.write_text(WATCHED + "# more\n")
    watch.adopt(config)
    watch._look()
    watch._look()
    assert reloads == [WATCHED + "# more\n"]
    watch.close()


async def test_the_other_form_of_writing_one_upstream_is_refused_in_words(run_proxy: RunProxy) -> None:
    """`upstreams: {main: ...}` has the name that the short form has in metrics: the comparison of the two failed."""
    proxy = await run_proxy(budget={"total": 5})
    short = dict(proxy.settings)
    one = {"url": short.pop("upstream")["url"], "budget": short.pop("budget")}
    long = short | {"upstreams": {"main": one | {"default_class": short.pop("default_class")}}}
    long.pop("default_class", None)
    with pytest.raises(BudgetCannotHold, match="restart the proxy, or write it as before"):
        proxy.process.reload(config_of(long, proxy.folder))
    assert proxy.controller.settings.total == 5
