"""What the server says about itself, as far as the budget depends on it.

Owns: these facts as a value, and the error for a server that does not answer.
Does not know: what the budget makes of them.
"""

from dataclasses import dataclass


class ServerUnreachable(OSError):  # noqa: N818 - says what is, not what went wrong
    """The server did not answer, or did not let us in; the text is a sentence for people, without any password."""


@dataclass(frozen=True, slots=True)
class Strangers:
    """Connections on the server that are not the proxy's, alike in what they call themselves.

    `address` is empty for a unix socket, and where our user may not see it.
    """

    application_name: str
    user: str
    address: str
    connections: int

    def __str__(self) -> str:
        place = f" from {self.address}" if self.address else ""
        return f"{self.application_name or 'no name'} of {self.user}{place}: {self.connections}"


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """Settings and use of one server.

    `server_version` is server_version_num (160004). `reserved_connections` exists from PostgreSQL 16 on and is 0
    before. `external_connections` counts client backends that are not the proxy's own. `database_connection_limit` is
    datconnlimit of the URL's database, None where it has none.

    `external_in_database` are those of the former in the URL's database, `strangers` the most frequent of them.

    `is_behind_pooler`: the backend that answered is not the one that the login named. Between us and the server stands
    a pooler, whose own limit nobody can ask for; the other numbers are those of the server behind it.
    """

    max_connections: int
    superuser_reserved_connections: int = 3
    reserved_connections: int = 0
    server_version: int = 0
    external_connections: int = 0
    database_connection_limit: int | None = None
    is_behind_pooler: bool = False
    external_in_database: int = 0
    strangers: tuple[Strangers, ...] = ()
