"""An order to pause or resume as it arrives over HTTP: what is accepted, and what is a trick of a foreign page.

Owns: the body {"by": ..., "reason": ...}, the content-type rule, the Origin and Host rule.
Does not know: aiohttp, classes, what the order does.

Why the rules: the port usually listens on loopback, where every page open in a browser of this machine can send to
it. A form or `fetch` of another site may post text/plain or a form without asking; application/json needs a
preflight, which is never answered. A site that rebinds its name to 127.0.0.1 is "the same origin" to the browser, so
the name itself must be one that no stranger can own.
"""

import json
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

MAX_BY_LENGTH = 100
MAX_REASON_LENGTH = 300
EXAMPLE = '{"by": "anna", "reason": "import storm"}'


class BadSwitch(Exception):  # noqa: N818 - the order is bad, nothing of ours failed
    """The order cannot be read; `status` is the HTTP status, the text a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True, slots=True)
class WantedSwitch:
    by: str
    reason: str


def parse_switch(content_type: str, body: bytes) -> WantedSwitch:
    """Raises BadSwitch. `reason` may be empty: in an incident nobody should be held up for prose."""
    if content_type != "application/json":
        raise BadSwitch(415, f"send Content-Type: application/json and a body like {EXAMPLE}")
    try:
        fields = json.loads(body)
    except ValueError as problem:
        raise BadSwitch(400, f"the body is not JSON; send one like {EXAMPLE}") from problem
    if not isinstance(fields, dict) or not set(fields) <= {"by", "reason"}:
        raise BadSwitch(400, f"the body must be an object with by and reason, like {EXAMPLE}")
    by = _text(fields, "by", MAX_BY_LENGTH)
    if not by:
        raise BadSwitch(400, f"by is missing: say who gives the order, like {EXAMPLE}")
    return WantedSwitch(by, _text(fields, "reason", MAX_REASON_LENGTH))


def _text(fields: dict[str, object], key: str, max_length: int) -> str:
    value = fields.get(key, "")
    if not isinstance(value, str):
        raise BadSwitch(400, f"{key} must be text")
    if len(value) > max_length:
        raise BadSwitch(400, f"{key} is longer than {max_length} characters")
    # It goes into a log line and onto a terminal: no line breaks, no escape sequences.
    return "".join(c if c.isprintable() else " " for c in value).strip()


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
