"""What the running proxy sees of its traffic, second by second, and what is left of that after a restart."""

from pathlib import Path

import aiohttp
import pytest
from structlog.testing import capture_logs

from proxy.service.process import Process
from proxy.service.traffic.observed import Observed, observed
from proxy.service.traffic.record import hours_of
from proxy.session.listener import CannotListen
from tests.support.eventually import eventually
from tests.support.running import Running, RunProxy, config_of, merged
from tests.support.wire_client import query

TWO_CLASSES = {
    "budget": {"total": 4, "keep_free": 0},
    "default_class": "bulk",
    "classes": {
        "web": {"limit": 3, "match": [{"application_name": "web*"}], "queue": {"timeout": "20s"}},
        "bulk": {"limit": 1, "queue": {"timeout": "20s"}},
    },
}


def seen(proxy: Running) -> Observed:
    return observed(hours_of(proxy.process.traffic.frozen(), 0))


def look(proxy: Running) -> None:
    """As if a second had passed."""
    traffic = proxy.process.traffic
    traffic._looked_at -= 1.0
    traffic.look({one.name: one.budget for one in proxy.process.view.upstreams()})


async def restored(proxy: Running) -> None:
    """The file of the record has been read: nothing is written before."""
    await eventually(lambda: proxy.process.traffic._is_restored)


async def test_slots_and_waiting_clients_are_seen_by_class_and_application(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**TWO_CLASSES)
    holders = [await proxy.connect(application_name=name) for name in ("web-1", "web-1", "web-2")]
    for holder in holders:
        await holder.query("begin")
    bulk = await proxy.connect(application_name="import")
    await bulk.send(query("select pg_sleep(1.5)"))
    await eventually(lambda: proxy.controller.waiting == 1)  # one slot is kept for the proxy itself
    look(proxy)
    figures = seen(proxy)
    names = {(one.class_name, one.application): one.demand.most for one in figures.applications}
    assert names == {("web", "web-1"): 2, ("web", "web-2"): 1, ("bulk", "import"): 1}
    assert (figures.of_class("web").demand.most, figures.of_class("bulk").demand.most) == (3, 1)
    assert figures.total.most == 4
    for holder in holders:
        await holder.query("commit")
    await bulk.answer()


async def test_who_waits_at_the_limit_of_its_class_is_no_demand_but_is_told(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**TWO_CLASSES)
    holder = await proxy.connect(application_name="import")
    await holder.query("begin")
    waiting = await proxy.connect(application_name="import")
    await waiting.send(query("select 1"))
    await eventually(lambda: proxy.controller.waiting == 1)
    look(proxy)
    bulk = seen(proxy).of_class("bulk")
    assert bulk.demand.most == 1
    assert bulk.limited_share > 0.9
    await holder.query("commit")
    await waiting.answer()


async def test_holds_are_counted_by_application(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**TWO_CLASSES)
    short, long = [await proxy.connect(application_name=name) for name in ("web-short", "web-long")]
    for _ in range(5):
        await short.query("select 1")
    await long.query("select pg_sleep(0.3)")
    await proxy.until_free()
    look(proxy)
    holds = {one.application: one.holds for one in seen(proxy).applications}
    assert (holds["web-short"].count, holds["web-long"].count) == (5, 1)
    assert holds["web-long"].p95_seconds == 0.5
    assert (holds["web-short"].p95_seconds or 9) < 0.3
    assert seen(proxy).of_class("web").holds.count == 6


async def test_a_restart_loses_nothing(run_proxy: RunProxy, tmp_path: Path) -> None:
    file = tmp_path / "traffic"
    first = await run_proxy(traffic={"file": str(file)})
    await (await first.connect()).query("select 1")
    await first.until_free()
    look(first)
    before = seen(first)
    await restored(first)
    await first.process.traffic.save()
    second = await run_proxy(traffic={"file": str(file)})
    await restored(second)
    assert seen(second).seconds >= before.seconds
    assert seen(second).of_class("all").holds.count >= before.of_class("all").holds.count >= 1


async def test_a_start_that_fails_leaves_what_was_seen_before(run_proxy: RunProxy, tmp_path: Path) -> None:
    """The end of a failed start wrote down what it had seen, which was nothing, over a week of traffic."""
    file = tmp_path / "traffic"
    first = await run_proxy(traffic={"file": str(file)})
    await eventually(lambda: seen(first).seconds > 0, within_seconds=10)
    await restored(first)
    await first.process.traffic.save()
    before = file.read_text()
    settings = merged(first.settings, {"listen": {"port": first.port}, "traffic": {"file": str(file)}})
    second = Process(config_of(settings, first.folder))
    with pytest.raises(CannotListen):
        await second.start()
    await second.drain_and_stop()
    assert file.read_text() == before


