"""The numbers of the three arms in words: rows for a table, a closing sentence, a document for programs.

Owns: which figures are shown, their units, what counts as good or bad.
Does not know: rich, matplotlib, JSON text.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from proxy.demo.figures import Latency
from proxy.demo.noon_import import SLOTS, ArmResult


class Mood(Enum):
    """How a figure is to be read at a glance."""

    GOOD = "good"
    BAD = "bad"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Row:
    label: str
    cells: tuple[tuple[str, Mood], ...]


SLOW_SECONDS = 0.1  # a web request that a person notices

Figure = tuple[str, Callable[[ArmResult], str], Callable[[ArmResult], Mood]]


def _plain(_: ArmResult) -> Mood:
    return Mood.PLAIN


def _none_is_good(count: Callable[[ArmResult], int]) -> Callable[[ArmResult], Mood]:
    return lambda result: Mood.BAD if count(result) else Mood.GOOD


def _burst_mood(result: ArmResult) -> Mood:
    return Mood.BAD if result.figures.web_burst.p99 > SLOW_SECONDS else Mood.GOOD


def _pair(latency: Latency) -> str:
    return f"{duration(latency.p50)} / {duration(latency.p99)}"


FIGURES: tuple[Figure, ...] = (
    ("web p50 / p99, calm", lambda r: _pair(r.figures.web_calm), _plain),
    ("web p50 / p99, under the burst", lambda r: _pair(r.figures.web_burst), _burst_mood),
    ("web errors", lambda r: str(r.figures.web_errors), _none_is_good(lambda r: r.figures.web_errors)),
    ("bulk drain time", lambda r: duration(r.figures.drain_seconds), _plain),
    (
        "bulk errors",
        lambda r: f"{r.figures.bulk_failed} of {r.figures.bulk_jobs} jobs",
        _none_is_good(lambda r: r.figures.bulk_failed),
    ),
    ("peak server connections", lambda r: f"{r.figures.peak_connections} of {SLOTS}", _plain),
    (
        "refusals in the server's log",
        lambda r: str(r.refusals_in_server_log),
        _none_is_good(lambda r: r.refusals_in_server_log),
    ),
)


def rows(results: Sequence[ArmResult]) -> list[Row]:
    """One per figure, a cell per arm."""
    return [Row(label, tuple((show(r), mood(r)) for r in results)) for label, show, mood in FIGURES]


def duration(seconds: float) -> str:
    """Three digits at most: 4.2 ms, 38 ms, 1.52 s."""
    if math.isnan(seconds):
        return "-"
    if seconds < 0.01:
        return f"{seconds * 1000:.1f} ms"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def closing_sentence(results: Sequence[ArmResult]) -> str:
    """What one should have seen, in the numbers of this run."""
    said = [f"{r.arm.name} {duration(r.figures.web_burst.p99)}" for r in results]
    failed = [r for r in results if r.figures.web_errors or r.figures.bulk_failed]
    text = f"While the import ran, 99 of 100 web requests were answered within: {', '.join(said)}."
    for result in failed:
        text += (
            f" {result.arm.name[0].upper() + result.arm.name[1:]}: {result.figures.web_errors} web requests"
            f" and {result.figures.bulk_failed} jobs failed."
        )
    return text


def document(results: Sequence[ArmResult]) -> list[dict[str, Any]]:
    """The figures as plain data: seconds and counts (NaN, which JSON lacks, becomes None)."""
    return [
        _without_nan(
            {
                "arm": result.arm.name,
                **asdict(result.figures),
                "refusals_in_server_log": result.refusals_in_server_log,
                "slots": SLOTS,
            }
        )
        for result in results
    ]


def _without_nan(value: Any) -> Any:  # Any: JSON's values, nested
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
