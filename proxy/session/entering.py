"""A client between AuthenticationOk and its first ReadyForQuery.

Owns: the order of entering: a place in the class, a server connection where the login needs one, the greeting.
Does not know: how a login is proved (`client_login`), how a connection is made fit (`fitting`).

A server connection is needed for the parameters of a database and user that nobody has used yet, for startup parameters
whose values the server has not been seen to accept, and in session mode for as long as the client stays.
"""

from typing import TYPE_CHECKING, Final

from proxy.admission.decisions import Grant, Refuse, StillWaiting
from proxy.session import linked, refusals
from proxy.session.parameters import Settings
from proxy.session.server import ServerConnection
from proxy.wire import messages

if TYPE_CHECKING:
    from proxy.session.client import ClientConnection

_READY: Final = messages.ready_for_query(b"I")


class Entering:
    """Stands for `client` at the door, where the answer is about its place and not about a slot."""

    __slots__ = ("_ahead", "_client", "id")

    def __init__(self, client: "ClientConnection", ahead: bytes) -> None:
        self.id = client.id
        self._client = client
        self._ahead = ahead

    def begin(self) -> None:
        client, desk = self._client, self._client.desk
        name, door = client.class_name, client.upstream.door
        flow = desk.flow(client.identity, name)
        if door.try_join(self.id, name, flow):
            self._has_place()
        else:
            door.join(self, name, desk.queue_timeout(name), flow)
        self._say_ahead()

    def _say_ahead(self) -> None:
        """AuthenticationOk goes out with the greeting, as from a server, unless something has to come first.

        Whoever waits has to see that it is let in, and without it takes an error for another one.
        """
        ahead, self._ahead = self._ahead, b""
        if ahead:
            self._client.transport.write(ahead)

    # -- a place ------------------------------------------------------------------------------------------------------

    def granted(self, grant: Grant) -> None:
        client = self._client
        if grant.would_refuse is not None:
            self._say_ahead()
            client.desk.measures.would_refuse_outside_queue[grant.class_name, grant.would_refuse.value] += 1
            client.warn(client.upstream.door.places.would_have_been(client.id, grant.would_refuse))
        self._has_place()

    def _has_place(self) -> None:
        client, table = self._client, self._client.pool.table
        if client.gate.controller.warned:
            self._say_ahead()
            client.tell_what_would_have_been()
        if not client.session_hold and table.is_known:
            beginning = table.beginning_or_none(client.identity.wanted)
            if beginning is not None:
                client.settings, statuses = beginning
                self._greet(statuses)
                client.entered()
                return
        self._say_ahead()
        client.request_slot(unbounded=client.session_hold)

    def refused(self, refusal: Refuse) -> None:
        self._say_ahead()
        self._client.desk.measures.refusals_outside_queue[refusal.class_name, refusal.reason.value] += 1
        self._client.end_login(refusals.no_place(refusal), refusal.waited_seconds)

    def still_waiting(self, event: StillWaiting) -> None:
        self._client.still_waiting(event)

    def crashed(self) -> None:
        self._client.crashed()

    # -- a server connection ------------------------------------------------------------------------------------------

    def wanted_settings(self) -> Settings:
        table, parameters = self._client.pool.table, self._client.identity.parameters
        return table.settings_or_none(parameters) or table.intern({**table.neutral.values, **parameters})

    def server_fit(self, server: ServerConnection) -> None:
        """It has taken the client's startup parameters."""
        client = self._client
        client.settings = settings = server.settings
        if not client.session_hold:
            client.give_back(server)
            self._greet(client.pool.table.statuses(settings))
            client.entered()
            return
        link = linked.Link(client, server)
        server.client = link
        client.linked(link)
        self._greet(client.pool.table.statuses(settings))
        link.flush_backlog()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _greet(self, statuses: bytes) -> None:
        client, desk = self._client, self._client.desk
        client.read_dialect()
        desk.keys.issue(client, client.identity.minor_version)
        ahead, self._ahead = self._ahead, b""
        key = messages.backend_key_data(client.process_id, client.secret_key)
        client.transport.write(b"".join((ahead, statuses, key, _READY)))
        desk.measures.logins += 1
