"""Who a client is, read off its startup packet and its socket.

Owns: these facts as values, shared by all clients for which they are the same.
Does not know: whether it is who it says, which class that makes it.

A fleet of workers sends one startup packet thousands of times. Of the packets that came last the facts are kept: such a
login is not read again, and its clients hold one `Identity` together. They are bounded because clients write them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

from proxy.session.encryption import ClientTls
from proxy.session.parameters import NOT_SETTINGS, Wanted
from proxy.wire.startup import StartupMessage, parse_startup_packet, split_options

NEWEST_MINOR_VERSION: Final = 2  # of protocol 3
_REMEMBERED: Final = 1024  # of at most _MAX_REMEMBERED_BYTES each: some MB where every client differs
_MAX_REMEMBERED_BYTES: Final = 512
_VERSION_3: Final = b"\0\3"  # the other packets without a type are no introductions, and hold keys


@dataclass(frozen=True, slots=True, eq=False)
class Identity:
    """Who a client is. `parameters` are the session parameters of its startup packet, by lower-case name.

    `flow` is (user, address, application_name), `wanted` the parameters once more, as a key. `==` compares objects and
    not what is in them.
    """

    user: str
    database: str
    application_name: str
    address: str | None  # None on a unix socket
    minor_version: int
    parameters: Mapping[str, str]
    tls: ClientTls | None = None  # None: the leg is not encrypted
    flow: tuple[str, str | None, str] = field(init=False)
    wanted: Wanted = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "flow", (self.user, self.address, self.application_name))
        object.__setattr__(self, "wanted", tuple(self.parameters.items()))

    def log_keys(self) -> dict[str, str]:
        return {
            "user": self.user,
            "database": self.database,
            "application_name": self.application_name,
            "address": self.address or "unix",
        }


@dataclass(frozen=True, slots=True)
class Introduction:
    """A startup packet, and who that makes of its sender.

    `unsupported`: it asks for what no version of the protocol has that is served here.
    """

    startup: StartupMessage
    identity: Identity
    replicates: bool
    unsupported: bool


def is_introduction(packet: bytes) -> bool:
    """Anything but an introduction is a request for encryption or for a cancel, or wrong."""
    return packet.startswith(_VERSION_3)


def introduction(packet: bytes, address: str | None, tls: ClientTls | None) -> Introduction:
    """Read a packet of which `is_introduction` says yes. Raises ProtocolViolation."""
    if len(packet) > _MAX_REMEMBERED_BYTES:
        return _read(packet, address, tls)
    return _remembered(packet, address, tls)


def _read(packet: bytes, address: str | None, tls: ClientTls | None) -> Introduction:
    startup = parse_startup_packet(packet)
    assert isinstance(startup, StartupMessage), "its version says so"
    parameters = dict(split_options(startup.parameters.get("options", "")))
    parameters.update(
        (name, value)
        for name, value in startup.parameters.items()
        if name.lower() not in NOT_SETTINGS and not name.startswith("_pq_.")
    )
    parameters = {name.lower(): value for name, value in parameters.items()}
    identity = Identity(
        user=startup.user,
        database=startup.database,
        application_name=parameters.get("application_name", ""),
        address=address,
        minor_version=min(startup.minor, NEWEST_MINOR_VERSION),
        parameters=parameters,
        tls=tls,
    )
    is_unsupported = startup.minor > NEWEST_MINOR_VERSION or bool(startup.unsupported_protocol_options)
    return Introduction(startup, identity, startup.replication, is_unsupported)


_remembered = lru_cache(_REMEMBERED)(_read)


def with_parameters_of_class(identity: Identity, of_class: Mapping[str, str]) -> Identity:
    """The client's own come before those of its class."""
    return _with_parameters(identity, tuple(of_class.items())) if of_class else identity


@lru_cache(_REMEMBERED)
def _with_parameters(identity: Identity, of_class: tuple[tuple[str, str], ...]) -> Identity:
    return replace(identity, parameters={**dict(of_class), **identity.parameters})
