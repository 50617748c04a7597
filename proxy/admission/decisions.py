"""What the core decided; whoever asked acts on it.

Owns: the shapes of decisions and the reasons of refusals.
Does not know: how they are reached, and how a client is told.
"""

from dataclasses import dataclass
from enum import StrEnum

from proxy.admission.classes import ClientId


class RefusalReason(StrEnum):
    """Why the answer is no. The values are the words of configuration, metrics, logs and error texts."""

    QUEUE_FULL = "queue_full"
    QUEUE_TIMEOUT = "queue_timeout"  # waited as long as it might, in vain
    DEADLINE = "deadline"  # never waited: its turn would come after its patience has ended
    LIMIT = "limit"
    MAX_CLIENTS = "max_clients"
    PINNED_LIMIT = "pinned_limit"
    RATE = "rate"  # connects too often for nothing
    PAUSED = "paused"
    CLASS_REJECTING = "class_rejecting"
    SHUTTING_DOWN = "shutting_down"
    SERVER_UNAVAILABLE = "server_unavailable"


@dataclass(frozen=True, slots=True)
class Grant:
    """The client holds a slot from now on and must release it. `borrowed`: it is over the class's reservation.

    `would_refuse`: of a place, that its class only warns.
    """

    client: ClientId
    class_name: str
    waited_seconds: float
    borrowed: bool
    would_refuse: RefusalReason | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """The client gets no slot and waits no longer. The counts are those at the moment of the refusal.

    `per_identity`: the bound of the client's identity decided, `max_clients_per_identity` with the counts of that
    identity, or `connects.per_identity`. `expected_wait_seconds` is what a `deadline` would have come to.
    """

    client: ClientId
    class_name: str
    reason: RefusalReason
    waited_seconds: float
    in_use: int
    limit: int
    waiting: int
    retry_after_ms: int
    per_identity: bool = False
    expected_wait_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class StillWaiting:
    """Said once to who waits longer than `notify_after`. The place in the queue is an estimate from 1 on, and so is the
    time it has still to wait; None where the pace of the queue is not known."""

    client: ClientId
    class_name: str
    waited_seconds: float
    position: int
    expected_wait_seconds: float | None = None


Decision = Grant | Refuse | StillWaiting

NOTHING: tuple[Decision, ...] = ()
