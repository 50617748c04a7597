"""One upstream: a server, the budget in front of it, its pools, and what the proxy itself asks of it.

Owns: all that the clients of one upstream share and those of another have no part in.
Does not know: which clients come here (`frontdesk`), where the budget comes from (`service.running_upstream`).
"""

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

from proxy.admission.classes import ClientId
from proxy.admission.classification import Classification, Classifier
from proxy.admission.connect_rate import ConnectRate
from proxy.admission.removal import Destination
from proxy.admission.trial import Would
from proxy.session import clock
from proxy.session.cancel import Canceller
from proxy.session.gate import Door, Gate
from proxy.session.holding import Holds
from proxy.session.limited_log import LimitedLog
from proxy.session.listen_hubs import ListenHubs
from proxy.session.passthrough import Passthrough
from proxy.session.pool import Pool
from proxy.session.registry import Registry
from proxy.session.settings import PoolSettings, UpstreamSettings
from proxy.session.tags import tag_reader_or_none
from proxy.session.user_lookup import UserLookup

if TYPE_CHECKING:
    from proxy.session.frontdesk import Frontdesk
    from proxy.session.identity import Identity


class Upstream:
    """The server's side of all client connections that lead to it."""

    def __init__(
        self,
        desk: "Frontdesk",
        settings: UpstreamSettings,
        classifier: Classifier,
        gate: Gate,
        door: Door,
        connect_rate: ConnectRate,
        registry: Registry,
    ) -> None:
        self.desk = desk
        self.settings = settings
        self.classifier = classifier
        self.gate = gate
        self.door = door
        self.connect_rate = connect_rate
        self.registry = registry
        self.canceller = Canceller(registry.connector, desk.measures, desk.tasks)
        self.listen_hubs = ListenHubs(self)
        self.holds = Holds(self)
        self.tags = tag_reader_or_none(self)
        self._warnings = LimitedLog(desk.log)
        self.user_lookup = UserLookup(self)
        self.passthrough = Passthrough(self)
        self._auth = desk.settings.auth
        registry.idle_kept_from = self.idle_kept_from

    def tell_warning(self, identity: "Identity", would: Would, now: float) -> None:
        """A client was let pass, as its class only warns."""
        outcome = "queue" if would.reason is None else would.reason.value
        kind = would.class_name, outcome
        numbers = {"in_use": would.in_use, "limit": would.limit}
        keys = identity.log_keys()
        self._warnings.warning("class_warns", kind, now, class_name=would.class_name, would=outcome, **numbers, **keys)

    def database_of(self, identity: "Identity") -> str:
        """What the client's database is called on this server."""
        return self.settings.database_there or identity.database

    def pool_of(self, identity: "Identity") -> Pool:
        return self.registry.pool(self.database_of(identity), identity.user)

    def classify(self, identity: "Identity", application_name: str) -> str:
        return self.classification(identity, application_name).class_name

    def classification(self, identity: "Identity", application_name: str) -> Classification:
        return self.classifier.classify(application_name, identity.user, identity.database, identity.address)

    def idle_kept_from(self, class_name: str, present: Collection[str]) -> int:
        """Idle connections that `class_name` leaves alone: what is held for more urgent classes and not in use."""
        desk, controller, now = self.desk, self.gate.controller, clock.now()
        urgency = desk.behaviour(class_name).priority
        return sum(
            controller.held_unused(other, now)
            for other in present
            if desk.behaviour(other).priority < urgency and controller.has_class(other)
        )

    def reclassify_all(self) -> dict[ClientId, Destination]:
        """Every client of this server belongs where the rules put it now. Returns where, and as what there."""
        desk, found = self.desk, {}
        for client in desk.clients:
            if client.upstream is self:
                client.reclassify()
                found[client.id] = Destination(client.class_name, desk.flow(client.identity, client.class_name))
        return found

    def adopt(self, settings: UpstreamSettings, pool: PoolSettings, classifier: Classifier) -> None:
        """Take over what may change while running: classes, bounds, certificates. The hosts stay."""
        self.settings = replace(
            self.settings,
            tls=settings.tls,
            databases=settings.databases,
            database_there=settings.database_there,
            replication_class=settings.replication_class,
        )
        self.classifier = classifier
        self.registry.connector.adopt_tls(settings.tls)
        self._forget_users()
        self.adopt_numbers(pool)

    def adopt_numbers(self, pool: PoolSettings) -> None:
        """Numbers and words are new, those of `desk` among them; who may log in and where is not."""
        self.registry.adopt(pool)
        self.tags = tag_reader_or_none(self)
        if self.desk.settings.auth != self._auth:
            self._forget_users()

    def _forget_users(self) -> None:
        """What was learnt of them was to be believed as other settings said."""
        self._auth = self.desk.settings.auth
        self.user_lookup.forget_all()
        self.passthrough.adopt()
