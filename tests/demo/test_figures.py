"""What is reckoned from observations."""

import math

import pytest

from proxy.demo.figures import BulkJob, ConnectionSample, Observations, WebRequest, percentile, reckon


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_a_percentile_is_the_smallest_value_that_the_share_does_not_exceed(share: float, expected: int) -> None:
    assert percentile([float(n) for n in range(100, 0, -1)], share) == expected


def test_a_percentile_of_nothing_is_not_a_number() -> None:
    assert math.isnan(percentile([], 0.99))


def observations() -> Observations:
    seen = Observations(calm_from=1.0, burst_at=10.0, drained_at=14.0)
    seen.web = [
        WebRequest(0.5, 9.0, None),  # warm-up: belongs to no window
        WebRequest(2.0, 0.004, None),
        WebRequest(9.9, 0.006, None),
        WebRequest(10.0, 0.020, None),
        WebRequest(13.0, 0.001, "53300"),
        WebRequest(15.0, 3.0, None),  # after the burst
    ]
    seen.bulk = [BulkJob(10.0, 11.0, 0, None), BulkJob(10.0, 14.0, 3, "53300"), BulkJob(11.0, 12.0, 1, None)]
    seen.samples = [ConnectionSample(9.0, 7, 1, 0), ConnectionSample(11.0, 19, 2, 16), ConnectionSample(15.0, 8, 0, 0)]
    return seen


def test_windows_count_by_the_time_a_request_was_due() -> None:
    figures = reckon(observations())
    assert (figures.web_calm.count, figures.web_calm.p99) == (2, 0.006)
    assert (figures.web_burst.count, figures.web_burst.p99) == (1, 0.020)
    assert figures.p99_ratio == pytest.approx(0.020 / 0.006)


def test_errors_are_counted_and_leave_latencies_alone() -> None:
    figures = reckon(observations())
    assert (figures.web_errors, figures.bulk_failed, figures.bulk_failed_attempts) == (1, 1, 4)
    assert figures.errors == {"53300": 2}


def test_drain_time_and_peak() -> None:
    figures = reckon(observations())
    assert figures.drain_seconds == 4.0
    assert figures.peak_connections == 19
