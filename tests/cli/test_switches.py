"""The commands `pgheadroom pause` and `pgheadroom resume`."""

import socket

import pytest
from click.testing import CliRunner

from proxy.admission.classes import ClassState
from proxy.cli import switches
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
    monkeypatch.setattr(switches.getpass, "getuser", lambda: "anna")

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

    monkeypatch.setattr(switches.getpass, "getuser", nameless)
    monkeypatch.setattr(switches.os, "getuid", lambda: 65532)

    run("pause", "bulk", "--url", url, SUDO_USER="")

    assert view.switches["bulk"].by.startswith("uid 65532@")


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
