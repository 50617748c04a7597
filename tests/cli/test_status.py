"""The command `pgheadroom status` as a person and as a program see it."""

import json
import socket
import threading
import time
from datetime import UTC

import pytest
from click.testing import CliRunner

from proxy.admission.classes import ClassState
from proxy.cli import status
from proxy.cli.remote import DEFAULT_URL, address_of
from proxy.cli.status import COLUMNS, command, show_wait
from proxy.service.schedule import Effect, Window
from proxy.service.view import ScheduleNow, Unmatched, UnmatchedName
from tests.support.fake_proxy import served
from tests.support.fake_view import STARTED, bad_day

CONFIG = """\
http: {host: %s, port: %s}
upstream: {url: "postgresql://proxy:hush@127.0.0.1/app"}
auth: {method: trust}
budget: {total: 20}
default_class: web
classes: {web: {reserved: 5, limit: 10}}
"""


@pytest.fixture
def view():
    return bad_day()


@pytest.fixture
def url(view):
    with served(view) as url:
        yield url


@pytest.fixture
def config(tmp_path):
    def write(host="127.0.0.1", port=9432):
        path = tmp_path / "pgheadroom.yaml"
        path.write_text(CONFIG % (json.dumps(host), port))
        return str(path)

    return write


@pytest.fixture
def nobody():
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    return f"http://127.0.0.1:{port}"


def run(*arguments, **environment):
    wide = {"COLUMNS": "120"}  # whatever this run of tests was started in
    return CliRunner(env={**wide, **environment}).invoke(command, arguments)


def row_of(output, class_name):
    return next(line for line in output.splitlines() if line.startswith(class_name)).split()


def test_a_table_of_classes(url):
    result = run("--url", url)

    assert result.exit_code == 0
    assert row_of(result.output, "class") == " ".join(COLUMNS).split()
    assert row_of(result.output, "bulk") == ["bulk", "30", "2", "30", "28", "40", "3.2", "s", "running"]
    assert row_of(result.output, "web") == ["web", "12", "30", "45", "0", "0", "running"]


def test_the_totals(url):
    output = run("--url", url).output

    assert "slots: 43 of 50 in use, headroom 4 of 4 left" in output
    assert "48 open, 43 active, 3 idle, 1 dialling, 1 closing (the server allows 100, 7 used by others)" in output
    assert "clients: 287 connected, 39 linked, 40 waiting, 208 idle" in output
    assert "ready: new clients are served (version" in output
    assert "names no class knows (5 clients): reports-v2 (5 since 2023-11-1" in output


def test_who_has_connections(url):
    output = run("--url", url, "--clients").output

    assert row_of(output, "class") == ["class", "application", "user", "address", "connections", "slots", "waiting"]
    lines = [line.split() for line in output.splitlines()[2:]]
    assert lines[0] == ["bulk", "import", "app", "10.0.0.7", "61", "25", "36"]
    assert [line[1] for line in lines if line] == ["import", "web-1", "web-2", "reports-v2", "psql"]


def test_nobody_has_connections(monkeypatch):
    monkeypatch.setattr(status, "ask", lambda *_: {"identities": []})

    assert run("--clients").output == "nobody has a connection\n"


def test_who_probably_waits_for_itself_and_what_helps(url):
    output = run("--url", url).output

    assert (
        "probably waits for itself: import of app from 10.0.0.7 in bulk holds 1 and does nothing while 1 of it wait, "
        "for 15.0 s" in output
    )
    assert "max_clients_per_identity" in output


def test_who_connects_past_the_proxy_and_what_that_does_to_the_budget(url):
    output = run("--url", url).output

    assert "warning: budget.keep_free: 7 connections are not the proxy's" in output
    assert "2 slots of the budget could not be had now if all were asked for" in output
    assert "past the proxy: pgadmin 4 of postgres from 10.0.0.9: 5, no name of backup: 2" in output


def test_a_paused_class_says_by_whom_and_why(url, view):
    view.order_switch("bulk", ClassState.PAUSED, by="anna", reason="import storm")

    at = time.strftime("%H:%M:%S", time.localtime(view.switches["bulk"].at))
    assert f"paused by anna at {at}: import storm" in run("--url", url).output


def test_a_schedule_says_until_when_and_why(url, view):
    window = Window(frozenset({0}), 540, 1080, UTC, 10, ClassState.PAUSED, "customers first", "mon 9:00-18:00 UTC")
    view.schedules["bulk"] = ScheduleNow(Effect(10, ClassState.PAUSED, (window,)), STARTED, Effect())
    view.schedules["web"] = ScheduleNow(Effect(), STARTED, Effect(5))

    output = run("--url", url).output

    assert "paused, limit 10 by schedule until " in " ".join(output.split())
    assert "customers first" in output
    assert "running until " in output


