"""An order as it arrives over HTTP: what is accepted, who may give it, and what is a trick of a foreign page.

Owns: the body {"by": ..., "reason": ..., "for": ...}, the content-type rule, the token, the Origin and Host rule.
Does not know: aiohttp, classes, what the order does.

Why the rules: the port usually listens on loopback, where every page open in a browser of this machine can send to
it. A form or `fetch` of another site may post text/plain or a form without asking; application/json needs a
preflight, which is never answered. A site that rebinds its name to 127.0.0.1 is "the same origin" to the browser, so
the name itself must be one that no stranger can own.
"""

import hmac
import json
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from proxy.service.config.units import read_seconds

MAX_BY_LENGTH = 100
MAX_REASON_LENGTH = 300
LONGEST_SECONDS = 366 * 86_400.0
EXAMPLE = '{"by": "anna", "reason": "import storm", "for": "10m"}'


class BadSwitch(Exception):  # noqa: N818 - the order is bad, nothing of ours failed
    """The order cannot be read; `status` is the HTTP status, the text a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True, slots=True)
class WantedOrder:
    """Who wants something, why, and for how long (None: until the next order); `more` is what else the order needs."""

    by: str
    reason: str
    seconds: float | None
    more: dict[str, object]


def parse_order(content_type: str, body: bytes, more: Collection[str] = ()) -> WantedOrder:
    """Raises BadSwitch. `reason` may be empty: in an incident nobody should be held up for prose."""
    if content_type != "application/json":
        raise BadSwitch(415, f"send Content-Type: application/json and a body like {EXAMPLE}")
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as problem:
        raise BadSwitch(400, f"the body is not JSON; send one like {EXAMPLE}") from problem
    if not isinstance(fields, dict) or not set(fields) <= {"by", "reason", "for", *more}:
        known = "".join(f", {name}" for name in more)
        raise BadSwitch(400, f"the body must be an object with by and reason, perhaps for{known}, like {EXAMPLE}")
    by = _text(fields, "by", MAX_BY_LENGTH)
    if not by:
        raise BadSwitch(400, f"by is missing: say who gives the order, like {EXAMPLE}")
    rest = {name: value for name, value in fields.items() if name in more}
    return WantedOrder(by, _text(fields, "reason", MAX_REASON_LENGTH), _seconds(fields.get("for")), rest)


def _text(fields: dict[str, object], key: str, max_length: int) -> str:
    value = fields.get(key, "")
    if not isinstance(value, str):
        raise BadSwitch(400, f"{key} must be text")
    if len(value) > max_length:
        raise BadSwitch(400, f"{key} is longer than {max_length} characters")
    # It goes into a log line and onto a terminal: no line breaks, no escape sequences.
    return "".join(c if c.isprintable() else " " for c in value).strip()


def _seconds(value: object) -> float | None:
    if value is None or value == "":
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    seconds = read_seconds(str(value)) if is_number or isinstance(value, str) else None
    if seconds is None or not 0 < seconds <= LONGEST_SECONDS:
        raise BadSwitch(400, "for must be a length of time like 90s, 10m or 2h, at most 366d, or left out")
    return seconds


def has_token(authorization: str | None, token: str) -> bool:
    """Whether the Authorization header brings the token; how long the answer takes tells nothing about it."""
    scheme, _, brought = (authorization or "").partition(" ")
    # Bytes that are no UTF-8 reach us as lone surrogates: somebody's wrong token, and no error of ours.
    sent = brought.strip().encode(errors="surrogateescape")
    return hmac.compare_digest(sent, token.encode()) and scheme.lower() == "bearer"


def is_foreign_page(origin: str | None, host: str | None, trusted_hosts: frozenset[str]) -> bool:
    """Whether a browser sends this for a page that is not ours. Commands send no Origin and are nobody's page."""
    if origin is None:
        return False
    if host is None or origin.lower() not in {f"http://{host.lower()}", f"https://{host.lower()}"}:
        return True
    return not _is_name_nobody_else_owns(urlsplit(f"//{host}").hostname or "", trusted_hosts)


def _is_name_nobody_else_owns(name: str, trusted_hosts: frozenset[str]) -> bool:
    if name == "localhost" or name in trusted_hosts:
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
