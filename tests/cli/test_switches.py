"""The commands `pgheadroom pause`, `drain`, `reject` and `resume`."""

import socket

import pytest
from click.testing import CliRunner

from proxy.admission.classes import ClassState
from proxy.cli import ordering, switches
from proxy.cli.main import main
from proxy.service.http import HttpSettings
from tests.support.fake_proxy import served
from tests.support.fake_view import bad_day


@pytest.fixture
def view():
    return bad_day()


@pytest.fixture
def url(view):
    with served(view) as url:
        yield url


def run(*arguments, **environment):
    return CliRunner(env=environment).invoke(main, arguments)


def test_pause_and_resume(url, view):
    paused = run("pause", "bulk", "--reason", "import storm", "--url", url)

    assert (paused.exit_code, paused.output.split(":")[0]) == (0, "bulk is paused")
    assert view.snapshot().of_class("bulk").state is ClassState.PAUSED
    assert run("resume", "bulk", "--url", url).output.startswith("bulk is running")
    assert view.snapshot().of_class("bulk").state is ClassState.RUNNING


def test_the_order_says_who_and_why(url, view, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "ops-1")
    monkeypatch.setattr(ordering.getpass, "getuser", lambda: "anna")

    run("pause", "bulk", "--reason", "import storm", "--url", url, SUDO_USER="")

    assert (view.switches["bulk"].by, view.switches["bulk"].reason) == ("anna@ops-1", "import storm")


def test_under_sudo_the_person_is_named_and_not_root(url, view):
    run("pause", "bulk", "--url", url, SUDO_USER="anna")

    assert view.switches["bulk"].by.startswith("anna@")


def test_inside_a_container_the_person_can_be_named(url, view):
    run("pause", "bulk", "--by", "anna", "--url", url)

    assert view.switches["bulk"].by == "anna"


def test_a_user_without_a_name_is_named_by_number(url, view, monkeypatch):
    def nameless():
        raise KeyError("getpwuid(): uid not found: 65532")

    monkeypatch.setattr(ordering.getpass, "getuser", nameless)
    monkeypatch.setattr(ordering.os, "getuid", lambda: 65532)

    run("pause", "bulk", "--url", url, SUDO_USER="")

    assert view.switches["bulk"].by.startswith("uid 65532@")


def test_the_end_of_a_line_that_a_file_brings_along_is_no_part_of_the_token(view):
    with served(view, HttpSettings(port=0, switch_token="correct-horse")) as url:
        assert run("pause", "bulk", "--url", url, PGHEADROOM_TOKEN="correct-horse\n").exit_code == 0


@pytest.mark.parametrize("token", ["correct\nhorse", "hörse", "horse€"])
def test_a_token_that_no_header_can_hold_is_a_sentence_without_the_token(url, token):
    result = run("pause", "bulk", "--url", url, PGHEADROOM_TOKEN=token)

    assert result.exit_code == 1
    assert "PGHEADROOM_TOKEN holds what no HTTP header can" in result.output
    assert "rse" not in result.output


def test_an_unknown_class_fails_with_the_words_of_the_proxy(url):
    result = run("pause", "bulky", "--url", url)

    assert result.exit_code == 1
    assert result.output == 'Error: there is no class "bulky"; the classes are internal, admin, web, bulk\n'


def test_a_class_name_cannot_reach_another_path(url):
    result = run("pause", "../classes/bulk", "--url", url)

    assert result.exit_code == 1
    assert "there is no class" in result.output


def test_no_proxy_there_is_said_in_words():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    result = run("pause", "bulk", "--url", f"http://127.0.0.1:{port}")

    assert result.exit_code == 1
    assert "nothing listens there" in result.output


def state_of(view, class_name):
    return view.snapshot().of_class(class_name).state


def test_several_classes_at_once_and_none_where_one_is_not_there(url, view):
    result = run("pause", "bulk", "wbe", "--url", url)

    assert (result.exit_code, result.output) == (
        1, 'Error: there is no class "wbe"; the classes are admin, web, bulk\n'
    )  # fmt: skip
    assert state_of(view, "bulk") is ClassState.RUNNING
    assert run("reject", "bulk", "web", "--url", url).exit_code == 0
    assert (state_of(view, "bulk"), state_of(view, "web")) == (ClassState.REJECTING, ClassState.REJECTING)


