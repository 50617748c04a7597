"""Is the server in use still the one to use? Names move, primaries become standbys, hosts vanish without a word.

Owns: the rhythm of looking, and what becomes of connections to a server that is left.
Does not know: how a host is chosen (`session.hosts`).

Only idle connections are asked, each on behalf of the server it leads to: that costs no connection, and where none is
idle, work is under way that would notice by itself.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from proxy.session.connector import wrong_kind
from proxy.session.internal import InternalSlot, NoInternalSlot
from proxy.session.pool import Pool
from proxy.session.question import OwnQueryFailed
from proxy.session.roles import ask_role, complaint_or_none
from proxy.session.routes import Target
from proxy.session.server import ServerConnection
from proxy.session.server_leg import ServerState
from proxy.session.upstream import Upstream
from proxy.wire.messages import ErrorFields

log = structlog.get_logger("pgheadroom.server")

_LEAST_PAUSE_SECONDS: Final = 0.5  # between two looks, however often clients are told that a server is read-only


class HostWatch:
    """Looks every `upstream.check_hosts` seconds, and at once when a client was told that the server is read-only."""

    def __init__(self, upstream: Upstream, moved: Callable[[], None]) -> None:
        """`moved` is called when dials go to another server than before."""
        self._upstream = upstream
        self._registry = upstream.registry
        self._connector = upstream.registry.connector
        self._hosts = self._connector.hosts
        self._hosts.on_move = self._move
        self._moved = moved
        self._was: Target | None = None

    async def run(self) -> None:
        while True:
            await asyncio.sleep(_LEAST_PAUSE_SECONDS)
            try:
                async with asyncio.timeout(self._connector.upstream.check_seconds):
                    await self._hosts.doubted.wait()
            except TimeoutError:
                pass
            self._hosts.doubted.clear()
            if self._connector.down is None:
                await self._look()

    async def _look(self) -> None:
        for target in {target for server in self._registry.connections if (target := _target(server)) is not None}:
            if await self._hosts.has_left(target):
                log.warning("upstream_address_left", target=str(target))
                self._leave(target)
            elif self._hosts.are_watched:
                await self._ask(target)

    # -- asking -------------------------------------------------------------------------------------------------------

    async def _ask(self, target: Target) -> None:
        failure: ErrorFields | None = None
        try:
            async with InternalSlot(self._upstream):
                failure = await self._wrong_with(target)
        except NoInternalSlot:
            return  # no slot for it now
        if failure is not None:
            log.warning("upstream_host_unfit", target=str(target), why=failure.message)
            self._hosts.failed(target, failure)
            self._leave(target)

    async def _wrong_with(self, target: Target) -> ErrorFields | None:
        server = self._idle_or_none(target)
        if server is None:
            return None
        pool = server.pool
        assert isinstance(pool, Pool), "registered connections belong to pools"
        pool.borrow_idle(server)
        try:
            async with asyncio.timeout(self._registry.settings.dial_timeout_seconds):
                role = await ask_role(server)
        except TimeoutError:
            return ErrorFields("FATAL", "08006", "the server does not answer any more", str(target))
        except OwnQueryFailed as lost:
            # One connection that ended says nothing of its server; the next dial will.
            log.info("upstream_check_failed", target=str(target), why=str(lost))
            return None
        finally:
            _give_back(pool, server)
        complaint = complaint_or_none(self._connector.upstream.wanted, role)
        if complaint is None or self._hosts.is_second_choice(target):
            return None
        return wrong_kind(target, complaint)

    def _idle_or_none(self, target: Target) -> ServerConnection | None:
        return next((server for server in self._registry.idle() if _target(server) == target), None)

    # -- leaving ------------------------------------------------------------------------------------------------------

    def _move(self, target: Target) -> None:
        """Dials go to `target` from now on: who is somewhere else is not used again."""
        was, self._was = self._was, target
        if was is None:
            return
        log.warning("upstream_host_changed", previous=str(was), current=str(target))
        self._registry.measures.upstream_moves += 1
        for other in {_target(server) for server in self._registry.connections} - {target, None}:
            assert other is not None, "taken out above"
            self._leave(other)
        self._moved()

    def _leave(self, target: Target) -> None:
        """Idle connections to it close now, those at work when they are given back."""
        for server in [one for one in self._registry.connections if _target(one) == target]:
            if server.state is ServerState.IDLE and isinstance(server.pool, Pool):
                server.pool.close_idle(server)
            server.retire_at = 0.0


def _target(server: ServerConnection) -> Target | None:
    return None if server.route is None else server.route.target


def _give_back(pool: Pool, server: ServerConnection) -> None:
    if server.state is ServerState.IDLE:
        pool.put_idle(server)
    elif server.is_open:
        pool.close(server)
