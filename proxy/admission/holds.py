"""How long a client may go on in one way, and which bound it has reached.

Owns: the bounds of one class, which of them counts first, when a client has to be looked at again.
Does not know: how it is found out what a client does, what is done at a bound, slots.

`now` and every `since` are seconds of one clock. A bound of infinity is none, a `since` of infinity says "not at all".
"""

from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import Final


class Bound(StrEnum):
    """The values are the keys of `classes.<name>.holds`, and the words of metrics, logs and error texts."""

    IDLE_IN_TRANSACTION = "idle_in_transaction"
    BORROWED_IDLE_IN_TRANSACTION = "borrowed_idle_in_transaction"
    TRANSACTION = "transaction"
    QUERY = "query"
    CLIENT_IDLE = "client_idle"
    SLOW_READER = "slow_reader"


@dataclass(frozen=True, slots=True)
class HoldBounds:
    """Of one class, in seconds."""

    idle_in_transaction: float = inf
    borrowed_idle_in_transaction: float = inf  # for a slot over the reservation that somebody waits for
    transaction: float = inf
    query: float = inf
    client_idle: float = inf
    slow_reader: float = inf
    soonest: float = field(init=False, compare=False, repr=False)
    """The shortest of them: whatever a client begins now, nothing is due earlier than that."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "soonest", min(getattr(self, bound) for bound in Bound))


NO_BOUNDS: Final = HoldBounds()


@dataclass(frozen=True, slots=True)
class Conduct:
    """What a client does, and since when.

    `client_idle`: it holds nothing, or a session in which no transaction is open. `unread`: it has read nothing of a
    result that waits for it. One that waits, or for which a connection is made fit, does none of these.
    """

    client_idle: float = inf
    idle_in_transaction: float = inf
    transaction: float = inf
    query: float = inf
    unread: float = inf


def reached(bounds: HoldBounds, conduct: Conduct, now: float, *, is_wanted: bool = False) -> Bound | None:
    """The first bound that is reached, those first whose end is the end of the others.

    `is_wanted`: the client's slot is borrowed, and would serve somebody who waits.
    """
    for bound, at in _due(bounds, conduct, is_wanted):
        if at <= now:
            return bound
    return None


def next_look_at(bounds: HoldBounds, conduct: Conduct, now: float) -> float:
    """When something may be due next, later than `now`; infinity where nothing can come from time alone.

    What an idle client begins is told by whoever sees it. Anything else may turn into anything else unseen.
    """
    if conduct.client_idle < inf:
        at = conduct.client_idle + bounds.client_idle
        return at if at > now else inf
    moments = [at for _, at in _due(bounds, conduct, True) if at > now]
    return min((*moments, now + bounds.soonest))


def _due(bounds: HoldBounds, conduct: Conduct, is_wanted: bool) -> tuple[tuple[Bound, float], ...]:
    borrowed = bounds.borrowed_idle_in_transaction if is_wanted else inf
    return (
        (Bound.TRANSACTION, conduct.transaction + bounds.transaction),
        (Bound.SLOW_READER, conduct.unread + bounds.slow_reader),
        (Bound.QUERY, conduct.query + bounds.query),
        (Bound.IDLE_IN_TRANSACTION, conduct.idle_in_transaction + bounds.idle_in_transaction),
        (Bound.BORROWED_IDLE_IN_TRANSACTION, conduct.idle_in_transaction + borrowed),
        (Bound.CLIENT_IDLE, conduct.client_idle + bounds.client_idle),
    )
