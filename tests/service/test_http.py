"""The HTTP surface over a view that is only numbers: answers, errors in words, and who may use the switch."""

import asyncio
import json
from dataclasses import replace

import pytest
from aiohttp.test_utils import TestClient, TestServer
from structlog.testing import capture_logs

from proxy.admission.classes import ClassSettings, ClassState, Mode
from proxy.service.http import HttpServer, HttpSettings, SwitchesFrom, build_application
from proxy.service.page import content_security_policy, page_with_headers
from proxy.session.listener import CannotListen
from tests.support.fake_view import SETTINGS, FakeView, bad_day

JSON = {"Content-Type": "application/json"}
ORDER = json.dumps({"by": "anna", "reason": "import storm"})


@pytest.fixture
def view():
    return bad_day()


@pytest.fixture
async def client(view):
    async with TestClient(TestServer(build_application(view, HttpSettings()))) as client:
        yield client


@pytest.fixture
async def remote_client(view, monkeypatch):
    """A client that seems to come from another machine."""
    monkeypatch.setattr("aiohttp.web.BaseRequest.remote", "10.1.2.3")
    async with TestClient(TestServer(build_application(view, HttpSettings()))) as client:
        yield client


def state_of(view, class_name):
    return view.snapshot().of_class(class_name).state


async def test_metrics_are_prometheus_text(client):
    answer = await client.get("/metrics")

    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert 'pgheadroom_class_used_slots{class="bulk"} 30.0' in await answer.text()


async def test_alive_says_nothing_about_the_database(client, view):
    view.readiness = (False, "the server at db:5432 does not answer")

    assert (await client.get("/healthz")).status == 200


async def test_ready_says_why_it_is_not(client, view):
    view.readiness = (False, "the server at db:5432 does not answer")

    answer = await client.get("/readyz")

    assert answer.status == 503
    assert await answer.text() == "the server at db:5432 does not answer\n"


async def test_ready(client):
    assert (await client.get("/readyz")).status == 200


async def test_status_names_every_class_in_order_of_the_configuration(client):
    document = await (await client.get("/status")).json()

    assert [c["name"] for c in document["classes"]] == ["internal", "admin", "web", "bulk"]
    bulk = document["classes"][-1]
    assert bulk["reason"] == "may always wait"
    assert bulk["refusals_total"] == {"queue_full": 10, "max_clients": 2}
    assert bulk["clients"] == {"idle": 0, "waiting": 40, "linked": 26, "total": 66}
    assert bulk["applications"][0] == {
        "application_name": "import", "idle": 0, "waiting": 36, "linked": 25, "total": 61
    }  # fmt: skip


async def test_a_worker_reads_both_limits_of_its_class_and_what_is_left_of_them(client):
    document = await (await client.get("/status")).json()

    (bulk,) = [one for one in document["classes"] if one["name"] == "bulk"]
    assert (bulk["used"], bulk["limit"]) == (30, 30)
    assert (bulk["clients"]["total"], bulk["max_clients"], bulk["max_clients_per_identity"]) == (66, 5000, None)
    assert (bulk["waiting"], bulk["queue_max"], bulk["queue_timeout_seconds"]) == (40, 40, 20.0)


async def test_the_status_is_json_also_where_a_class_has_no_bounds():
    """An infinite queue.timeout is Infinity to Python and nothing that a browser can read."""
    only_warns = ClassSettings("new", mode=Mode.WARN, limit=2, queue_max=1, max_clients=3)
    view = FakeView(replace(SETTINGS, classes=(*SETTINGS.classes, only_warns)))

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    async with TestClient(TestServer(build_application(view, HttpSettings()))) as client:
        for path in ("/status", "/history"):
            document = json.loads(await (await client.get(path)).text(), parse_constant=refuse)
            (new,) = [one for one in document.get("classes", [{"name": "new"}]) if one["name"] == "new"]
            assert {new.get(key) for key in ("max_clients", "queue_max", "queue_timeout_seconds")} == {None}


async def test_status_and_metrics_agree(client):
    status = await (await client.get("/status")).json()
    metrics = await (await client.get("/metrics")).text()

    assert f'pgheadroom_used_slots{{upstream="main"}} {float(status["budget"]["in_use"])}' in metrics


