"""The command `pgheadroom reload`."""

import pytest
from click.testing import CliRunner

from proxy.cli.main import main
from proxy.service.reload_report import Change, ReloadReport
from proxy.service.switchboard import OrderRefused
from tests.support.fake_proxy import served
from tests.support.fake_view import bad_day

REPORT = ReloadReport(
    (Change("bulk", "limit", "30", "20", "loses 10", 26), Change("", "listen.port", "6432", "6433", "after a restart")),
    ("cron leaves: 0 slots in use drain",),
    "0123456789ab",
)


@pytest.fixture
def view():
    return bad_day()


@pytest.fixture
def url(view):
    with served(view) as url:
        yield url


def run(*arguments):
    return CliRunner().invoke(main, ("reload", *arguments))


def test_the_difference_is_a_table(url, view):
    view.report = REPORT

    result = run("--dry-run", "--by", "anna", "--url", url)

    lines = result.output.splitlines()
    assert (result.exit_code, view.reloads) == (0, [("anna", True)])
    assert lines[0].split() == ["class", "setting", "before", "after", "change", "in", "use", "now"]
    assert lines[2].split() == ["bulk", "limit", "30", "20", "loses", "10", "26"]
    assert lines[-2:] == ["cron leaves: 0 slots in use drain", "configuration 0123456789ab would be in force"]


def test_without_a_difference_it_says_so(url, view):
    result = run("--by", "anna", "--url", url)

    assert view.reloads == [("anna", False)]
    assert result.output == "nothing differs from what is in force\nconfiguration 3f9c2a71d04e is in force\n"


def test_a_refusal_is_told_line_by_line(url, view):
    view.report = OrderRefused("the numbers cannot hold, and nothing has changed:\npgheadroom.yaml:7: error: ...")

    result = run("--url", url)

    assert result.exit_code == 1
    assert result.output == (
        "Error: the numbers cannot hold, and nothing has changed:\npgheadroom.yaml:7: error: ...\n"
    )
