"""What the server says about itself, as far as the budget depends on it.

Owns: these facts as a value, and the error for a server that does not answer.
Does not know: what the budget makes of them.
"""

from dataclasses import dataclass


class ServerUnreachable(OSError):  # noqa: N818 - says what is, not what went wrong
    """The server did not answer, or did not let us in; the text is a sentence for people, without any password."""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """Settings and use of one server.

    `server_version` is server_version_num (160004). `reserved_connections` exists from PostgreSQL 16 on and is 0
    before. `external_connections` counts client backends that are not the proxy's own. `database_connection_limit` is
    datconnlimit of the URL's database, None where it has none.

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