async def test_history_has_a_sample_from_the_start(client):
    document = await (await client.get("/history")).json()

    assert document["server_active"][0] == 43
    assert document["waiting"][0] == 40
    assert len({len(column) for column in document.values()}) == 1


async def test_a_sample_that_cannot_be_taken_is_logged_and_sampling_goes_on(view, monkeypatch):
    monkeypatch.setattr("proxy.service.http.SAMPLE_EVERY_SECONDS", 0.001)
    taken, real = [], view.snapshot

    def fails_once():
        taken.append(1)
        if len(taken) == 1:
            raise RuntimeError("planted")
        return real()

    view.snapshot = fails_once
    with capture_logs() as lines:
        async with TestClient(TestServer(build_application(view, HttpSettings()))) as client:
            while not (await (await client.get("/history")).json())["at"]:
                pass

    assert [line["event"] for line in lines].count("history_sample_failed") == 1


# The switch.


async def test_pause_and_resume(client, view):
    paused = await client.post("/classes/bulk/pause", data=ORDER, headers=JSON)

    assert paused.status == 200
    assert (await paused.json())["state"] == "paused"
    assert state_of(view, "bulk") is ClassState.PAUSED
    await client.post("/classes/bulk/resume", data=ORDER, headers=JSON)
    assert state_of(view, "bulk") is ClassState.RUNNING


async def test_the_last_order_is_shown_with_who_and_why(client):
    await client.post("/classes/bulk/pause", data=ORDER, headers=JSON)

    bulk = (await (await client.get("/status")).json())["classes"][-1]

    assert (bulk["state"], bulk["last_switch"]["by"], bulk["last_switch"]["reason"]) == (
        "paused", "anna", "import storm"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("order", "state"),
    [("pause", "paused"), ("drain", "draining"), ("reject", "rejecting"), ("resume", "running")],
)
async def test_every_order_has_a_path_and_reaches_the_class(client, view, order, state):
    answer = await client.post(f"/classes/bulk/{order}", data=ORDER, headers=JSON)

    assert (await answer.json())["state"] == state
    assert state_of(view, "bulk").value == state


async def test_an_order_may_end_by_itself_and_says_where_it_came_from(client):
    order = json.dumps({"by": "anna", "for": "10m"})

    switch = await (await client.post("/classes/bulk/pause", data=order, headers=JSON)).json()

    assert switch["until"] - switch["at"] == 600
    assert switch["source"] == "http 127.0.0.1"


async def test_an_order_that_a_restart_would_forget_is_in_force_and_says_so(client, view):
    view.not_saved = "orders.json cannot be written: No space left on device"

    answer = await client.post("/classes/bulk/pause", data=ORDER, headers=JSON)

    assert (await answer.json())["not_saved"] == view.not_saved
    assert state_of(view, "bulk") is ClassState.PAUSED


@pytest.fixture
async def guarded_client(view):
    async with TestClient(TestServer(build_application(view, HttpSettings(switch_token="correct-horse")))) as client:
        yield client


@pytest.mark.parametrize(
    "authorization", [None, "Bearer wrong-horse", "Bearer ", "Basic correct-horse", "correct-horse"]
)
async def test_without_the_token_nothing_is_switched_and_everything_can_be_read(guarded_client, view, authorization):
    headers = JSON if authorization is None else JSON | {"Authorization": authorization}

    answer = await guarded_client.post("/classes/bulk/pause", data=ORDER, headers=headers)

    assert answer.status == 401
    assert "PGHEADROOM_TOKEN" in (await answer.json())["error"]
    assert state_of(view, "bulk") is ClassState.RUNNING
    status = await (await guarded_client.get("/status")).json()
    assert (status["switches_need_token"], "horse" in str(status)) == (True, False)


async def test_a_token_of_any_bytes_is_only_wrong(view):
    """aiohttp hands over bytes that are no UTF-8 as lone surrogates, and a client of its own would not send them."""
    server = HttpServer(view, HttpSettings(port=0, switch_token="correct-horse"))
    reader, writer = await asyncio.open_connection("127.0.0.1", await server.start())
    writer.write(
        b"POST /classes/bulk/pause HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer \xff\xfe\r\nContent-Length: 0\r\n\r\n"
    )

    assert (await reader.readline()).split()[1] == b"401"
    writer.close()
    await server.stop()


