"""What the simulation expects of whoever decides who gets a slot. The admission core fits as it is.

Owns: the shape of a policy.
Does not know: any policy.
"""

from collections.abc import Hashable, Sequence
from typing import Protocol, runtime_checkable

from proxy.admission.classes import ClientId
from proxy.admission.decisions import Decision


class Policy(Protocol):
    """The part of the admission core that a simulation drives; `now` is monotone, in seconds."""

    def try_grant(self, client: ClientId, class_name: str, now: float, /) -> bool: ...

    def request(
        self, client: ClientId, class_name: str, *, flow: Hashable, now: float, unbounded: bool = False
    ) -> Sequence[Decision]: ...

    def release(self, client: ClientId, now: float, /) -> Sequence[Decision]: ...

    def leave(self, client: ClientId, now: float, /) -> Sequence[Decision]: ...

    def advance(self, now: float, /) -> Sequence[Decision]: ...

    def next_wakeup_at(self) -> float | None: ...


@runtime_checkable
class Ticking(Protocol):
    """A policy that does something every so often as well."""

    tick_seconds: float

    def tick(self, now: float, /) -> Sequence[Decision]: ...
