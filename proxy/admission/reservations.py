"""Which reservations and how much headroom the budget can carry.

Owns: the cut, in priority order, when the total or a limit is too small for what was promised.
Does not know: what is in use.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from proxy.admission.classes import BudgetSettings, ClassSettings


@dataclass(frozen=True, slots=True)
class Part:
    """What one class keeps: `reserved` of which `floor` is never lent."""

    reserved: int
    floor: int


@dataclass(frozen=True, slots=True)
class Parts:
    """The promises that fit: always sum(reserved) + headroom <= total."""

    by_class: Mapping[str, Part]
    headroom: int


def cut_to_fit(settings: BudgetSettings, limits: Mapping[str, int]) -> Parts:
    """Give each class its reservation while slots last, the most important class first, and the headroom last.

    `limits` are the effective ones: nobody keeps more than it may use. Inside a class the lendable part is cut first,
    because the floor is what the class counts on.
    """
    left = max(0, settings.total)
    by_class = {}
    for one in sorted(settings.classes, key=lambda one: one.priority):
        part = _cut(one, min(left, limits[one.name]))
        by_class[one.name] = part
        left -= part.reserved
    return Parts(by_class, headroom=max(0, min(settings.headroom, left)))


def _cut(settings: ClassSettings, at_most: int) -> Part:
    reserved = max(0, min(settings.reserved, at_most))
    floor = max(0, settings.reserved - settings.lendable)
    return Part(reserved, min(floor, reserved))
