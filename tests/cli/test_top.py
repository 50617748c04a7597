"""The command `pgheadroom top`: the rates between two readings, and what fits on a screen."""

import copy
import json

import pytest
from click.testing import CliRunner

from proxy.cli import top
from proxy.cli.remote import ask
from proxy.cli.top import Rates, command, rates
from tests.support.fake_proxy import served
from tests.support.fake_view import bad_day


@pytest.fixture
def view():
    return bad_day()


@pytest.fixture
def url(view):
    with served(view) as url:
        yield url


@pytest.fixture
def reading(url):
    return ask(url, "/status")


@pytest.fixture
def later(reading):
    """Two seconds later: bulk was admitted 30 times and refused 5 times."""
    later = copy.deepcopy(reading)
    later["at"] = reading["at"] + 2.0
    bulk = next(one for one in later["classes"] if one["name"] == "bulk")
    bulk["admissions_total"] += 30
    bulk["refusals_total"]["queue_full"] += 5
    return later


def test_rates_are_the_differences_over_the_time_between(reading, later):
    assert rates(reading, later)["bulk"] == Rates(15.0, 2.5)
    assert rates(reading, later)["web"] == Rates(0.0, 0.0)


def test_a_restart_is_no_negative_rate_and_a_new_class_has_none(reading, later):
    assert rates(later, {**reading, "at": later["at"] + 1.0})["bulk"] == Rates(0.0, 0.0)
    assert "bulk" not in rates({**reading, "classes": []}, later)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (80, 12)])
def test_it_fits_on_the_screen(reading, later, size):
    width, height = size
    later["identities"] *= 20
    lines = top._text(reading, later, size).splitlines()

    assert max(map(len, lines)) <= width
    if height >= 24:
        assert len(lines) <= height
    [bulk] = [line.split() for line in lines if line.startswith("bulk") and "2.5" in line]
    assert bulk == ["bulk", "30", "2", "30", "28", "40", "3.2", "s", "15", "2.5"]
    assert any(line.split()[:2] == ["bulk", "import"] for line in lines)


def test_the_line_on_top_says_what_deserves_a_look(reading, later):
    head = top._text(reading, later, (120, 40)).partition("\n\n")[0]

    assert "43 of 50 slots, headroom 4 of 4" in head
    assert "48 server connections and 7 of others" in head
    assert "1 wait for themselves" in head
    assert "2 slots could not be had" in head


def test_a_class_that_does_not_run_says_so(reading, later):
    later["classes"][-1]["state"] = "paused"
    assert "paused" in top._text(reading, later, (120, 40))


def test_a_class_that_only_warns_says_so_beside_the_limit_it_would_have(reading, later):
    later["classes"][-1] |= {"mode": "warn", "warns": {"limit": 7}, "limit": 50, "adaptive_limit": 50}
    lines = top._text(reading, later, (120, 40)).splitlines()
    row = next(line for line in lines if line.startswith(later["classes"][-1]["name"]))
    assert row.split()[3] == "7"
    assert row.endswith("only warns")


def test_once_shows_two_readings(url, monkeypatch):
    monkeypatch.setattr(top.time, "sleep", lambda _seconds: None)

    output = CliRunner().invoke(command, ["--url", url, "--once"]).output

    assert output.splitlines()[0].count("43 of 50 slots") == 1
    assert "import" in output


def test_json_once(url, monkeypatch):
    monkeypatch.setattr(top.time, "sleep", lambda _seconds: None)

    document = json.loads(CliRunner().invoke(command, ["--url", url, "--once", "--json"]).output)

    bulk = next(one for one in document["classes"] if one["name"] == "bulk")
    assert (bulk["waiting"], bulk["admissions_per_second"]) == (40, 0.0)


def test_it_goes_on_while_the_proxy_restarts_and_ends_with_ctrl_c(url, monkeypatch):
    pauses = []
    real_ask = top.ask

    def pause(_seconds):
        pauses.append(1)
        nobody = "http://127.0.0.1:9"
        monkeypatch.setattr(top, "ask", lambda *_: real_ask(nobody if len(pauses) == 2 else url, "/status"))
        if len(pauses) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(top.time, "sleep", pause)

    result = CliRunner().invoke(command, ["--url", url, "--json"])

    assert result.exit_code == 0
    assert len(result.output.splitlines()) == 2
