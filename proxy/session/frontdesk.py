"""What every client connection shares, wherever it leads: who may log in, the keys, the counts, the end.

Owns: the set of logged-in clients, and which upstream one goes to.
Does not know: listening sockets and logins (`listener`, `client_login`), slots and pools (`upstream`).
"""

import asyncio
import random
import secrets
import time
from collections.abc import Collection, Hashable, Iterator
from itertools import count
from typing import Final

import structlog

from proxy.admission.classes import ClientId
from proxy.session.auth_rules import AuthRules
from proxy.session.cancel import CancelKeys
from proxy.session.client import ClientConnection
from proxy.session.connects import Connects
from proxy.session.identity import Identity
from proxy.session.late_answers import LateAnswers
from proxy.session.login_times import LoginTimes
from proxy.session.measures import Measures
from proxy.session.pacing import LoginPacer
from proxy.session.passthrough import Origin
from proxy.session.present import Present
from proxy.session.replication import ReplicationConnection
from proxy.session.settings import ClassBehaviour, SessionSettings
from proxy.session.tasks import TaskGroup
from proxy.session.upstream import Upstream

_MAX_UNMATCHED_NAMES: Final = 1000
_UNKNOWN_CLASS: Final = ClassBehaviour()


class Frontdesk:
    """The shared side of all client connections of this process."""

    def __init__(
        self,
        settings: SessionSettings,
        measures: Measures,
        tasks: TaskGroup,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.settings = settings
        self.measures = measures
        self.tasks = tasks
        self.loop = loop
        self.log = structlog.get_logger()
        self.keys = CancelKeys()
        self.upstreams: list[Upstream] = []  # in the order in which databases are looked up
        self.clients: set[ClientConnection | ReplicationConnection] = set()
        self.present = Present()
        self.pacer = LoginPacer(loop)
        self.login_times = LoginTimes(settings.listen.login_timeout_seconds, loop)
        self.connected = 0  # sockets, those that have not finished their login included
        self.draining = False
        self.mock_secret = secrets.token_bytes(32)  # for challenges to users nobody knows
        self.auth_rules = AuthRules(settings.auth.rules)
        self.mock_iterations = settings.auth.mock_iterations  # a look at all users
        self.failed_logins: LateAnswers[Origin] = LateAnswers(settings.auth.failures, loop, random.random)
        self.connects = Connects(LateAnswers(settings.refusals, loop, random.random), measures)
        self.unmatched: dict[tuple[str, str], tuple[int, float]] = {}  # by (upstream, application_name)
        self.unmatched_clients = 0
        self._ids = count(1)
        self._drained: asyncio.Event | None = None

    def disconnected(self) -> None:
        """The socket of a client is closed, whatever became of its login."""
        self.connected -= 1

    def next_client_id(self) -> ClientId:
        return ClientId(next(self._ids))

    def upstream_or_none(self, database: str) -> Upstream | None:
        """The first one that serves the database; None where no upstream does."""
        for upstream in self.upstreams:
            if upstream.settings.serves(database):
                return upstream
        return None

    def behaviour(self, class_name: str) -> ClassBehaviour:
        return self.settings.classes.get(class_name, _UNKNOWN_CLASS)

    def queue_timeout(self, class_name: str) -> float:
        return self.behaviour(class_name).queue_timeout_seconds

    def flow(self, identity: Identity, class_name: str) -> Hashable:
        """What fairness inside the class goes by: clients with the same value share one place in its queue's order."""
        key = self.behaviour(class_name).flow_key
        if key == "identity":
            return identity.flow
        value: str | None = getattr(identity, key)
        return value

    def joined(self, client: ClientConnection | ReplicationConnection) -> None:
        """It counts under its class, and what it calls itself, from now on."""
        self.present.came(client)
        counts = client.pool.clients
        counts[client.class_name] = counts.get(client.class_name, 0) + 1

    def parted(self, client: ClientConnection | ReplicationConnection) -> None:
        """The same no longer: it is gone, or about to change one of the two."""
        self.present.left(client)
        counts = client.pool.clients
        counts[client.class_name] -= 1
        if not counts[client.class_name]:
            del counts[client.class_name]

    def waiting_clients(self, class_names: Collection[str]) -> Iterator["ClientConnection | ReplicationConnection"]:
        """Those in the queues of these classes for a slot; not the proxy's own queries."""
        gates = [upstream.gate for upstream in self.upstreams] if class_names else []
        for applicant in (one for gate in gates for one in gate.applicants()):
            if not isinstance(applicant, ClientConnection | ReplicationConnection):
                continue  # a query of the proxy's own
            if applicant.class_name in class_names:
                yield applicant

    def note_unmatched(self, upstream: str, application_name: str) -> None:
        """A client matched no class. Names are chosen by clients, so only the first are listed."""
        self.unmatched_clients += 1
        times, first_seen = self.unmatched.get((upstream, application_name), (0, 0.0))
        if times or len(self.unmatched) < _MAX_UNMATCHED_NAMES:
            self.unmatched[upstream, application_name] = (times + 1, first_seen or time.time())

    def client_entered(self, client: ClientConnection, *, is_matched: bool) -> None:
        """`is_matched`: a rule has put it into its class, and not the want of one."""
        self.clients.add(client)
        self.joined(client)
        if not is_matched:
            self.note_unmatched(client.upstream.settings.name, client.identity.application_name)

    def replication_entered(self, client: ReplicationConnection) -> None:
        self.clients.add(client)
        self.joined(client)

    def client_left(self, client: ClientConnection | ReplicationConnection) -> None:
        self.clients.discard(client)
        self.parted(client)
        client.upstream.registry.forget(client.pool)
        self.keys.withdraw(client.process_id)
        client.upstream.door.left(client.id)
        self.connects.left(client)
        if not client.was_served:
            flow = self.flow(client.identity, client.class_name)
            self.connects.came_to_nothing(client.upstream, client.class_name, flow)
        if self.draining:
            self.tell_if_drained()

    # -- new settings -------------------------------------------------------------------------------------------------

    def adopt(self, settings: SessionSettings) -> None:
        """Take over what may change while running: users, bounds. Sockets stay."""
        self.settings = settings
        self.auth_rules = AuthRules(settings.auth.rules)
        self.mock_iterations = settings.auth.mock_iterations
        self.login_times.adopt(settings.listen.login_timeout_seconds)
        self.failed_logins.lateness.settings = settings.auth.failures
        self.connects.late.lateness.settings = settings.refusals

    def reclassify(self) -> None:
        """Every client belongs to a class that exists, from its next unit of work on."""
        for client in self.clients:
            client.reclassify()

    # -- the end ------------------------------------------------------------------------------------------------------

    async def drain(self, timeout_seconds: float) -> None:
        """Refuse new clients and wait, at most so long, until nobody waits or works."""
        self.draining = True
        self.failed_logins.answer_all()
        self.connects.end()
        for upstream in self.upstreams:
            upstream.gate.after_release = self.tell_if_drained
        self._drained = asyncio.Event()
        self.tell_if_drained()
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._drained.wait()
        except TimeoutError:
            self.log.warning("drain_timeout", clients_at_work=sum(client.is_busy for client in self.clients))

    def tell_if_drained(self) -> None:
        """Called while draining whenever a slot was given back or a client left."""
        if self._drained is not None and not any(client.is_busy for client in self.clients):
            self._drained.set()
