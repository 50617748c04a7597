"""After a pause and after an outage a class comes up to its limit in time, and not in one moment."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.admission import rule
from proxy.admission.classes import ClassSettings, ClassState, ClientId, with_internal_class
from proxy.admission.controller import Controller
from proxy.admission.decisions import Decision, Grant
from proxy.admission.ledger import Account
from proxy.admission.ramp import Ramp
from tests.admission.crowd import ask, budget, flood, granted, look
from tests.support.compiled import IS_COMPILED


def paused(limit: int = 10, waiting: int = 30, **of_class: object) -> Controller:
    """A class that is paused with a queue before it."""
    of_class = {"slow_start_seconds": 4.0, "queue_timeout_seconds": 60.0, **of_class}
    bulk = ClassSettings("bulk", limit=limit, **of_class)  # type: ignore[arg-type]
    core = Controller(budget(20, bulk, ClassSettings("web", limit=20)), now=0.0)
    core.set_state("bulk", ClassState.PAUSED, 0.0)
    flood(core, "bulk", 1, waiting)
    return core


def resumed(core: Controller, now: float = 0.0) -> list[ClientId]:
    return granted(core.set_state("bulk", ClassState.RUNNING, now))


def moments_of_grants(core: Controller, until: float) -> list[tuple[float, int]]:
    """When somebody is granted a slot by time alone, and how many."""
    found = []
    while (at := core.next_wakeup_at()) is not None and at <= until:
        if served := granted(core.advance(at)):
            found.append((at, len(served)))
    return found


def test_one_is_served_at_once_and_then_one_after_the_other_until_the_time_is_over() -> None:
    core = paused(limit=9)
    assert resumed(core) == [1]
    assert moments_of_grants(core, 100.0) == [(0.5 * step, 1) for step in range(1, 9)]
    assert look(core, "bulk").used == 9


def test_the_reservation_is_not_ramped() -> None:
    core = paused(limit=10, reserved=5)
    assert len(resumed(core)) == 6
    assert moments_of_grants(core, 100.0) == [(1.0, 1), (2.0, 1), (3.0, 1), (4.0, 1)]


def test_a_reservation_that_grows_meanwhile_is_not_ramped_either() -> None:
    """By a reload, or because the server is its old size again: it waited for the steps of the ramp."""
    core = paused(limit=10)
    assert len(resumed(core)) == 1
    bulk, web = core.settings.classes
    more = budget(core.total, replace(bulk, reserved=5), web)
    assert len(granted(core.reconfigure(more, 0.0))) == 4


def test_what_was_held_through_the_pause_counts() -> None:
    bulk = ClassSettings("bulk", limit=10, slow_start_seconds=5.0)
    core = Controller(budget(20, bulk), now=0.0)
    flood(core, "bulk", 1, 4)
    core.set_state("bulk", ClassState.PAUSED, 0.0)
    flood(core, "bulk", 10, 20)
    assert len(resumed(core, 1.0)) == 1
    assert look(core, "bulk").used == 5
    assert look(core, "bulk").slow_start_limit == 5


def test_slots_that_come_back_meanwhile_go_to_those_who_wait() -> None:
    core = paused()
    resumed(core)
    assert granted(core.release(ClientId(1), 0.1)) == [2]


def test_who_comes_meanwhile_waits_for_the_next_step_too() -> None:
    core = paused(waiting=0, limit=9)
    resumed(core)
    assert core.try_grant(ClientId(1), "bulk", 0.0)
    assert not core.try_grant(ClientId(2), "bulk", 0.1)
    assert granted(ask(core, 2, "bulk", 0.1)) == []
    assert core.next_wakeup_at() == 0.5
    assert granted(core.advance(0.5)) == [2]


def test_who_comes_after_a_step_that_nobody_waited_for_is_served_at_once() -> None:
    core = paused(waiting=0, limit=9)
    resumed(core)
    assert core.next_wakeup_at() is None
    assert len(flood(core, "bulk", 1, 9, now=1.0)) == 3
    assert granted(ask(core, 100, "bulk", 4.0)) == [4, 5, 6, 7, 8, 9]


def test_without_a_time_everybody_is_served_at_once() -> None:
    assert len(resumed(paused(slow_start_seconds=0.0))) == 10


def test_to_resume_what_runs_begins_nothing() -> None:
    core = Controller(budget(10, ClassSettings("bulk", limit=10, slow_start_seconds=5.0)), now=0.0)
    core.set_state("bulk", ClassState.RUNNING, 0.0)
    assert len(flood(core, "bulk", 1, 10)) == 10


def test_after_an_outage_every_class_begins_slowly_but_the_proxys_own() -> None:
    web = ClassSettings("web", limit=20, reserved=8, slow_start_seconds=5.0)
    bulk = ClassSettings("bulk", limit=20, slow_start_seconds=5.0)
    core = Controller(with_internal_class(budget(20, web, bulk)), now=0.0)
    core.server_is_back(0.0)
    served = [len(flood(core, name, 100 * number, 20)) for number, name in enumerate(("internal", "web", "bulk"))]
    assert served == [2, 9, 1]


def test_a_limit_that_falls_meanwhile_holds() -> None:
    core = paused(limit=9)
    resumed(core)
    core.set_adaptive_limit("bulk", 3, 0.1)
    moments_of_grants(core, 30.0)
    assert look(core, "bulk").used == 3
    assert look(core, "bulk").slow_start_limit is None


# Drawn traffic

SECONDS = 2.0


class Drawn:
    """One class that pauses and resumes under traffic by chance, beside a reckoning of what it may use."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        choose = self.random.choice
        self.limit = choose([2, 3, 5, 9])
        self.reserved = choose([0, 0, 1, 2])
        bulk = ClassSettings(
            "bulk", limit=self.limit, reserved=self.reserved, slow_start_seconds=SECONDS, queue_timeout_seconds=9e9
        )
        self.core = Controller(budget(9, bulk), now=0.0)
        self.now = 0.0
        self.asked = 0
        self.holders: list[ClientId] = []
        self.began: tuple[float, int] | None = None
        self.runs = True

    def may_use(self) -> int:
        """By the definition: evenly, from one more than it has a right to, to the limit."""
        if self.began is None:
            return self.limit
        at, start = self.began
        first = min(self.limit, start + 1)
        steps = self.limit - first
        climbed = sum(self.now >= at + SECONDS * number / steps for number in range(1, steps + 1))
        return first + climbed

    def happens(self, decisions: list[Decision] | tuple[Decision, ...]) -> None:
        for one in decisions:
            if isinstance(one, Grant):
                self.holders.append(one.client)
        used = len(self.holders)
        assert used <= self.may_use(), "more than the ramp allows"
        waits = self.core.waiting and self.runs
        assert not (waits and used < self.may_use()), "somebody waits for a slot that is free"
        at = self.core.next_wakeup_at()
        assert at is None or at > self.now, "a timer set for this would spin"

    def step(self) -> None:
        what = self.random.choice(["ask", "ask", "ask", "release", "time", "time", "switch", "try"])
        if what in ("ask", "try"):
            self.asked += 1
            client = ClientId(self.asked)
            if what == "try" and self.core.try_grant(client, "bulk", self.now):
                self.holders.append(client)
                self.happens(())
            else:
                self.happens(list(self.core.request(client, "bulk", flow="one", now=self.now)))
        elif what == "release" and self.holders:
            client = self.holders.pop(self.random.randrange(len(self.holders)))
            self.happens(list(self.core.release(client, self.now)))
        elif what == "time":
            self.time_passes(self.random.choice([1, 4, 16, 100]) / 64)
        elif what == "switch" and self.random.random() < 0.5:
            self.switch()

    def switch(self) -> None:
        self.runs = not self.runs
        if self.runs:
            self.began = self.now, max(len(self.holders), self.reserved)
        state = ClassState.RUNNING if self.runs else ClassState.PAUSED
        self.happens(list(self.core.set_state("bulk", state, self.now)))

    def time_passes(self, seconds: float) -> None:
        until = self.now + seconds
        while (at := self.core.next_wakeup_at()) is not None and at <= until:
            self.now = at
            self.happens(list(self.core.advance(at)))
        self.now = until
        # Before the timer comes nobody may have become eligible: it was due before.
        waits = self.core.waiting and self.runs
        assert not (waits and len(self.holders) < self.may_use()), "a step came and nobody was woken for it"


