"""Every scenario, simulated and for real, in one table: what was expected, what came, pass or falls short.

    python -m loadtests.scenarios [NAME ...] [--simulate | --real] [--target WORD] [--json FILE] [--readme FILE]

Owns: which runs are made, the table.
Does not know: how a run is made, what its figures are.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from loadtests.scenarios import real, scenario, simulated
from loadtests.scenarios.scenario import Scenario
from loadtests.scenarios.verdict import Verdict, expected_text, verdicts
from proxy.demo.errors import DemoError

SIMULATED = "simulated"
BEGIN, FINISH = "<!-- scenarios: made by `make scenarios` -->", "<!-- /scenarios -->"
_MARKS = {True: "✓", False: "✗", None: "·"}


@dataclass(frozen=True, slots=True)
class Played:
    """One run of one scenario: the verdicts, or why there is none."""

    scenario: str
    runner: str
    verdicts: Sequence[Verdict]
    not_played: str = ""


def play(one: Scenario, runner: str) -> Played:
    is_watched = sys.stderr.isatty()

    def tell(at: float) -> None:
        if not is_watched:
            return
        print(f"\r{one.name}, {runner}: {at:5.1f} of {one.traffic.duration_seconds:.0f} s ", end="", file=sys.stderr)

    try:
        record = simulated.run(one, tell) if runner == SIMULATED else real.run(one, real.TARGETS[runner], tell)
    except real.CannotPlay as why:
        return Played(one.name, runner, (), str(why))
    finally:
        if is_watched:
            print(f"\r{'':78}\r", end="", file=sys.stderr)
    return Played(one.name, runner, verdicts(one, record))


def report(found: Mapping[str, Scenario], played: Sequence[Played], runners: Sequence[str]) -> str:
    """A table in Markdown: it reads well in a terminal too."""
    by_run = {(one.scenario, one.runner): one for one in played}
    rows = [["scenario", "expected", *runners], ["---"] * (2 + len(runners))]
    for name, one in found.items():
        for number, expectation in enumerate(one.expect):
            cells = [_cell(by_run.get((name, runner)), number) for runner in runners]
            rows.append([name if number == 0 else "", expected_text(expectation), *cells])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in rows)


def _cell(played: Played | None, number: int) -> str:
    if played is None or played.not_played:
        return "·"
    one = played.verdicts[number]
    return "·" if one.holds is None else f"{_MARKS[one.holds]} {one.value}"


def remarks(played: Sequence[Played]) -> Iterator[str]:
    for one in played:
        if one.not_played:
            yield f"{one.scenario}, {one.runner}: not played, {one.not_played}"
        for verdict in one.verdicts:
            if verdict.holds is False:
                yield f"{one.scenario}, {one.runner}: falls short: {verdict.expected}: {verdict.value}"


def kept_in(path: Path | None) -> dict[tuple[str, str], Played]:
    """Earlier runs, by scenario and runner. What a scenario does not expect any more is left out with its run."""
    if path is None or not path.exists():
        return {}
    read = [
        Played(one["scenario"], one["runner"], [Verdict(**verdict) for verdict in one["verdicts"]], one["not_played"])
        for one in json.loads(path.read_text())
    ]
    return {(one.scenario, one.runner): one for one in read if _is_of_today(one)}


def _is_of_today(played: Played) -> bool:
    if played.scenario not in scenario.names():
        return False
    expected = [expected_text(one) for one in scenario.load(played.scenario).expect]
    return bool(played.not_played) or [verdict.expected for verdict in played.verdicts] == expected


def into_readme(path: Path, table: str) -> None:
    """Between the two marks. Raises ValueError where they are missing."""
    before, _, rest = path.read_text().partition(BEGIN)
    _, mark, after = rest.partition(FINISH)
    if not mark:
        raise ValueError(f"{path} has no place for the table: {BEGIN} ... {FINISH}")
    path.write_text(f"{before}{BEGIN}\n{table}\n{FINISH}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.scenarios", description="Scenarios with their bounds.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(scenario.names())}; all without one")
    parser.add_argument("--simulate", action="store_true", help="only the simulator: no server, a few seconds")
    parser.add_argument("--real", action="store_true", help="only real servers")
    parser.add_argument("--target", action="append", help="only targets whose name contains this")
    parser.add_argument("--json", type=Path, help="keep all verdicts in this file: runs are added to those in it")
    parser.add_argument("--readme", type=Path, help="put the table into this file")
    options = parser.parse_args()
    unknown = sorted({*options.names} - {*scenario.names()})
    if unknown:
        parser.error(f"there is no scenario {', '.join(unknown)}; there are {', '.join(scenario.names())}")
    found = {name: scenario.load(name) for name in options.names or scenario.names()}
    runners = [] if options.real else [SIMULATED]
    if not options.simulate:
        runners += [name for name in real.TARGETS if not options.target or any(w in name for w in options.target)]
    kept = kept_in(options.json)
    for one in found.values():
        for runner in runners:
            try:
                kept[one.name, runner] = play(one, runner)
            except DemoError as error:
                kept[one.name, runner] = Played(one.name, runner, (), f"it could not be run: {error}")
    played = list(kept.values())
    told = [name for name in (SIMULATED, *real.TARGETS) if any(runner == name for _, runner in kept)]
    table = report(
        {name: scenario.load(name) for name in scenario.names() if any(n == name for n, _ in kept)}, played, told
    )
    print("✓ holds, ✗ falls short, · cannot be told or played here.\n")
    print(table)
    print(*("", *remarks(played)), sep="\n")
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in played], indent=2) + "\n")
    if options.readme:
        into_readme(options.readme, table)
    ours = [v for one in played if one.runner in (SIMULATED, "pgheadroom") for v in one.verdicts]
    sys.exit(0 if all(v.holds is not False for v in ours) else 1)


if __name__ == "__main__":
    main()
