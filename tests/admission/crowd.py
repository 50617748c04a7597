"""Short words for the stories: who asks, who is served."""

from collections.abc import Hashable, Iterable, Sequence

from proxy.admission.classes import BudgetSettings, ClassSettings, ClientId
from proxy.admission.controller import Controller
from proxy.admission.decisions import Decision, Grant, Refuse
from proxy.admission.snapshot import ClassSnapshot


def budget(total: int, *classes: ClassSettings, headroom: int = 0, headroom_for: Iterable[str] = ()) -> BudgetSettings:
    return BudgetSettings(total, headroom, frozenset(headroom_for), classes)


def clients(first: int, count: int) -> list[ClientId]:
    return [ClientId(number) for number in range(first, first + count)]


def ask(
    core: Controller,
    client: int,
    class_name: str,
    now: float = 0.0,
    *,
    flow: Hashable = "one",
    unbounded: bool = False,
    timeout_seconds: float | None = None,
) -> Sequence[Decision]:
    return core.request(
        ClientId(client), class_name, flow=flow, now=now, unbounded=unbounded, timeout_seconds=timeout_seconds
    )


def flood(core: Controller, class_name: str, first: int, count: int, now: float = 0.0) -> list[ClientId]:
    """So many clients ask one after the other; returns those that were granted a slot."""
    return granted([one for client in clients(first, count) for one in ask(core, client, class_name, now)])


def granted(decisions: Iterable[Decision]) -> list[ClientId]:
    return [one.client for one in decisions if isinstance(one, Grant)]


def refused(decisions: Iterable[Decision]) -> list[tuple[ClientId, str]]:
    return [(one.client, one.reason.value) for one in decisions if isinstance(one, Refuse)]


def look(core: Controller, class_name: str, now: float = 0.0) -> ClassSnapshot:
    return core.snapshot(now).of_class(class_name)
