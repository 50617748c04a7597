"""Orders and kill -9: a process of its own, killed in the moment after it has answered, and started again."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from proxy.demo.postgres import DATABASE, password_of
from proxy.demo.serving import PGHEADROOM, ProxyProcess
from tests.support.servers import Postgres

pytestmark = pytest.mark.once

CLASSES = {
    "web": {"match": [{"application_name": "web*"}], "priority": 1, "reserved": 2, "limit": 4},
    "bulk": {"priority": 9, "limit": 3, "queue": {"timeout": "100ms"}},
}


@pytest.fixture
def proxy(make_proxy: Callable[..., ProxyProcess], postgres: Postgres) -> ProxyProcess:
    return make_proxy(
        postgres, classes=CLASSES, budget={"total": 6, "keep_free": 0}, switches={"state_file": "orders.json"}
    )


def pgheadroom(proxy: ProxyProcess, *arguments: str) -> str:
    command = [*PGHEADROOM, *arguments, "-c", str(proxy.config_path)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


def status(proxy: ProxyProcess) -> dict[str, Any]:
    found = json.loads(pgheadroom(proxy, "status", "--json"))
    assert isinstance(found, dict)
    return found


def answer_to(proxy: ProxyProcess, application_name: str) -> object:
    """What a real client of this name reads: a row, or the reason in the refusal."""
    url = proxy.url("app", password_of("app"), DATABASE)
    with psycopg.connect(url, application_name=application_name, autocommit=True) as client:
        try:
            row = client.execute("select 1").fetchone()
        except psycopg.OperationalError as refusal:
            return (refusal.diag.message_detail or "").partition("reason=")[2].split()[0]
        return row and row[0]


def killed_and_started_again(proxy: ProxyProcess) -> None:
    proxy.kill()
    proxy.start()


def test_what_was_answered_holds_after_kill_9(proxy: ProxyProcess) -> None:
    pgheadroom(proxy, "pause", "bulk", "--reason", "storm", "--by", "anna")
    killed_and_started_again(proxy)
    assert answer_to(proxy, "bulk-1") == "paused"
    assert answer_to(proxy, "web-1") == 1
    pgheadroom(proxy, "set", "classes.bulk.mode=warn", "classes.bulk.limit=2", "--by", "anna")
    killed_and_started_again(proxy)
    assert {one["key"]: one["value"] for one in status(proxy)["overrides"]} == {
        "classes.bulk.mode": "warn",
        "classes.bulk.limit": "2",
    }
    pgheadroom(proxy, "resume", "bulk", "--by", "anna")
    killed_and_started_again(proxy)
    assert answer_to(proxy, "bulk-1") == 1


@pytest.mark.parametrize("damage", ["cut", "empty", "zeros"])
def test_a_file_that_was_cut_short_is_put_aside_and_the_process_runs(proxy: ProxyProcess, damage: str) -> None:
    """By a full disk or a bad copy: the process itself replaces the file as one step."""
    pgheadroom(proxy, "pause", "bulk", "--by", "anna")
    proxy.kill()
    path = proxy.folder / "orders.json"
    whole = path.read_bytes()
    damaged = {"cut": whole[: len(whole) // 2], "empty": b"", "zeros": bytes(len(whole))}[damage]
    path.write_bytes(damaged)
    proxy.start()
    assert answer_to(proxy, "bulk-1") == 1
    assert path.with_name("orders.json.unreadable").read_bytes() == damaged
    assert "orders_unreadable" in proxy.log_text()
    pgheadroom(proxy, "pause", "bulk", "--by", "anna")
    killed_and_started_again(proxy)
    assert answer_to(proxy, "bulk-1") == "paused"


def test_a_file_that_a_kill_left_half_written_is_not_the_file_of_orders(proxy: ProxyProcess) -> None:
    """What is written is another file until it is whole; what is left of one is nobody's orders."""
    pgheadroom(proxy, "pause", "bulk", "--by", "anna")
    proxy.kill()
    left = Path(proxy.folder / ".orders.json.abc123")
    left.write_text('{"version": 1, "switches": [')
    proxy.start()
    assert answer_to(proxy, "bulk-1") == "paused"
