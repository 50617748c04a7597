"""The dashboard; `python -m deploy.grafana.dashboard` writes dashboard.json.

Owns: the order of the rows, the variables to choose by, the marks in time.
Does not know: what a row shows (rows_*.py), how Grafana writes that down (shapes.py).
"""

import json
from pathlib import Path

from deploy.grafana.rows_of_details import DETAIL_ROWS
from deploy.grafana.rows_of_features import FEATURE_ROWS
from deploy.grafana.rows_open import OPEN_ROWS
from deploy.grafana.shapes import Json, data_source_variable, laid_out, mark, metric, of_class, variable

FILE = Path(__file__).with_name("dashboard.json")

_CLASSES = 'label_values(pgheadroom_class_info{instance=~"$instance",upstream=~"$upstream"}, class)'
VARIABLES = (
    data_source_variable(),
    variable("instance", "Instance", "label_values(pgheadroom_budget_slots, instance)", allValue=".*"),
    variable(
        "upstream",
        "Upstream",
        'label_values(pgheadroom_budget_slots{instance=~"$instance"}, upstream)',
        allValue=".*",
    ),
    variable("class", "Class", _CLASSES),
)

MARKS = (
    mark(
        "Paused or resumed",
        "orange",
        f"changes({of_class('class_paused')}[1m]) > 0",
        "{{class}} paused or resumed",
    ),
    mark(
        "Configuration changed",
        "blue",
        f"count by (instance) (count_over_time({metric('config_info')}[1m])) > 1",
        "configuration changed",
        "{{instance}}",
    ),
    mark(
        "Proxy started",
        "purple",
        'changes(process_start_time_seconds{job="pgheadroom",instance=~"$instance"}[1m]) > 0',
        "proxy started",
        "{{instance}}",
    ),
)


def dashboard() -> Json:
    return {
        "uid": "pgheadroom",
        "title": "pgheadroom",
        "description": "Who has the database's connections, who waits, and who is refused.",
        "tags": ["postgresql", "pgheadroom"],
        "schemaVersion": 39,
        "version": 2,
        "editable": True,
        "graphTooltip": 1,
        "time": {"from": "now-30m", "to": "now"},
        "refresh": "10s",
        "timezone": "browser",
        "links": [],
        "templating": {"list": list(VARIABLES)},
        "annotations": {"list": list(MARKS)},
        "panels": laid_out((*OPEN_ROWS, *FEATURE_ROWS, *DETAIL_ROWS)),
    }


def as_text() -> str:
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(as_text())
