"""The commands `pgheadroom set` and `pgheadroom unset`."""

import pytest
from click.testing import CliRunner

from proxy.cli.main import main
from tests.support.fake_proxy import served
from tests.support.fake_view import bad_day


@pytest.fixture
def view():
    return bad_day()


@pytest.fixture
def url(view):
    with served(view) as url:
        yield url


def run(*arguments):
    return CliRunner().invoke(main, arguments)


def test_a_number_is_set_for_a_while_and_the_answer_says_what_else_would_be(url, view):
    result = run("set", "classes.bulk.limit=20", "--for", "10m", "--reason", "rush", "--by", "anna", "--url", url)

    assert result.exit_code == 0
    assert result.output.startswith("classes.bulk.limit is 20 until ")
    assert result.output.endswith("(else 30)\n")
    order = view.set["classes.bulk.limit"].order
    assert (order.by, order.reason, order.value) == ("anna", "rush", "20")


def test_what_is_set_is_listed_and_shown_in_the_status(url):
    assert run("set", "--list", "--url", url).output == "nothing is set: schedule and file say everything\n"
    run("set", "classes.bulk.limit=20", "budget.headroom.size=6", "--by", "anna", "--url", url)

    listed = run("set", "--url", url).output

    assert "classes.bulk.limit" in listed
    assert listed.split()[:6] == ["setting", "value", "else", "by", "until", "reason"]
    assert "set: budget.headroom.size is 6 instead of 30, by anna" in run("status", "--url", url).output


def test_what_was_set_is_taken_away(url, view):
    run("set", "classes.bulk.limit=20", "classes.web.limit=9", "--url", url)

    assert run("unset", "classes.bulk.limit", "--url", url).output == ("classes.bulk.limit is 30 again (it was 20)\n")
    assert run("unset", "--all", "--url", url).exit_code == 0
    assert view.set == {}
    assert run("unset", "--all", "--url", url).output == "nothing is set\n"


def test_a_setting_that_is_none_fails_with_the_words_of_the_proxy(url):
    result = run("set", "classes.bulk.limti=20", "--url", url)

    assert (result.exit_code, result.output) == (1, 'Error: there is no setting "limti"\n')


@pytest.mark.parametrize("assignment", ["classes.bulk.limit", "=20", "20"])
def test_what_is_no_assignment_is_said_before_anything_is_sent(assignment):
    result = run("set", assignment, "--url", "http://127.0.0.1:1")

    assert result.exit_code == 2
    assert "is not KEY=VALUE, as classes.bulk.limit=20" in result.output


def test_a_warning_is_told(url, view):
    view.warnings = ["classes.bulk.queue.timeout: clients give up first"]

    assert "Unwise: classes.bulk.queue.timeout" in run("set", "classes.bulk.queue.timeout=40s", "--url", url).output
