"""The dashboard: what stands first, and that Grafana will find and lay out everything."""

from itertools import combinations

import pytest

from tests.deploy.artifacts import dashboard, read_yaml


@pytest.fixture(scope="module")
def board():
    return dashboard()


def rows_of(board):
    """The panels by row, in order."""
    rows = {}
    for panel in board["panels"]:
        if panel["type"] == "row":
            title = panel["title"]
            rows[title] = []
        else:
            rows[title].append(panel)
    return rows


def test_the_three_numbers_of_a_bad_day_stand_first(board):
    first = next(iter(rows_of(board).values()))

    assert [panel["title"] for panel in first] == ["Request latency", "Queue drain", "Total open connections"]
    assert all("by (class" in panel["targets"][0]["expr"] for panel in first)


def test_waits_errors_and_queue_stand_together_in_one_row(board):
    titles = [panel["title"] for panel in rows_of(board)["Waits, errors and queues together"]]

    assert titles[:3] == ["Wait for a slot, p99", "Clients waiting", "Refusals per second"]


def test_every_panel_explains_itself(board):
    assert [p["title"] for p in board["panels"] if p["type"] != "row" and not p.get("description")] == []


def test_ids_are_unique(board):
    ids = [panel["id"] for panel in board["panels"]]

    assert len(ids) == len(set(ids))


def overlap(one, other):
    a, b = one["gridPos"], other["gridPos"]
    return (
        a["x"] < b["x"] + b["w"] and b["x"] < a["x"] + a["w"] and a["y"] < b["y"] + b["h"] and b["y"] < a["y"] + a["h"]
    )


def test_no_panel_covers_another_or_leaves_the_grid(board):
    assert [(a["title"], b["title"]) for a, b in combinations(board["panels"], 2) if overlap(a, b)] == []
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in board["panels"])


def test_the_data_source_is_a_choice_and_never_a_fixed_one(board):
    used = {target["datasource"]["uid"] for panel in board["panels"] for target in panel.get("targets", [])}

    assert used == {"${datasource}"}
    assert board["templating"]["list"][0]["type"] == "datasource"


def test_compose_puts_the_dashboard_where_the_provisioning_looks():
    (provider,) = read_yaml("grafana/provisioning/dashboards/pgheadroom.yaml")["providers"]
    mounts = read_yaml("compose.yaml")["services"]["grafana"]["volumes"]

    assert f"./grafana/dashboard.json:{provider['options']['path']}/dashboard.json:ro" in mounts


def test_the_provisioned_data_source_is_the_prometheus_of_the_stack():
    (source,) = read_yaml("grafana/provisioning/datasources/prometheus.yaml")["datasources"]

    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in read_yaml("compose.yaml")["services"]
