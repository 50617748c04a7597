"""The README's table of clients has a row for each driver, a column for each scenario, and says what is tested."""

import json
from pathlib import Path

import pytest

from tests.clients.matrix import (
    BESIDE,
    HEADINGS,
    HERE,
    NOT_A_FEATURE,
    README,
    Results,
    between,
    rows_of,
    said_by,
    table,
)
from tests.clients.programs import DRIVERS, Driver
from tests.clients.scenarios import SCENARIOS, Scenario

WRITTEN = between(README.read_text())[1]
NAMES = [scenario.name for scenario in SCENARIOS]


def results_of(cell: dict[str, bool]) -> Results:
    """Every driver did the same in everything."""
    results = Results()
    for driver in DRIVERS:
        results.versions[driver.id] = "1.0"
        for name in NAMES:
            for way, is_right in cell.items():
                results.found(driver.id, name, way, is_right)
    return results


def test_the_readme_has_a_row_for_each_driver_and_a_column_for_each_scenario() -> None:
    rows = rows_of(WRITTEN)
    assert list(rows) == [driver.id for driver in DRIVERS]
    assert all(list(cells) == NAMES for cells in rows.values())
    assert list(HEADINGS) == NAMES


@pytest.mark.parametrize("scenario", SCENARIOS, ids=NAMES)
@pytest.mark.parametrize("driver", DRIVERS, ids=[driver.id for driver in DRIVERS])
def test_the_readme_says_what_the_tests_expect(driver: Driver, scenario: Scenario) -> None:
    cell = rows_of(WRITTEN)[driver.id][scenario.name]
    assert (cell == NOT_A_FEATURE) == (scenario.name in driver.without)
    assert said_by(cell, HERE) in (None, scenario.name not in driver.fails)


@pytest.mark.parametrize("here", [True, False])
@pytest.mark.parametrize("beside", [True, False])
def test_a_table_says_what_was_found(tmp_path: Path, here: bool, beside: bool) -> None:
    results_of({HERE: here, BESIDE: beside}).write(str(tmp_path / "found.json"))
    rows = rows_of(table(Results.read(str(tmp_path / "found.json"))))
    cells = [cell for row in rows.values() for cell in row.values()]
    assert {said_by(cell, HERE) for cell in cells} == {here}
    assert {said_by(cell, BESIDE) for cell in cells} == {beside}


def test_half_a_comparison_makes_no_table(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        table(results_of({HERE: True}))
    (tmp_path / "found.json").write_text(json.dumps({"versions": {}, "cells": {}}))
    with pytest.raises(KeyError):
        table(Results.read(str(tmp_path / "found.json")))
