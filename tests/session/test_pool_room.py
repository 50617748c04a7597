"""Who gets room for a server connection where the budget is full."""

import asyncio

from proxy.wire.startup import encode_startup
from tests.session.fake_server import FakeServer, Session
from tests.support.eventually import eventually
from tests.support.running import RunProxy

TWO_SLOTS = {"budget": {"total": 3}, "classes": {"all": {"limit": 2, "queue": {"timeout": "5s"}}}}


async def test_a_connection_that_idles_late_makes_room_for_who_waits_for_it(
    fake_server: FakeServer, run_proxy: RunProxy
) -> None:
    """Clients left while their dials were under way. The next one, of another user, found the budget full of these
    dials, with nothing to evict, and waited for room; nobody told it when they became idle."""
    slow = asyncio.Event()

    async def greet(session: Session) -> None:
        if fake_server.of("bulk"):
            await slow.wait()
        session.greet()

    fake_server.on_startup = greet
    proxy = await run_proxy(fake_server.url, **TWO_SLOTS)
    holder = await proxy.connect("app")
    await holder.query("begin")
    proxy.registry.close_all_idle()
    await eventually(lambda: proxy.registry.count == 1)
    for user in ("bulk", "web"):
        leaver = await proxy.open()
        await leaver.send(encode_startup({"user": user, "database": "app"}))
        await eventually(lambda user=user: fake_server.of(user))
        await leaver.abort()
        await eventually(lambda: proxy.controller.in_use == 1)
    assert proxy.registry.count == 3
    arrival = asyncio.create_task(proxy.connect("postgres"))
    await eventually(lambda: proxy.controller.in_use == 2)
    slow.set()
    await arrival
    await holder.query("commit")


async def test_the_coldest_connection_of_another_pool_makes_room(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**TWO_SLOTS)
    clients = {user: await proxy.connect(user) for user in ("app", "bulk", "web")}
    for _ in range(3):
        for user, client in clients.items():
            assert await client.value("select current_user") == user
            assert proxy.registry.count <= 3


async def test_many_users_share_a_budget_smaller_than_their_number(run_proxy: RunProxy) -> None:
    proxy = await run_proxy(**TWO_SLOTS)
    users = [("app", "app"), ("bulk", "app"), ("web", "app"), ("app", "postgres"), ("web", "postgres")]
    clients = [await proxy.connect(*who) for who in users * 4]

    async def work(client, who) -> None:
        for _ in range(5):
            rows = (await client.query("select current_user, current_database()")).rows
            assert rows == [who]

    await asyncio.gather(*(work(client, who) for client, who in zip(clients, users * 4, strict=True)))
    assert proxy.registry.count <= 3
