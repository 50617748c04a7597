"""Records what a driver and a server say to each other, for tests/wire/transcripts.

Owns: a relay that keeps both directions of its first connection, and the files.
Does not know: messages.

    python -m tests.clients.recording pgx errors        writes pgx_errors_client.hex and pgx_errors_server.hex
"""

import socket
import sys
import textwrap
import threading
from pathlib import Path

from proxy.demo.postgres import EmbeddedPostgres
from tests.clients.programs import DRIVERS, Programs

TRANSCRIPTS = Path(__file__).parents[1] / "wire" / "transcripts"


class Relay:
    """Copies bytes between clients and a server; what the first client and its server said is kept."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.said = {"client": bytearray(), "server": bytearray()}
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        is_first = True
        while True:
            client, _ = self._listening.accept()
            server = socket.create_connection(("127.0.0.1", self._server_port))
            for side, source, target in (("client", client, server), ("server", server, client)):
                kept = self.said[side] if is_first else bytearray()
                threading.Thread(target=self._copy, args=(source, target, kept), daemon=True).start()
            is_first = False

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket, kept: bytearray) -> None:
        while piece := source.recv(65536):
            kept += piece
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)


def record(key: str, scenario: str) -> None:
    driver = next(driver for driver in DRIVERS if driver.id == key)
    programs = Programs()
    with EmbeddedPostgres(18) as postgres:
        relay = Relay(postgres.port)
        url = f"postgresql://app:app-secret@127.0.0.1:{relay.port}/app?application_name=web&sslmode=disable"
        answer = programs.of(driver).ask(scenario, url)
        assert "result" in answer, answer
        programs.stop()
    for side, said in relay.said.items():
        (TRANSCRIPTS / f"{key}_{scenario}_{side}.hex").write_text("\n".join(textwrap.wrap(said.hex(), 110)) + "\n")


if __name__ == "__main__":
    record(*sys.argv[1:])