def test_all_classes_are_those_of_the_configuration(url, view):
    run("pause", "--all", "--url", url)

    assert state_of(view, "admin") is ClassState.PAUSED
    assert state_of(view, "internal") is ClassState.RUNNING


@pytest.mark.parametrize("arguments", [(), ("bulk", "--all")])
def test_without_a_class_or_with_too_many_the_command_says_what_it_needs(url, arguments):
    result = run("pause", *arguments, "--url", url)

    assert result.exit_code == 2
    assert "name one or more classes, or say --all" in result.output


def test_an_order_that_ends_by_itself_says_when(url, view):
    result = run("pause", "bulk", "--for", "10m", "--url", url)

    assert "bulk is paused until " in result.output
    assert view.switches["bulk"].until - view.switches["bulk"].at == 600


@pytest.mark.parametrize("length", ["soon", "10x", "0", "-1m"])
def test_a_length_that_is_none_is_refused_before_anything_happens(url, view, length):
    result = run("pause", "bulk", "--for", length, "--url", url)

    assert result.exit_code == 2
    assert "is no length of time like 90s, 10m or 2h" in result.output
    assert view.switches == {}


def test_a_drain_that_nobody_waits_for_returns_at_once(url, view):
    result = run("drain", "bulk", "--no-wait", "--url", url)

    assert (result.exit_code, "draining" in result.output, "in use" in result.output) == (0, True, False)


def test_a_drain_tells_what_is_left_until_nothing_is(url, view, monkeypatch):
    holders = [client for client in range(1, view._next_client) if view.controller.holds(client)]
    turns = iter([0, 0, 20, 0, 20, 20, 20])  # where nothing has moved between two looks nothing is told

    def some_finish(seconds):
        for client in [holders.pop() for _ in range(min(next(turns), len(holders)))]:
            view.controller.release(client, view.now)

    monkeypatch.setattr(switches.time, "sleep", some_finish)

    result = run("drain", "bulk", "--url", url)

    lines = result.output.splitlines()
    assert (result.exit_code, lines[1], lines[-1]) == (0, "still in use: bulk 30", "nothing is in use: bulk")
    assert len(lines) > 3


def test_a_drain_ends_where_somebody_resumes_the_class(url, view, monkeypatch):
    monkeypatch.setattr(switches.time, "sleep", lambda seconds: view.order_switch("bulk", ClassState.RUNNING, by="ben"))

    result = run("drain", "bulk", "--url", url)

    assert result.exit_code == 1
    assert "bulk is running again, resumed by ben; it was not drained" in result.output


def test_an_order_that_a_restart_would_forget_is_a_warning(url, view):
    view.not_saved = "orders.json cannot be written: No space left on device"

    result = run("pause", "bulk", "--url", url)

    assert result.exit_code == 0
    assert "a restart would forget it: orders.json cannot be written" in result.output


class TestToken:
    @pytest.fixture
    def url(self, view):
        with served(view, HttpSettings(port=0, switch_token="correct-horse")) as url:
            yield url

    def test_without_it_nothing_happens_and_it_is_said_where_it_comes_from(self, url, view):
        result = run("pause", "bulk", "--url", url, PGHEADROOM_TOKEN="")

        assert result.exit_code == 1
        assert "does not bring that of http.switch_token" in result.output
        assert state_of(view, "bulk") is ClassState.RUNNING

    def test_it_is_taken_from_the_environment(self, url, view):
        assert run("pause", "bulk", "--url", url, PGHEADROOM_TOKEN="correct-horse").exit_code == 0
        assert state_of(view, "bulk") is ClassState.PAUSED

    def test_it_is_taken_from_the_configuration(self, url, view, tmp_path):
        path = tmp_path / "pgheadroom.yaml"
        path.write_text(
            f"http: {{port: {url.rpartition(':')[2]}, switch_token: correct-horse}}\n"
            "upstream: {url: postgresql://h/d}\ndefault_class: bulk\nclasses: {bulk: {limit: 1}}\n"
        )

        assert run("pause", "bulk", "-c", str(path), PGHEADROOM_TOKEN="").exit_code == 0
        assert state_of(view, "bulk") is ClassState.PAUSED
