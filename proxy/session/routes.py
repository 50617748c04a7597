"""Where one dial goes: an address of a host, under TLS or not.

Owns: these values, and the error of a dial that came to nothing.
Does not know: sockets, how a route is chosen.
"""

from dataclasses import dataclass

from proxy.session.settings import UpstreamHost
from proxy.wire.messages import ErrorFields


class DialFailed(Exception):  # noqa: N818 - says what happened
    """No usable server connection came of a dial.

    `fields` are the server's own error where it gave one. `is_outage` tells whether the server as a whole cannot be
    used (nobody can log in), as opposed to an answer to this user and database. `goes_on`: another route is worth a
    dial at once, and nobody need be told of this one.
    """

    def __init__(
        self, fields: ErrorFields, *, is_outage: bool, goes_on: bool = False, is_tls_failure: bool = False
    ) -> None:
        super().__init__(fields.message)
        self.fields = fields
        self.is_outage = is_outage
        self.goes_on = goes_on
        self.is_tls_failure = is_tls_failure


@dataclass(frozen=True, slots=True)
class Target:
    """One address of one host; for a unix socket its directory."""

    host: UpstreamHost
    address: str

    def __str__(self) -> str:
        shown = str(self.host)
        return shown if self.address in ("", self.host.name) else f"{shown} ({self.address})"


@dataclass(frozen=True, slots=True)
class Route:
    """What a dial tries, and what its cancel requests have to take too."""

    target: Target
    encrypts: bool
