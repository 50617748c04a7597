"""Real clients against the server half: libpq by psycopg, and asyncpg with a SCRAM of its own."""

import socket
import threading

import asyncpg
import psycopg
import pytest

from proxy.wire import messages
from proxy.wire.framing import login_cursor
from proxy.wire.login import ClientLogin, Credentials, LoginState
from proxy.wire.passwords import StoredPassword, md5_hash
from proxy.wire.scram import derive_keys
from proxy.wire.startup import StartupReader, parse_startup_packet

KEYS = derive_keys("pencil", b"salt", 4096)
STORED = {
    "plaintext": StoredPassword.parse("pencil"),
    "md5": StoredPassword.parse(md5_hash("alice", "pencil")),
    "scram": StoredPassword.parse(KEYS.verifier.format()),
    "nobody": None,
}


class Listener:
    """A server that can do nothing but let one client log in. `login` is there once the client was answered."""

    def __init__(self, method: str, stored: StoredPassword | None) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(20)
        self.port = self._socket.getsockname()[1]
        self.login = ClientLogin("alice", method, stored, mock_secret=b"secret")
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._thread.join(timeout=20)
        self._socket.close()

    def _serve(self) -> None:
        client, _ = self._socket.accept()
        with client:
            client.settimeout(20)
            reader = StartupReader()
            while (packet := reader.feed(client.recv(65536))) is None:
                pass
            assert parse_startup_packet(packet).user == "alice"
            client.sendall(self.login.start() + self._verdict())
            cursor = login_cursor()
            while self.login.state is LoginState.WAITING and (received := client.recv(65536)):
                buffer, facts = cursor.feed(received)
                for kind, start, end in facts:
                    client.sendall(self.login.receive(kind, buffer[start + 5 : end]) + self._verdict())
            client.recv(65536)

    def _verdict(self) -> bytes:
        if self.login.state is LoginState.REFUSED:
            return messages.error_response(self.login.error)
        if self.login.state is LoginState.WAITING:
            return b""
        told = [("server_version", "16.0"), ("client_encoding", "UTF8"), ("standard_conforming_strings", "on")]
        statuses = b"".join(messages.parameter_status(name, value) for name, value in told)
        key = messages.backend_key_data(1, b"1234")
        return messages.authentication_ok() + statuses + key + messages.ready_for_query(b"I")


@pytest.fixture
def listen():
    listeners = []

    def start(method, stored):
        listeners.append(Listener(method, STORED[stored]))
        return listeners[-1]

    yield start
    for listener in listeners:
        listener.close()


def libpq(port: int, password: str) -> None:
    where = f"host=127.0.0.1 port={port} user=alice sslmode=disable gssencmode=disable connect_timeout=10"
    psycopg.connect(where, password=password).close()


async def own_protocol(port: int, password: str) -> None:
    connection = await asyncpg.connect(
        host="127.0.0.1", port=port, user="alice", password=password, ssl=False, timeout=10
    )
    connection.terminate()


ACCEPTING = [
    ("trust", "nobody", Credentials()),
    ("cleartext", "scram", Credentials(password="pencil")),
    ("md5", "md5", Credentials(md5_hash=md5_hash("alice", "pencil"))),
    ("md5", "plaintext", Credentials(password="pencil")),
    ("md5", "scram", Credentials(scram_keys=KEYS)),
    ("scram", "plaintext", Credentials(password="pencil")),
    ("scram", "scram", Credentials(scram_keys=KEYS)),
]
REFUSING = [("cleartext", "scram"), ("md5", "md5"), ("scram", "plaintext"), ("scram", "nobody"), ("md5", "nobody")]


@pytest.mark.parametrize(("method", "stored", "learnt"), ACCEPTING)
def test_libpq_logs_in(listen, method, stored, learnt):
    listener = listen(method, stored)
    libpq(listener.port, "pencil")
    assert listener.login.credentials == learnt


@pytest.mark.parametrize(("method", "stored"), REFUSING)
def test_libpq_shows_its_user_why_not(listen, method, stored):
    listener = listen(method, stored)
    with pytest.raises(psycopg.OperationalError, match='password authentication failed for user "alice"'):
        libpq(listener.port, "wrong")


@pytest.mark.parametrize(("method", "stored", "learnt"), ACCEPTING)
async def test_asyncpg_logs_in(listen, method, stored, learnt):
    listener = listen(method, stored)
    await own_protocol(listener.port, "pencil")
    assert listener.login.credentials == learnt


@pytest.mark.parametrize(("method", "stored"), REFUSING)
async def test_asyncpg_raises_its_error_for_a_wrong_password(listen, method, stored):
    listener = listen(method, stored)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await own_protocol(listener.port, "wrong")
