"""The live page as it is sent: the file beside this module, and headers that let it do only what it needs.

Owns: the content security policy, computed from the page so that the two cannot disagree.
Does not know: what the page shows.
"""

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files


@cache
def page_with_headers() -> tuple[str, dict[str, str]]:
    """The HTML text and its headers; read once."""
    text = files("proxy.service").joinpath("page.html").read_text(encoding="utf-8")
    headers = {
        "Content-Security-Policy": content_security_policy(text),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    return text, headers


def content_security_policy(text: str) -> str:
    """Only the page's own script and style run, it talks to its own origin only, and nobody may frame it."""
    rules = {
        "default-src": "'none'",
        "script-src": _hashes(text, "script"),
        "style-src": _hashes(text, "style"),
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _hashes(text: str, tag: str) -> str:
    parts = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}'" for part in parts)
