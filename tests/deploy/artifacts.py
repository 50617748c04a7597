"""The deployment files, read once for the tests.

Owns: where they are, and which metrics a PromQL expression names.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"

# Prometheus itself adds these to what is scraped.
LABELS_OF_PROMETHEUS = {"instance", "job"}

_METRIC = re.compile(r"\b(pgheadroom_\w+|process_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")


def read_yaml(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


def read_documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def dashboard() -> Any:
    return json.loads((DEPLOY / "grafana/dashboard.json").read_text())


def panels(board: Any) -> list[Any]:
    """All panels of a dashboard, those inside folded rows too, without the rows."""
    rows = [panel for panel in board["panels"] if panel["type"] == "row"]
    everything = [*board["panels"], *(panel for row in rows for panel in row["panels"])]
    return [panel for panel in everything if panel["type"] != "row"]


def alerts() -> list[dict[str, Any]]:
    return [rule for group in read_yaml("prometheus/alerts.yml")["groups"] for rule in group["rules"]]


def dashboard_queries() -> Iterator[tuple[str, str]]:
    """(where, PromQL) of every panel, variable and annotation."""
    board = dashboard()
    for panel in panels(board):
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield f"variable {variable['name']}", variable["definition"]
    for annotation in board["annotations"]["list"]:
        yield f"annotation {annotation['name']}", annotation["expr"]


def all_queries() -> list[tuple[str, str]]:
    return [*dashboard_queries(), *((rule["alert"], rule["expr"]) for rule in alerts())]


def metrics_and_labels(expression: str) -> list[tuple[str, set[str]]]:
    """Each metric an expression names, with the labels it is selected or grouped by."""
    grouped = {label.strip() for names in _GROUPING.findall(expression) for label in names.split(",") if label.strip()}
    return [(name, set(_MATCHER.findall(matchers)) | grouped) for name, matchers in _METRIC.findall(expression)]
