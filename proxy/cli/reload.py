"""`pgheadroom reload`: the file as it is now, taken over by the running proxy, or only compared.

Owns: the command, and how the difference is shown.
Does not know: what changes and whether it can hold (the proxy says both).
"""

from typing import Any

import click

from proxy.cli.ordering import order_options, orders_of
from proxy.cli.output import print_table

COLUMNS = ("class", "setting", "before", "after", "change", "in use now")


@click.command()
@click.option("--dry-run", is_flag=True, help="Only show what would change, and whether it can hold.")
@order_options(ends=False)
def command(dry_run: bool, **options: Any) -> None:
    """Let the proxy read its configuration again: who gains, who loses, setting by setting.

    Refused whole where it cannot hold. No client is dropped, and waiting ones keep their places.
    """
    answer = orders_of(**options).send("/reload", dry_run=dry_run)
    print_table(COLUMNS, [_row(one) for one in answer["changes"]])
    for note in answer["notes"]:
        click.echo(note)
    if not answer["changes"] and not answer["notes"]:
        click.echo("nothing differs from what is in force")
    done = "would be" if dry_run else "is"
    click.echo(f"configuration {answer['config_hash']} {done} in force")


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    return one["class_name"], one["setting"], one["before"], one["after"], one["change"], one["in_use"]
