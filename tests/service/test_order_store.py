"""The file of orders: written whole, read as far as it can be."""

import json
from dataclasses import asdict, replace

import pytest

from proxy.admission.classes import ClassState
from proxy.service import order_store
from proxy.service.order_store import OrdersUnreadable, StoredOrders, put_aside, read_orders, write_orders
from proxy.service.switchboard import Switch

PAUSE = Switch("bulk", ClassState.PAUSED, "anna", "störm", 100.25, 160.5, "http 127.0.0.1")


def test_what_was_written_is_read(tmp_path):
    switches = (PAUSE, replace(PAUSE, class_name="cron", state=ClassState.REJECTING, until=None))
    write_orders(tmp_path / "orders.json", switches)

    assert read_orders(tmp_path / "orders.json") == StoredOrders(switches)
    assert [path.name for path in tmp_path.iterdir()] == ["orders.json"]


def test_no_file_is_no_orders(tmp_path):
    assert read_orders(tmp_path / "orders.json") == StoredOrders()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 99}', "\0\0\0"])
def test_a_file_that_is_none_of_ours_says_so(tmp_path, text):
    path = tmp_path / "orders.json"
    path.write_text(text)

    with pytest.raises(OrdersUnreadable, match=r"orders\.json"):
        read_orders(path)


def test_a_file_that_cannot_be_used_is_kept_beside(tmp_path):
    path = tmp_path / "orders.json"
    path.write_text("{")

    assert put_aside(path).read_text() == "{"
    assert not path.exists()


@pytest.mark.parametrize(
    "broken",
    [
        7,
        {},
        {"class_name": "bulk"},
        {**asdict(PAUSE), "state": "sleeping"},
        {**asdict(PAUSE), "until": 1e300},  # no calendar can show it: once the proxy did not start for it
        {**asdict(PAUSE), "until": float("nan")},
        {**asdict(PAUSE), "at": -1},
    ],
)
def test_one_entry_that_cannot_be_read_costs_no_other(tmp_path, broken):
    path = tmp_path / "orders.json"
    write_orders(path, [PAUSE])
    document = json.loads(path.read_text())
    document["switches"].insert(0, broken)
    path.write_text(json.dumps(document))

    stored = read_orders(path)

    assert stored.switches == (PAUSE,)
    assert len(stored.problems) == 1


def test_what_is_no_list_of_orders_is_told(tmp_path):
    path = tmp_path / "orders.json"
    path.write_text('{"version": 1, "switches": {"bulk": "paused"}}')

    (problem,) = read_orders(path).problems
    assert "no list of orders" in problem


def test_a_directory_named_by_mistake_stays_where_it_is(tmp_path):
    with pytest.raises(OrdersUnreadable, match="Is a directory"):
        read_orders(tmp_path)
    with pytest.raises(IsADirectoryError):
        put_aside(tmp_path)

    assert tmp_path.is_dir()


def test_a_write_that_fails_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "orders.json"
    write_orders(path, [PAUSE])

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(order_store.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_orders(path, [])

    assert read_orders(path).switches == (PAUSE,)
    assert [one.name for one in tmp_path.iterdir()] == ["orders.json"]


def test_the_file_is_replaced_in_one_step(tmp_path, monkeypatch):
    """Written in place, a crash in the middle would leave neither the old orders nor the new ones."""
    path = tmp_path / "orders.json"
    write_orders(path, [PAUSE])
    before = path.stat().st_ino

    def crash(*_):
        assert read_orders(path).switches == (PAUSE,)
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(order_store.os, "replace", crash)
        with pytest.raises(OSError, match="Input/output"):
            write_orders(path, [])
    assert [one.name for one in tmp_path.iterdir()] == ["orders.json"]
    write_orders(path, [])
    assert path.stat().st_ino != before
