"""The queue of one class and the alarms of who waits: the order, and that neither grows nor slows down."""

from time import process_time

from proxy.admission.classes import ClientId
from proxy.admission.queues import ClassQueue, Waiter
from proxy.admission.timers import SMALLEST_HEAP_TO_SWEEP, WaitTimers


def waiter(client: int, flow: str = "a", since: float = 0.0, patience: float = 10.0) -> Waiter:
    one = Waiter(ClientId(client), "bulk", flow, since, unbounded=False)
    one.wait_at_most(patience, None)
    return one


def queue_of(*flows: str) -> tuple[ClassQueue, list[Waiter]]:
    queue, waiters = ClassQueue(), [waiter(number, flow, float(number)) for number, flow in enumerate(flows)]
    for one in waiters:
        queue.add(one)
    return queue, waiters


def served(queue: ClassQueue) -> list[int]:
    return [queue.take_next().client for _ in range(len(queue))]


def test_one_flow_is_first_in_first_out() -> None:
    assert served(queue_of("a", "a", "a")[0]) == [0, 1, 2]


def test_flows_take_turns() -> None:
    assert served(queue_of("a", "a", "a", "b", "c", "b")[0]) == [0, 3, 4, 1, 5, 2]


def test_a_flow_that_comes_back_goes_behind_the_others() -> None:
    queue, _ = queue_of("a", "b", "b")
    queue.take_next()
    queue.add(waiter(9, "a"))
    assert served(queue) == [1, 9, 2]


def test_who_leaves_does_not_cost_its_flow_the_turn() -> None:
    queue, waiters = queue_of("a", "b", "a")
    queue.remove(waiters[0])
    assert served(queue) == [2, 1]
    assert not waiters[0].is_waiting


def test_the_oldest_is_the_oldest_of_all_flows() -> None:
    queue, _ = queue_of("a", "a", "b")
    assert queue.oldest_since() == 0.0
    queue.take_next()
    queue.take_next()
    assert queue.oldest_since() == 1.0
    queue.take_next()
    assert queue.oldest_since() is None


def test_the_position_falls_as_others_are_served() -> None:
    queue, waiters = queue_of("a", "a", "a")
    assert queue.position_of(waiters[2]) == 3
    queue.take_next()
    assert queue.position_of(waiters[2]) == 2


def test_leaving_a_long_queue_is_as_fast_as_leaving_a_short_one() -> None:
    """Ten thousand impatient clients once cost a walk over the queue each."""
    queue, waiters = queue_of(*["a"] * 20_000)
    started = process_time()
    for one in waiters[10_000:]:
        queue.remove(one)
    for _ in range(10_000):
        queue.take_next()
    assert process_time() - started < 1.0
    assert len(queue) == 0


def test_alarms_ring_in_order() -> None:
    timers = WaitTimers()
    for client, patience in ((1, 3.0), (2, 1.0), (3, 2.0)):
        one = waiter(client, patience=patience)
        one.is_waiting = True
        timers.watch(one, 3)
    assert timers.earliest() == 1.0
    assert timers.take_due_or_none(0.5) is None
    due = [timers.take_due_or_none(9.0) for _ in range(4)]
    assert [one and one.client for one in due] == [2, 3, 1, None]


def test_alarms_of_who_left_are_swept() -> None:
    timers = WaitTimers()
    for number in range(10_000):
        one = waiter(number, patience=60.0)
        one.is_waiting = True
        timers.watch(one, 1)
        one.is_waiting = False
        assert len(timers) <= SMALLEST_HEAP_TO_SWEEP + 1
