"""How Grafana wants a dashboard written down: panels, rows, variables and marks as JSON.

Owns: the look of all panels, the grid they are laid out on, the names of the variables in queries.
Does not know: what is worth looking at (dashboard.py).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Grafana defines the shape; its JSON has no better type.
Json = dict[str, Any]

WIDTH = 24
RATE = "[$__rate_interval]"
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True, slots=True)
class Line:
    """One query of a panel, and what the legend calls its series."""

    query: str
    legend: str


@dataclass(frozen=True, slots=True)
class Style:
    """For the series whose legend matches: dashed, and in a colour of its own and beside a stack where `color` is."""

    legend: str
    color: str | None = None


@dataclass(frozen=True, slots=True)
class Panel:
    """`states` names what the numbers 0, 1, ... mean; such a panel is bands in time and not lines."""

    title: str
    about: str
    lines: tuple[Line, ...]
    unit: str = "short"
    fill: int = 0
    stacked: bool = False
    least: int | None = 0
    styles: tuple[Style, ...] = ()
    states: tuple[tuple[str, str], ...] = ()  # (text, colour) of 0, 1, ...
    per_class: bool = False
    width: int = 6


@dataclass(frozen=True, slots=True)
class Row:
    title: str
    panels: tuple[Panel, ...]
    collapsed: bool = False
    height: int = 8


# -- queries ----------------------------------------------------------------------------------------------------------


def metric(name: str, **labels: str) -> str:
    """A metric of the instances that are chosen, and of these labels; "a|b" is either, "!a" any other."""
    return _selected(name, labels)


def of_class(name: str, **labels: str) -> str:
    """The same of the classes that are chosen."""
    return _selected(name, labels, 'class=~"$class"')


def of_one_class(name: str) -> str:
    """The same of the one class that a repeated panel is for."""
    return _selected(name, {}, 'class="$class"')


def of_upstream(name: str, **labels: str) -> str:
    return _selected(name, labels, 'upstream=~"$upstream"')


def _selected(name: str, labels: Mapping[str, str], *variables: str) -> str:
    matchers = ['instance=~"$instance"', *variables, *(_matcher(*label) for label in labels.items())]
    return f"pgheadroom_{name}{{{','.join(matchers)}}}"


def _matcher(label: str, value: str) -> str:
    if value.startswith("!"):
        return f'{label}!="{value[1:]}"'
    return f'{label}=~"{value}"' if "|" in value else f'{label}="{value}"'


def rate(selected: str) -> str:
    return f"rate({selected}{RATE})"


def quantile(q: float, histogram: str) -> str:
    """Of a histogram by class; `histogram` is its selected `_bucket`."""
    return f"histogram_quantile({q}, sum by (class, le) ({rate(histogram)}))"


# -- JSON -------------------------------------------------------------------------------------------------------------


def laid_out(rows: Iterable[Row]) -> list[Json]:
    """All panels with their ids and places. Those of a collapsed row are inside it and take no room below."""
    panels: list[Json] = []
    y, last_id = 0, 0
    for row in rows:
        inside = [_panel(panel, last_id + 2 + i) for i, panel in enumerate(row.panels)]
        bottom = _place(inside, row, y + 1)
        panels.append(_row(row, last_id + 1, y, inside if row.collapsed else []))
        panels += [] if row.collapsed else inside
        last_id += 1 + len(inside)
        y = y + 1 if row.collapsed else bottom
    return panels


def _place(panels: Sequence[Json], row: Row, y: int) -> int:
    """From left to right, then further down; returns where the next row begins."""
    x = 0
    for panel, wanted in zip(panels, row.panels, strict=True):
        if x + wanted.width > WIDTH:
            x, y = 0, y + row.height
        panel["gridPos"] = {"x": x, "y": y, "w": wanted.width, "h": row.height}
        x += wanted.width
    return y + row.height


def _row(row: Row, panel_id: int, y: int, inside: list[Json]) -> Json:
    place = {"x": 0, "y": y, "w": WIDTH, "h": 1}
    return {
        "id": panel_id,
        "type": "row",
        "title": row.title,
        "collapsed": row.collapsed,
        "gridPos": place,
        "panels": inside,
    }


def _panel(panel: Panel, panel_id: int) -> Json:
    document: Json = {
        "id": panel_id,
        "type": "state-timeline" if panel.states else "timeseries",
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": {},
        "targets": [_target(line, chr(ord("A") + i)) for i, line in enumerate(panel.lines)],
        "fieldConfig": _bands(panel) if panel.states else _lines(panel),
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }
    if panel.states:
        document["options"] |= {"mergeValues": True, "showValue": "auto", "rowHeight": 0.8}
    if panel.per_class:
        document |= {"repeat": "class", "repeatDirection": "h", "maxPerRow": WIDTH // panel.width}
    return document


def _target(line: Line, reference: str) -> Json:
    return {
        "datasource": _SOURCE,
        "refId": reference,
        "expr": line.query,
        "legendFormat": line.legend,
        "editorMode": "code",
        "range": True,
        "instant": False,
    }


def _lines(panel: Panel) -> Json:
    defaults: Json = {
        "unit": panel.unit,
        "custom": {
            "drawStyle": "line",
            "lineInterpolation": "linear",
            "lineWidth": 1,
            "fillOpacity": panel.fill,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        },
        "color": {"mode": "palette-classic-by-name"},  # a class has the same colour in every panel
    }
    if panel.least is not None:
        defaults["min"] = panel.least
    return {"defaults": defaults, "overrides": [_override(style) for style in panel.styles]}


def _override(style: Style) -> Json:
    properties: list[Json] = [
        {"id": "custom.fillOpacity", "value": 0},
        {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [8, 6] if style.color else [4, 6]}},
    ]
    if style.color:
        properties += [
            {"id": "custom.stacking", "value": {"mode": "none", "group": "B"}},
            {"id": "color", "value": {"mode": "fixed", "fixedColor": style.color}},
        ]
    return {"matcher": {"id": "byRegexp", "options": style.legend}, "properties": properties}


def _bands(panel: Panel) -> Json:
    texts = {
        str(value): {"text": text, "color": color, "index": value} for value, (text, color) in enumerate(panel.states)
    }
    return {
        "defaults": {
            "custom": {"fillOpacity": 70, "lineWidth": 0},
            "color": {"mode": "fixed", "fixedColor": "text"},
            "mappings": [{"type": "value", "options": texts}],
        },
        "overrides": [],
    }


def data_source_variable() -> Json:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "refresh": 1,
        "current": {},
        "options": [],
    }


def variable(name: str, label: str, query: str, **more: object) -> Json:
    """A choice of several, all of them at first."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": "A"},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        **more,
        "current": {"text": ["All"], "value": ["$__all"]},
        "options": [],
    }


def mark(name: str, color: str, query: str, title: str, text: str = "") -> Json:
    """A line in every panel at the moment at which the query has an answer."""
    return {
        "name": name,
        "datasource": _SOURCE,
        "enable": True,
        "iconColor": color,
        "expr": query,
        "step": "15s",
        "titleFormat": title,
        "textFormat": text,
        "target": {"expr": query, "refId": "Anno"},
    }