def drawn_run(seed: int) -> None:
    run = Drawn(seed)
    for _ in range(150):
        run.step()


def many_drawn_runs() -> None:
    for seed in range(80):
        drawn_run(seed)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**64))
def test_it_never_uses_more_than_the_ramp_allows_and_nobody_waits_for_less(seed: int) -> None:
    drawn_run(seed)


CLIMB = Account.climb
BUGS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "nothing is ramped": lambda patch: patch.setattr(Account, "begin_slowly", lambda self, now: None),
    "the ramp never climbs": lambda patch: patch.setattr(Account, "climb", lambda self, now: None),
    "the ramp is not looked at": lambda patch: patch.setattr(
        rule, "is_below_its_limit", lambda account: account.used + 1 <= account.limit
    ),
    "every step comes late": lambda patch: patch.setattr(
        Ramp, "next_at", property(lambda self: self._began_at + SECONDS * (self.limit + 1) / self._steps)
    ),
    "reservations are ramped": lambda patch: patch.setattr(Account, "begin_slowly", _from_nothing),
    "nobody is woken for a step": lambda patch: patch.setattr(
        Controller, "next_wakeup_at", lambda self: self._timers.earliest()
    ),
    "all is over with the first step": lambda patch: patch.setattr(
        Ramp, "climb", lambda self, now: setattr(self, "_steps_left", 0 if now >= self.next_at else self._steps_left)
    ),
}


def _from_nothing(account: Account, now: float) -> None:
    account.ramp = Ramp(0, account.limit, SECONDS, now) if account.limit > 1 else None
    account.settle_limit()


@pytest.mark.skipif(IS_COMPILED, reason="bugs are planted in the sources: run with PGHEADROOM_PLAIN=1")
@pytest.mark.parametrize("story", BUGS)
def test_planted_bugs_are_found(story: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BUGS[story](monkeypatch)
    with pytest.raises(AssertionError):
        many_drawn_runs()


def test_the_drawn_runs_pass_without_a_bug() -> None:
    many_drawn_runs()
