"""`pgheadroom set` and `unset`: numbers beside the file, for a while or until somebody takes them away.

Owns: the two commands, and how what is set is shown.
Does not know: which settings can be set, and which numbers hold (the proxy says both).
"""

from typing import Any

import click

from proxy.cli.ordering import order_options, orders_of
from proxy.cli.output import print_table, when

COLUMNS = ("setting", "value", "else", "by", "until", "reason")


@click.command("set")
@click.argument("assignments", metavar="KEY=VALUE...", nargs=-1)
@click.option("--list", "only_list", is_flag=True, help="Show what is set.")
@order_options(ends=True)
def set_numbers(assignments: tuple[str, ...], only_list: bool, **options: Any) -> None:
    """Change settings at once, without the file: classes.bulk.limit=20, adaptive.mode=on, ...

    All or none, and only where they hold, as at a reload. What is set counts before schedule and file until
    `pgheadroom unset`, or until --for is over. A reload keeps it where it still holds.
    """
    orders = orders_of(**options)
    if only_list or not assignments:
        _show(orders.status()["overrides"])
        return
    settings = dict(_split(assignment) for assignment in assignments)
    answer = orders.send("/set", settings=settings)
    for one in answer["overrides"]:
        click.echo(f"{one['key']} is {one['value']}{when(one['until'])} (else {one['configured']})")
    for warning in answer["warnings"]:
        click.echo(f"Unwise: {warning}", err=True)


def _split(assignment: str) -> tuple[str, str]:
    key, equals, value = assignment.partition("=")
    if not equals or not key:
        raise click.BadParameter(f"{assignment!r} is not KEY=VALUE, as classes.bulk.limit=20", param_hint="KEY=VALUE")
    return key.strip(), value.strip()


@click.command("unset")
@click.argument("keys", metavar="KEY...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Everything that is set.")
@order_options(ends=False)
def unset_numbers(keys: tuple[str, ...], everything: bool, **options: Any) -> None:
    """Take away what was set: what schedule and file say holds again."""
    if everything == bool(keys):
        raise click.UsageError("name one or more settings, or say --all")
    orders = orders_of(**options)
    if everything:
        keys = tuple(one["key"] for one in orders.status()["overrides"])
        if not keys:
            click.echo("nothing is set")
            return
    for one in orders.send("/unset", keys=list(dict.fromkeys(keys)))["overrides"]:
        click.echo(f"{one['key']} is {one['configured']} again (it was {one['value']})")


def _show(overrides: list[dict[str, Any]]) -> None:
    if not overrides:
        click.echo("nothing is set: schedule and file say everything")
        return
    print_table(COLUMNS, [_row(one) for one in overrides])


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    until = when(one["until"]).removeprefix(" until ")
    return one["key"], one["value"], one["configured"], one["by"], until, one["reason"]