async def test_with_the_token_an_order_is_taken(guarded_client, view):
    headers = JSON | {"Authorization": "Bearer correct-horse"}

    assert (await guarded_client.post("/classes/bulk/pause", data=ORDER, headers=headers)).status == 200
    assert state_of(view, "bulk") is ClassState.PAUSED


async def test_an_order_of_nobody_writes_no_long_lines(guarded_client):
    with capture_logs() as lines:
        await guarded_client.post(f"/classes/{'x' * 4000}/pause", data=ORDER, headers=JSON)

    (line,) = [line for line in lines if line["event"] == "order_refused"]
    assert len(str(line)) < 600


async def test_an_unknown_class_is_told_which_there_are(client):
    answer = await client.post("/classes/bulky/pause", data=ORDER, headers=JSON)

    assert answer.status == 404
    error = (await answer.json())["error"]
    assert '"bulky"' in error
    assert "web, bulk" in error


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("", "not JSON"),
        ("[" * 2000 + "]" * 2000, "not JSON"),  # deeper than the decoder goes
        ("[]", "an object"),
        ('{"who": "anna"}', "by and reason"),
        ('{"reason": "storm"}', "by is missing"),
        ('{"by": "  "}', "by is missing"),
        ('{"by": 7}', "by must be text"),
        ('{"by": "anna", "for": "soon"}', "10m"),
        ('{"by": "anna", "for": "0"}', "10m"),
        ('{"by": "anna", "for": "9999d"}', "366d"),
        ('{"by": "anna", "for": true}', "10m"),
        (json.dumps({"by": "anna", "reason": "x" * 301}), "longer than 300"),
    ],
)
async def test_a_body_that_cannot_be_read_is_refused_in_words(client, view, body, words):
    answer = await client.post("/classes/bulk/pause", data=body, headers=JSON)

    assert answer.status == 400
    assert words in (await answer.json())["error"]
    assert state_of(view, "bulk") is ClassState.RUNNING


async def test_control_characters_never_reach_the_log(client, view):
    order = json.dumps({"by": "anna\n", "reason": "\x1b[2Jstorm\nfake line"})
    await client.post("/classes/bulk/pause", data=order, headers=JSON)

    assert (view.switches["bulk"].by, view.switches["bulk"].reason) == ("anna", "[2Jstorm fake line")


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_what_a_foreign_form_can_send_is_refused(client, view, content_type):
    answer = await client.post("/classes/bulk/pause", data=ORDER, headers={"Content-Type": content_type})

    assert answer.status == 415
    assert state_of(view, "bulk") is ClassState.RUNNING


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        ("http://127.0.0.1:9432", "127.0.0.1:9432", 200),
        ("http://localhost:9432", "localhost:9432", 200),
        ("http://[::1]:9432", "[::1]:9432", 200),
        ("https://evil.example", "127.0.0.1:9432", 403),
        ("null", "127.0.0.1:9432", 403),
        # A name that was rebound to 127.0.0.1 is the same origin to the browser.
        ("http://evil.example:9432", "evil.example:9432", 403),
    ],
)
async def test_only_our_own_page_may_use_the_switch(client, origin, host, status):
    headers = JSON | {"Origin": origin, "Host": host}

    answer = await client.post("/classes/bulk/pause", data=ORDER, headers=headers)

    assert answer.status == status


async def test_a_trusted_name_may_open_the_page(view):
    settings = HttpSettings(trusted_hosts=frozenset({"headroom.example.com"}))
    async with TestClient(TestServer(build_application(view, settings))) as client:
        headers = JSON | {"Origin": "https://headroom.example.com", "Host": "headroom.example.com"}
        answer = await client.post("/classes/bulk/pause", data=ORDER, headers=headers)

    assert answer.status == 200


async def test_another_machine_may_look_and_not_switch(remote_client, view):
    with capture_logs() as lines:
        answer = await remote_client.post("/classes/bulk/pause", data=ORDER, headers=JSON)

    assert answer.status == 403
    assert "switches_from" in (await answer.json())["error"]
    assert state_of(view, "bulk") is ClassState.RUNNING
    assert [line["event"] for line in lines] == ["order_refused"]
    assert (await (await remote_client.get("/status")).json())["switches_allowed"] is False


