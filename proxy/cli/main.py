"""The command `pgheadroom`: one file per subcommand, imported only when it is called.

Owns: the list of subcommands and what a user's mistake looks like.
Does not know: what any of them does.
"""

from importlib import import_module
from typing import Any

import click

from proxy import __version__

# Subcommand -> module in this package, whose function `command` is the click command.
SUBCOMMANDS = {
    "serve": "serve",
    "check": "check",
    "plan": "plan",
    "demo": "demo",
    "simulate": "simulate",
    "recommend": "recommend",
    "status": "status",
    "top": "top",
    "pause": "switches:pause",
    "drain": "switches:drain",
    "reject": "switches:reject",
    "resume": "switches:resume",
    "set": "set:set_numbers",
    "unset": "set:unset_numbers",
    "reload": "reload",
}


class LazyGroup(click.Group):
    """Imports a subcommand when it is asked for: `pgheadroom status` must not load matplotlib."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = SUBCOMMANDS.get(cmd_name)
        if place is None:
            return None
        module_name, _, attribute = place.partition(":")
        module = import_module(f"proxy.cli.{module_name}")
        command: Any = getattr(module, attribute or "command")
        assert isinstance(command, click.Command), f"proxy.cli.{place} is not a click command"
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pgheadroom")
def main() -> None:
    """Connection admission for PostgreSQL: bulk work can no longer take the database away from your customers."""
