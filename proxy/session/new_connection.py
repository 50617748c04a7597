"""One dial of a pool: its turn, a route, a socket, a login, and a look at what kind of server has let us in.

Owns: the order of these steps, the time they may take together, and that nothing is left behind where one fails.
Does not know: who waits for the connection, what is done about a failure (`pool`), which host comes next (`connector`).
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from proxy.session.quirks import is_full_pooler
from proxy.session.refusals import TOO_MANY_CONNECTIONS
from proxy.session.routes import DialFailed, Route
from proxy.session.server import ServerConnection
from proxy.session.server_leg import ServerState
from proxy.wire.messages import ErrorFields
from proxy.wire.server_login import ServerLogin

if TYPE_CHECKING:
    from proxy.session.pool import Pool

# The server as a whole is not to be used: starting up, shutting down, crashed, unreachable.
_OUTAGE_CODES: Final = frozenset({"57P03", "57P01", "57P02", "08006", "08001", "08004"})


class NewConnection:
    """One that is being made for `pool`. The registry has counted it already; this gives the room back where nothing
    comes of it."""

    def __init__(self, pool: "Pool", startup_parameters: Mapping[str, str]) -> None:
        self._pool = pool
        self._registry = pool.registry
        self._connector = pool.registry.connector
        self._account = (pool.database, pool.user)
        self._startup_parameters = startup_parameters
        self._route: Route | None = None
        self._server: ServerConnection | None = None

    async def logged_in(self) -> ServerConnection:
        """Raises DialFailed. What its failure means is in the error: there may be other ways to go."""
        is_usable = False
        try:
            async with self._connector.turns.turn(self._pool.most_urgent):
                server, route = await self._dial()
            is_usable = True
        except (DialFailed, TimeoutError) as error:
            raise self._judged(error) from error
        finally:
            if self._server is None:
                self._registry.dial_ended_without_connection()
            elif not is_usable and self._server.is_open:
                self._pool.close(self._server)
        self._connector.succeeded(route, self._account)
        return server

    async def _dial(self) -> tuple[ServerConnection, Route]:
        self._fail_fast()
        self._registry.measures.dials += 1
        async with asyncio.timeout(self._registry.settings.dial_timeout_seconds):
            route = self._route = await self._connector.next_route(self._account)
            server = self._server = await self._connector.open(self._protocol, route)
            self._registry.dial_connected(server)
            server.route = route
            await self._log_in(server, route)
        return server, route

    def _fail_fast(self) -> None:
        down = self._connector.down
        if down is not None and not self._pool.tries_while_down:
            raise DialFailed(down, is_outage=False)  # known already

    def _protocol(self, is_encrypted: bool) -> ServerConnection:
        upstream = self._connector.upstream
        login = ServerLogin(
            self._pool.user,
            self._pool.database,
            self._pool.credentials,
            self._startup_parameters,
            channel_binding=upstream.channel_binding,
            minor=upstream.protocol_minor,
        )
        return ServerConnection(self._pool, login, self._registry.loop)

    async def _log_in(self, server: ServerConnection, route: Route) -> None:
        error = await server.login.over
        if error is not None:
            if is_full_pooler(error):
                error = replace(error, code=TOO_MANY_CONNECTIONS)
            raise DialFailed(error, is_outage=error.code in _OUTAGE_CODES)
        if server.state is ServerState.IDLE:
            await self._connector.check_role(server, route)
        if server.state is not ServerState.IDLE:
            raise DialFailed(ErrorFields("FATAL", "08006", "the server hung up at the end of a login"), is_outage=True)

    def _judged(self, error: DialFailed | TimeoutError) -> DialFailed:
        failure = error if isinstance(error, DialFailed) else self._timed_out()
        return failure if self._route is None else self._connector.judged(failure, self._route, self._account)

    def _timed_out(self) -> DialFailed:
        self._registry.measures.dial_timeouts += 1
        self._registry.dials_refused += 1
        seconds = self._registry.settings.dial_timeout_seconds
        text = f"the server did not finish a login within {seconds:g} s"
        return DialFailed(ErrorFields("FATAL", "08006", text, None, "see pool.dial_timeout"), is_outage=True)
