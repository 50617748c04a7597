"""The command `pgheadroom status` as a person and as a program see it."""

import json
import socket
import threading
import time
from dataclasses import replace
from datetime import UTC

import pytest
from click.testing import CliRunner

from proxy.admission.classes import ClassSettings, ClassState, Mode
from proxy.admission.holds import HoldBounds
from proxy.admission.overload import Load, Verdict
from proxy.cli import status
from proxy.cli.remote import DEFAULT_URL, address_of
from proxy.cli.status import COLUMNS, command
from proxy.cli.status_lines import show_wait
from proxy.service.adaptive_state import AdaptiveState
from proxy.service.schedule import Effect, Window
from proxy.service.view import RefusedIdentity, ScheduleNow, Unmatched, UnmatchedName
from tests.support.fake_proxy import served
from tests.support.fake_view import SETTINGS, STARTED, FakeView, bad_day

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
    shown = [column for column in COLUMNS if column not in {"upstream", "pinned"}]  # one upstream, and nobody is pinned
    assert row_of(result.output, "class") == " ".join(shown).split()
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


def test_a_class_that_is_held_back_shows_both_limits(url, view):
    view.controller.set_adaptive_limit("bulk", 12, view.now)

    assert row_of(run("--url", url).output, "bulk")[3:6] == ["12", "(of", "30)"]


# What happens now and then has a line only then


def test_nothing_is_said_of_what_is_not_set_and_has_not_happened(url, view):
    output = run("--url", url).output

    assert "warns" not in output
    for word in ("cut off", "tags in comments", "lock waits", "again and again", "adaptive", "canary", "upstream "):
        assert word not in output, word


def test_refusals_by_reason(url, view):
    assert "refused so far: bulk 12 (queue_full 10, max_clients 2)" in run("--url", url).output


def test_who_comes_again_and_again(url, view):
    view.refused = [RefusedIdentity("bulk", "app 10.0.0.7 import", 40)]

    assert "while connecting: app 10.0.0.7 import in bulk 40 times" in run("--url", url).output


def test_who_was_cut_off_at_which_bound(url, view):
    view.bounds["bulk"] = HoldBounds(query=300.0, transaction=600.0)
    view.seen_measures.holds_ended["bulk", "import", "query"] += 7
    view.seen_measures.holds_ended["web", "", "client_idle"] += 1  # by a bound that is gone

    output = run("--url", url).output

    assert (
        "cut off at a bound of holds: no name in web 1 times (client_idle), import in bulk 7 times (query 5.0 min)"
        in (output)
    )


def test_what_became_of_tags(url, view):
    view.seen_measures.tagged_units["web", "followed"] += 120
    view.seen_measures.tagged_units["web", "unknown"] += 3

    assert "tags in comments: web 123 (followed 120, unknown 3)" in run("--url", url).output


def test_what_somebody_who_asks_now_has_to_expect():
    view = FakeView()
    at_work = view.ask("bulk", 60)
    for client in at_work[:20]:
        view.now += 0.1
        view.controller.release(client, view.now)
    with served(view) as url:
        output = run("--url", url).output

    assert "who asks now has to expect a wait: bulk 1.1 s" in output


def only_warns(**numbers):
    one = ClassSettings("new", mode=Mode.WARN, priority=5, **numbers)
    return FakeView(replace(SETTINGS, classes=(*SETTINGS.classes, one)))


def test_a_class_that_only_warns_says_what_it_would_have_done():
    view = only_warns(limit=2, queue_max=1)
    view.ask("new", 5)
    view.seen_measures.would_refuse_outside_queue["new", "max_clients"] += 4
    with served(view) as url:
        output = run("--url", url).output

    assert row_of(output, "new") == ["new", "5", "0", "2", "5", "0", "only", "warns"]
    would = "new only warns: it would have refused 6 (max_clients 4, queue_full 2) and queued 1 above its limit of 2"
    assert would in output


def test_a_class_that_only_warns_and_had_nothing_to_warn_of():
    with served(only_warns(limit=2)) as url:
        assert "new only warns: nothing would have been refused or queued so far" in run("--url", url).output


def two_upstreams():
    """The bad day, and a replica with classes of its own."""
    view = bad_day()
    replica = FakeView(replace(SETTINGS, total=20, headroom=0, headroom_for=frozenset(), classes=REPLICA_CLASSES))
    (reading,) = replica.upstreams()
    view.others = (replace(reading, name="replica", not_ready="no server login is possible"),)
    return view


REPLICA_CLASSES = (*(one for one in SETTINGS.classes if one.name == "internal"), ClassSettings("reports", limit=9))


def test_of_several_upstreams_each_class_says_whose_slots_it_gets():
    with served(two_upstreams()) as url:
        output = run("--url", url).output

    assert row_of(output, "class")[:3] == ["class", "upstream", "used"]
    assert row_of(output, "reports")[:2] == ["reports", "replica"]
    assert row_of(output, "web")[:2] == ["web", "main"]
    assert "upstream replica: 0 of 20 slots in use, 0 waiting" in output


def test_what_is_true_of_one_upstream_only_says_which():
    view = two_upstreams()
    view.adapting = AdaptiveState("on", "web", Verdict(Load.OVERLOADED, None, "web holds long"), None, {}, {}, ())
    view.locks = 3
    with served(view) as url:
        output = run("--url", url).output

    assert "adaptive limits of main (on): overloaded: web holds long" in output
    assert "lock waits of main: 3 server processes wait for a lock" in output


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
