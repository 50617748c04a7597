"""A client that replicates: `replication=true` or `database` in its startup packet.

Owns: such a client after authentication, and the server connection that is dialled for it alone.
Does not know: what it replicates; its bytes pass through as they are, in both directions at once.

    at the door -> waiting for a slot -> dialling -> linked        any -> gone

It always belongs to the class `replication_class` and holds its slot to the end, as in session mode. The server
connection is a walsender: it is logged in with the startup parameters of the client, is not shared and not kept. A
message may be under way in either direction at any time, so nothing of ours is ever put between the two.
Source: PostgreSQL manual, "Streaming Replication Protocol" (protocol-replication).
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from proxy.admission.classes import ClientId
from proxy.admission.decisions import Grant, Refuse, StillWaiting
from proxy.session import clock, refusals
from proxy.session.backlog import Backlog
from proxy.session.client import Phase
from proxy.session.holder import Holder
from proxy.session.new_connection import NewConnection
from proxy.session.parameters import Settings
from proxy.session.pool import Pool
from proxy.session.routes import DialFailed
from proxy.session.server import ServerConnection
from proxy.session.session_state import NO_PINS
from proxy.session.transports import close_in_time
from proxy.wire import messages
from proxy.wire.login import Credentials
from proxy.wire.messages import ErrorFields

if TYPE_CHECKING:
    from proxy.session.identity import Identity
    from proxy.session.upstream import Upstream

_CANCEL_AFTER_SECONDS: Final = 0.5  # a walsender ends at a Terminate, but not one that works on a query
_LONGEST_PAUSE_SECONDS: Final = 30.0
_WHO: Final = frozenset(("user", "database"))


class ReplicationPool(Pool):
    """Of one client. It dials with the startup parameters of that client, and keeps nothing."""

    is_unused = False  # the registry does not know it, and has nothing to forget

    def __init__(self, upstream: "Upstream", identity: "Identity", startup: Mapping[str, str]) -> None:
        super().__init__(upstream.registry, upstream.database_of(identity), identity.user)
        self._startup = {n: v for n, v in startup.items() if n not in _WHO and not n.startswith("_pq_.")}
        self.is_wanted = True

    async def _connect(self) -> ServerConnection:
        try:
            return await NewConnection(self, self._startup).logged_in()
        except DialFailed as failure:
            if failure.fields.code != refusals.TOO_MANY_CONNECTIONS:
                raise
            # max_connections does not count walsenders: another try, or another budget, would not help.
            raise DialFailed(refusals.no_walsender(failure.fields.message), is_outage=False) from failure

    def put_idle(self, server: ServerConnection, is_new: bool = False) -> None:
        """Dialled for its client; without it nobody has any use for it."""
        if is_new and self.is_wanted:
            super().put_idle(server, is_new)
        else:
            self.close(server)


class ReplicationConnection(Holder):
    """The protocol object of one replicating client after AuthenticationOk."""

    transport: asyncio.Transport
    pins = NO_PINS
    is_idle_in_transaction = False
    is_quiet_holder = False  # it streams

    def __init__(
        self,
        upstream: "Upstream",
        identity: "Identity",
        startup: Mapping[str, str],
        credentials: Credentials,
        transport: asyncio.Transport,
        client_id: ClientId,
    ) -> None:
        assert upstream.settings.replication_class is not None, "asked before"
        self.class_name = upstream.settings.replication_class
        self.id = client_id
        self.identity = identity
        self.transport = transport
        self.phase = Phase.ENTERING
        self.process_id = 0
        self.secret_key = b""
        self.settings: Settings | None = None
        self.server: ServerConnection | None = None
        self.pool = ReplicationPool(upstream, identity, startup)
        self.pool.credentials = credentials
        self.upstream = upstream
        self._desk = desk = upstream.desk
        self._measures = desk.measures.of(self.class_name).of_application(identity.application_name)
        self._has_place = False
        self.holds_slot = False
        self._asked_at = clock.now()
        self._granted_at = 0.0
        self._ahead = Backlog()

    @property
    def granted_at(self) -> float:
        return self._granted_at

    @property
    def asked_at(self) -> float:
        return self._asked_at

    @property
    def application(self) -> str:
        return self._measures.name

    # -- the socket -------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self.server is not None:
            self.server.transport.write(data)
        elif self.phase is not Phase.GONE:
            self._ahead.add(data, (), self._desk.settings.limits.max_waiting_bytes, self.transport)

    def eof_received(self) -> None:
        """Our side is closed too, and connection_lost follows."""
        close_in_time(self.transport, self._desk.loop)

    def connection_lost(self, exc: Exception | None) -> None:
        self._desk.disconnected()
        self._leave()

    def pause_writing(self) -> None:
        if self.server is not None:
            self.server.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.server is not None:
            self.server.transport.resume_reading()

    def end(self, error: ErrorFields | None) -> None:
        """Close, and say why as long as nothing of the server's has been passed on."""
        if self.phase is Phase.GONE:
            return
        if error is not None and self.server is None:
            self.transport.write(messages.error_response(error))
        self._leave()
        close_in_time(self.transport, self._desk.loop)

    # -- a place, then a slot ------------------------------------------------------------------------------------------

    def enter(self) -> None:
        """AuthenticationOk is sent."""
        desk, name = self._desk, self.class_name
        self.upstream.door.join(self, name, desk.queue_timeout(name), desk.flow(self.identity, name))

    def granted(self, grant: Grant) -> None:
        desk = self._desk
        if not self._has_place:
            self._has_place = True
            self._asked_at = clock.now()
            self.upstream.gate.request(self, self.class_name, desk.flow(self.identity, self.class_name), unbounded=True)
            return
        self.holds_slot = True
        self._granted_at = clock.now()
        self.pool.want(self)

    def refused(self, refusal: Refuse) -> None:
        error = refusals.refused(refusal, "FATAL")
        if not self._has_place:
            self._desk.measures.refusals_outside_queue[refusal.class_name, refusal.reason.value] += 1
            error = refusals.no_place(refusal)
        self._end_login(error, refusal.waited_seconds)

    def crashed(self) -> None:
        self.transport.abort()

    def _end_login(self, error: ErrorFields, waited_seconds: float) -> None:
        """It is refused; who has come to nothing before is told so later, and has no place until then."""
        self.upstream.door.left(self.id)
        desk, name = self._desk, self.class_name
        desk.connects.tell_late(self, name, desk.flow(self.identity, name), waited_seconds, partial(self.end, error))

    def still_waiting(self, event: StillWaiting) -> None:
        self.transport.write(messages.notice_response(refusals.still_waiting(event)))

    # -- what the pool brings -----------------------------------------------------------------------------------------

    @property
    def urgency(self) -> int:
        return self._desk.behaviour(self.class_name).priority

    def gives_up_at(self) -> float:
        return self._asked_at + self._desk.queue_timeout(self.class_name)

    def server_failed(self, error: ErrorFields) -> None:
        self._give_slot_back()
        self._end_login(replace(error, severity="FATAL"), clock.now() - self._asked_at)

    def server_ready(self, server: ServerConnection) -> None:
        server.link(self)
        self.server = server
        self.phase = Phase.LINKED
        self._greet(server)
        server.transport.set_protocol(_FromServer(self, server))
        if self._ahead.size:
            server.transport.write(self._ahead.take()[0])

    def _greet(self, server: ServerConnection) -> None:
        """As the server did, with a cancel key of ours."""
        self._desk.keys.issue(self, self.identity.minor_version)
        greeting = [messages.parameter_status(*one) for one in self.pool.table.reported.items()]
        greeting += [messages.backend_key_data(self.process_id, self.secret_key), messages.ready_for_query(b"I")]
        self.transport.write(b"".join(greeting))
        self._desk.measures.logins += 1

    def server_lost(self, server: ServerConnection) -> None:
        """The server closed its side. What it had to say has gone through already."""
        self.server = None
        self._give_slot_back()
        self.end(None)

    # -- cancel, leave ------------------------------------------------------------------------------------------------

    def cancel_requested(self) -> None:
        if self.server is not None:
            self.upstream.canceller.cancel(self.server)

    def cancel_over(self) -> None:
        """Nobody else gets this connection, so nobody waits for that."""

    @property
    def was_served(self) -> bool:
        """It has held a slot: it did not connect for nothing."""
        return self._granted_at > 0.0

    @property
    def is_busy(self) -> bool:
        """A drain waits for a login; a stream has no end of its own."""
        return self.server is None and self.phase is not Phase.GONE

    def reclassify(self) -> None:
        """Its class is that of replication, whatever it is called; where there is none any more, it keeps its own."""
        found = self.upstream.settings.replication_class
        if found is None or found == self.class_name:
            return
        self._desk.parted(self)
        self.class_name = found
        self._measures = self._desk.measures.of(found).of_application(self.identity.application_name)
        self._desk.joined(self)

    def _leave(self) -> None:
        if self.phase is Phase.GONE:
            return
        self.phase = Phase.GONE
        self.pool.is_wanted = False
        server, self.server = self.server, None
        if server is not None:
            self._end_server(server)
        elif self.holds_slot:
            self.pool.gave_up(self)
            self._give_slot_back()
        else:
            self.upstream.gate.leave(self.id, self.class_name, clock.now() - self._asked_at)
        self._ahead.close()
        self._desk.client_left(self)

    def _end_server(self, server: ServerConnection) -> None:
        """The slot is free once the server has closed its side."""
        server.on_gone = self._give_slot_back
        self.pool.close(server)
        if self.upstream.registry.settings.cancel_on_disconnect:
            self._desk.loop.call_later(_CANCEL_AFTER_SECONDS, self._cancel_until_gone, server, _CANCEL_AFTER_SECONDS)

    def _cancel_until_gone(self, server: ServerConnection, pause_seconds: float) -> None:
        if not server.is_open:
            return
        self.upstream.canceller.cancel(server)
        longer = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
        self._desk.loop.call_later(longer, self._cancel_until_gone, server, longer)

    def _give_slot_back(self) -> None:
        now = clock.now()
        self.holds_slot = False
        self._measures.held(now - self._granted_at, now - self._asked_at)
        self.upstream.gate.release(self.id, now)


class _FromServer(asyncio.Protocol):
    """Passes on what the walsender sends, as it comes."""

    def __init__(self, client: ReplicationConnection, server: ServerConnection) -> None:
        self._client = client
        self._server = server

    def data_received(self, data: bytes) -> None:
        self._client.transport.write(data)

    def pause_writing(self) -> None:
        self._server.pause_writing()

    def resume_writing(self) -> None:
        self._server.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connection_lost(exc)
