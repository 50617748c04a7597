"""Talking to a running proxy over its HTTP port, with everything that can go wrong as a sentence.

Owns: where the proxy is (`--url`, else the configuration, else the default port), the token that orders bring, and the
words for the absence of either.
Does not know: what is asked and how the answer is shown.
"""

import json
import os
from collections.abc import Callable
from http.client import BadStatusLine, HTTPException
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import OpenerDirector, ProxyHandler, Request, build_opener

import click

from proxy.cli.asking import config_option, config_or_message
from proxy.service.config.errors import ConfigError
from proxy.service.config.loading import load_config

DEFAULT_URL = "http://127.0.0.1:9432"
TOKEN_VARIABLE = "PGHEADROOM_TOKEN"  # noqa: S105 - a name
TIMEOUT_SECONDS = 5.0
_OK = 200
# Listening on every address means answering on loopback too.
_EVERY_ADDRESS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - read, not bound

Command = TypeVar("Command", bound=Callable[..., Any])


def remote_options(command: Command) -> Command:
    """The options that say where the proxy is, as the arguments `url` and `config_path`."""
    url = click.option(
        "--url",
        envvar="PGHEADROOM_URL",
        help=f"Where the proxy's HTTP port is; else http of the configuration, else {DEFAULT_URL}.",
    )
    return config_option(required=False)(url(command))


def address_of(url: str | None, config_path: str | None) -> str:
    """The base URL without a slash at its end. Raises ClickException for what is no address."""
    if url is None:
        url = _configured(config_path) if config_path else DEFAULT_URL
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise click.ClickException(f"{url!r} is not an address like {DEFAULT_URL}")
    return url.rstrip("/")


def _configured(config_path: str) -> str:
    http = config_or_message(config_path).http
    if http.port == 0:
        raise click.ClickException("http.port is 0, a port chosen at every start: say --url (the log has the port)")
    host = _EVERY_ADDRESS.get(http.host, http.host)
    return f"http://[{host}]:{http.port}" if ":" in host else f"http://{host}:{http.port}"


def token_of(url: str | None, config_path: str | None) -> str | None:
    """The token for orders: of the environment, else of the configuration. On a command line everybody would see it."""
    # A file or a secret store often brings the end of its line along.
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if token:
        return _sendable(token, TOKEN_VARIABLE)
    if config_path is None:
        return None
    try:
        return load_config(config_path).http.switch_token
    except ConfigError:
        if url is None:
            raise
        return None  # the configuration is another proxy's, or of no use here: `url` says where to go


def _sendable(token: str, source: str) -> str:
    """Raises ClickException for what no HTTP header can hold, and never says what it is."""
    if not (token.isascii() and token.isprintable()):
        raise click.ClickException(f"{source} holds what no HTTP header can: only printable ASCII characters are sent")
    return token


def ask(address: str, path: str) -> dict[str, Any]:
    """GET a JSON document. Raises ClickException, in words."""
    return _answer(Request(f"{address}{path}"), address)  # noqa: S310 - address_of lets only http and https through


def order(address: str, path: str, body: dict[str, Any], token: str | None = None) -> dict[str, Any]:
    """POST a JSON document. Raises ClickException with the proxy's own sentence where it refuses."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = Request(f"{address}{path}", data=json.dumps(body).encode(), headers=headers)  # noqa: S310 - as above
    return _answer(request, address)


def _answer(request: Request, address: str) -> dict[str, Any]:
    try:
        status, body = _sent(request)
    except BadStatusLine:  # what was said instead may be anything, and not for a terminal
        raise click.ClickException(f"what answers at {address} does not speak HTTP: see http.port") from None
    except (URLError, HTTPException, OSError) as problem:
        raise click.ClickException(_absence(address, problem)) from None
    document = _document(body, address)
    if status != _OK:
        raise click.ClickException(str(document.get("error") or f"{address} answered with HTTP status {status}"))
    return document


def _sent(request: Request) -> tuple[int, bytes]:
    """Status and body, whichever the status is."""
    try:
        with _opener().open(request, timeout=TIMEOUT_SECONDS) as response:
            return _OK, response.read()
    except HTTPError as refused:
        with refused:
            return refused.code, refused.read()


def _opener() -> OpenerDirector:
    # http_proxy in the environment is for the way out, not for a port on this machine.
    return build_opener(ProxyHandler({}))


def _document(body: bytes, address: str) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise click.ClickException(f"what answers at {address} is not pgheadroom")
    return document


def _absence(address: str, problem: Exception) -> str:
    reason = problem.reason if isinstance(problem, URLError) else problem
    if isinstance(reason, ConnectionRefusedError):
        why = "nothing listens there"
    elif isinstance(reason, TimeoutError):
        why = f"no answer within {TIMEOUT_SECONDS:.0f} s"
    else:
        why = str(reason) or type(reason).__name__
    return f"no pgheadroom at {address}: {why}. Is it running? Another place is named with --url or -c."
