"""What the operator decides: the classes, their numbers, and the budget they share.

Owns: the settings as values, and the words for numbers that cannot hold.
Does not know: what is in use, where the settings were read, time.
"""

from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import KW_ONLY, dataclass, replace
from enum import StrEnum
from typing import Final, NewType

ClientId = NewType("ClientId", int)

INTERNAL_CLASS = "internal"


class ClassState(StrEnum):
    """The switch of a class. Only a running class is granted slots; the others keep their floor and no more."""

    RUNNING = "running"
    PAUSED = "paused"  # waiters keep their place
    DRAINING = "draining"  # the same; the operator waits for `used` to reach 0
    REJECTING = "rejecting"  # waiters and new requests are refused


class Mode(StrEnum):
    """Whether the bounds of a class decide, or only tell what they would have decided."""

    ENFORCE = "enforce"
    WARN = "warn"


@dataclass(frozen=True, slots=True)
class ConnectSettings:
    """Connects per second that may come to nothing, of the class and of one identity in it, and how many at once.

    A rate of None is no bound. `burst` of them may come at once after a quiet time.
    """

    rate: float | None = None
    burst: int = 1000
    identity_rate: float | None = None
    identity_burst: int = 1000


NO_CONNECT_RATE = ConnectSettings()


@dataclass(frozen=True, slots=True)
class ClassSettings:
    """One priority class. Slots are counted, times are in seconds, and priority 0 is served first.

    `queue_max` 0 refuses instead of queueing, `refuse_hopeless` refuses at once who would wait in vain. `pinned_limit`
    None means the class limit, `max_clients` and `max_clients_per_identity` None no limit.
    `lend_memory_seconds` is the half-life with which unused demand is forgotten, `slow_start_seconds` the time in which
    it comes up to its limit after a pause or an outage. `renamed_from` is the name that the class had before this
    reload: who holds or waits there does so here.
    """

    name: str
    _: KW_ONLY
    limit: int
    priority: int = 5
    reserved: int = 0
    lendable: int = 0
    weight: float = 1.0
    queue_max: int = 500
    queue_timeout_seconds: float = 5.0
    refuse_hopeless: bool = False
    pinned_limit: int | None = None
    max_clients: int | None = None
    max_clients_per_identity: int | None = None
    lend_memory_seconds: float = 10.0
    notify_after_seconds: float = 5.0
    renamed_from: str | None = None
    connects: ConnectSettings = NO_CONNECT_RATE
    slow_start_seconds: float = 0.0
    mode: Mode = Mode.ENFORCE

    def problems(self) -> Iterator[str]:
        """What cannot hold inside this class, in plain words."""
        if not self.name:
            yield "a class without a name"
        yield from self._numbers_too_small()
        yield from self._numbers_that_disagree()

    def _numbers_too_small(self) -> Iterator[str]:
        whole_numbers = {
            "priority": self.priority,
            "reserved": self.reserved,
            "lendable": self.lendable,
            "queue.max": self.queue_max,
            "queue.timeout": self.queue_timeout_seconds,
            "lend_memory": self.lend_memory_seconds,
            "notify_after": self.notify_after_seconds,
            "pinned_limit": 0 if self.pinned_limit is None else self.pinned_limit,
        }
        for key, number in whole_numbers.items():
            if number < 0:
                yield f'class "{self.name}": {key} is {number}; it cannot be negative'
        if self.limit < 1:
            yield f'class "{self.name}": limit is {self.limit}; a class that may never hold a slot is better left out'
        if self.weight <= 0:
            yield f'class "{self.name}": weight is {self.weight}; it must be greater than 0'
        if self.max_clients is not None and self.max_clients < 1:
            yield f'class "{self.name}": max_clients is {self.max_clients}; it must be at least 1'
        most = self.max_clients_per_identity
        if most is not None and most < 1:
            yield f'class "{self.name}": max_clients_per_identity is {most}; it must be at least 1'

    def _numbers_that_disagree(self) -> Iterator[str]:
        if self.reserved > self.limit:
            yield (
                f'class "{self.name}": reserved is {self.reserved} but limit is {self.limit}; '
                "slots above the limit could never be used"
            )
        if self.lendable > self.reserved:
            yield (
                f'class "{self.name}": lendable is {self.lendable} but reserved is {self.reserved}; '
                "only reserved slots can be lent"
            )
        if self.pinned_limit is not None and self.pinned_limit > self.limit:
            yield (
                f'class "{self.name}": pinned_limit is {self.pinned_limit} but limit is {self.limit}; '
                "a pinned client counts against both"
            )


