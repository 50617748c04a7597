"""Whether what was expected of a scenario has come true, in words.

Owns: the arithmetic of bounds, and how an expectation and a value read.
Does not know: runs.
"""

from dataclasses import dataclass

from loadtests.scenarios.record import FIGURES, IN_SECONDS, NotSeen, Record
from loadtests.scenarios.scenario import Expectation, Quantity, Scenario, split_figure


@dataclass(frozen=True, slots=True)
class Verdict:
    """`holds` None: the run cannot tell, and `value` says why not."""

    expected: str
    value: str
    holds: bool | None


def verdicts(scenario: Scenario, record: Record) -> list[Verdict]:
    return [_verdict(scenario, one, record) for one in scenario.expect]


def _verdict(scenario: Scenario, expectation: Expectation, record: Record) -> Verdict:
    text = expected_text(expectation)
    try:
        value = _value(scenario, expectation, record)
        unit = 1.0 if expectation.of is None else _value(scenario, expectation.of, record)
    except NotSeen as why:
        return Verdict(text, str(why), None)
    holds = (expectation.at_most is None or value <= expectation.at_most * unit) and (
        expectation.at_least is None or value >= expectation.at_least * unit
    )
    return Verdict(text, _shown(expectation, value, unit), holds)


def _value(scenario: Scenario, quantity: Quantity, record: Record) -> float:
    name, figure = split_figure(quantity.figure, [*scenario.part.classes, *scenario.clients])
    return FIGURES[figure](record, name, scenario.windows[quantity.within])


def _shown(expectation: Expectation, value: float, unit: float) -> str:
    is_time = expectation.figure.rpartition(".")[2] in IN_SECONDS
    text = f"{value * 1000:.1f} ms" if is_time and value < 1 else f"{value:.2f} s" if is_time else f"{value:.4g}"
    return text if expectation.of is None else f"{value / unit:.2f} ({text})" if unit else f"- ({text})"


def expected_text(expectation: Expectation) -> str:
    """`web.p99 in burst <= 1.5 x calm`."""
    where = "" if expectation.within == "whole" else f" in {expectation.within}"
    parts = []
    if expectation.at_least is not None:
        parts.append(f">= {expectation.at_least:g}")
    if expectation.at_most is not None:
        parts.append(f"<= {expectation.at_most:g}")
    times = "" if expectation.of is None else f" x {_of_text(expectation, expectation.of)}"
    return f"{expectation.figure}{where} {' and '.join(parts)}{times}"


def _of_text(expectation: Expectation, other: Quantity) -> str:
    return f"in {other.within}" if other.figure == expectation.figure else f"{other.figure} in {other.within}"
