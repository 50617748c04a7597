"""Clients that connect again and again: how often they may, and how late they are told no.

Owns: the one answer to every connect, come in or not, and the refused logins whose answer waits.
Does not know: sockets, the words of a refusal, what an identity is, slots.

Both come after authentication. Before it libpq takes an error for a reason to dial again at once, without TLS, and
counts are told to nobody who has not proved who it is.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

from proxy.admission.classes import ClientId
from proxy.admission.connect_rate import Key
from proxy.admission.decisions import Refuse
from proxy.session import clock
from proxy.session.late_answers import LateAnswers
from proxy.session.measures import Measures

if TYPE_CHECKING:
    from proxy.session.upstream import Upstream


class Connects:
    """The connects of all classes of all upstreams."""

    def __init__(self, late: LateAnswers[Key], measures: Measures) -> None:
        self.late = late
        self._measures = measures
        self._is_ending = False

    def refusal_or_none(
        self, upstream: "Upstream", client: ClientId, class_name: str, identity: Hashable
    ) -> Refuse | None:
        """Somebody has proved who it is. None: it may come in."""
        self._measures.connects[class_name] += 1
        too_many = upstream.connect_rate.connected(class_name, identity, clock.now())
        return None if too_many is None else upstream.gate.controller.refuse_connect(client, class_name, too_many)

    def tell_late(
        self, client: object, class_name: str, identity: Hashable, waited_seconds: float, answer: Callable[[], None]
    ) -> None:
        """A login is refused: `answer` is called now or, where its identity was refused before, later.

        What it has waited in a queue counts. It is not called for a client of which `left` says that it is gone.
        """
        if self._is_ending:
            answer()
            return
        seconds = self.late.lateness.note((class_name, identity), clock.now()) - waited_seconds
        if seconds > 0.0:
            self._measures.refusals_late[class_name] += 1
        self.late.hold(client, seconds, answer)

    def refused_most_often(self, count: int) -> Sequence[tuple[Key, int]]:
        """Class and identity of those that were refused most often lately while connecting."""
        return self.late.lateness.most_often(count, clock.now())

    def end(self) -> None:
        """The process ends: nobody is kept waiting from now on."""
        self._is_ending = True
        self.late.answer_all()

    def left(self, client: object) -> None:
        self.late.left(client)

    @staticmethod
    def came_to_nothing(upstream: "Upstream", class_name: str, identity: Hashable) -> None:
        """A client is gone that was let in and never served, refused or not."""
        upstream.connect_rate.came_to_nothing(class_name, identity, clock.now())
