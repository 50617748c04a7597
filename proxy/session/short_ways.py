"""The hot path: one whole unit of work of an idle client, sent without a look at its messages one by one.

Owns: which units take it, and linking a client whose slot was granted without a wait.
Does not know: anything that `linked` and `client` would not do with the same bytes; it is the same, in less time.

Each way first sees that it can go to its end. Once a slot is granted it does, or the unit is kept for the long way.
CPU of the proxy per transaction of `pgbench -S`, of which these functions are the greater part of Python:
`python -m loadtests.micro`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from proxy.session import clock
from proxy.session.linked import Link
from proxy.session.statements import NO_UNNAMED
from proxy.wire import messages, prefilter
from proxy.wire.framing import Fact, renamed
from proxy.wire.sql import PLAIN

if TYPE_CHECKING:
    from proxy.session.client import ClientConnection

_QUERY: Final = messages.QUERY
_SYNC: Final = messages.SYNC
_HEADER_BYTES: Final = 5


def sent(client: "ClientConnection", data: bytes) -> bool:
    """Whether `data` was taken: one unit, whole, that leaves nothing in the session. False: nothing has happened."""
    if client.tags is not None and client.tags.may_matter(client, data):
        return False
    if client.cursor.is_one(data, _QUERY):
        return _query_sent(client, data)
    if client.statements is None:
        return False
    name_at = client.cursor.bound_unit(data)
    if name_at > 0:
        return _bound_sent(client, data, name_at)
    parse_end = client.cursor.unnamed_unit(data)
    return parse_end > 0 and _unnamed_sent(client, data, parse_end)


def _query_sent(client: "ClientConnection", data: bytes) -> bool:
    if prefilter.may_matter(data, client.backslash_escapes, _HEADER_BYTES, len(data) - 1):
        return False
    now = clock.now()
    if not client.gate.try_grant(client.id, client.class_name, now):
        return False
    link = link_at_once(client, data, None, now)
    if link is not None:
        server = link.server
        server.send_one(data, _QUERY)
        server.unnamed = NO_UNNAMED
        if client.statements is not None:
            client.statements.unnamed = NO_UNNAMED
    return True


def _bound_sent(client: "ClientConnection", data: bytes, name_at: int) -> bool:
    """A statement that was prepared before is bound and executed."""
    statements, settings = client.statements, client.settings
    assert statements is not None, "asked before"
    assert settings is not None, "an idle client has entered"
    own_name = data[name_at : data.find(0, name_at)]
    statement = statements.named.get(own_name)
    if statement is None or statement.facts is not PLAIN or statement.folding is not settings.folding:
        return False
    now = clock.now()
    if statement.is_stale or not client.gate.try_grant(client.id, client.class_name, now):
        return False
    link = link_at_once(client, data, None, now)
    if link is None:
        return True
    server = link.server
    name = server.statements.name_or_none(statement)
    if name is None or server.statements.to_close:
        link.forward(data, client.cursor.feed(data)[1])
    else:
        server.bound = statement
        server.bound_name = own_name
        server.send_one(renamed(data, name_at, name), _SYNC)
    return True


def _unnamed_sent(client: "ClientConnection", data: bytes, parse_end: int) -> bool:
    """A text is parsed as the unnamed statement, bound and executed."""
    statements = client.statements
    assert statements is not None, "asked before"
    text_at = _HEADER_BYTES + 1
    if prefilter.may_matter(data, client.backslash_escapes, text_at, data.find(0, text_at)):
        return False
    now = clock.now()
    if not client.gate.try_grant(client.id, client.class_name, now):
        return False
    link = link_at_once(client, data, None, now)
    if link is not None:
        server = link.server
        statements.keep_unnamed(data, 0, parse_end)
        server.unnamed = statements.unnamed
        server.send_one(data, _SYNC)
    return True


def link_at_once(client: "ClientConnection", buffer: bytes, facts: Sequence[Fact] | None, now: float) -> Link | None:
    """A slot was granted without a wait. Without an idle connection that is fit as it is, the unit is kept.

    `facts` are those of the unit, None where it has not been fed to the cursor.
    """
    client.granted_at_once(now)
    pool, settings = client.pool, client.settings
    assert settings is not None, "an idle client has entered"
    server = pool.take_idle_or_none(settings, client.class_name)
    if server is not None and server.settings is settings and not pool.needs_check(server, now):
        link = Link(client, server)
        server.link(link)
        client.linked(link)
        return link
    client.keep(buffer, client.cursor.feed(buffer)[1] if facts is None else facts)
    client.await_server(server)
    return None
