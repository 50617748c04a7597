"""What the server stores of a user's password, asked with `auth.auth_query` and remembered for a while.

Owns: the memory of answers, one query per user however many clients wait for it, one query at a time.
Does not know: what a client has to prove, what is done with the answer.

Queries go over the pool of the upstream's own user and hold a slot of the class `internal`, one after the other: a
flood of logins of invented users costs the server one connection, and the proxy's own checks keep theirs.
"""

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import structlog

from proxy.session import clock
from proxy.session.internal import InternalSlot, NoInternalSlot, own_pool
from proxy.session.own_query import OwnQuery, OwnQueryFailed, Row
from proxy.wire.messages import ErrorFields
from proxy.wire.passwords import StoredPassword

if TYPE_CHECKING:
    from proxy.session.upstream import Upstream

log = structlog.get_logger("pgheadroom.auth")

QUERY_TIMEOUT_SECONDS: Final = 5.0
MAX_WAITING: Final = 1000  # users asked for at once; more are told to come again


class LookupFailed(Exception):  # noqa: N818 - says what happened
    """It is not known what is stored of the user; the text is for the log, `fields` for the client.

    The client learns which setting failed and not why: it has not proved yet who it is.
    """

    def __init__(self, user: str, why: str, code: str = "58000") -> None:
        super().__init__(why)
        text = f'user "{user}" cannot be looked up now: auth.auth_query failed'
        self.fields = ErrorFields("FATAL", code, text, hint="the log of pgheadroom says why")


@dataclass(frozen=True, slots=True)
class _Answer:
    """What is stored; None where the server knows no such user, or stores no password of it."""

    stored: StoredPassword | None
    learnt_at: float
    expires_at: float


class UserLookup:
    """Asks for users, one after the other."""

    def __init__(self, upstream: "Upstream") -> None:
        self._upstream = upstream
        self._desk = upstream.desk
        self._known: OrderedDict[str, _Answer] = OrderedDict()
        self._unknown: OrderedDict[str, _Answer] = OrderedDict()
        self._wanted: dict[str, asyncio.Future[StoredPassword | None]] = {}
        # Users that exist go first: a flood of invented ones keeps nobody waiting whose answer has only grown old.
        self._known_first: deque[str] = deque()
        self._then_others: deque[str] = deque()
        self._is_asking = False

    async def find_or_none(self, user: str) -> StoredPassword | None:
        """What the server stores of `user`, None where that is nothing. Raises LookupFailed, and soon."""
        answer = self._known.get(user) or self._unknown.get(user)
        if answer is not None and clock.now() < answer.expires_at:
            return answer.stored
        wanted = self._wanted.get(user)
        if wanted is None:
            wanted = self._want(user)
        # One client that leaves must not take the answer from the others.
        return await asyncio.shield(wanted)

    def forget_if_older(self, user: str, seconds: float) -> None:
        """A password was wrong: perhaps it is a new one, and what is remembered is the old one."""
        answer = self._known.get(user)
        if answer is not None and clock.now() - answer.learnt_at > seconds:
            self._known[user] = replace(answer, expires_at=0.0)

    def forget_all(self) -> None:
        """After a reload another query, or another TTL, may be in force."""
        self._known.clear()
        self._unknown.clear()

    def _want(self, user: str) -> "asyncio.Future[StoredPassword | None]":
        if len(self._wanted) >= MAX_WAITING:
            raise LookupFailed(user, f"{MAX_WAITING} users are being looked up already", "57P03")
        wanted = self._wanted[user] = self._desk.loop.create_future()
        (self._known_first if user in self._known else self._then_others).append(user)
        # Nobody may wait any more when it fails.
        wanted.add_done_callback(lambda done: done.cancelled() or done.exception())
        if not self._is_asking:
            self._is_asking = True
            self._desk.tasks.spawn(self._ask_for_all(), name="auth_query")
        return wanted

    async def _ask_for_all(self) -> None:
        try:
            while self._wanted:
                await self._ask_for((self._known_first or self._then_others).popleft())
        finally:
            self._is_asking = False
            for wanted in self._wanted.values():  # the process ends, or a bug of ours ended the task
                wanted.cancel()
            self._wanted.clear()
            self._known_first.clear()
            self._then_others.clear()

    async def _ask_for(self, user: str) -> None:
        measures = self._desk.measures
        measures.auth_queries += 1
        try:
            stored = self._read(user, await self._rows(user))
        except LookupFailed as failure:
            measures.auth_query_failures += 1
            log.warning("auth_query_failed", user=user, why=str(failure))
            self._wanted.pop(user).set_exception(failure)
        else:
            self._remember(user, stored)
            self._wanted.pop(user).set_result(stored)

    async def _rows(self, user: str) -> list[Row]:
        upstream = self._upstream
        sql = self._desk.settings.auth.auth_query
        if sql is None:
            return []  # a reload has taken the query away while clients waited
        pool = own_pool(upstream.registry, upstream.settings)
        try:
            async with asyncio.timeout(QUERY_TIMEOUT_SECONDS), InternalSlot(upstream):
                query = OwnQuery(
                    pool, sql, values=(user,), timeout_seconds=QUERY_TIMEOUT_SECONDS, canceller=upstream.canceller
                )
                return await query.run()
        except TimeoutError:
            raise LookupFailed(user, f"no answer within {QUERY_TIMEOUT_SECONDS:g} s", "08006") from None
        except NoInternalSlot as refusal:
            raise LookupFailed(user, str(refusal), "57P03") from None
        except OwnQueryFailed as failure:
            fields = failure.fields
            code = fields.code if fields.code.startswith(("08", "57")) else "58000"
            raise LookupFailed(user, f"{fields.code}: {fields.message}", code) from None

    @staticmethod
    def _read(user: str, rows: list[Row]) -> StoredPassword | None:
        """The answer is a row of the user's name and what is stored, as PgBouncer wants it, or no row."""
        if not rows:
            return None
        if len(rows) > 1 or len(rows[0]) != 2:
            shape = f"{len(rows)} rows of {len(rows[0])} columns"
            raise LookupFailed(user, f"it returned {shape}; wanted is one row of two columns, user and secret")
        name, secret = rows[0]
        if name != user:
            raise LookupFailed(user, "it returned another user; the condition has to be an equality with $1")
        return StoredPassword.parse(secret) if secret else None

    def _remember(self, user: str, stored: StoredPassword | None) -> None:
        cache, now = self._desk.settings.auth.cache, clock.now()
        ttl = cache.negative_ttl_seconds if stored is None else cache.ttl_seconds
        self._known.pop(user, None)
        self._unknown.pop(user, None)
        answers = self._unknown if stored is None else self._known
        answers[user] = _Answer(stored, now, now + ttl)
        while len(answers) > cache.max_users:
            answers.popitem(last=False)
