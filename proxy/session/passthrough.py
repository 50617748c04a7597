"""A client's password is tried at the server: method `passthrough`.

Owns: the bounded number of such logins under way, one for clients with the same password, and the memory of passwords
that the server has taken.
Does not know: how a client was asked for its password.

A login at the server is tried over a pool of its own, so that a wrong password never reaches the connections of those
who are logged in. Where it succeeds and nobody else of this user is here yet, that pool stays.
"""

import asyncio
import hmac
import secrets
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Final

from proxy.admission.classes import INTERNAL_CLASS
from proxy.session import clock
from proxy.session.internal import InternalSlot, NoInternalSlot
from proxy.session.pool import Pool
from proxy.session.registry import Registry
from proxy.session.urgency import Turns
from proxy.wire.login import Credentials
from proxy.wire.messages import ErrorFields

if TYPE_CHECKING:
    from proxy.session.identity import Identity
    from proxy.session.parameters import Settings
    from proxy.session.server import ServerConnection
    from proxy.session.upstream import Upstream

MAX_WAITING: Final = 1000  # different passwords that wait for their turn; more are told to come again
# Behind every client that is logged in: whoever waits here has proved nothing.
_URGENCY: Final = 1_000_000

_BUSY: Final = ErrorFields(
    "FATAL", "57P03", "the login cannot be tried at the server now", hint="connect again; see auth.passthrough_dials"
)

Origin = tuple[str, str | None]
"""The user a client said it is, and its address; None on a unix socket."""

_Attempt = tuple[str, str, bytes]
"""Database, user, and what is kept of the password."""


class _Trial:
    """Waits for the one connection that its pool dials."""

    settings: "Settings | None" = None
    class_name = INTERNAL_CLASS
    urgency = _URGENCY

    def __init__(self, registry: Registry, pool: Pool, loop: asyncio.AbstractEventLoop) -> None:
        self._registry = registry
        self._pool = pool
        self.over: asyncio.Future[ErrorFields | None] = loop.create_future()

    def server_ready(self, server: "ServerConnection") -> None:
        self._registry.keep(self._pool, server)
        if not self.over.done():
            self.over.set_result(None)

    def server_failed(self, error: ErrorFields) -> None:
        if not self.over.done():
            self.over.set_result(error)

    def gives_up_at(self) -> float:
        return 0.0  # a server that is full is a reason to refuse; those who are logged in wait for it


class Passthrough:
    """Tries passwords. All clients that came with the same one share one try."""

    def __init__(self, upstream: "Upstream") -> None:
        self._upstream = upstream
        self._desk = desk = upstream.desk
        self._key = secrets.token_bytes(32)  # what is remembered of a password is a keyed hash
        self._taken: OrderedDict[tuple[str, str], tuple[bytes, float]] = OrderedDict()
        self._under_way: dict[_Attempt, asyncio.Future[ErrorFields | None]] = {}
        self._dials = desk.settings.auth.passthrough_dials
        self._turns = Turns(self._dials)

    def adopt(self) -> None:
        """New settings are in force."""
        self._taken.clear()
        if self._dials != self._desk.settings.auth.passthrough_dials:
            self._dials = self._desk.settings.auth.passthrough_dials
            self._turns = Turns(self._dials)

    async def error_or_none(self, identity: "Identity", password: str) -> ErrorFields | None:
        """The server's own error, or None where it lets the user in with this password."""
        database, user = self._upstream.database_of(identity), identity.user
        digest = hmac.digest(self._key, password.encode("utf-8", "surrogateescape"), "sha256")
        known, until = self._taken.get((database, user), (b"", 0.0))
        if clock.now() < until and hmac.compare_digest(known, digest):
            return None
        attempt = (database, user, digest)
        under_way = self._under_way.get(attempt)
        if under_way is None:
            if len(self._under_way) >= MAX_WAITING:
                return _BUSY
            under_way = self._under_way[attempt] = self._desk.loop.create_future()
            trying = self._try(attempt, password, (user, identity.address))
            self._desk.tasks.spawn(trying, name=f"try the login of {user}")
        return await asyncio.shield(under_way)

    async def _try(self, attempt: _Attempt, password: str, origin: Origin) -> None:
        error: ErrorFields | None = _BUSY
        try:
            # Who has failed most waits longest: a flood of guesses keeps nobody else from his first try.
            failures = partial(self._failures_of, origin)
            async with self._turns.turn(failures), InternalSlot(self._upstream):
                error = await self._try_at_server(attempt[0], attempt[1], password)
        except NoInternalSlot:
            pass
        finally:
            under_way = self._under_way.pop(attempt)
            if error is None:
                self._remember(attempt)
            if not under_way.done():
                under_way.set_result(error)

    async def _try_at_server(self, database: str, user: str, password: str) -> ErrorFields | None:
        desk, registry = self._desk, self._upstream.registry
        desk.measures.passthrough_logins += 1
        pool = Pool(registry, database, user)
        pool.credentials = Credentials(password=password)
        trial = _Trial(registry, pool, desk.loop)
        pool.want(trial)
        # Not bounded here: a dial ends by itself, and its connection must find somebody who closes it.
        return await trial.over

    def _failures_of(self, origin: Origin) -> float:
        return self._desk.failed_logins.lateness.recent(origin, clock.now())

    def _remember(self, attempt: _Attempt) -> None:
        database, user, digest = attempt
        cache = self._desk.settings.auth.cache
        self._taken[database, user] = (digest, clock.now() + cache.ttl_seconds)
        self._taken.move_to_end((database, user))
        while len(self._taken) > cache.max_users:
            self._taken.popitem(last=False)
