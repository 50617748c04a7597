"""A gigabyte in one result, one COPY or one message goes through, and the process does not grow with it.

The proxy runs in a process of its own here, whose peak of resident memory the kernel keeps.
"""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.demo.postgres import free_port
from proxy.demo.serving import ProxyProcess
from proxy.wire import messages
from proxy.wire.startup import encode_startup
from tests.session.fake_server import FACTS
from tests.support.servers import Postgres
from tests.support.wire_client import COPY_DONE, SYNC, copy_data, execute, parse, query

pytestmark = pytest.mark.once

GIGABYTE = 1 << 30
MEGABYTE = 1 << 20
LONGEST = GIGABYTE - MEGABYTE  # of one message; PostgreSQL itself takes none of a whole gigabyte
MAX_GROWTH_BYTES = 50 * MEGABYTE
CHUNK = bytes(MEGABYTE)

MakeProxy = Callable[..., ProxyProcess]


def resident_bytes(proxy: ProxyProcess, *, peak: bool = False) -> int:
    name = "VmHWM" if peak else "VmRSS"
    lines = Path(f"/proc/{proxy.pid}/status").read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith(name))
    return int(kilobytes) * 1024


@contextmanager
def not_growing(proxy: ProxyProcess) -> Iterator[None]:
    before = resident_bytes(proxy)
    yield
    growth = resident_bytes(proxy, peak=True) - before
    assert growth < MAX_GROWTH_BYTES, f"the proxy grew by {growth / MEGABYTE:.0f} MB"


class Blocking:
    """A client that reads and writes as fast as the kernel lets it, and looks at as little as possible."""

    def __init__(self, proxy: ProxyProcess) -> None:
        self._socket = socket.create_connection((proxy.host, proxy.port), timeout=60)
        self._buffer = memoryview(bytearray(4 * MEGABYTE))
        self.send(encode_startup({"user": "app", "database": "app"}))
        self.read_to_ready()

    def send(self, *parts: bytes) -> None:
        self._socket.sendall(b"".join(parts))

    def read_to_ready(self, status: bytes = b"I") -> int:
        """How many bytes came up to a ReadyForQuery at the end of what has come; no other may stand before it."""
        count, tail = 0, b""
        while not tail.endswith(b"Z\0\0\0\5" + status):
            got = self._socket.recv_into(self._buffer)
            assert got, f"the end came after {count} bytes"
            count += got
            tail = (tail + bytes(self._buffer[max(0, got - 6) : got]))[-6:]
        return count

    def send_until_nothing_is_taken(self, count: int) -> int:
        """How many of `count` bytes were taken before a second passed without any."""
        self._socket.settimeout(1.0)
        sent = 0
        try:
            while sent < count:
                sent += self._socket.send(CHUNK)
        except TimeoutError:
            pass
        return sent

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def connect(make_proxy: MakeProxy, postgres: Postgres) -> Iterator[tuple[ProxyProcess, Blocking]]:
    proxy = make_proxy(postgres, auth={"method": "trust"})
    client = Blocking(proxy)
    client.send(query("select 1"))
    client.read_to_ready()
    yield proxy, client
    client.close()


@pytest.mark.parametrize("row_bytes", [1_000, 1_000_000], ids=["small rows", "large rows"])
def test_a_result_of_a_gigabyte(connect: tuple[ProxyProcess, Blocking], row_bytes: int) -> None:
    proxy, client = connect
    rows = GIGABYTE // row_bytes
    with not_growing(proxy):
        client.send(query(f"select repeat('x', {row_bytes}) from generate_series(1, {rows})"))
        assert client.read_to_ready() > rows * row_bytes


def test_a_gigabyte_copied_out(connect: tuple[ProxyProcess, Blocking]) -> None:
    proxy, client = connect
    with not_growing(proxy):
        client.send(query("copy (select repeat('x', 100000) from generate_series(1, 10738)) to stdout"))
        assert client.read_to_ready() > GIGABYTE


