"""A server connection for a client that holds a slot: waited for, checked, brought to the client's settings.

Owns: the time from "the slot is granted" to "the connection is fit": the wait in the pool, statements of the proxy's
own that must be answered before anything of the client's is sent, and what happens when they are not.
Does not know: slots, what the client has sent, how a login ends (`entering`).
"""

import asyncio
from typing import TYPE_CHECKING

from proxy.session import clock, linked, refusals
from proxy.session.examination import may_end_transaction
from proxy.session.holder import Holder
from proxy.session.parameters import Settings, apply_sql, difference
from proxy.session.server import ServerConnection
from proxy.wire.messages import ErrorFields

if TYPE_CHECKING:
    from proxy.session.client import ClientConnection
    from proxy.session.entering import Entering


class Fitting(Holder):
    """Stands for `client` in its pool, and holds `server` while it is made fit. `entering`: for the client's login."""

    transport: asyncio.Transport

    def __init__(self, client: "ClientConnection", entering: "Entering | None" = None) -> None:
        self.transport = client.transport
        self.server: ServerConnection | None = None
        self.is_cancel_asked = False  # of what the client has sent, which is not on its way yet
        self._client = client
        self._entering = entering
        self._began_at = clock.now()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """The client's `linked` or `server_failed` is called, or its login goes on, possibly before this returns."""
        self._client.pool.want(self)

    def give_up(self) -> None:
        """The client does not want it any more."""
        self._stop_timer()
        self._client.pool.gave_up(self)

    # -- what the pool asks and brings --------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings | None:
        return self._client.settings

    @property
    def class_name(self) -> str:
        return self._client.class_name

    @property
    def urgency(self) -> int:
        return self._client.desk.behaviour(self.class_name).priority

    def gives_up_at(self) -> float:
        return self._client.asked_at + self._client.desk.queue_timeout(self.class_name)

    def server_failed(self, error: ErrorFields) -> None:
        self._stop_timer()
        self._client.server_failed(error)

    def server_ready(self, server: ServerConnection) -> None:
        self._stop_timer()
        server.link(self)
        self.server = server
        if self._entering is not None:
            self._fit_for_login(server, self._entering)
        elif self._client.pool.needs_check(server, clock.now()):
            self._send_alone(server, "", None)  # idle for long: does it still answer?
        else:
            self._fit(server)

    # -- making it fit ------------------------------------------------------------------------------------------------

    def _fit_for_login(self, server: ServerConnection, entering: "Entering") -> None:
        """Parameters that nobody has asked for before are the server's to judge, and so is the login."""
        want = entering.wanted_settings()
        if want is server.settings:
            entering.server_fit(server)
        else:
            self._send_alone(server, apply_sql(difference(server.settings, want)), want)

    def _fit(self, server: ServerConnection) -> None:
        """Bring it to the client's settings, in the same write as what the client has sent if that is safe."""
        client = self._client
        settings = client.settings
        assert settings is not None, "a client that begins a unit has entered"
        if server.settings is not settings:
            changes = difference(server.settings, settings)
            if not client.pool.table.are_accepted(changes) or self._may_end_transaction():
                self._send_alone(server, apply_sql(changes), settings)
                return
            server.transport.write(server.inject(apply_sql(changes), want=settings))
            client.desk.measures.parameters_reapplied += 1
        link = linked.Link(client, server)
        link.cancel_when_injected = self.is_cancel_asked
        server.client = link
        client.linked(link)
        link.flush_backlog()
        link.cancel_if_asked()

    def _may_end_transaction(self) -> bool:
        """A SET that fails leaves a failed transaction, which stops all that follows, but not what ends it."""
        client = self._client
        return any(may_end_transaction(buffer, facts, client.statements) for buffer, facts in client.backlog.pieces)

    def _send_alone(self, server: ServerConnection, sql: str, want: Settings | None) -> None:
        """Send something of ours and await the answer before anything of the client's."""
        server.transport.write(server.inject(sql, want=want))
        desk = self._client.desk
        self._timer = desk.loop.call_later(
            self._client.upstream.registry.settings.dial_timeout_seconds, self._is_silent
        )

    def injected_done(self, server: ServerConnection, error: ErrorFields | None) -> None:
        self._stop_timer()
        if error is not None:
            self._client.settings_failed(error)
        elif self._entering is not None:
            self._entering.server_fit(server)
        else:
            self._fit(server)

    # -- when it does not answer --------------------------------------------------------------------------------------

    def _is_silent(self) -> None:
        """The connection does not answer; nothing of the client's was sent on it, so another one will do.

        That one is given the same time to come and to answer: it may be that all are silent, and none makes room.
        """
        server, self.server, self._timer = self.server, None, None
        pool, desk = self._client.pool, self._client.desk
        if server is not None:
            pool.close(server)
        seconds, waited = self._client.upstream.registry.settings.dial_timeout_seconds, clock.now() - self._began_at
        if server is None or waited > 1.5 * seconds:
            pool.gave_up(self)
            self.server_failed(refusals.server_silent(waited))
            return
        self._timer = desk.loop.call_later(seconds, self._is_silent)
        pool.want(self)

    def server_lost(self, server: ServerConnection) -> None:
        """Nothing of the client's was on it."""
        self.server = None
        self._stop_timer()
        self._client.pool.want(self)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- what concerns only the client's own messages, none of which is sent yet --------------------------------------

    def unit_may_be_over(self) -> None: ...

    def copy_begins(self) -> None: ...

    def cancel_over(self) -> None: ...

    def ready(self, failed: bool) -> None: ...
