"""What a simulated client meets before it may ask for a slot: the bound on connects, and late answers.

Owns: which clients are connected, and when the next word of a refused one is.
Does not know: slots, the event loop, sockets; the same two modules of the core say so in the proxy.
"""

from collections.abc import Hashable

from proxy.admission.classes import BudgetSettings, ClientId
from proxy.admission.connect_rate import ConnectRate, Key, TooManyConnects
from proxy.admission.draws import Draw
from proxy.admission.lateness import Lateness, LatenessSettings


class FrontDoor:
    """The connects of all clients that reconnect after a refusal; the others never come here."""

    def __init__(self, settings: BudgetSettings, refusals: LatenessSettings, draw: Draw) -> None:
        self._rate = ConnectRate(settings, draw=draw)
        self._lateness: Lateness[Key] = Lateness(refusals, draw)
        self._connected: set[ClientId] = set()
        self._served: set[ClientId] = set()

    def enter(self, client: ClientId, class_name: str, identity: Hashable, now: float) -> TooManyConnects | None:
        """It wants to ask for a slot, and connects for that unless it is connected."""
        if client in self._connected:
            return None
        too_many = self._rate.connected(class_name, identity, now)
        if too_many is None:
            self._connected.add(client)
        return too_many

    def sent_away(self, client: ClientId, class_name: str, identity: Hashable, waited: float, now: float) -> float:
        """It was refused, and its connection ends: so many seconds later it is told."""
        self.left(client, class_name, identity, now)
        return max(0.0, self._lateness.note((class_name, identity), now) - waited)

    def served(self, client: ClientId) -> None:
        """It did not connect for nothing."""
        self._served.add(client)

    def left(self, client: ClientId, class_name: str, identity: Hashable, now: float) -> None:
        """Its connection is over, where it had one."""
        if client in self._connected and client not in self._served:
            self._rate.came_to_nothing(class_name, identity, now)
        self._connected.discard(client)
        self._served.discard(client)
