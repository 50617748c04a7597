"""Who is here is counted where clients come, go and change: the counts are always those of a walk over all of them."""

from collections import Counter
from random import Random
from typing import Any

from proxy.service.view import ClientKey, ClientState
from proxy.session.present import who_is
from tests.support.eventually import eventually
from tests.support.running import Running, RunProxy
from tests.support.wire_client import WireClient, query

CLASSES: dict[str, Any] = {
    "web": {"match": [{"application_name": "web*"}], "priority": 1, "limit": 2, "queue": {"timeout": "20s"}},
    "bulk": {"match": [{"application_name": "import*"}], "priority": 9, "limit": 2},
    "other": {"priority": 5, "limit": 2},
}
SETTINGS: dict[str, Any] = {
    "budget": {"total": 8},
    "default_class": "other",
    "classes": CLASSES,
    "tags": {"comments": "lower"},
}


def counted(proxy: Running) -> dict[Any, int]:
    return dict(proxy.desk.present.items())


def walked(proxy: Running) -> dict[Any, int]:
    return dict(Counter(map(who_is, proxy.desk.clients)))


async def test_whatever_clients_do_the_counts_are_those_of_a_walk(run_proxy: RunProxy) -> None:
    proxy, random = await run_proxy(**SETTINGS), Random(7)
    clients: list[WireClient] = []
    for _ in range(120):
        if len(clients) < 3 or random.random() < 0.3:
            clients.append(await proxy.connect(application_name=random.choice(["web-1", "web-2", "import", "cron"])))
        elif random.random() < 0.2:
            gone, before = clients.pop(random.randrange(len(clients))), len(proxy.desk.clients)
            await gone.abort()
            await eventually(lambda before=before: len(proxy.desk.clients) == before - 1)
        else:
            sql = random.choice(
                ["select 1", "set application_name = 'import-2'", "reset all", "select 1 /*class='bulk'*/"]
            )
            await random.choice(clients).query(sql)
        assert counted(proxy) == walked(proxy)
    classes = CLASSES | {"more": {"match": [{"application_name": "import-2"}], "limit": 1}}
    proxy.reload(classes=dict(reversed(classes.items())))
    assert counted(proxy) == walked(proxy)
    assert {who.class_name for who in counted(proxy)} >= {"more", "web", "other"}


async def test_what_clients_do_now_is_told_by_class_and_name(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**SETTINGS)
    clients = [await proxy.connect(application_name="web-1") for _ in range(4)]
    for client in clients[:2]:
        await client.query("begin")
    await clients[2].send(query("select 1"))
    await eventually(lambda: proxy.controller.waiting == 1)

    assert proxy.process.view.client_counts() == {
        ClientKey("web", "web-1", ClientState.LINKED): 2,
        ClientKey("web", "web-1", ClientState.WAITING): 1,
        ClientKey("web", "web-1", ClientState.IDLE): 1,
    }
    (use,) = proxy.process.view.identities()
    assert (use.connections, use.slots, use.waiting) == (4, 2, 1)


async def test_a_client_is_told_by_the_name_it_has_now(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**SETTINGS)
    client = await proxy.connect(application_name="web-1")
    await client.query("set application_name = 'import'")
    await client.query("select 1")

    assert proxy.process.view.client_counts() == {ClientKey("bulk", "import", ClientState.IDLE): 1}


async def test_names_beyond_those_that_are_measured_are_still_told_apart(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**SETTINGS)
    for number in range(200):
        proxy.measures.of("other").of_application(f"seen before {number}")

    for name in ("new-1", "new-2"):
        await proxy.connect(application_name=name)

    assert {key.application_name for key in proxy.process.view.client_counts()} == {"new-1", "new-2"}
