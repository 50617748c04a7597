"""Primary or standby, read-write or read-only: what a server is, and whether that is what is wanted.

Owns: reading a role off a login or asking for it, and the words for the wrong one.
Does not know: hosts, dialling.
Source: PostgreSQL manual, `target_session_attrs` (libpq-connect). Servers report what is asked here from 14 on; older
ones, and poolers that do not pass it on, are asked.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from proxy.session.question import Question
from proxy.session.server import ServerConnection
from proxy.session.settings import SessionAttrs

ROLE_SQL: Final = "select pg_catalog.pg_is_in_recovery()::text, pg_catalog.current_setting('transaction_read_only')"


@dataclass(frozen=True, slots=True)
class Role:
    is_standby: bool
    is_read_only: bool


def role_told(parameters: Mapping[str, str]) -> Role | None:
    """From what the server reported at the login; None where it did not."""
    standby, read_only = parameters.get("in_hot_standby"), parameters.get("default_transaction_read_only")
    if standby is None or read_only is None:
        return None
    return Role(standby == "on", "on" in (standby, read_only))


async def ask_role(server: ServerConnection) -> Role:
    """The connection has to be idle, and is so again afterwards. Raises OwnQueryFailed. The caller bounds the time."""
    ((standby, read_only),) = await Question(ROLE_SQL).ask(server)
    return Role(standby == "true", read_only == "on")


def complaint_or_none(wanted: SessionAttrs, role: Role) -> str | None:
    """What is wrong with a server of that role, in libpq's words."""
    is_wrong, words = _RULES[wanted]
    return words if is_wrong(role) else None


_RULES: Final[Mapping[SessionAttrs, tuple[Callable[[Role], bool], str]]] = {
    SessionAttrs.ANY: (lambda _: False, ""),
    SessionAttrs.READ_WRITE: (lambda role: role.is_read_only, "session is read-only"),
    SessionAttrs.READ_ONLY: (lambda role: not role.is_read_only, "session is not read-only"),
    SessionAttrs.PRIMARY: (lambda role: role.is_standby, "server is in hot standby mode"),
    SessionAttrs.STANDBY: (lambda role: not role.is_standby, "server is not in hot standby mode"),
    SessionAttrs.PREFER_STANDBY: (lambda role: not role.is_standby, "server is not in hot standby mode"),
}