def test_a_gigabyte_copied_in(connect: tuple[ProxyProcess, Blocking]) -> None:
    """The server throws it away again: it is the way there that is measured."""
    proxy, client = connect
    client.send(query("create table if not exists gigabyte_in (t text)"))
    client.read_to_ready()
    lines = copy_data((b"x" * 99_999 + b"\n") * 10)
    with not_growing(proxy):
        client.send(query("copy gigabyte_in from stdin where false"))
        for _ in range(GIGABYTE // MEGABYTE + 60):
            client.send(lines)
        client.send(COPY_DONE)
        client.read_to_ready()
    client.send(query("drop table gigabyte_in"))
    client.read_to_ready()


# -- one message -------------------------------------------------------------------------------------------------------


ANSWERS = {
    "P": messages.parse_complete(),
    "B": messages.bind_complete(),
    "E": messages.command_complete("SELECT 1"),
    "Q": messages.command_complete("SELECT 1") + messages.ready_for_query(b"I"),
    "S": messages.ready_for_query(b"I"),
}


class Sink:
    """A server that reads messages of any length and keeps none; to `big` it answers with a row of a gigabyte."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.longest = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        stream = connection.makefile("rwb")
        try:
            stream.read(int.from_bytes(stream.read(4), "big") - 4)
            stream.write(messages.authentication_ok() + messages.parameter_status("server_version", "18.0"))
            stream.write(messages.backend_key_data(1, b"key!") + messages.ready_for_query(b"I"))
            stream.flush()
            while head := stream.read(5):
                self._answer(stream, chr(head[0]), int.from_bytes(head[1:], "big") - 4)
                stream.flush()
        except OSError:
            pass
        finally:
            connection.close()

    def _answer(self, stream: Any, kind: str, length: int) -> None:
        self.longest = max(self.longest, length)
        text = stream.read(min(length, 100))
        rest = length - len(text)
        while rest > 0:
            rest -= len(stream.read(min(rest, MEGABYTE)))
        if text == b"big\0":
            stream.write(b"D" + (LONGEST + 4).to_bytes(4, "big"))
            for _ in range(LONGEST // MEGABYTE):
                stream.write(CHUNK)
        if b"max_connections" in text:
            stream.write(messages.data_row(FACTS))
        stream.write(ANSWERS.get(kind, b""))


@pytest.fixture
def sink(make_proxy: MakeProxy) -> Iterator[tuple[ProxyProcess, Sink]]:
    server = Sink()
    config = {
        "listen": {"host": "127.0.0.1", "port": free_port()},
        "http": {"host": "127.0.0.1", "port": free_port()},
        "upstream": {"url": f"postgresql://app@127.0.0.1:{server.port}/app?sslmode=disable"},
        "auth": {"method": "trust", "users_file": "users.txt"},
        "budget": {"total": 5},
        "default_class": "all",
        "classes": {"all": {"limit": 4}},
    }
    yield make_proxy(config=config), server
    server.close()


def test_a_row_of_a_gigabyte(sink: tuple[ProxyProcess, Sink]) -> None:
    proxy, _ = sink
    client = Blocking(proxy)
    with not_growing(proxy):
        client.send(query("big"))
        assert client.read_to_ready() > LONGEST
    client.close()


@pytest.mark.parametrize("kind", [messages.BIND, messages.QUERY, messages.COPY_DATA], ids=["Bind", "Query", "CopyData"])
def test_a_message_of_a_gigabyte_from_a_client(sink: tuple[ProxyProcess, Sink], kind: int) -> None:
    """As long as limits.max_message_bytes allows."""
    proxy, server = sink
    client = Blocking(proxy)
    head = bytes((kind,)) + (LONGEST + 4).to_bytes(4, "big")
    with not_growing(proxy):
        client.send(b"" if kind == messages.QUERY else parse("insert"), head)
        for _ in range(LONGEST // MEGABYTE):
            client.send(CHUNK)
        if kind != messages.QUERY:
            client.send(execute(), SYNC)
        client.read_to_ready()
    assert server.longest == LONGEST
    client.close()


def test_a_waiting_gigabyte_is_not_read(make_proxy: MakeProxy, postgres: Postgres) -> None:
    """Without a slot nothing of it can go on, so it stays with its client."""
    classes = {"bulk": {"limit": 1, "queue": {"timeout": "60s"}}}
    proxy = make_proxy(postgres, auth={"method": "trust"}, classes=classes)
    holder, waiting = Blocking(proxy), Blocking(proxy)
    holder.send(query("begin"))
    holder.read_to_ready(b"T")
    with not_growing(proxy):
        waiting.send(bytes((messages.QUERY,)) + (GIGABYTE - 1).to_bytes(4, "big"))
        assert waiting.send_until_nothing_is_taken(GIGABYTE) < 100 * MEGABYTE
    waiting.close()
    holder.close()
