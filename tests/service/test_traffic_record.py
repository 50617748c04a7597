"""What is kept of the traffic: quantiles over time, hours in a ring, and a file that is read again."""

import json
import zlib
from random import Random

import pytest

from proxy.service.traffic.distribution import Distribution, Times
from proxy.service.traffic.observed import observed
from proxy.service.traffic.record import (
    APPLICATIONS_PER_CLASS,
    ApplicationReading,
    ClassReading,
    Hour,
    TrafficRecord,
    UnreadableRecord,
    from_text,
    hours_of,
    to_text,
)

HOUR = 3600.0


def busy_hour(index: int = 7) -> Hour:
    hour = Hour(index)
    hour.observe(
        {"web": ClassReading(3, 1, False), "bulk": ClassReading(5, 0, True)},
        {("web", "web-1"): ApplicationReading(3, 1), ("bulk", "import"): ApplicationReading(5, 0)},
        10.0,
    )
    hour.observe({"web": ClassReading(0, 0, False), "bulk": ClassReading(0, 0, False)}, {}, 30.0)
    hour.add_holds("web", None, {2: 4, 5: 1}, 0.5)
    hour.add_holds("web", "web-1", {2: 4, 5: 1}, 0.5)
    return hour


def test_of_several_upstreams_the_demand_of_each_is_kept():
    hour = Hour(7)
    demand = {"web": ClassReading(3, 1, False), "bulk": ClassReading(5, 0, True), "reports": ClassReading(2, 0, False)}
    hour.observe(demand, {}, 400.0, {"primary": ["web", "bulk"], "replica": ["reports"]})

    figures = observed([Hour.from_bytes(hour.to_bytes()), Hour.from_bytes(hour.to_bytes())])

    assert {name: (one.p50, one.most, one.busiest_hour_p95) for name, one in figures.upstreams.items()} == {
        "primary": (9, 9, 9),
        "replica": (2, 2, 2),
    }
    assert figures.total.most == 11


def test_an_hour_that_knows_nothing_of_upstreams_is_read():
    written = json.loads(zlib.decompress(busy_hour().to_bytes()))
    del written["upstreams"]  # as it was before there could be several

    hour = Hour.from_bytes(zlib.compress(json.dumps(written).encode()))

    assert (hour.upstreams, hour.total.most()) == ({}, 9)


def test_a_quantile_is_what_was_not_exceeded_for_that_share_of_the_time():
    for seed in range(200):
        random = Random(seed)
        values = [random.choice([0, 1, 2, 3, 40, 255, 256]) for _ in range(random.randint(1, 60))]
        distribution = Distribution()
        for value in values:
            distribution.add(value, 0.1)
        for share in (0.05, 0.5, 0.95, 1.0):
            expected = min(v for v in values if sum(w <= v for w in values) >= share * len(values) - 1e-6)
            assert distribution.quantile(share) == expected, (seed, share)
        assert distribution.most() == max(values)


def test_what_was_looked_at_only_while_it_was_there_was_0_for_the_rest():
    distribution = Distribution()
    distribution.add(8, 4.0)
    assert [distribution.quantile(share, 100.0) for share in (0.5, 0.95, 0.97, 1.0)] == [0, 0, 8, 8]


def test_the_number_of_different_values_is_bounded_and_large_ones_are_rounded_up_a_little():
    distribution = Distribution()
    for value in range(20_000):
        distribution.add(value, 1.0)
    assert len(distribution.seconds) < 1300
    assert 9_999 <= distribution.quantile(0.5) <= 9_999 * 1.01


def test_times_give_the_upper_bound_of_the_bucket():
    times = Times((0.1, 1.0), {0: 90, 1: 8, 2: 2}, 30.0)
    assert [times.quantile(share) for share in (0.5, 0.95, 0.99)] == [0.1, 1.0, float("inf")]
    assert times.mean == pytest.approx(0.3)


def test_demand_counts_who_waits_and_use_does_not():
    figures = observed([busy_hour()])
    web = figures.of_class("web")
    assert (web.demand.p50, web.demand.most, web.mean_slots) == (0, 4, pytest.approx(30 / 40))
    assert figures.of_class("bulk").limited_share == pytest.approx(0.25)
    assert figures.total.most == 9
    assert [one.application for one in figures.applications] == ["import", "web-1"]


def test_an_hour_is_the_same_after_it_was_written_down():
    hour = busy_hour()
    assert observed([Hour.from_bytes(hour.to_bytes())]) == observed([hour])


def test_the_oldest_hours_fall_out():
    record = TrafficRecord(keep_hours=3)
    for index in range(10):
        record.hour_at(index * HOUR).observe({"web": ClassReading(index, 0, False)}, {}, 1.0)
    assert [index for index, _ in record.frozen()] == [7, 8, 9]
    record.hour_at(30 * HOUR)
    assert [index for index, _ in record.frozen()] == [30]


def test_names_beyond_the_bound_are_added_up():
    hour = Hour(1)
    for _ in range(2):
        hour.observe(
            {}, {("web", f"run-{n}"): ApplicationReading(1, 0) for n in range(3 * APPLICATIONS_PER_CLASS)}, 1.0
        )
    assert len(hour.applications) == APPLICATIONS_PER_CLASS + 1
    assert hour.applications["web", "other"].demand.most() == 2 * APPLICATIONS_PER_CLASS
    hour.add_holds("web", "run-149", {1: 1}, 0.1)
    assert hour.applications["web", "other"].holds.count == 1


def test_a_week_of_many_applications_stays_small():
    record = TrafficRecord(keep_hours=168)
    random = Random(1)
    for hour in range(168):
        applications = {(c, f"worker-{n}"): ApplicationReading(1, 0) for c in "abcd" for n in range(50)}
        for _ in range(20):
            readings = {key: ApplicationReading(random.randrange(9), random.randrange(3)) for key in applications}
            record.hour_at(hour * HOUR).observe({"a": ClassReading(9, 9, False)}, readings, 180.0)
    assert sum(len(data) for _, data in record.frozen()) < 2_500_000


def test_a_clock_that_is_set_back_goes_on_with_the_hour_that_it_shows_again():
    """There were two of that hour then, and a restart kept the later one of them alone."""
    record = TrafficRecord(keep_hours=9)
    for hour in (6, 7, 6, 7, 8):
        record.hour_at(hour * HOUR).observe({"web": ClassReading(2, 0, False)}, {}, 100.0)
    seen = [(hour.index, hour.seconds) for hour in hours_of(record.frozen(), 0)]
    assert seen == [(6, 200.0), (7, 200.0), (8, 100.0)]


def test_a_restart_within_the_hour_goes_on_with_it():
    before = TrafficRecord(keep_hours=9)
    before.hour_at(7 * HOUR).observe({"web": ClassReading(2, 0, False)}, {}, 100.0)
    after = TrafficRecord(keep_hours=9)
    after.restore(from_text(to_text(before.frozen())))
    after.hour_at(7 * HOUR + 500).observe({"web": ClassReading(2, 0, False)}, {}, 50.0)
    [hour] = hours_of(after.frozen(), 0)
    assert hour.seconds == 150.0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no record"),
        ("hello", "no record"),
        ('{"pgheadroom_traffic": 99}', "format 99"),
        ('{"pgheadroom_traffic": 1}\n7 !!!', "line 2"),
        (to_text([(7, busy_hour(7).to_bytes()), (8, busy_hour(9).to_bytes())]), "line 3"),
        (to_text([(7, b"\0\0")]), "line 2"),
    ],
)
def test_what_is_no_record_is_told(text, why):
    with pytest.raises(UnreadableRecord, match=why):
        from_text(text)
