"""The proxy in the test's own event loop, checked after every test for what it must never keep.

Owns: a plain configuration, starting and ending a `Process`, and the list of what has to be given back.
Does not know: what is tested, what the server is.

Clients made by `Running.connect` are hung up before the check; those of drivers are the test's to close.
"""

import asyncio
import copy
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
import yaml

from proxy.demo.postgres import DATABASE, ROLES, SUPERUSER, password_of
from proxy.service.config.loading import load_config_text
from proxy.service.process import Process
from proxy.service.running_upstream import RunningUpstream
from proxy.session.client import Phase
from proxy.session.hosts import Resolver
from proxy.session.server_leg import ServerState
from proxy.wire.messages import ErrorFields
from proxy.wire.startup import encode_startup
from tests.support.eventually import eventually
from tests.support.servers import Postgres
from tests.support.wire_client import WireClient

# One class, four slots for it and one for the proxy itself.
PLAIN: Mapping[str, Any] = {
    "listen": {"host": "127.0.0.1", "port": 0, "login_timeout": "5s"},
    "http": {"host": "127.0.0.1", "port": 0},
    "auth": {"method": "trust", "users_file": "users.txt"},
    "budget": {"total": 5, "keep_free": 0},
    "default_class": "all",
    "classes": {"all": {"limit": 4, "queue": {"timeout": "20s", "max": 1000}, "pinned_limit": 4}},
    "shutdown": {"drain_timeout": "5s"},
}
KNOWN_TASKS = frozenset({"server watch", "host watch", "traffic watch", "canary", "lock probe"})


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` in it: sections are merged name by name, anything else is replaced."""
    whole = {name: copy.deepcopy(value) for name, value in base.items()}
    for name, value in changes.items():
        old = whole.get(name)
        is_section = isinstance(old, dict) and isinstance(value, Mapping) and name != "classes"
        whole[name] = merged(old, value) if is_section and isinstance(old, dict) else value
    return whole


class Running:
    """A started process and the clients of the test on it."""

    def __init__(self, process: Process, folder: Path, settings: Mapping[str, Any]) -> None:
        self.process = process
        self.folder = folder
        self.settings = settings
        self.broken: list[str] = []  # what callbacks of the loop raised
        self.clients: list[WireClient] = []
        running = process.upstreams[0]
        self.upstream = running.upstream
        self.watch = running.watch
        self.gate = running.gate
        self.places = running.places
        self.registry = running.registry
        self.controller = running.controller
        self.measures = process.measures
        self.desk = process.desk

    @property
    def port(self) -> int:
        return self.process.listener.port

    def url(self, user: str = "app", database: str = DATABASE, **more: str) -> str:
        keys = "".join(f"&{name}={quote(value, safe='')}" for name, value in more.items())
        secret = quote(password_of(user), safe="")
        return f"postgresql://{user}:{secret}@127.0.0.1:{self.port}/{database}?connect_timeout=10{keys}"

    async def open(self) -> WireClient:
        """A client that has said nothing yet."""
        client = await WireClient.open("127.0.0.1", self.port)
        self.clients.append(client)
        return client

    async def connect(self, user: str = "app", database: str = DATABASE, **parameters: str) -> WireClient:
        """A client that is logged in and has seen its first ReadyForQuery."""
        client = await self.open()
        await client.log_in(user, database, **parameters)
        return client

    async def connect_or_error(self, user: str = "app", database: str = DATABASE) -> WireClient | ErrorFields:
        """The client, or why it was not let in; where the login went well, why it was not served then."""
        client = await self.open()
        await client.send(encode_startup({"user": user, "database": database}))
        answer = await client.answer()
        if answer.error is None:
            answer = await client.query("SELECT 1")
        return answer.error or client

    async def until_up(self) -> None:
        """Until somebody could log in to the server."""
        await eventually(lambda: self.registry.connector.down is None)

    async def psycopg(self, user: str = "app", database: str = DATABASE, **more: str) -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(self.url(user, database, **more), autocommit=True)

    def reload(self, **changes: Any) -> list[str]:
        self.settings = merged(self.settings, changes)
        return self.process.reload(config_of(self.settings, self.folder)).lines()

    def linked(self) -> int:
        """How many server connections are held."""
        return sum(server.state is ServerState.LINKED for server in self.registry.connections)

    def waiting(self) -> int:
        return self.controller.waiting

    async def until_free(self) -> None:
        """Until no slot is in use."""
        await eventually(lambda: self.controller.in_use == 0, but=self.leftovers)

    # -- what must hold at the end of every test ---------------------------------------------------------------------

    async def hang_up(self) -> None:
        for client in self.clients:
            await client.abort()

    def leftovers(self) -> list[str]:
        """What is still kept, in words; nothing is what is wanted."""
        desk = self.desk
        checks = {
            f"clients: {[(one.id, one.phase) for one in desk.clients]}": desk.clients,
            f"clients counted as present: {list(desk.present.items())}": len(desk.present),
            f"client sockets: {desk.connected}": desk.connected,
            f"cancel keys: {len(desk.keys)}": len(desk.keys),
            f"tasks: {self._tasks()}": self._tasks(),
        }
        of_all = [words for words, is_left in checks.items() if is_left]
        return of_all + [f"{one.name}: {words}" for one in self.process.upstreams for words in leftovers_of(one)]

    def _tasks(self) -> list[str]:
        return [name for name in self.process.tasks.names() if name not in KNOWN_TASKS]

    async def check(self) -> None:
        await eventually(lambda: not self.leftovers(), within_seconds=10, but=self.leftovers)
        assert not self.broken, "a callback of the loop raised:\n" + "\n".join(self.broken)
        assert self.measures.crashes == 0, "a task crashed"

    def phases(self) -> list[Phase]:
        return [client.phase for client in self.desk.clients]


def leftovers_of(upstream: RunningUpstream) -> list[str]:
    """What one upstream still keeps."""
    controller, registry, hubs = upstream.controller, upstream.registry, upstream.upstream.listen_hubs
    states = [server.state for server in registry.connections]
    names = [one.name for one in controller.settings.classes]
    places = sum(upstream.places.taken(name) + upstream.places.waiting(name) for name in names)
    checks = {
        f"slots in use: {controller.in_use}": controller.in_use,
        f"waiting in the core: {controller.waiting}": controller.waiting,
        f"waiting at the gate: {upstream.gate.waiting}": upstream.gate.waiting,
        f"dials: {registry.dialling}": registry.dialling,
        f"server connections not idle: {states}": any(state is not ServerState.IDLE for state in states),
        f"idle without a pool: {len(states)}": set(registry.idle()) != registry.connections,
        f"budget of server connections: {registry.count} of {registry.total}": registry.count > registry.total,
        f"pools waiting for room: {len(registry.waiting_for_room)}": any(
            pool.still_wants_dial() for pool in registry.waiting_for_room
        ),
        f"places taken: {places}": places,
        f"shared LISTEN: {hubs.counts()}": len(hubs),
    }
    return [words for words, is_left in checks.items() if is_left]


def _story(context: dict[str, Any]) -> str:
    error = context.get("exception")
    trace = "".join(traceback.format_exception(error)) if isinstance(error, BaseException) else repr(error)
    return f"{context.get('message')}\n{trace}"


RunProxy = Callable[..., Awaitable[Running]]


def config_of(settings: Mapping[str, Any], folder: Path) -> Any:
    given = {name: value for name, value in settings.items() if value is not None}
    return load_config_text(yaml.safe_dump(given, sort_keys=False), {}, directory=folder)


@asynccontextmanager
async def running_proxy(
    upstream_url: str, folder: Path, *, resolve: Resolver | None = None, **changes: Any
) -> AsyncIterator[Running]:
    """A proxy in front of `upstream_url`; what is left of it at the end is an AssertionError.

    `resolve` is its name service. Without a URL `changes` say where the servers are.
    """
    users = (*ROLES, SUPERUSER)
    (folder / "users.txt").write_text("".join(f'"{role}" "{password_of(role)}"\n' for role in users))
    settings = merged(PLAIN, changes)
    if upstream_url:
        settings["upstream"] = {"url": upstream_url, **settings.get("upstream", {})}
    running = Running(Process(config_of(settings, folder)), folder, settings)
    if resolve is not None:
        running.registry.connector.hosts.resolve = resolve
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: running.broken.append(_story(context)))
    await running.process.start()
    loop.set_exception_handler(lambda _, context: running.broken.append(_story(context)))
    try:
        yield running
        await running.hang_up()
        await running.check()
    finally:
        await running.hang_up()
        await running.process.drain_and_stop()


@pytest.fixture
async def run_proxy(postgres: Postgres, tmp_path: Path) -> AsyncIterator[RunProxy]:
    """Starts proxies for this test: await run_proxy(budget={"total": 3}), run_proxy(server.url("app"), ...)."""
    async with AsyncExitStack() as stack:

        async def run(upstream_url: str | None = None, **changes: Any) -> Running:
            folder = Path(mkdtemp(dir=tmp_path))
            return await stack.enter_async_context(
                running_proxy(postgres.url("app") if upstream_url is None else upstream_url, folder, **changes)
            )

        yield run
