"""Idle connections and awaited answers, against models too simple to be wrong."""

import weakref
from collections import deque
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.session.awaited import NOTHING, SYNC_BEHIND_COPY, Awaited
from proxy.session.histogram import SECONDS, Histogram
from proxy.session.idle import IdleConnections
from proxy.session.measures import APPLICATIONS_COUNTED_PER_CLASS, OTHER, ClassMeasures
from proxy.session.parameters import Folding, Settings
from proxy.session.pool import Pool
from proxy.session.server import ServerConnection
from proxy.wire.server_login import ServerLogin


class _Loop:
    """What a connection asks of its loop when it is made."""

    def create_future(self) -> None:
        return None


class _Owner:
    """What a connection asks of its pool when it is made."""

    max_statements = 200

    class table:
        neutral = Settings({}, Folding())


def connection(settings: Settings) -> ServerConnection:
    server = ServerConnection(cast(Pool, _Owner()), ServerLogin("app", "app", None, {}), cast(Any, _Loop()))
    server.settings = settings
    return server


def some_settings() -> list[Settings]:
    """Of one pool: settings are never shared between pools."""
    return [Settings({"application_name": name}, Folding()) for name in ("a", "b", "c")]


@given(st.lists(st.tuples(st.sampled_from(["put", "take", "remove"]), st.integers(0, 2)), max_size=60))
def test_the_most_recently_used_first_and_with_the_wanted_settings_where_there_is_one(
    steps: list[tuple[str, int]],
) -> None:
    settings = some_settings()
    put_to: list[Settings] = []  # the settings of the latest put at the end
    idle, model = IdleConnections(), cast(list[ServerConnection], [])
    for what, index in steps:
        wanted = settings[index]
        if what == "put":
            put_to = [one for one in put_to if one is not wanted] + [wanted]
            model.append(connection(wanted))
            idle.put(model[-1])
        elif what == "take":
            taken = idle.take(wanted)
            fit = [one for one in model if one.settings is wanted]
            assert (taken is None) == (not model)
            if fit:
                assert taken is fit[-1]
            elif taken is not None:
                newest = max((one.settings for one in model), key=put_to.index)
                assert taken is [one for one in model if one.settings is newest][-1]
            if taken is not None:
                model.remove(taken)
        elif model:
            gone = model.pop(index % len(model))
            assert idle.remove(gone)
            assert not idle.remove(gone)
        assert idle.count == len(model)
        assert set(idle) == set(model)
        coldest = {one for kind in settings for one in [two for two in model if two.settings is kind][:1]}
        assert set(idle.coldest()) == coldest


def test_a_connection_whose_settings_changed_while_idle_is_found() -> None:
    first, second, _ = some_settings()
    idle, server = IdleConnections(), connection(first)
    idle.put(server)
    server.settings = second
    assert idle.remove(server)
    assert idle.take(first) is None


def test_settings_that_come_and_go_do_not_pile_up() -> None:
    """A client with a name of its own in every connection leaves an empty stack each time."""
    idle = IdleConnections()
    stays = connection(some_settings()[0])
    idle.put(stays)
    passing = [Settings({"application_name": str(number)}, Folding()) for number in range(1000)]
    for settings in passing:
        idle.put(connection(settings))
        assert idle.take(settings) is not None
    del settings
    names = [weakref.ref(one) for one in passing]
    passing.clear()
    assert sum(name() is not None for name in names) < 50
    assert list(idle) == [stays]


_KINDS = st.sampled_from([0, ord("Q"), ord("S"), SYNC_BEHIND_COPY])


@given(st.lists(st.one_of(st.just("pop"), st.just("copy in"), _KINDS), max_size=40))
def test_answers_are_awaited_in_order(steps: list[str | int]) -> None:
    awaited, model = Awaited(), deque[int]()
    for step in steps:
        if isinstance(step, int):
            awaited.push(step)
            model.append(step)
        elif step == "copy in":
            awaited.drop_ignored_syncs()
            ends = [at for at, kind in enumerate(model) if kind == SYNC_BEHIND_COPY] or [len(model)]
            model = deque(kind for at, kind in enumerate(model) if kind != ord("S") or at > ends[0])
        elif model:
            awaited.pop()
            model.popleft()
        assert list(awaited) == list(model)
        assert awaited.first == (model[0] if model else NOTHING)
        assert awaited.is_one() == (len(model) == 1)
        assert bool(awaited) == bool(model)


@pytest.mark.parametrize("value", [0.0, 0.0005, 0.00050001, 0.3, 300.0, 301.0])
def test_a_value_is_counted_in_the_first_bucket_that_holds_it(value: float) -> None:
    histogram = Histogram()
    histogram.observe(value)
    expected = next((index for index, bound in enumerate(SECONDS) if value <= bound), len(SECONDS))
    assert histogram.counts.index(1) == expected
    assert (histogram.count, histogram.sum) == (1, value)


def test_what_is_counted_apart_for_speed_is_shown_together() -> None:
    measures = ClassMeasures()
    one, other = measures.of_application("one"), measures.of_application("other one")
    one.granted_at_once()
    measures.wait_granted.observe(0.02)
    one.held(0.3, 0.3)
    assert (measures.hold.count, measures.transaction.count) == (1, 1)
    one.held(0.1, 0.7)
    other.held(0.2, 0.2)
    for _ in range(2):  # showing counts nothing twice
        assert measures.wait_granted.count == 2
        assert measures.wait_granted.counts[0] == 1
        assert measures.hold.sum == pytest.approx(0.6)
        assert measures.transaction.sum == pytest.approx(1.2)
        assert (measures.hold.count, measures.transaction.count) == (3, 3)
        assert (one.hold.count, other.hold.count) == (2, 1)
        assert one.hold.sum == pytest.approx(0.4)


def test_names_beyond_the_bound_count_as_one() -> None:
    measures = ClassMeasures()
    for number in range(2 * APPLICATIONS_COUNTED_PER_CLASS):
        measures.of_application(f"run {number}").held(1.0, 1.0)
    assert len(measures.applications) == APPLICATIONS_COUNTED_PER_CLASS + 1
    assert measures.of_application(OTHER).hold.count == APPLICATIONS_COUNTED_PER_CLASS
    assert measures.hold.count == 2 * APPLICATIONS_COUNTED_PER_CLASS
