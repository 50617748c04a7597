"""What every command that gives an order has in common: who gives it, why, for how long, and to which proxy.

Owns: these options, and the way an order is sent.
Does not know: which orders there are.
"""

import getpass
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from proxy.cli.remote import address_of, ask, order, remote_options, token_of
from proxy.service.config.units import read_seconds

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Orders:
    """Sends orders of one person to one proxy."""

    address: str
    token: str | None
    about: dict[str, str]

    def send(self, path: str, **more: Any) -> dict[str, Any]:
        """Raises ClickException with the proxy's own sentence where it refuses."""
        answer = order(self.address, path, {**self.about, **more}, self.token)
        if answer.get("not_saved"):
            click.echo(f"Warning: in force, but a restart would forget it: {answer['not_saved']}", err=True)
        return answer

    def status(self) -> dict[str, Any]:
        return ask(self.address, "/status")


def _length(ctx: click.Context, option: click.Parameter, text: str | None) -> str | None:
    """A length of time, sent as it was written."""
    seconds = 1.0 if text is None else read_seconds(text)
    if seconds is None or seconds <= 0:
        raise click.BadParameter(f"{text!r} is no length of time like 90s, 10m or 2h")
    return text


def order_options(*, ends: bool) -> Callable[[Command], Command]:
    """`--reason`, `--by`, where it `ends` by itself `--for`, and where the proxy is; read them with `orders_of`."""

    def decorate(command: Command) -> Command:
        command = remote_options(command)
        by = click.option("--by", default=who, help="Who gives the order; else the user and the host of this shell.")
        reason = click.option("--reason", default="", help="Why; shown on the page, in `status` and in the log.")
        command = reason(by(command))
        if ends:
            text = "Ends by itself after so long: 90s, 10m, 2h."
            command = click.option("--for", "length", callback=_length, metavar="TIME", help=text)(command)
        return command

    return decorate


def orders_of(url: str | None, config_path: str | None, by: str, reason: str, length: str | None = None) -> Orders:
    about = {"by": by, "reason": reason} | ({"for": length} if length else {})
    return Orders(address_of(url, config_path), token_of(url, config_path), about)


def who() -> str:
    """The person for the audit line: who became root is more telling than root."""
    return f"{_user()}@{socket.gethostname()}"


def _user() -> str:
    sudo_user = os.environ.get("SUDO_USER")
    if sudo_user:
        return sudo_user
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user often has no name
        return f"uid {os.getuid()}"
