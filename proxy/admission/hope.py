"""How long somebody has to wait, and whether that is in vain.

Owns: the estimate, and when it is good enough to refuse somebody for it.
Does not know: how the pace of a queue is measured (`queue_pace`), how a refusal is told.

A wait that ends in a refusal is the worst answer: it costs the client its patience and the queue a place. But it is
refused in advance only where nothing speaks for it:

* its turn, by the order of the queue with its flows, would come later than its patience ends, at the best pace that the
  class has lately kept up, and MARGIN better than that. So who is let in may still wait in vain; who is refused would
  have, unless the class got faster than it has been.
* a pace is known at all: it comes from at least a second of queueing and ten grants out of the queue. The first burst
  after a quiet time is queued whole.
* the class runs and has all of its reservation in use: what it is owed may come back at any moment.

Whatever is refused so, the queue holds more than the class can do in that time: no slot stands idle for it.
"""

from collections.abc import Hashable
from typing import Final

from proxy.admission.ledger import Account

MARGIN: Final = 1.1


def wait_in_vain_or_none(account: Account, flow: Hashable, patience_seconds: float | None) -> float | None:
    """The seconds that one more of this flow would wait, where its patience ends before; None: it may hope.

    `patience_seconds` is its own, where that is shorter than that of the class.
    """
    if not account.running or account.used < account.reserved:
        return None
    best = account.pace.best_per_second()
    if best is None:
        return None
    patience = account.settings.queue_timeout_seconds
    if patience_seconds is not None:
        patience = min(patience, patience_seconds)
    in_time = best * MARGIN * patience
    # Nobody's turn comes later than in order of arrival: this answers nearly everybody.
    if len(account.queue) + 1 <= in_time:
        return None
    turn = account.queue.turn_of_one_more(flow)
    return turn / best if turn > in_time else None


def expected_seconds(account: Account, position: int, now: float) -> float | None:
    """The wait of who stands there, at the pace of late."""
    per_second = account.pace.per_second(now) if account.running else None
    return position / per_second if per_second else None


def expected_seconds_of_one_more(account: Account, now: float) -> float | None:
    """The wait of who asks now: 0 where nobody waits."""
    waiting = len(account.queue)
    return expected_seconds(account, waiting + 1, now) if waiting else 0.0