def test_a_class_that_is_held_back_shows_both_limits(monkeypatch):
    assert status._row(
        {"name": "bulk", "used": 3, "reserved": 2, "limit": 30, "adaptive_limit": 12, "borrowed": 1, "waiting": 0,
         "pinned": 0, "pinned_limit": 4, "oldest_wait_seconds": 0.0, "state": "running", "switch": None,
         "schedule": None}
    )[3] == "12 (of 30)"  # fmt: skip


def test_json_is_the_document_of_the_proxy(url):
    document = json.loads(run("--url", url, "--json").output)

    assert document["budget"]["in_use"] == 43


def test_a_name_chosen_by_a_client_sends_no_escape_sequences_to_the_terminal(url, view):
    view.seen_unmatched = Unmatched(1, (UnmatchedName("\x1b]0;taken\x07", 1, 0.0),))

    output = run("--url", url).output

    assert "\x1b" not in output
    assert "?]0;taken?" in output


def test_no_proxy_there_is_said_in_words(nobody):
    result = run("--url", nobody)

    assert result.exit_code == 1
    assert result.output == (
        f"Error: no pgheadroom at {nobody}: nothing listens there. Is it running? "
        "Another place is named with --url or -c.\n"
    )


def test_something_else_at_the_port_is_recognised(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setattr("proxy.cli.remote.TIMEOUT_SECONDS", 0.1)
        result = run("--url", f"http://127.0.0.1:{listener.getsockname()[1]}")

    assert result.exit_code == 1
    assert "no answer within" in result.output


def test_bytes_of_another_protocol_do_not_reach_the_terminal(monkeypatch):
    """The port of clients instead of that of HTTP: its answer is an ErrorResponse, NULs and all."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answer = threading.Thread(target=_answer_once, args=(listener, b"E\0\0\0\x20SFATAL\0\x1b[2Jno HTTP\0\0"))
        answer.start()
        result = run("--url", f"http://127.0.0.1:{listener.getsockname()[1]}")
        answer.join()

    assert result.exit_code == 1
    assert "does not speak HTTP" in result.output
    assert "FATAL" not in result.output


def _answer_once(listener, answer):
    connection, _ = listener.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(answer)


@pytest.mark.parametrize("url", ["localhost:9432", "ftp://127.0.0.1", "http://", "http://127.0.0.1:99999"])
def test_what_is_no_address_is_refused(url):
    result = run("--url", url)

    assert result.exit_code == 1
    assert "is not an address like" in result.output


def test_the_address_comes_from_the_configuration(url, config):
    port = url.rpartition(":")[2]

    assert row_of(run("-c", config(port=port)).output, "bulk")[1] == "30"
    assert row_of(run(PGHEADROOM_CONFIG=config(port=port)).output, "bulk")[1] == "30"


@pytest.mark.parametrize(
    ("host", "address"),
    [("0.0.0.0", "http://127.0.0.1:9432"), ("::", "http://[::1]:9432"), ("10.1.2.3", "http://10.1.2.3:9432")],
)
def test_a_listener_on_every_address_is_asked_on_loopback(config, host, address):
    assert address_of(None, config(host=host)) == address


def test_without_url_and_configuration_it_is_the_default_port():
    assert address_of(None, None) == DEFAULT_URL


def test_a_port_that_changes_at_every_start_has_to_be_said(config):
    assert "say --url" in run("-c", config(port=0)).output


def test_a_broken_configuration_is_shown_with_its_findings(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text("htttp: {}\n")

    result = run("-c", str(path))

    assert result.exit_code == 1
    assert "htttp" in result.output


def test_watching_goes_on_while_the_proxy_restarts(url, nobody, monkeypatch):
    """Whoever restarts the proxy watches for its return: its absence must not end the command."""
    pauses = []

    def stop_after_three(_seconds):
        pauses.append(1)
        monkeypatch.setattr(status, "ask", lambda *_: real_ask(url if len(pauses) == 2 else nobody, "/status"))
        if len(pauses) == 3:
            raise KeyboardInterrupt

    real_ask = status.ask
    monkeypatch.setattr(status.time, "sleep", stop_after_three)

    output = run("--url", url, "--watch").output

    assert output.count("slots: 43 of 50") == 2
    assert output.count("nothing listens there") == 1


@pytest.mark.parametrize(("seconds", "text"), [(0.0, "0 ms"), (0.25, "250 ms"), (3.21, "3.2 s"), (90, "1.5 min")])
def test_waits_are_short_to_read(seconds, text):
    assert show_wait(seconds) == text


def test_pins_are_shown_against_their_limit(url, view):
    """A class can wait with slots free: whoever asks why has to see that its pins are used up."""
    client = view.ask("web", 1)[0]
    view.controller.note_pinned(client, view.now)

    assert row_of(run("--url", url).output, "web") == ["web", "13", "30", "45", "0", "1", "of", "45", "0", "running"]
