"""Which class a unit of work belongs to, where its first statement says so in a comment.

Owns: reading the tag of a unit that is about to begin, and whether it is followed.
Does not know: slots; how the client changes its class.

A tag counts for the unit that begins with it: a query by itself, or a transaction whose first message carries it.
Inside an open transaction the slot is held already, and no tag is looked at. A unit without one belongs to the class
that the client has by its name.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from proxy.admission.classes import INTERNAL_CLASS
from proxy.session import clock
from proxy.session.limited_log import LimitedLog
from proxy.session.settings import TagSettings, TagsFollowed
from proxy.wire import messages
from proxy.wire.framing import Fact
from proxy.wire.sql_comments import tag_or_none

if TYPE_CHECKING:
    from proxy.session.client import ClientConnection
    from proxy.session.upstream import Upstream

_COMMENT: Final = b"/*"
_HEADER_BYTES: Final = 5
_MAX_SHOWN_CHARACTERS: Final = 63


class TagReader:
    """Of one upstream."""

    def __init__(self, upstream: "Upstream", settings: TagSettings) -> None:
        self._upstream = upstream
        self._desk = upstream.desk
        self._key = settings.key.encode()
        self._is_name = settings.names_application
        self._is_trusted = settings.followed is TagsFollowed.TRUST
        self._log = LimitedLog(upstream.desk.log)

    def may_matter(self, client: "ClientConnection", data: bytes) -> bool:
        """Whether the unit in `data` may change the class that the client has now. No: it has no comment at all."""
        if client.class_name != client.own_class or _COMMENT in data:
            return True
        if data[0] != messages.BIND or client.statements is None:
            return False
        name_at = data.find(0, _HEADER_BYTES) + 1
        statement = client.statements.named.get(data[name_at : data.find(0, name_at)])
        return statement is not None and _COMMENT in statement.tail

    def class_of_unit(self, client: "ClientConnection", buffer: bytes, facts: Sequence[Fact]) -> str:
        """The class of the unit that begins `buffer`."""
        tag = self._tag_or_none(client, buffer, facts)
        if not tag:
            return client.own_class
        found = self._class_or_none(client, tag)
        outcome = "unknown" if found is None else "followed" if self._is_followed(client, found) else "not_lower"
        self._desk.measures.tagged_units[client.own_class, outcome] += 1
        if found is None:
            shown = "".join(one if one.isprintable() else "?" for one in tag[:_MAX_SHOWN_CHARACTERS])
            self._log.warning("tag_of_no_class", client.own_class, clock.now(), tag=shown, **client.identity.log_keys())
        return found if found is not None and outcome == "followed" else client.own_class

    def _is_followed(self, client: "ClientConnection", class_name: str) -> bool:
        """What anybody can write into a comment may make its work less important, and not more."""
        priority = self._desk.behaviour(class_name).priority
        return self._is_trusted or priority > self._desk.behaviour(client.own_class).priority

    def _class_or_none(self, client: "ClientConnection", tag: str) -> str | None:
        if self._is_name:
            found = self._upstream.classification(client.identity, tag)
            return found.class_name if found.matched else None
        is_known = self._upstream.gate.controller.has_class(tag) and tag in self._desk.settings.classes
        return tag if is_known and tag != INTERNAL_CLASS else None

    def _tag_or_none(self, client: "ClientConnection", buffer: bytes, facts: Sequence[Fact]) -> str | None:
        """Of the first message that has or names a text. What is too long to be held has come with its beginning."""
        for kind, start, end in facts:
            at = start + _HEADER_BYTES
            if kind == messages.PARSE:
                at = buffer.find(0, at) + 1
            elif kind == messages.BIND:
                name_at = buffer.find(0, at) + 1
                sql = client.statement_text(buffer[name_at : buffer.find(0, name_at)])
                return None if sql is None else tag_or_none(sql, self._key)
            elif kind != messages.QUERY:
                continue
            text_end = buffer.find(0, at) if end >= 0 else -1
            is_whole = text_end >= 0
            return tag_or_none(buffer[at : text_end if is_whole else len(buffer)], self._key, is_whole=is_whole)
        return None


def tag_reader_or_none(upstream: "Upstream") -> TagReader | None:
    settings = upstream.desk.settings.tags
    return None if settings.followed is TagsFollowed.OFF else TagReader(upstream, settings)