@dataclass(frozen=True, slots=True)
class BudgetSettings:
    """All slots (`total`), the headroom and who may use it, and the classes in the order of the configuration.

    A Controller takes settings that do not hold as well, and cuts them in priority order: the total can shrink while
    running. `validate` is for whoever reads a configuration.
    """

    total: int
    headroom: int = 0
    headroom_for: frozenset[str] = frozenset()
    classes: tuple[ClassSettings, ...] = ()

    def validate(self) -> list[str]:
        """Everything that cannot hold, in plain words; an empty list means that every promise can be kept."""
        return [
            *self._problems_of_the_total(),
            *self._problems_of_the_headroom(),
            *self._problems_of_the_names(),
            *(problem for settings in self.classes for problem in settings.problems()),
        ]

    def _problems_of_the_total(self) -> Iterator[str]:
        if self.total < 1:
            yield f"budget.total is {self.total}; without a slot nobody can be served"
        promised = {settings.name: settings.reserved for settings in self.classes if settings.reserved > 0}
        needed = sum(promised.values()) + max(0, self.headroom)
        if needed > self.total:
            sums = " + ".join(f"{reserved} ({name})" for name, reserved in promised.items())
            terms = f"{sums or '0'} + {self.headroom} (headroom)" if self.headroom > 0 else sums
            yield f"reservations and headroom are {terms} = {needed}, but budget.total is {self.total}"

    def _problems_of_the_headroom(self) -> Iterator[str]:
        if self.headroom < 0:
            yield f"budget.headroom.size is {self.headroom}; it cannot be negative"
        if self.headroom > 0 and not self.headroom_for:
            yield f"budget.headroom.size is {self.headroom} but budget.headroom.for names nobody who may use it"
        names = {settings.name for settings in self.classes}
        for unknown in sorted(self.headroom_for - names):
            yield f'budget.headroom.for names "{unknown}", and there is no such class'

    def _problems_of_the_names(self) -> Iterator[str]:
        if not self.classes:
            yield "there is no class"
        for name, times in Counter(settings.name for settings in self.classes).items():
            if times > 1:
                yield f'class "{name}" is defined {times} times'
        for settings in self.classes:
            if settings.name == INTERNAL_CLASS and settings.reserved < 1:
                yield f'class "{INTERNAL_CLASS}": reserved is 0; the proxy\'s own connections need at least 1'


def renamed_classes(settings: BudgetSettings, known: Container[str]) -> dict[str, str]:
    """Old name -> new name of the classes that go on under another one; `known` are those of before.

    A name that is configured still, or that exists already, is no other class's.
    """
    names = {one.name for one in settings.classes}
    renamed = {}
    for one in settings.classes:
        old = one.renamed_from
        if old is not None and old in known and old not in names and one.name not in known and old not in renamed:
            renamed[old] = one.name
    return renamed


def removed_classes(settings: BudgetSettings, before: BudgetSettings) -> set[str]:
    """The classes of `before` that go on under no name."""
    known = {one.name for one in before.classes}
    return known - {one.name for one in settings.classes} - set(renamed_classes(settings, known))


INTERNAL_LIMIT: Final = 2  # one for what asks without end, and one for what must not wait behind it


def with_internal_class(settings: BudgetSettings, *, limit: int = INTERNAL_LIMIT, listening: int = 0) -> BudgetSettings:
    """The settings with the class of the proxy's own connections in front, unless it is there already.

    One slot is kept for its queries; `listening` are connections that it holds beside that for as long as they live.

    In front, because it is then the last of its priority to lose its reservation when the budget shrinks.
    """
    if any(one.name == INTERNAL_CLASS for one in settings.classes):
        return settings
    reserved, most = 1 + listening, limit + listening
    internal = ClassSettings(INTERNAL_CLASS, priority=0, reserved=reserved, lendable=0, limit=most)
    return replace(settings, classes=(internal, *settings.classes))
