"""Which of the upstream's hosts is dialled next.

Owns: the names' addresses, what is held against each of them, which one is in use.
Does not know: sockets, TLS, how a role is found out.
Source: PostgreSQL manual, "Specifying Multiple Hosts" and `target_session_attrs` (libpq-connect).

As in libpq every address of every host is tried in order until one suits. Unlike libpq, which knows one connection
only, the one that suits stays in use for all dials until it fails: connections of one pool then lead to one server.
Where load is balanced, or a second choice is in use, what is held against a host is forgotten after a while instead.
"""

import random
from asyncio import AbstractEventLoop, Event
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from socket import SOCK_STREAM
from typing import Final, TypeVar

from proxy.session import clock
from proxy.session.routes import Target
from proxy.session.settings import SessionAttrs, UpstreamHost, UpstreamSettings
from proxy.wire.messages import ErrorFields

HELD_AGAINST_SECONDS: Final = 30.0

T = TypeVar("T")
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]


def resolver(loop: AbstractEventLoop) -> Resolver:
    """The system's: asked anew for every dial, since a name that moves is how many providers fail over."""

    async def resolve(name: str, port: int) -> Sequence[str]:
        found = await loop.getaddrinfo(name, port, type=SOCK_STREAM)
        return [str(where[0]) for *_, where in found]

    return resolve


class Hosts:
    """What is known of the hosts. `on_move` is called with the target that dials go to from now on."""

    def __init__(self, upstream: UpstreamSettings, resolve: Resolver) -> None:
        self.resolve = resolve
        self.current: Target | None = None  # never one where load is balanced
        self.on_move: Callable[[Target], None] = lambda _: None
        self.doubted = Event()  # somebody was told that a server is read-only: worth a look
        self._upstream = upstream
        self._addresses: dict[UpstreamHost, tuple[Target, ...]] = {}
        self._failures: dict[Target, ErrorFields] = {}
        self._second_choice: set[Target] = set()
        self._forgets_at = 0.0

    @property
    def are_watched(self) -> bool:
        """Whether more than the outcome of dials can tell that another host is to be used."""
        return self._upstream.wanted is not SessionAttrs.ANY or len(self._upstream.hosts) > 1

    # -- choosing -----------------------------------------------------------------------------------------------------

    async def next_or_none(self) -> Target | None:
        """Where the next dial goes, or None where something is held against every address."""
        self._forget_in_time()
        if self.current is not None:
            if self.current in await self._targets(self.current.host):
                return self.current
            self.current = None
        second: Target | None = None
        for host in self._in_order(self._upstream.hosts):
            for target in self._in_order(await self._targets(host)):
                if target in self._second_choice:
                    second = second or target
                elif target not in self._failures:
                    return target
        return second

    def _in_order(self, several: Sequence[T]) -> list[T]:
        if self._upstream.balances_load:
            return random.sample(list(several), len(several))
        return list(several)

    async def _targets(self, host: UpstreamHost) -> tuple[Target, ...]:
        """The addresses of a host as they are now; where the name service does not answer, as they were."""
        fixed = _fixed_address(host)
        if fixed is not None:
            self._addresses[host] = (Target(host, fixed),)
            return self._addresses[host]
        try:
            found = await self.resolve(host.name, host.port)
        except OSError as error:
            nameless = Target(host, "")
            self._failures[nameless] = _outage(nameless, f"its name cannot be resolved: {error.strerror or error}")
            return self._addresses.get(host, ())
        self._failures.pop(Target(host, ""), None)
        self._addresses[host] = tuple(Target(host, address) for address in dict.fromkeys(found))
        return self._addresses[host]

    def _forget_in_time(self) -> None:
        """A host that was down, or a better choice than the one in use, gets another chance."""
        if not (self._failures or self._second_choice):
            self._forgets_at = clock.now() + HELD_AGAINST_SECONDS
        elif clock.now() >= self._forgets_at and (self._upstream.balances_load or self.current in self._second_choice):
            self.forget()

    # -- outcomes -----------------------------------------------------------------------------------------------------

    def suits(self, target: Target) -> None:
        """A dial has succeeded, and the server is of the wanted kind."""
        self._failures.pop(target, None)
        if self._upstream.balances_load or self.current == target:
            return
        self.current = target
        self.on_move(target)

    def failed(self, target: Target, why: ErrorFields) -> None:
        """The server there cannot be used."""
        if target == self.current:
            self.forget()  # what was held against the others is as old as the use of this one
        self._second_choice.discard(target)
        self._failures[target] = why

    def is_second_choice(self, target: Target) -> bool:
        return target in self._second_choice

    def make_second_choice(self, target: Target) -> None:
        """Usable, where nothing better is found."""
        self._second_choice.add(target)

    def has_more(self) -> bool:
        """Whether a further dial may go somewhere else."""
        known = [target for host in self._upstream.hosts for target in self._known_targets(host)]
        return bool(self._second_choice) or any(target not in self._failures for target in known)

    def _known_targets(self, host: UpstreamHost) -> Sequence[Target]:
        """Of a name that was not needed yet nothing is known that could have failed."""
        return self._addresses.get(host) or (Target(host, _fixed_address(host) or "?"),)

    def forget(self) -> None:
        """Begin anew at the first host."""
        self.current = None
        self._failures.clear()
        self._second_choice.clear()

    def summary(self) -> ErrorFields:
        """Why no host can be used: in the words of the only one, else of all."""
        if len(self._failures) == 1:
            return next(iter(self._failures.values()))
        wanted = self._upstream.wanted
        kind = "" if wanted is SessionAttrs.ANY else f" as target_session_attrs={wanted.value} wants it"
        told = "; ".join(f"{target}: {_bare(fields)}" for target, fields in self._failures.items())
        text = f"none of the {len(self._failures)} servers can be used{kind}"
        return ErrorFields("FATAL", "08006", text, told, "check the hosts and target_session_attrs of upstream.url")

    # -- names that move ----------------------------------------------------------------------------------------------

    async def has_left(self, target: Target) -> bool:
        """Whether the name does not lead to that address any more."""
        return target not in await self._targets(target.host)

    def doubt(self) -> None:
        self.doubted.set()


def _fixed_address(host: UpstreamHost) -> str | None:
    """What needs no name service."""
    if host.address is not None or host.is_unix_socket:
        return host.address or host.name
    try:
        return str(ip_address(host.name))
    except ValueError:
        return None


def _outage(target: Target, text: str) -> ErrorFields:
    return ErrorFields("FATAL", "08006", f"the server cannot be reached: {text}", str(target), "check upstream.url")


def _bare(fields: ErrorFields) -> str:
    return fields.message.removeprefix("the server cannot be reached: ")