async def test_another_machine_may_switch_where_the_configuration_says_so(view, monkeypatch):
    monkeypatch.setattr("aiohttp.web.BaseRequest.remote", "10.1.2.3")
    settings = HttpSettings(switches_from=SwitchesFrom.ANYWHERE)
    async with TestClient(TestServer(build_application(view, settings))) as client:
        assert (await client.post("/classes/bulk/pause", data=ORDER, headers=JSON)).status == 200


# Numbers beside the file.


async def post(client, path, **body):
    answer = await client.post(path, json={"by": "anna"} | body)
    return answer.status, await answer.json()


async def test_numbers_are_set_shown_and_taken_away(client, view):
    status, document = await post(client, "/set", settings={"classes.bulk.limit": 20}, **{"for": "10m"})

    assert (status, document["overrides"][0]["value"], document["warnings"]) == (200, "20", [])
    shown = (await (await client.get("/status")).json())["overrides"]
    assert [(one["key"], one["value"], one["configured"], one["by"]) for one in shown] == [
        ("classes.bulk.limit", "20", "30", "anna")
    ]
    status, document = await post(client, "/unset", keys=["classes.bulk.limit"])
    assert (status, document["overrides"][0]["configured"], view.set) == (200, "30", {})


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/set", {}, "settings must be an object"),
        ("/set", {"settings": ["classes.bulk.limit=20"]}, "settings must be an object"),
        ("/set", {"settings": {}, "keys": []}, "by and reason, perhaps for, settings"),
        ("/unset", {"keys": "classes.bulk.limit"}, "keys must be a list"),
        ("/unset", {"keys": []}, "keys must be a list"),
    ],
)
async def test_a_set_that_cannot_be_read_is_refused_in_words(client, path, body, words):
    status, document = await post(client, path, **body)

    assert status == 400
    assert words in document["error"]


async def test_numbers_need_the_token_as_well(guarded_client, view):
    assert (await post(guarded_client, "/set", settings={"classes.bulk.limit": 20}))[0] == 401
    assert view.set == {}


# Errors, the page, the server.


@pytest.mark.parametrize("query", ["hours=x", "hours=" + "9" * 400, "hours=" + "9" * 5000, "at_least=" + "9" * 400])
async def test_a_question_about_the_traffic_that_is_no_number_is_refused_in_words(client, query):
    answer = await client.get(f"/recommend?{query}")

    assert answer.status == 400
    assert "whole numbers" in (await answer.json())["error"]


async def test_a_wrong_path_lists_the_right_ones(client):
    answer = await client.get("/metricz")

    assert answer.status == 404
    assert "/metrics" in (await answer.json())["error"]


async def test_a_wrong_method_names_the_right_one(client):
    answer = await client.get("/classes/bulk/pause")

    assert answer.status == 405
    assert (await answer.json())["error"] == "/classes/bulk/pause takes POST"


async def test_an_endless_body_is_refused(client):
    answer = await client.post("/classes/bulk/pause", data=b"x" * 10_000, headers=JSON)

    assert answer.status == 413


async def test_our_own_failure_is_logged_and_not_shown(client, view):
    view.ready = None  # not callable
    with capture_logs() as lines:
        answer = await client.get("/readyz")

    assert answer.status == 500
    assert "TypeError" not in await answer.text()
    assert [line["event"] for line in lines] == ["http_request_failed"]


async def test_the_page_is_one_file_without_foreign_assets(client):
    answer = await client.get("/")
    text = await answer.text()

    assert answer.content_type == "text/html"
    assert " src=" not in text
    assert "https://" not in text.replace("https://www.w3.org", "")


def test_the_policy_of_the_page_allows_no_inline_code_but_its_own():
    text, headers = page_with_headers()

    policy = headers["Content-Security-Policy"]

    assert "unsafe" not in policy
    assert policy != content_security_policy(text.replace("use strict", "use sloppy"))
    assert "style=" not in text  # a style attribute would be blocked


async def test_start_tells_the_port_and_stop_frees_it(view):
    first = HttpServer(view, HttpSettings(port=0))
    port = await first.start()
    await first.stop()

    second = HttpServer(view, HttpSettings(port=port))

    assert await second.start() == port
    await second.stop()


async def test_a_port_in_use_is_an_error_of_the_start(view):
    first = HttpServer(view, HttpSettings(port=0))
    port = await first.start()

    with pytest.raises(CannotListen, match=r"address already in use; see http\.host, http\.port"):
        await HttpServer(view, HttpSettings(port=port)).start()
    await first.stop()
