"""Time windows: examples a person would ask about, and a minute-by-minute reference for the rest."""

from datetime import UTC, date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.admission.classes import ClassState
from proxy.service.schedule import Effect, Window, effect_at, moment, next_change, next_change_of_state, overlap

BERLIN = ZoneInfo("Europe/Berlin")
WORKDAYS, EVERY_DAY = frozenset(range(5)), frozenset(range(7))


def window(start, end, days=EVERY_DAY, zone=BERLIN, **effect):
    minutes = [int(text.partition(":")[0]) * 60 + int(text.partition(":")[2]) for text in (start, end)]
    after_midnight = 24 * 60 * (minutes[1] <= minutes[0])
    return Window(days, minutes[0], minutes[1] + after_midnight, zone, **(effect or {"limit": 10}))


def at(text, zone=BERLIN, fold=0):
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()


OFFICE = window("9:00", "18:00", WORKDAYS, limit=10, state=ClassState.PAUSED)


@pytest.mark.parametrize(
    ("text", "is_in_force"),
    [
        ("2026-11-27 08:59:59", False),  # a Friday
        ("2026-11-27 09:00", True),
        ("2026-11-27 17:59:59", True),
        ("2026-11-27 18:00", False),
        ("2026-11-28 12:00", False),
        ("2026-11-30 12:00", True),
    ],
)
def test_hours_of_working_days(text, is_in_force):
    assert OFFICE.is_in_force(at(text)) is is_in_force
    assert effect_at([OFFICE], at(text)).limit == (10 if is_in_force else None)


def test_the_next_change_is_the_next_edge_over_the_weekend():
    assert next_change([OFFICE], at("2026-11-27 12:00")) == at("2026-11-27 18:00")
    assert next_change([OFFICE], at("2026-11-27 18:00")) == at("2026-11-30 09:00")


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_begins():
    night = window("22:00", "6:00", frozenset({4}))  # Friday
    assert night.is_in_force(at("2026-11-28 05:59"))
    assert not night.is_in_force(at("2026-11-29 05:59"))
    assert not night.is_in_force(at("2026-11-27 05:59"))


def test_another_time_zone_is_another_moment():
    assert window("9:00", "18:00", zone=ZoneInfo("Asia/Tokyo")).is_in_force(at("2026-11-27 01:00"))


def test_whole_days_and_no_change_at_midnight_between_them():
    weekend = window("0:00", "24:00", frozenset({5, 6}))
    assert next_change([weekend], at("2026-11-28 12:00")) == at("2026-11-30 00:00")


def test_what_never_changes_has_no_next_change():
    assert next_change([], 0.0) is None
    assert next_change([window("0:00", "24:00")], at("2026-11-28 12:00")) is None


def test_the_first_window_that_says_something_decides():
    windows = [window("9:00", "12:00", limit=5), window("8:00", "18:00", limit=9, state=ClassState.PAUSED)]
    effect = effect_at(windows, at("2026-11-27 10:00"))
    assert (effect.limit, effect.state, len(effect.windows)) == (5, ClassState.PAUSED, 2)
    assert next_change(windows, at("2026-11-27 10:00")) == at("2026-11-27 12:00")
    assert next_change_of_state(windows, at("2026-11-27 10:00")) == at("2026-11-27 18:00")


class TestClocksGoForward:
    """In Berlin 2:00 to 3:00 does not exist on 2027-03-28, a Sunday."""

    def test_what_begins_in_the_hour_left_out_begins_at_the_jump(self):
        assert moment(date(2027, 3, 28), 150, BERLIN) == at("2027-03-28 03:00")
        assert window("2:30", "4:00").is_in_force(at("2027-03-28 03:00"))
        assert not window("2:30", "4:00").is_in_force(at("2027-03-28 03:00") - 1)

    def test_what_ends_in_it_ends_at_the_jump(self):
        assert not window("1:00", "2:30").is_in_force(at("2027-03-28 03:00"))
        assert window("1:00", "2:30").is_in_force(at("2027-03-28 03:00") - 1)

    def test_what_lies_in_it_is_left_out_and_the_next_one_is_found(self):
        inside = window("2:10", "2:50", frozenset({6}))
        assert next_change([inside], at("2027-03-28 00:00")) == at("2027-04-04 02:10")

    def test_a_night_is_an_hour_shorter(self):
        night = window("22:00", "6:00")
        assert next_change([night], at("2027-03-27 22:00")) == at("2027-03-27 22:00") + 7 * 3600


class TestClocksGoBack:
    """In Berlin 2:00 to 3:00 comes twice on 2026-10-25, a Sunday."""

    def test_a_time_that_comes_twice_counts_the_first_time(self):
        assert moment(date(2026, 10, 25), 150, BERLIN) == at("2026-10-25 02:30")
        inside = window("2:10", "2:50")
        assert inside.is_in_force(at("2026-10-25 02:30"))
        assert not inside.is_in_force(at("2026-10-25 02:30", fold=1))

    def test_a_window_does_not_close_and_open_again(self):
        early = window("2:30", "3:30")
        assert next_change([early], at("2026-10-25 02:30")) == at("2026-10-25 03:30")
        assert at("2026-10-25 03:30") - at("2026-10-25 02:30") == 2 * 3600

    def test_a_night_is_an_hour_longer(self):
        night = window("22:00", "6:00")
        assert next_change([night], at("2026-10-24 22:00")) == at("2026-10-24 22:00") + 9 * 3600


