"""Which orders are in force for the classes, who gave them, and when they end.

Owns: the switches of commands and those of flag files, which of the two counts, and the numbers that were set.
Does not know: clocks (`at` is an argument, in Unix seconds), files, the admission core, how an order arrived.

A flag file counts before a switch, whenever that was given: what can be seen in the directory is what is in force.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from typing import Final

from proxy.admission.classes import ClassState
from proxy.service.config.settable import Number

# What people order, and what becomes of the class.
STATES: Final = {
    "pause": ClassState.PAUSED,
    "drain": ClassState.DRAINING,
    "reject": ClassState.REJECTING,
    "resume": ClassState.RUNNING,
}


class OrderRefused(Exception):  # noqa: N818 - says what happened to the order
    """An order that cannot be carried out; the text is one sentence for the person who gave it."""

    def __init__(self, sentence: str, *, is_unknown: bool = False) -> None:
        super().__init__(sentence)
        self.is_unknown = is_unknown  # there is nothing of that name


@dataclass(frozen=True, slots=True)
class Switch:
    """One order: who gave it, why, when and from where; `until` None stands until the next order."""

    class_name: str
    state: ClassState
    by: str
    reason: str
    at: float
    until: float | None = None
    source: str = ""


@dataclass(frozen=True, slots=True)
class Override:
    """A number that an operator has set, instead of what schedule and file say."""

    key: str
    value: Number
    by: str
    reason: str
    at: float
    until: float | None = None
    source: str = ""


Order = Switch | Override


class Switchboard:
    """The orders in force. `last` is the last order of each class, in force or not: people ask who resumed it."""

    def __init__(self) -> None:
        self.switches: dict[str, Switch] = {}
        self.flags: Mapping[str, Switch] = {}
        self.overrides: dict[str, Override] = {}
        self.last: dict[str, Switch] = {}

    def in_force(self, class_name: str) -> Switch | None:
        """The order that decides for the class; None leaves it to the configuration."""
        return self.flags.get(class_name) or self.switches.get(class_name)

    def give(self, switch: Switch) -> None:
        """The order replaces the one before it. A resume without an end takes the switch away."""
        self.last[switch.class_name] = switch
        if switch.state is ClassState.RUNNING and switch.until is None:
            self.switches.pop(switch.class_name, None)
        else:
            self.switches[switch.class_name] = switch

    def see_flags(self, flags: Mapping[str, Switch], at: float) -> list[Switch]:
        """These flag files are there now. Returns what that changes, as orders."""
        before, self.flags = self.flags, dict(flags)
        changes = [flag for name, flag in flags.items() if not _is_same(before.get(name), flag)]
        changes += [
            replace(flag, state=ClassState.RUNNING, reason="the file is gone", at=at)
            for name, flag in before.items()
            if name not in flags
        ]
        self.last |= {change.class_name: change for change in changes}
        return changes

    def expire(self, at: float) -> list[Order]:
        """Take away the orders that are over at `at`, and return them."""
        over = [order for order in self._orders() if order.until is not None and order.until <= at]
        self.switches = {name: one for name, one in self.switches.items() if one not in over}
        self.overrides = {key: one for key, one in self.overrides.items() if one not in over}
        return over

    def next_end(self) -> float | None:
        """When the next order ends by itself."""
        return min((order.until for order in self._orders() if order.until is not None), default=None)

    def _orders(self) -> list[Order]:
        return [*self.switches.values(), *self.overrides.values()]

    def values(self) -> dict[str, Number]:
        """What is set, by key."""
        return {key: one.value for key, one in self.overrides.items()}

    def keep_classes(self, names: Container[str], renamed: Mapping[str, str]) -> list[Switch]:
        """Other classes are configured: orders follow a class to its new name. Returns those of classes that left.

        What is set for a class that left is taken away by whoever looks whether it still holds.
        """
        self.overrides = {one.key: one for one in (moved_to(one, renamed) for one in self.overrides.values())}
        moved = [replace(one, class_name=renamed.get(one.class_name, one.class_name)) for one in self.switches.values()]
        self.switches = {one.class_name: one for one in moved if one.class_name in names}
        flags = [replace(one, class_name=renamed.get(one.class_name, one.class_name)) for one in self.flags.values()]
        self.flags = {one.class_name: one for one in flags if one.class_name in names}
        for old, new in renamed.items():
            if old in self.last:
                self.last[new] = replace(self.last.pop(old), class_name=new)
        return [one for one in moved if one.class_name not in names]


def moved_to(override: Override, renamed: Mapping[str, str]) -> Override:
    """The same number of the class under its new name."""
    section, dot, rest = override.key.partition(".")
    class_name, _, setting = rest.partition(".")
    if section != "classes" or class_name not in renamed:
        return override
    return replace(override, key=f"{section}{dot}{renamed[class_name]}.{setting}")


def _is_same(before: Switch | None, now: Switch) -> bool:
    return before is not None and replace(before, at=now.at) == now
