"""Who is refused at once because it would wait in vain, and who never is: drawn traffic beside a naive reckoning."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.admission import hope, queue_pace
from proxy.admission.classes import ClassSettings, ClassState, ClientId
from proxy.admission.controller import Controller
from proxy.admission.decisions import Decision, Grant, Refuse, StillWaiting
from proxy.admission.queue_pace import QueuePace
from proxy.admission.queues import ClassQueue
from tests.admission.crowd import ask, budget, clients, flood, look, refused
from tests.support.compiled import IS_COMPILED


def busy(seconds: float = 4.0, *, per_second: int = 10, waiting: int = 20, **of_class: object) -> Controller:
    """One slot that changes hands so often, out of a queue that never gets shorter. It ends at `seconds`."""
    of_class = {"queue_timeout_seconds": 5.0, "refuse_hopeless": True, **of_class}
    core = Controller(budget(1, ClassSettings("bulk", limit=1, **of_class)), now=0.0)  # type: ignore[arg-type]
    flood(core, "bulk", 0, waiting + 1)
    for number in range(round(seconds * per_second)):
        now = (number + 1) / per_second
        core.release(ClientId(number), now)
        ask(core, waiting + 1 + number, "bulk", now)
    return core


def test_who_would_wait_in_vain_is_refused_at_once() -> None:
    core = busy()  # 10 in a second and 5 seconds of patience: 50 are served in time, with the margin 55
    flood(core, "bulk", 1000, 34, now=4.0)
    assert core.waiting == 54
    assert refused(ask(core, 2000, "bulk", 4.0)) == []
    [refusal] = ask(core, 2001, "bulk", 4.0)
    assert isinstance(refusal, Refuse)
    assert (refusal.reason.value, refusal.waited_seconds, refusal.expected_wait_seconds) == (
        "deadline",
        0.0,
        pytest.approx(5.6),
    )
    assert (core.waiting, look(core, "bulk").refusals) == (55, {"deadline": 1})


def test_the_patience_of_the_request_counts_where_it_is_shorter() -> None:
    assert refused(ask(busy(), 2000, "bulk", 4.0, timeout_seconds=1.0)) == [(2000, "deadline")]


def test_it_can_be_switched_off() -> None:
    core = busy(refuse_hopeless=False)
    flood(core, "bulk", 1000, 400, now=4.0)
    assert core.waiting == 420


def test_the_first_burst_is_queued_whole() -> None:
    core = Controller(budget(1, ClassSettings("bulk", limit=1, refuse_hopeless=True)), now=0.0)
    flood(core, "bulk", 1, 400)
    for number in range(1, 10):  # nine grants in nine seconds are no pace
        core.release(ClientId(number), float(number))
    flood(core, "bulk", 1000, 50, now=9.0)
    assert core.waiting == 440
    core.release(ClientId(10), 10.0)
    assert refused(ask(core, 2000, "bulk", 10.0)) == [(2000, "deadline")]


def test_time_in_which_nobody_waits_makes_no_slow_pace() -> None:
    core = busy(waiting=1)
    for client in clients(40, 2):  # the queue is served, and nobody comes for a while
        core.release(client, 4.1)
    core.advance(4.1)
    flood(core, "bulk", 1000, 40, now=9.0)
    assert core.waiting == 39


def test_what_was_seen_long_ago_says_nothing() -> None:
    core = busy(per_second=1, seconds=12.0, waiting=4)
    for client in clients(12, 5):
        core.release(client, 13.0)
    assert core.in_use == 0
    flood(core, "bulk", 1000, 300, now=13.0 + queue_pace.FORGET_SECONDS + 0.1)
    assert core.waiting == 299


def test_a_stall_makes_nobody_hopeless() -> None:
    """A frozen server comes back; who came meanwhile is in time at the pace that it had."""
    core = busy(queue_timeout_seconds=30.0)
    flood(core, "bulk", 1000, 250, now=14.0)
    assert core.waiting == 270


def test_a_class_below_its_reservation_refuses_nobody_so() -> None:
    """Others use what it has lent; it comes back with their next releases, faster than any pace would tell."""
    bulk = ClassSettings(
        "bulk",
        limit=2,
        reserved=2,
        lendable=2,
        lend_memory_seconds=0.0,
        queue_timeout_seconds=1.0,
        refuse_hopeless=True,
    )
    core = Controller(budget(2, bulk, ClassSettings("web", limit=2)), now=0.0)
    flood(core, "bulk", 0, 22)
    for number in range(22):
        core.release(ClientId(number), number / 10)
    flood(core, "web", 100, 2, now=3.0)
    flood(core, "bulk", 1000, 100, now=3.0)
    assert core.waiting == 100
    core.release(ClientId(100), 3.0)
    core.release(ClientId(101), 3.0)
    assert refused(ask(core, 2000, "bulk", 3.0)) == [(2000, "deadline")]


def test_a_paused_class_refuses_nobody_so() -> None:
    core = busy()
    core.set_state("bulk", ClassState.PAUSED, 4.0)
    flood(core, "bulk", 1000, 100, now=4.0)
    assert core.waiting == 120


def test_a_pause_is_no_slow_pace() -> None:
    core = busy()
    core.set_state("bulk", ClassState.PAUSED, 4.0)
    core.set_state("bulk", ClassState.RUNNING, 13.0)
    assert look(core, "bulk", 13.0).expected_wait_seconds == pytest.approx(2.1)


def test_another_flow_has_its_turn_sooner_and_may_hope() -> None:
    core = busy()
    flood(core, "bulk", 1000, 35, now=4.0)
    assert refused(ask(core, 2000, "bulk", 4.0)) == [(2000, "deadline")]
    assert refused(ask(core, 2001, "bulk", 4.0, flow="another")) == []
    assert core.waits(ClientId(2001))


def test_a_notice_tells_how_long_it_will_take_from_there() -> None:
    core = busy(queue_timeout_seconds=60.0, notify_after_seconds=1.0, seconds=4.0, waiting=100)
    [*_, last] = [one for one in core.advance(4.0) if isinstance(one, StillWaiting)]
    assert last.expected_wait_seconds == pytest.approx(last.position / 10)


def test_nobody_is_told_a_time_that_is_not_known() -> None:
    core = Controller(budget(1, ClassSettings("bulk", limit=1, notify_after_seconds=1.0)), now=0.0)
    assert look(core, "bulk").expected_wait_seconds == 0.0
    flood(core, "bulk", 1, 3)
    assert look(core, "bulk").expected_wait_seconds is None
    assert [one.expected_wait_seconds for one in core.advance(1.0) if isinstance(one, StillWaiting)] == [None, None]


def test_a_stall_shows_in_what_is_expected() -> None:
    core = busy()
    assert look(core, "bulk", 4.0).expected_wait_seconds == pytest.approx(2.1)
    assert look(core, "bulk", 13.0).expected_wait_seconds == pytest.approx(12.6)


# Drawn traffic


@dataclass
class Reckoning:
    """The queue and its pace once more, from everything that ever happened and without a shortcut."""

    waiters: list[tuple[int, Hashable]] = field(default_factory=list)
    flows: list[Hashable] = field(default_factory=list)
    happened: list[tuple[str, float]] = field(default_factory=list)  # time with a queue, without one, and grants

    def passed(self, seconds: float) -> None:
        self.happened.append(("queue" if self.waiters else "idle", seconds))

    def joined(self, client: int, flow: Hashable) -> None:
        if flow not in [other for _, other in self.waiters]:
            self.flows = [one for one in self.flows if one != flow] + [flow]
        self.waiters.append((client, flow))

    def gone(self, client: int, *, granted_after: float | None = None) -> None:
        [flow] = [flow for one, flow in self.waiters if one == client]
        self.waiters = [one for one in self.waiters if one[0] != client]
        if granted_after is not None:
            self.flows = [one for one in self.flows if one != flow] + [flow]
            if granted_after > 0.0:
                self.happened.append(("grant", 0.0))

    def turn_of(self, flow: Hashable) -> int:
        """By serving everybody in mind until it is its turn."""
        mine = ("mine", flow)
        waiters = [*self.waiters, mine]
        flows = list(self.flows)
        if flow not in [other for _, other in self.waiters]:
            flows = [one for one in flows if one != flow] + [flow]
        for turn in range(1, len(waiters) + 1):
            served_flow = next(one for one in flows if one in [other for _, other in waiters])
            served = next(one for one in waiters if one[1] == served_flow)
            if served is mine:
                return turn
            waiters.remove(served)
            flows = [one for one in flows if one != served_flow] + [served_flow]
        raise AssertionError("it is among them")

    def best(self) -> float | None:
        windows: list[float] = []
        moments: list[float] = []  # of grants, in seconds of queueing since the window began
        seconds, idle = 0.0, 0.0
        for what, length in self.happened:
            if what == "idle":
                idle += length
                continue
            if idle > 10.0:
                windows, moments, seconds = [], [], 0.0
            idle = 0.0
            seconds += length
            moments += [seconds] if what == "grant" else []
            longest = max((at - before for before, at in pairwise([0.0, *moments])), default=0.0)
            if what == "grant" and len(moments) >= 10 and seconds - longest >= 1.0:
                windows.append((len(moments) - 1) / (seconds - longest))
                moments, seconds = [], 0.0
        if idle > 10.0 and self.waiters:
            return None
        return max(windows[-6:], default=None)


COMMANDS = ("one_asks", "one_releases", "one_leaves", "one_borrows_or_gives_back", "time")


@dataclass
class Drawn:
    """One class under traffic by chance. `refusals` counts the hopeless ones: a run without any shows nothing."""

    random: Random
    now: float = 0.0
    refusals: int = 0
    asked: int = 0

    def __post_init__(self) -> None:
        choose = self.random.choice
        self.limit = choose([1, 2, 4])
        self.reserved = choose([0, 1, self.limit])
        self.patience = choose([1.0, 2.0, 4.0])
        of_class = ClassSettings(
            "bulk",
            limit=self.limit,
            reserved=self.reserved,
            lendable=self.reserved,
            lend_memory_seconds=0.0,
            queue_timeout_seconds=self.patience,
            refuse_hopeless=True,
        )
        borrower = ClassSettings("borrower", limit=4, queue_max=0)
        self.core = Controller(budget(4, of_class, borrower), now=0.0)
        self.reckoning = Reckoning()
        self.holders: list[int] = []
        self.borrowers: list[ClientId] = []

    def happens(self, decisions: Sequence[Decision]) -> None:
        for one in decisions:
            client = int(one.client)
            if isinstance(one, Grant):
                self.reckoning.gone(client, granted_after=one.waited_seconds)
                self.holders.append(client)
            elif isinstance(one, Refuse):
                self.reckoning.gone(client)

    def some_time_passes(self, seconds: float) -> None:
        until = self.now + seconds
        while (at := self.core.next_wakeup_at()) is not None and at <= until:
            self.reckoning.passed(at - self.now)
            self.now = at
            self.happens(self.core.advance(at))
        self.reckoning.passed(until - self.now)
        self.now = until

    def one_asks(self) -> None:
        self.asked += 1
        flow = self.random.choice(["a", "a", "a", "b", "c"])
        turn, best = self.reckoning.turn_of(flow), self.reckoning.best()
        owed = len(self.holders) < self.reserved
        nobody_waits = not self.reckoning.waiters
        decisions = ask(self.core, self.asked, "bulk", self.now, flow=flow)
        hopeless = [one for one in decisions if isinstance(one, Refuse) and one.reason == "deadline"]
        expected = not nobody_waits and not owed and best is not None and turn > best * 1.1 * self.patience
        assert bool(hopeless) == expected
        self.refusals += len(hopeless)
        if hopeless:
            # Nobody is sent away from slots that would stand idle: the queue is work for as long as it is patient.
            assert len(self.reckoning.waiters) + 1 >= best * self.patience
        else:
            self.reckoning.joined(self.asked, flow)
            self.happens(decisions)
            self.reckoning.passed(0.0)  # a queue for no time is one too

    def one_releases(self) -> None:
        if self.holders:
            client = self.holders.pop(self.random.randrange(len(self.holders)))
            self.happens(self.core.release(ClientId(client), self.now))

    def one_leaves(self) -> None:
        if self.reckoning.waiters:
            client, _ = self.random.choice(self.reckoning.waiters)
            self.reckoning.gone(client)
            self.happens(self.core.leave(ClientId(client), self.now))

    def one_borrows_or_gives_back(self) -> None:
        """So the class may have waiters below its reservation: those who are owed a slot."""
        if self.borrowers and self.random.random() < 0.3:
            self.happens(self.core.release(self.borrowers.pop(), self.now))
            return
        self.asked += 1
        decisions = ask(self.core, self.asked, "borrower", self.now)
        self.borrowers += [one.client for one in decisions if isinstance(one, Grant) and one.class_name == "borrower"]
        self.happens([one for one in decisions if one.class_name == "bulk"])

    def run(self, commands: int = 250) -> int:
        """Stretches of traffic, each with its own rush. Moments are multiples of 1/64: exact, and the same for both."""
        weights = [1, 1, 1, 1, 1]
        for number in range(commands):
            if number % 50 == 0:
                often = [[4, 8, 12], [2, 4, 6], [0, 1], [0, 1, 6], [6]]
                weights = [self.random.choice(one) for one in often]
                pauses = self.random.choice([[1, 4, 8], [1, 4, 8, 16], [0, 0, 2], [8, 32, 700]])
            command = self.random.choices(COMMANDS, weights)[0]
            if command == "time":
                self.some_time_passes(self.random.choice(pauses) / 64)
            else:
                getattr(self, command)()
        return self.refusals


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**64))
def test_exactly_those_are_refused_who_would_wait_in_vain(seed: int) -> None:
    Drawn(Random(seed)).run()


def many_drawn_runs() -> int:
    return sum(Drawn(Random(seed)).run() for seed in range(60))


def test_drawn_traffic_has_hopeless_ones() -> None:
    assert many_drawn_runs() > 100


BUGS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "what the class is owed is not looked at": lambda patch: patch.setattr(
        hope, "wait_in_vain_or_none", _without_reservation
    ),
    "the order of arrival is taken for the turn": lambda patch: patch.setattr(
        ClassQueue, "turn_of_one_more", lambda self, flow: len(self.waiters) + 1
    ),
    "one flow goes behind all others": lambda patch: patch.setattr(
        ClassQueue, "turn_of_one_more", lambda self, flow: len(self._flows) + len(self._flows.get(flow, ()))
    ),
    "there is no margin": lambda patch: patch.setattr(hope, "MARGIN", 1.0),
    "few grants make a pace": lambda patch: patch.setattr(queue_pace, "WINDOW_GRANTS", 3),
    "a moment makes a pace": lambda patch: patch.setattr(queue_pace, "WINDOW_SECONDS", 0.0),
    "nothing is ever forgotten": lambda patch: patch.setattr(queue_pace, "FORGET_SECONDS", 1e9),
    "time without a queue counts": lambda patch: patch.setattr(QueuePace, "ended", lambda self, now: None),
    "grants are not counted": lambda patch: patch.setattr(QueuePace, "served", lambda self, now: None),
    "only the last window counts": lambda patch: patch.setattr(
        QueuePace, "best_per_second", lambda self: _paces(self)[-1] if self._windows else None
    ),
    "the worst pace counts": lambda patch: patch.setattr(
        QueuePace, "best_per_second", lambda self: min(_paces(self), default=None)
    ),
    "a stall is a slow pace": lambda patch: patch.setattr(
        QueuePace, "best_per_second", lambda self: max((n / s for n, s, _ in self._windows), default=None)
    ),
    "nobody is ever refused": lambda patch: patch.setattr(hope, "wait_in_vain_or_none", lambda *_: None),
}


def _paces(pace: QueuePace) -> list[float]:
    return [(granted - 1) / (seconds - gap) for granted, seconds, gap in pace._windows]


def _without_reservation(account: object, flow: Hashable, patience: float | None) -> float | None:
    class Owed:
        used = 1_000_000

        def __getattr__(self, name: str) -> object:
            return getattr(account, name)

    return WAIT_IN_VAIN(Owed(), flow, patience)  # type: ignore[arg-type]


WAIT_IN_VAIN = hope.wait_in_vain_or_none


@pytest.mark.skipif(IS_COMPILED, reason="bugs are planted in the sources: run with PGHEADROOM_PLAIN=1")
@pytest.mark.parametrize("story", BUGS)
def test_planted_bugs_are_found(story: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BUGS[story](monkeypatch)
    with pytest.raises(AssertionError):
        everything_holds()


def everything_holds() -> None:
    assert many_drawn_runs() > 100
    # Drawn traffic hardly ever owes the class a slot while it has a pace.
    test_a_class_below_its_reservation_refuses_nobody_so()
