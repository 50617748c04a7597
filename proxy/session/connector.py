"""Dialling the server: which way, a bound on dials under way, and knowing when it is down.

Owns: the order of hosts and of attempts with and without TLS, what a failed dial means, the backoff while the server
is down.
Does not know: sockets (`dialling`), pools, slots, who asked.
Source: PostgreSQL manual, "SSL Mode Descriptions" (libpq-ssl), `target_session_attrs` (libpq-connect).
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from proxy.session.dialling import Dialler, P
from proxy.session.hosts import Hosts, resolver
from proxy.session.question import OwnQueryFailed
from proxy.session.roles import ask_role, complaint_or_none, role_told
from proxy.session.routes import DialFailed, Route, Target
from proxy.session.server import ServerConnection
from proxy.session.settings import PoolSettings, SessionAttrs, SslMode, UpstreamSettings, UpstreamTls
from proxy.session.urgency import Turns
from proxy.wire.messages import ErrorFields

# What pg_hba.conf says to a leg that is encrypted, or is not.
_NOT_THIS_WAY: Final = "28000"
Account = tuple[str, str]  # database and user


class Connector:
    """Makes transports to one upstream. `max_dials` dials, logins included, are under way at once."""

    def __init__(self, upstream: UpstreamSettings, pool: PoolSettings, loop: asyncio.AbstractEventLoop) -> None:
        self.upstream = upstream
        self.settings = pool
        self.loop = loop
        self.turns = Turns(pool.max_dials)
        self.hosts = Hosts(upstream, resolver(loop))
        self.down: ErrorFields | None = None  # the error of the last dial while nobody can log in
        self.is_down = asyncio.Event()
        self.seconds_until_retry = 0.0
        self._backoff_seconds = pool.retry_min_seconds
        self.came_back: Callable[[], None] = _nobody_cares
        self._dialler = Dialler(upstream, loop)
        self._ways = _Ways(upstream.ssl_mode)

    def adopt_tls(self, tls: UpstreamTls) -> None:
        """Renewed certificates, from a reload: new dials use them."""
        self.upstream = self._dialler.upstream = replace(self.upstream, tls=tls)

    def adopt_pool(self, pool: PoolSettings) -> None:
        """Other pauses and another number of dials at once; those under way go on."""
        self.settings = pool
        self.turns.change_count(pool.max_dials)

    # -- up and down ------------------------------------------------------------------------------------------------

    def went_down(self, error: ErrorFields) -> None:
        """Nobody can log in. Clients fail at once from now on; whoever watches tries again after a pause."""
        self.down = error
        self.seconds_until_retry = self._backoff_seconds * random.uniform(0.5, 1.0)  # noqa: S311 (jitter)
        self._backoff_seconds = min(self.settings.retry_max_seconds, self._backoff_seconds * 2)
        self.is_down.set()

    def answered(self) -> None:
        """The server lets somebody in, or says in so many words why not: it is there."""
        was_down, self.down = self.down is not None, None
        self._backoff_seconds = self.settings.retry_min_seconds
        self.is_down.clear()
        if was_down:
            self.came_back()

    # -- one dial ---------------------------------------------------------------------------------------------------

    async def next_route(self, account: Account) -> Route:
        """Where the next dial of this database and user goes. Raises DialFailed where every host has failed."""
        target = await self.hosts.next_or_none()
        if target is None:
            summary = self.hosts.summary()
            self.hosts.forget()
            raise DialFailed(summary, is_outage=True)
        return Route(target, not target.host.is_unix_socket and self._ways.encrypts(account))

    async def open(self, make_protocol: Callable[[bool], P], route: Route) -> P:
        """Connect along the route, and return the protocol that now reads the socket. It is made for a leg that is
        encrypted, or not, as its maker is told. Raises DialFailed. The caller bounds the time."""
        return await self._dialler.open(make_protocol, route)

    async def check_role(self, server: ServerConnection, route: Route) -> None:
        """Raises DialFailed where a server that has just let us in is not the wanted one."""
        wanted = self.upstream.wanted
        if wanted is SessionAttrs.ANY:
            return
        try:
            role = role_told(server.login.parameters) or await ask_role(server)
        except OwnQueryFailed as failure:
            raise DialFailed(failure.fields, is_outage=True) from failure
        complaint = complaint_or_none(wanted, role)
        if complaint is None or self.hosts.is_second_choice(route.target):
            return
        is_usable = wanted is SessionAttrs.PREFER_STANDBY
        if is_usable:
            self.hosts.make_second_choice(route.target)
        raise DialFailed(wrong_kind(route.target, complaint), is_outage=True, goes_on=is_usable)

    def succeeded(self, route: Route, account: Account) -> None:
        """Somebody is logged in there, and it is the wanted kind of server."""
        self._ways.worked(account)
        self.hosts.suits(route.target)
        self.answered()

    def judged(self, failure: DialFailed, route: Route, account: Account) -> DialFailed:
        """What the failure of this dial means: another try elsewhere, or an error for whoever waits."""
        if failure.goes_on:
            return failure
        refused_so = failure.fields.code == _NOT_THIS_WAY or failure.is_tls_failure
        if refused_so and not route.target.host.is_unix_socket and self._ways.other(account, route.encrypts):
            return _going_on(failure)
        if not failure.is_outage:
            self.answered()
            return failure
        self.hosts.failed(route.target, failure.fields)
        if self.hosts.has_more():
            return _going_on(failure)
        summary = self.hosts.summary()
        self.hosts.forget()
        return DialFailed(summary, is_outage=True)


def _nobody_cares() -> None:
    """Until somebody says what is to be done when the server is back."""


class _Ways:
    """With TLS or without: sslmode allow begins without, prefer with it, and both take the other where the server
    wants that (it may for one user and not for another). What worked is what the next dial begins with.
    """

    _BEGINS_ENCRYPTED: Final = {SslMode.DISABLE: False, SslMode.ALLOW: False}

    def __init__(self, mode: SslMode) -> None:
        self._first = self._BEGINS_ENCRYPTED.get(mode, True)
        self._has_two = mode in (SslMode.ALLOW, SslMode.PREFER)
        self._chosen: dict[Account, bool] = {}
        self._on_trial: set[Account] = set()

    def encrypts(self, account: Account) -> bool:
        return self._chosen.get(account, self._first)

    def other(self, account: Account, tried: bool) -> bool:
        """Whether the way that was not tried is to be taken now."""
        if not self._has_two:
            return False
        if tried != self.encrypts(account):
            return True  # another dial has found that out already
        if account in self._on_trial:
            self._on_trial.discard(account)
            del self._chosen[account]
            return False
        self._on_trial.add(account)
        self._chosen[account] = not tried
        return True

    def worked(self, account: Account) -> None:
        self._on_trial.discard(account)


def wrong_kind(target: Target, complaint: str) -> ErrorFields:
    hint = "check target_session_attrs and the hosts of upstream.url"
    return ErrorFields("FATAL", "08006", f"the server is not the wanted one: {complaint}", str(target), hint)


def _going_on(failure: DialFailed) -> DialFailed:
    return DialFailed(failure.fields, is_outage=failure.is_outage, goes_on=True)
