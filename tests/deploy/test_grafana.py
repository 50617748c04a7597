"""The dashboard: what stands first, and that Grafana will find and lay out everything."""

import re
from itertools import combinations

import pytest

from deploy.grafana.dashboard import FILE, as_text
from tests.deploy.artifacts import dashboard, dashboard_queries, panels, read_yaml
from tests.deploy.test_metrics_exist import labels_by_name, scrape_of_numbers


@pytest.fixture(scope="module")
def board():
    return dashboard()


def rows_of(board):
    """The panels by row, in order."""
    rows = {}
    for panel in board["panels"]:
        if panel["type"] == "row":
            title = panel["title"]
            rows[title] = list(panel["panels"])
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


def test_the_file_is_what_its_source_writes():
    assert FILE.read_text() == as_text(), "write it again: python -m deploy.grafana.dashboard"


def test_what_a_bad_day_needs_stands_open_and_the_rest_is_folded(board):
    folded = {panel["title"]: panel["collapsed"] for panel in board["panels"] if panel["type"] == "row"}

    assert list(folded.values()) == [False] * 5 + [True] * 6
    assert all(rows_of(board).values()), "a row without a panel"
    for row in (panel for panel in board["panels"] if panel["type"] == "row"):
        assert bool(row["panels"]) == row["collapsed"], "Grafana looks for the panels of a folded row inside it"


def test_every_panel_explains_itself(board):
    assert [panel["title"] for panel in panels(board) if not panel["description"]] == []


def test_ids_are_unique(board):
    ids = [panel["id"] for panel in (*panels(board), *(row for row in board["panels"] if row["type"] == "row"))]

    assert len(ids) == len(set(ids))


def overlap(one, other):
    a, b = one["gridPos"], other["gridPos"]
    return (
        a["x"] < b["x"] + b["w"] and b["x"] < a["x"] + a["w"] and a["y"] < b["y"] + b["h"] and b["y"] < a["y"] + a["h"]
    )


def test_no_panel_covers_another_or_leaves_the_grid(board):
    seen_together = [board["panels"], *rows_of(board).values()]
    for group in seen_together:
        assert [(a["title"], b["title"]) for a, b in combinations(group, 2) if overlap(a, b)] == []
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels(board))


def selected(text):
    """Each metric of ours with the matchers it is selected by."""
    return re.findall(r"(pgheadroom_\w+)\{([^}]*)\}", text)


def test_what_is_chosen_narrows_every_query(board):
    """A number of all instances, classes or upstreams beside those of one would be read as the one's."""
    labels = labels_by_name(scrape_of_numbers(None))
    of_customers = {"pgheadroom_adaptive_slowdown_ratio", "pgheadroom_adaptive_usual_hold_seconds"}
    for where, query in dashboard_queries():
        for name, matchers in [] if where.startswith("variable") else selected(query):
            chosen = {"instance", *({"class", "upstream"} & labels[name])} - (
                {"class"} if name in of_customers else set()
            )
            assert [one for one in chosen if f"${one}" not in matchers] == [], (where, name)


def test_choosing_an_upstream_leaves_its_classes_to_choose_from(board):
    (of_class,) = [one for one in board["templating"]["list"] if one["name"] == "class"]

    assert of_class["query"]["query"] == of_class["definition"]
    assert 'upstream=~"$upstream"' in of_class["definition"]


def test_the_data_source_is_a_choice_and_never_a_fixed_one(board):
    used = {target["datasource"]["uid"] for panel in panels(board) for target in panel["targets"]}

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
