"""`pgheadroom pause` and `pgheadroom resume`: the boring switch, from a shell.

Owns: the two commands and who they say gave the order.
Does not know: what pausing means inside the proxy.
"""

import getpass
import os
import socket
from urllib.parse import quote

import click

from proxy.cli.remote import address_of, order, remote_options

_TOLD = {
    "pause": "{name} is {state}: no new slots; who holds one finishes, who waits keeps the place in the queue",
    "resume": "{name} is {state}: waiting clients get slots again",
}


def _who() -> str:
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


def _switch(order_name: str, text: str) -> click.Command:
    @click.command(order_name, help=text)
    @click.argument("class_name", metavar="CLASS")
    @click.option("--reason", default="", help="Why; shown on the page, in `status` and in the log.")
    @click.option("--by", default=_who, help="Who gives the order; else the user and the host of this shell.")
    @remote_options
    def switch(class_name: str, reason: str, by: str, url: str | None, config_path: str | None) -> None:
        path = f"/classes/{quote(class_name, safe='')}/{order_name}"
        answer = order(address_of(url, config_path), path, {"by": by, "reason": reason})
        click.echo(_TOLD[order_name].format(name=answer["class"], state=answer["state"]))

    return switch


pause = _switch("pause", "Give CLASS no new slots. Its running work finishes and its waiters keep their places.")
resume = _switch("resume", "Give CLASS slots again.")
