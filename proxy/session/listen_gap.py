"""The time in which a shared listening connection was away, and notifications may have been missed.

Owns: when it began, whom it concerns, what they are told, once while it lasts and once at its end.
Does not know: the connection, channels.
"""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import structlog

from proxy.session import refusals
from proxy.wire import messages
from proxy.wire.messages import ErrorFields

if TYPE_CHECKING:
    from proxy.session.listening import Listening

log = structlog.get_logger("pgheadroom.listen")

_KEEPALIVE_SECONDS: Final = 60.0  # after so long the loss of a peer that fell silent is noticed (`transports`)


class Gap:
    """That of one hub. It is open from a loss until everything is listened to again."""

    def __init__(self, database: str) -> None:
        self._database = database
        self._lost_at: float | None = None  # in Unix seconds; None where nothing is missed
        self._missed: dict[Listening, None] = {}
        self._is_interruption_told = False

    @property
    def is_open(self) -> bool:
        return self._lost_at is not None

    def began(self, missed: Iterable["Listening"], heard_at: float, channels: int) -> bool:
        """`heard_at`: the Unix time of the last sign of life. False where the gap was open, and more have joined it."""
        is_new = self._lost_at is None
        if is_new:
            self._lost_at = max(heard_at, time.time() - _KEEPALIVE_SECONDS)
            log.warning("shared_listen_connection_lost", database=self._database, channels=channels)
        self._missed.update(dict.fromkeys(missed))
        return is_new

    def lasts(self, error: ErrorFields) -> None:
        """It does not come back at once. A gap that lasts must not be silent until its end."""
        if self._lost_at is None or self._is_interruption_told:
            return
        self._is_interruption_told = True
        log.warning(
            "shared_listen_connection_stays_away", database=self._database, error=error.message, code=error.code
        )
        self._tell(refusals.notifications_interrupted(self._lost_at))

    def ended(self) -> None:
        """Everything is listened to again."""
        if self._lost_at is None:
            return
        now = time.time()
        log.info("shared_listen_connection_is_back", database=self._database, seconds=round(now - self._lost_at, 3))
        self._tell(refusals.notifications_missed(self._lost_at, now))
        self._lost_at, self._missed, self._is_interruption_told = None, {}, False

    def _tell(self, fields: ErrorFields) -> None:
        notice = messages.notice_response(fields)
        for listening in self._missed:
            if listening.channels:
                listening.tell(notice, is_ascii=True)
