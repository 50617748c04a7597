"""What is taken back where a server has refused or skipped a message: callbacks for `replies`.

Owns: the unnamed statement as it was before a message that changes it.
Does not know: which messages these are, what else they change.
"""

from collections.abc import Callable

from proxy.session.server import ServerConnection
from proxy.session.statements import NO_UNNAMED, ClientStatements


class UnnamedBefore:
    """Called where a message that changes the unnamed statement was skipped: what was before is there."""

    def __init__(self, statements: ClientStatements, server: ServerConnection) -> None:
        self._statements = statements
        self._server = server
        self._of_client, self._of_server = statements.unnamed, server.unnamed
        statements.changes += 1
        self._change = statements.changes

    def nothing_is_left(self) -> None:
        """It was not skipped: it has failed, and a server drops the old one first."""
        self._of_client = self._of_server = NO_UNNAMED

    def __call__(self) -> None:
        if self._statements.changes == self._change:  # else there was another one behind it
            self._statements.changes -= 1
            self._statements.unnamed, self._server.unnamed = self._of_client, self._of_server


def both(one: Callable[[], None], other: Callable[[], None]) -> Callable[[], None]:
    def call() -> None:
        one()
        other()

    return call


def on_error(restore: Callable[[], None]) -> Callable[[bytes], None]:
    def failed(_error: bytes) -> None:
        restore()

    return failed
