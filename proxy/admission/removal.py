"""Where those go whose class left the configuration.

Owns: the destination of a client, as the rules give it now, and the moving of waiters there.
Does not know: the rules, who is granted or refused afterwards.

A waiter takes its time of arrival and its patience with it: it stands in the queue of its new class where it would
stand had it come there at the same moment. The turns of the flows in that queue begin anew, the oldest first.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Final

from proxy.admission.classes import ClassState, ClientId
from proxy.admission.ledger import Account, Ledger
from proxy.admission.queues import Waiter


@dataclass(frozen=True, slots=True)
class Destination:
    """The class that a client belongs to now, and what it is one of there (a flow, an identity)."""

    class_name: str
    flow: Hashable


Moves = Mapping[ClientId, Destination]
NO_MOVES: Final[Moves] = {}


def send_on(ledger: Ledger, moves: Moves, now: float) -> tuple[list[Waiter], list[Waiter]]:
    """Move the waiters of retired classes. Returns those who wait elsewhere now, the oldest first, and those who may
    not wait: they have nowhere to go, or their class rejects. Both are still in the queue that they name."""
    leaving = [one for account in ledger.all_accounts() if account.retired for one in account.queue.waiters.values()]
    leaving.sort(key=Waiter.arrival)
    targets = {waiter.client: _target_or_none(ledger, moves.get(waiter.client)) for waiter in leaving}
    for account in ledger.all_accounts():
        coming = [(one, moves[one.client].flow) for one in leaving if targets[one.client] is account]
        if coming:
            ledger.change_class(coming, account, now)
    may_wait = {client for client, one in targets.items() if one is not None and one.state is not ClassState.REJECTING}
    moved = [waiter for waiter in leaving if waiter.client in may_wait]
    return moved, [waiter for waiter in leaving if waiter.client not in may_wait]


def _target_or_none(ledger: Ledger, destination: Destination | None) -> Account | None:
    account = None if destination is None else ledger.accounts.get(destination.class_name)
    return None if account is None or account.retired else account