async def test_a_file_that_is_no_record_is_set_aside_and_the_proxy_runs(run_proxy: RunProxy, tmp_path: Path) -> None:
    file = tmp_path / "traffic"
    file.write_text("my notes")
    with capture_logs() as log:
        proxy = await run_proxy(traffic={"file": str(file)})
        await eventually(lambda: any(line["event"] == "traffic_file_unreadable" for line in log))
    assert (tmp_path / "traffic.unreadable").read_text() == "my notes"
    await proxy.process.traffic.save()
    assert file.read_text().startswith('{"pgheadroom_traffic"')


async def test_a_file_that_cannot_be_written_is_told_once(run_proxy: RunProxy, tmp_path: Path) -> None:
    proxy = await run_proxy(traffic={"file": str(tmp_path / "nowhere" / "traffic")})
    await restored(proxy)
    with capture_logs() as log:
        for _ in range(3):
            await proxy.process.traffic.save()
    assert [line["event"] for line in log].count("traffic_file_not_written") == 1


async def test_a_new_fleet_is_listed_with_its_names_and_how_many_came(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**TWO_CLASSES)
    for name in ("web-1", "fleet", "fleet", ""):
        await proxy.connect(application_name=name)
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{proxy.process.http.port}"
        async with session.get(f"{url}/status") as answer:
            unmatched = (await answer.json())["unmatched"]
        async with session.get(f"{url}/metrics") as answer:
            metrics = await answer.text()
    names = {one["application_name"]: one["clients_total"] for one in unmatched["names"]}
    assert (unmatched["clients_total"], names) == (3, {"fleet": 2, "": 1})
    assert "pgheadroom_unmatched_clients_total 3.0" in metrics


async def test_a_reload_says_how_long_it_is_kept(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    for hours in range(1, 6):
        proxy.process.traffic.record.hour_at(hours * 3600.0)
    proxy.reload(traffic={"keep": "2h"})
    proxy.process.traffic.record.hour_at(6 * 3600.0)
    assert [hour for hour, _ in proxy.process.traffic.record.frozen()] == [5, 6]


async def test_it_looks_by_itself(run_proxy: RunProxy) -> None:
    proxy = await run_proxy()
    await eventually(lambda: seen(proxy).seconds >= 1.0, within_seconds=10)


NESTED = {"classes": {"all": {"limit": 2, "queue": {"timeout": "20s"}}}}


async def test_a_job_that_waits_for_itself_is_named(run_proxy: RunProxy) -> None:
    """Two jobs open a transaction each, and inside it a second connection: nobody goes on."""
    proxy = await run_proxy(**NESTED)
    outer = [await proxy.connect(application_name="import") for _ in range(2)]
    for one in outer:
        await one.query("begin")
    inner = await proxy.connect(application_name="import")
    await inner.send(query("select 1"))
    await eventually(lambda: proxy.controller.waiting == 1)
    with capture_logs() as log:
        await eventually(lambda: proxy.process.traffic.nested.suspects, within_seconds=10)
    [suspect] = proxy.process.traffic.nested.suspects
    assert (suspect.identity.application_name, suspect.holding, suspect.waiting) == ("import", 2, 1)
    [line] = [line for line in log if line["event"] == "nested_acquire_suspected"]
    assert (line["class_name"], line["user"], line["holding"], line["waiting"]) == ("all", "app", 2, 1)
    await outer[0].query("commit")
    await inner.answer()
    look(proxy)
    assert proxy.process.traffic.nested.suspects == ()
    assert proxy.process.traffic.nested.counts["all", "import"] == 1
    await outer[1].query("commit")


async def test_who_waits_for_work_of_its_own_that_goes_on_is_not_suspected(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**NESTED)
    workers = [await proxy.connect(application_name="import") for _ in range(3)]
    for one in workers:
        await one.send(query("select pg_sleep(3)"))
    await eventually(lambda: proxy.controller.waiting == 1)
    waits = proxy.process.view
    await eventually(lambda: waits.snapshot().of_class("all").oldest_wait_seconds > 2.5, within_seconds=10)
    assert proxy.process.traffic.nested.suspects == ()
    for one in workers:
        await one.answer()
    assert not proxy.process.traffic.nested.counts


async def test_connections_by_identity(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**NESTED)
    jobs = [await proxy.connect(application_name="import") for _ in range(3)]
    await proxy.connect("web", application_name="shop")
    for one in jobs[:2]:
        await one.query("begin")
    await jobs[2].send(query("select 1"))
    await eventually(lambda: proxy.controller.waiting == 1)
    uses = {one.identity.application_name: one for one in proxy.process.view.identities()}
    job, shop = uses["import"], uses["shop"]
    assert (job.identity.user, job.identity.address) == ("app", "127.0.0.1")
    assert (job.connections, job.slots, job.waiting) == (3, 2, 1)
    assert (shop.connections, shop.slots, shop.waiting) == (1, 0, 0)
    for one in jobs[:2]:
        await one.query("commit")
    await jobs[2].answer()
