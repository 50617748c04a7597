"""The command `pgheadroom recommend` as a person and as a program see it."""

import json
import time
from dataclasses import replace

import pytest
from click.testing import CliRunner

from proxy.cli.recommend import command
from proxy.service.check import findings
from proxy.service.config.loading import load_config_text
from proxy.service.server_facts import ServerFacts
from proxy.service.traffic.record import ApplicationReading, ClassReading
from tests.support.fake_proxy import served
from tests.support.fake_view import bad_day


@pytest.fixture
def view():
    view = bad_day()
    hour = view.record.hour_at(time.time())
    web, bulk = ApplicationReading(20, 4), ApplicationReading(30, 0)
    classes = {"web": ClassReading(20, 4, False), "bulk": ClassReading(30, 0, True)}
    hour.observe(classes, {("web", "web-1"): web, ("bulk", "import"): bulk}, 7000.0)
    hour.observe({"web": ClassReading(2, 0, False), "bulk": ClassReading(0, 0, False)}, {}, 8000.0)
    hour.add_holds("web", None, {5: 1000}, 12.0)
    hour.add_holds("web", "web-1", {5: 1000}, 12.0)
    return view


@pytest.fixture
def url(view):
    with served(view) as url:
        yield url


def run(*arguments):
    return CliRunner().invoke(command, arguments)


def cells(output, *begin):
    """The row that begins with these cells."""
    rows = [line.split() for line in output.splitlines()]
    return next(row for row in rows if row[: len(begin)] == list(begin))


def test_figures_and_sums_are_shown(url):
    output = run("--url", url).output

    assert "4 h 10 min of traffic, seen in 1 hours of the clock since" in output
    assert cells(output, "web", "2", "24")[:6] == ["web", "2", "24", "24", "24", "10.4"]
    assert cells(output, "web", "web-1")[2:6] == ["0", "24", "24", "24"]
    assert cells(output, "web", "reserved") == ["web", "reserved", "30", "29", "p95", "24", "x", "1.2", "=", "29"]
    assert "12 ms" in output
    assert "bulk was at its limit for 47% of the time while clients waited" in output
    assert "looked at every 1 s" in output
    assert "taken for customers, the most important class that shares its connections: web" in output
    assert cells(output, "reports-v2")[1] == "5"


def test_the_block_alone_can_be_put_into_the_file(url):
    head = 'upstream: {url: "postgresql://proxy@127.0.0.1/app"}\nauth: {method: trust}\n'

    config = load_config_text(head + run("--url", url, "--yaml").output, {})

    assert [
        str(one) for one in findings(config, ServerFacts(100)) if "budget" in one.key or "reserved" in one.key
    ] == []
    assert config.classes["web"].reserved == 29


def test_json_is_the_document(url):
    document = json.loads(run("--url", url, "--json").output)

    assert document["suggestion"]["classes"][1]["reserved"] == {"value": 29, "sum": "p95 24 x 1.2 = 29"}


def test_too_little_is_refused_in_words(url):
    result = run("--url", url, "--at-least", "1d")

    assert result.exit_code == 1
    assert result.output.startswith(
        "Error: 4 h 10 min of traffic were seen, and at least 24 h are asked for: ask again"
    )


@pytest.mark.parametrize("length", ["soon", "9999d", "9" * 400])
def test_what_is_no_length_of_time_is_refused(url, length):
    result = run("--url", url, "--at-least", length)

    assert result.exit_code == 2
    assert "no length of time" in result.output


def test_a_name_chosen_by_a_client_sends_no_escape_sequences(view, url):
    view.record.hour_at(time.time()).observe({}, {("web", "\x1b]0;taken\x07"): ApplicationReading(9, 0)}, 100.0)

    assert "\x1b" not in run("--url", url).output


# Several upstreams

TWO = """\
upstreams:
  replica: {url: postgresql://p@replica/app, databases: [app_ro], budget: {total: 20}, default_class: reports}
  main: {url: postgresql://p@primary/app, budget: {total: 50}, default_class: bulk}
auth: {method: trust}
classes:
  web: {upstream: main, match: [{application_name: "web*"}], priority: 1, reserved: 30, limit: 45}
  bulk: {limit: 30, priority: 9}
  reports: {limit: 9}
"""


@pytest.fixture
def two(view):
    (main,) = view.upstreams()
    view.config_text = TWO
    view.others = (replace(main, name="replica", budget=replace(main.budget, total=20)),)
    with served(view) as url:
        yield url


def test_each_upstream_has_its_own_recommendation(two):
    output = run("--url", two).output

    of_replica, of_main = output.split("upstream replica\n")[1].split("upstream main\n")
    assert "reports 1 + internal 1 = 2 of 20 slots" in of_replica
    assert "web 29" not in of_replica
    assert cells(of_main, "web", "reserved")[:4] == ["web", "reserved", "30", "29"]
    assert output.count("how the figures were obtained") == output.count("of traffic, seen in") == 1


def test_one_of_them_alone(two):
    output = run("--url", two, "--upstream", "replica").output

    assert "reports 1 + internal 1 = 2 of 20 slots" in output
    assert "upstream main" not in output


def test_the_blocks_say_where_they_belong(two):
    output = run("--url", two, "--yaml").output

    assert [line for line in output.splitlines() if line.startswith("# in ")] == [
        "# in upstreams.replica:",
        "# in upstreams.main:",
    ]


def test_an_upstream_that_is_none_is_refused_with_those_there_are(two):
    result = run("--url", two, "--upstream", "standby")

    assert result.exit_code == 1
    assert 'there is no upstream "standby": upstream=replica or main' in result.output
