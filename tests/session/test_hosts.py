"""Which host is dialled next: the order, what is held against a host and for how long, names that move."""

from collections.abc import Sequence

import pytest

from proxy.session import clock
from proxy.session.hosts import HELD_AGAINST_SECONDS, Hosts
from proxy.session.routes import Target
from proxy.session.settings import SessionAttrs, UpstreamHost, UpstreamSettings
from proxy.wire.messages import ErrorFields

A, B, C = (UpstreamHost(f"10.0.0.{number}", 5432) for number in (1, 2, 3))
NAMED = UpstreamHost("db", 5432)
REFUSED = ErrorFields("FATAL", "08006", "the server cannot be reached: Connection refused")


class Names:
    """A name service that a test rewrites."""

    def __init__(self, **known: list[str]) -> None:
        self.known = known

    async def __call__(self, name: str, port: int) -> Sequence[str]:
        if name not in self.known:
            raise OSError(-2, "Name or service not known")
        return self.known[name]


def hosts_of(*hosts: UpstreamHost, names: Names | None = None, **settings: object) -> Hosts:
    upstream = UpstreamSettings(hosts, "app", None, "app", **settings)  # type: ignore[arg-type]
    return Hosts(upstream, names or Names())


def target(host: UpstreamHost, address: str | None = None) -> Target:
    return Target(host, address or host.name)


async def test_the_first_that_holds_nothing_against_it_is_dialled_and_then_kept() -> None:
    hosts = hosts_of(A, B, C)
    assert await hosts.next_or_none() == target(A)
    hosts.failed(target(A), REFUSED)
    assert await hosts.next_or_none() == target(B)
    hosts.suits(target(B))
    assert await hosts.next_or_none() == target(B)
    hosts.failed(target(B), REFUSED)
    assert await hosts.next_or_none() == target(A), "what was known of A is old by now"


async def test_where_all_have_failed_each_is_named_with_its_reason() -> None:
    hosts = hosts_of(A, B, wanted=SessionAttrs.READ_WRITE)
    assert await hosts.next_or_none() == target(A)
    hosts.failed(target(A), REFUSED)
    assert hosts.has_more()
    hosts.failed(target(B), ErrorFields("FATAL", "08006", "the server is not the wanted one: session is read-only"))
    assert not hosts.has_more()
    assert await hosts.next_or_none() is None
    told = hosts.summary()
    assert "target_session_attrs=read-write" in told.message
    assert "10.0.0.1 port 5432: Connection refused" in (told.detail or "")
    assert "10.0.0.2 port 5432: the server is not the wanted one: session is read-only" in (told.detail or "")


async def test_every_address_of_a_name_is_tried() -> None:
    hosts = hosts_of(NAMED, names=Names(db=["10.1.0.1", "10.1.0.2", "10.1.0.1"]))
    assert await hosts.next_or_none() == target(NAMED, "10.1.0.1")
    hosts.failed(target(NAMED, "10.1.0.1"), REFUSED)
    assert hosts.has_more()
    assert await hosts.next_or_none() == target(NAMED, "10.1.0.2")
    hosts.failed(target(NAMED, "10.1.0.2"), REFUSED)
    assert not hosts.has_more()


async def test_a_name_that_moves_takes_the_dials_with_it() -> None:
    names = Names(db=["10.1.0.1"])
    hosts = hosts_of(NAMED, names=names)
    moves: list[Target] = []
    hosts.on_move = moves.append
    hosts.suits(target(NAMED, "10.1.0.1"))
    names.known["db"] = ["10.1.0.9"]
    assert await hosts.has_left(target(NAMED, "10.1.0.1"))
    found = await hosts.next_or_none()
    assert found == target(NAMED, "10.1.0.9")
    hosts.suits(found)
    assert moves == [target(NAMED, "10.1.0.1"), target(NAMED, "10.1.0.9")]


async def test_while_the_name_service_is_silent_the_address_known_so_far_serves() -> None:
    names = Names(db=["10.1.0.1"])
    hosts = hosts_of(NAMED, names=names)
    hosts.suits((await hosts.next_or_none()) or target(A))
    del names.known["db"]
    assert await hosts.next_or_none() == target(NAMED, "10.1.0.1")
    assert not await hosts.has_left(target(NAMED, "10.1.0.1"))


async def test_a_name_that_nobody_knows_is_told_in_so_many_words() -> None:
    hosts = hosts_of(NAMED)
    assert await hosts.next_or_none() is None
    assert "its name cannot be resolved: Name or service not known" in hosts.summary().message


async def test_balanced_load_goes_to_every_host_and_past_one_that_is_down() -> None:
    hosts = hosts_of(A, B, C, balances_load=True)
    seen = {await hosts.next_or_none() for _ in range(200)}
    assert seen == {target(A), target(B), target(C)}
    hosts.failed(target(B), REFUSED)
    assert {await hosts.next_or_none() for _ in range(200)} == {target(A), target(C)}


async def test_a_host_that_was_down_gets_its_share_of_balanced_load_again(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = hosts_of(A, B, balances_load=True)
    await hosts.next_or_none()
    hosts.failed(target(B), REFUSED)
    later = clock.now() + HELD_AGAINST_SECONDS + 1
    monkeypatch.setattr(clock, "now", lambda: later)
    assert {await hosts.next_or_none() for _ in range(200)} == {target(A), target(B)}


async def test_a_second_choice_serves_until_something_better_may_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = hosts_of(A, B, wanted=SessionAttrs.PREFER_STANDBY)
    hosts.make_second_choice((await hosts.next_or_none()) or target(C))
    assert await hosts.next_or_none() == target(B), "the standby first"
    hosts.failed(target(B), REFUSED)
    assert await hosts.next_or_none() == target(A)
    hosts.suits(target(A))
    assert await hosts.next_or_none() == target(A)
    later = clock.now() + HELD_AGAINST_SECONDS + 1
    monkeypatch.setattr(clock, "now", lambda: later)
    hosts.make_second_choice((await hosts.next_or_none()) or target(C))
    assert await hosts.next_or_none() == target(B), "it may be back"