def test_a_day_that_a_zone_left_out_altogether():
    """Samoa had no 30 December 2011: what would have begun on it begins and ends at once."""
    samoa = ZoneInfo("Pacific/Apia")
    assert moment(date(2011, 12, 30), 600, samoa) == moment(date(2011, 12, 31), 0, samoa)


class TestOverlap:
    NOW = at("2026-11-27 12:00")

    def test_of_windows_of_one_zone(self):
        assert overlap(window("9:00", "12:00"), window("11:00", "13:00"), self.NOW)
        assert not overlap(window("9:00", "12:00"), window("12:00", "13:00"), self.NOW)
        assert not overlap(OFFICE, window("9:00", "18:00", frozenset({5, 6})), self.NOW)
        assert overlap(window("22:00", "6:00", frozenset({6})), window("5:00", "7:00", frozenset({0})), self.NOW)

    def test_of_windows_that_meet_in_one_season_alone(self):
        """New York is five hours behind London, but four between the two Sundays on which clocks change."""
        london = window("13:00", "14:00", zone=ZoneInfo("Europe/London"))
        new_york = window("9:00", "10:00", zone=ZoneInfo("America/New_York"))
        assert overlap(london, new_york, self.NOW)


# The reference looks at the clock on the wall minute by minute, and knows nothing of offsets.

ZONES = [
    "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/St_Johns", "Asia/Kathmandu",
    "Africa/Casablanca", "Pacific/Apia", "Antarctica/Troll",
]  # fmt: skip
MINUTE = 60


@cache
def wall(zone: str, minute: int) -> datetime:
    return datetime.fromtimestamp(minute * MINUTE, ZoneInfo(zone)).replace(tzinfo=None)


def first_minute_that_shows(zone: str, wanted: datetime) -> int:
    """By looking at every minute of the days around; windows of the reference are in whole minutes."""
    guess = int(wanted.replace(tzinfo=UTC).timestamp()) // MINUTE
    return next(minute for minute in range(guess - 15 * 60, guess + 30 * 60) if wall(zone, minute) >= wanted)


def reference_effect(zone: str, windows: list[Window], minute: int) -> tuple[object, object]:
    limit: object = None
    state: object = None
    for one in reversed(windows):
        for back in range(-1, 3):
            day = (wall(zone, minute) - timedelta(days=back)).replace(hour=0, minute=0)
            if day.weekday() not in one.days:
                continue
            begin = first_minute_that_shows(zone, day + timedelta(minutes=one.start_minute))
            end = first_minute_that_shows(zone, day + timedelta(minutes=one.end_minute))
            if begin <= minute < end:
                limit = limit if one.limit is None else one.limit
                state = state if one.state is None else one.state
    return limit, state


@st.composite
def windows_of(draw, zone):
    start = draw(st.integers(0, 24 * 60 - 1))
    length = draw(st.one_of(st.integers(1, 24 * 60), st.sampled_from([30, 60, 24 * 60])))
    # Days around which clocks change are drawn often: they are Sundays, and most transitions are in the early hours.
    start = draw(st.sampled_from([start, 90, 120, 150, 180, 23 * 60]))
    days = draw(st.sets(st.integers(0, 6), min_size=1))
    limit, state = draw(st.sampled_from([(5, None), (9, None), (None, ClassState.PAUSED), (5, ClassState.REJECTING)]))
    return Window(frozenset(days), start, start + length, ZoneInfo(zone), limit, state)


@st.composite
def schedules(draw):
    zone = draw(st.sampled_from(ZONES))
    return zone, draw(st.lists(windows_of(zone), min_size=1, max_size=3))


# 2026-03-08 (New York), 03-29 (Berlin), 04-05 (Lord Howe, by half an hour), 10-25, 11-01, and Troll's two hours.
SUNDAY_DATES = [(3, 8), (3, 29), (4, 5), (10, 4), (10, 25), (11, 1)]
SUNDAYS = [datetime(2026, month, day, tzinfo=UTC) for month, day in SUNDAY_DATES]


@st.composite
def moments(draw):
    day = draw(st.sampled_from(SUNDAYS))
    return int(day.timestamp()) // MINUTE + draw(st.integers(-24 * 60, 30 * 60))


@given(schedules(), moments())
@settings(max_examples=150, deadline=None)
@example(("Europe/Berlin", [Window(EVERY_DAY, 150, 200, BERLIN, 5)]), int(at("2026-03-29 03:05")) // MINUTE)
def test_the_effect_is_that_of_the_clock_on_the_wall(schedule, minute):
    zone, windows = schedule
    effect = effect_at(windows, minute * MINUTE)

    assert (effect.limit, effect.state) == reference_effect(zone, windows, minute)


@given(schedules(), moments(), st.integers(0, 59))
@settings(max_examples=60, deadline=None)
def test_nothing_changes_before_the_next_change_and_something_does_at_it(schedule, minute, second):
    zone, windows = schedule
    now = minute * MINUTE + second
    found = next_change(windows, now)
    before = reference_effect(zone, windows, minute)

    minutes = range(minute + 1, minute + 2 * 24 * 60, 7)
    if found is not None:
        assert found > now
        assert found % MINUTE == 0
        at_change = int(found) // MINUTE
        assert reference_effect(zone, windows, at_change) != before
        assert reference_effect(zone, windows, at_change - 1) == before
        minutes = range(minute + 1, min(at_change, minute + 2 * 24 * 60), 7)
    for later in minutes:
        assert effect_at(windows, later * MINUTE).is_same(Effect(*before))
