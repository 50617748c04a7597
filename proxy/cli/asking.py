"""What commands ask of a configuration file and of the server, with a user's mistakes as sentences.

Owns: the `-c/--config` option, turning ConfigError into a message, one question to the server.
Does not know: what the command does with the answers.
"""

from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import click
import structlog

from proxy.service.config.errors import ConfigError
from proxy.service.config.loading import load_config
from proxy.service.config.model import Config
from proxy.service.config.parts import UpstreamPart, parts
from proxy.service.config.upstream_url import UpstreamUrl
from proxy.service.server_facts import ServerFacts, ServerUnreachable
from proxy.service.tls import TlsFilesUnusable

Command = TypeVar("Command", bound=Callable[..., Any])


def config_option(*, required: bool) -> Callable[[Command], Command]:
    return click.option(
        "-c",
        "--config",
        "config_path",
        envvar="PGHEADROOM_CONFIG",
        required=required,
        type=click.Path(dir_okay=False),
        help="Configuration file; else the environment's PGHEADROOM_CONFIG.",
    )


def config_or_message(path: str) -> Config:
    """The configuration. Raises ClickException with every finding."""
    try:
        return load_config(path)
    except ConfigError as error:
        raise click.ClickException(f"the configuration cannot be used\n{error}") from None


def upstream_option() -> Callable[[Command], Command]:
    return click.option("--upstream", metavar="NAME", help="Of several upstreams the one that is meant.")


def part_or_message(config: Config, upstream: str | None) -> UpstreamPart:
    """The upstream of that name, or the only one. Raises ClickException."""
    by_name = {part.name: part for part in parts(config)}
    if upstream is None and len(by_name) == 1:
        (upstream,) = by_name
    if upstream not in by_name:
        names = ", ".join(by_name)
        wrong = "it is not said which" if upstream is None else f'there is no upstream "{upstream}"'
        raise click.ClickException(f"{wrong}; the upstreams are {names}: name one with --upstream")
    return by_name[upstream]


def ask_server(upstream: UpstreamUrl, server_name: str | None = None) -> ServerFacts:
    """Connect once and ask. Raises ServerUnreachable with a sentence."""
    # Imported here: a check without the server needs nothing of what speaks to one.
    from proxy.service.server_watch import read_server_facts  # noqa: PLC0415

    try:
        with _no_log():
            return read_server_facts(upstream, server_name)
    except TlsFilesUnusable as error:
        raise ServerUnreachable(str(error)) from None


@contextmanager
def _no_log() -> Iterator[None]:
    """What the log would say is said by the command; a line of log would spoil JSON on standard output."""
    before = structlog.get_config()
    structlog.configure(processors=[_drop])
    try:
        yield
    finally:
        structlog.configure(**before)


def _drop(logger: object, method: str, event: MutableMapping[str, Any]) -> NoReturn:
    raise structlog.DropEvent
