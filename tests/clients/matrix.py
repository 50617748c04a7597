"""The matrix of clients in the README: what each can do here, and beside PgBouncer.

Owns: the results of a run as JSON, the table's text, and reading a cell of it back.
Does not know: how a result came about.

    python -m tests.clients.matrix FILE      puts the results that `pytest --matrix-out FILE` wrote into the README
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.clients.programs import DRIVERS
from tests.clients.scenarios import SCENARIOS

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- clients: made by `make matrix` -->\n", "<!-- /clients -->\n"
HERE, BESIDE = "pgheadroom", "pgbouncer"

Found = Mapping[str, bool]  # by HERE and BESIDE

# A cell by what was found (here, there).
CELLS = {(True, True): "✓", (True, False): "**✓**", (False, True): "only there", (False, False): "✗"}
NOT_A_FEATURE = "·"

HEADINGS = {
    "connect_by_url": "URL",
    "pool": "pool",
    "crowd": "crowd",
    "prepared_statements": "prepared",
    "transactions": "transactions",
    "copy_in": "COPY in",
    "copy_out": "COPY out",
    "listen": "LISTEN",
    "cancel": "cancel",
    "errors": "errors",
    "refusal_while_full": "refusal",
    "recovery": "recovery",
    "refused_begin": "refused BEGIN",
}


class Results:
    """What a run found, by driver, scenario and way."""

    def __init__(self) -> None:
        self.versions: dict[str, str] = {}
        self.cells: dict[str, dict[str, dict[str, bool]]] = {}

    def found(self, driver: str, scenario: str, way: str, is_right: bool) -> None:
        self.cells.setdefault(driver, {}).setdefault(scenario, {})[way] = is_right

    def write(self, path: str) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps({"versions": self.versions, "cells": self.cells}, indent=2) + "\n")

    @classmethod
    def read(cls, path: str) -> "Results":
        document, results = json.loads(Path(path).read_text()), cls()
        results.versions, results.cells = document["versions"], document["cells"]
        return results


def cell(found: Found | None) -> str:
    """Raises KeyError where only one of the two ways was tried: half a comparison is not written."""
    return NOT_A_FEATURE if found is None else CELLS[found[HERE], found[BESIDE]]


def table(results: Results) -> str:
    """The rows in the order of the drivers' list. Raises KeyError for a driver that was not tried."""
    names = [scenario.name for scenario in SCENARIOS]
    lines = [line(["client", *(HEADINGS[name] for name in names)]), line(["---"] * (len(names) + 1))]
    for driver in DRIVERS:
        cells = results.cells[driver.id]
        title = f"{driver.name} {results.versions[driver.id]}"
        lines.append(line([title, *(cell(cells.get(name)) for name in names)]))
    return "".join(lines)


def line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def between(text: str) -> tuple[str, str, str]:
    """The README before, in and after the marked place. Raises ValueError where the marks are missing."""
    start, stop = text.index(BEGIN) + len(BEGIN), text.index(END)
    return text[:start], text[start:stop], text[stop:]


def written_in_readme(driver: str, scenario: str, way: str) -> bool | None:
    """What the README's cell says of a way; None where it says that the client has no such feature."""
    return said_by(rows_of(between(README.read_text())[1])[driver][scenario], way)


def said_by(cell: str, way: str) -> bool | None:
    by_cell = {written: dict(zip((HERE, BESIDE), found, strict=True)) for found, written in CELLS.items()}
    return None if cell == NOT_A_FEATURE else by_cell[cell][way]


def rows_of(table: str) -> dict[str, dict[str, str]]:
    """The cells of a written table by the ids of drivers and scenarios, whatever versions it names."""
    heading, _, *lines = ([part.strip() for part in row.strip(" |").split("|")] for row in table.splitlines() if row)
    scenarios = [{words: name for name, words in HEADINGS.items()}[words] for words in heading[1:]]
    drivers = {driver.name: driver.id for driver in DRIVERS}
    return {drivers[row[0].rpartition(" ")[0]]: dict(zip(scenarios, row[1:], strict=True)) for row in lines}


def main(path: str) -> None:
    before, _, after = between(README.read_text())
    README.write_text(before + table(Results.read(path)) + after)


if __name__ == "__main__":
    main(sys.argv[1])
