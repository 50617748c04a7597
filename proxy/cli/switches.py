"""`pgheadroom pause`, `drain`, `reject` and `resume`: the boring switch, from a shell.

Owns: the four commands, and waiting until a drained class uses nothing.
Does not know: what the states mean inside the proxy.
"""

import time
from typing import Any
from urllib.parse import quote

import click

from proxy.cli.ordering import Orders, order_options, orders_of
from proxy.cli.output import when

_INTERNAL = "internal"
_LOOK_EVERY_SECONDS = 0.25
_TOLD = {
    "pause": "no new slots; who holds one finishes, who waits keeps the place in the queue",
    "drain": "no new slots; who holds one finishes, who waits keeps the place in the queue",
    "reject": "whoever waits or comes is refused with class_rejecting; who holds a slot finishes",
    "resume": "waiting clients get slots again",
}


def _give(order_name: str, orders: Orders, class_names: tuple[str, ...], everything: bool) -> list[str]:
    """Send the order for each class, for none where one of them is not there. Returns their names."""
    names = _chosen(orders, class_names, everything)
    for name in names:
        answer = orders.send(f"/classes/{quote(name, safe='')}/{order_name}")
        click.echo(f"{name} is {answer['state']}{when(answer['until'])}: {_told(order_name, answer)}")
    return names


def _told(order_name: str, answer: dict[str, Any]) -> str:
    return _TOLD["resume" if answer["state"] == "running" else order_name]


def _chosen(orders: Orders, class_names: tuple[str, ...], everything: bool) -> list[str]:
    if everything == bool(class_names):
        raise click.UsageError("name one or more classes, or say --all")
    names = list(dict.fromkeys(class_names))
    if len(names) == 1:
        return names  # the proxy itself says whether there is one of that name
    known = [one["name"] for one in orders.status()["classes"] if one["name"] != _INTERNAL]
    for name in names:
        if name not in known:
            raise click.ClickException(f'there is no class "{name}"; the classes are {", ".join(known)}')
    return names or known


def _switch(order_name: str, text: str) -> click.Command:
    @click.command(order_name, help=text)
    @click.argument("class_names", metavar="CLASS...", nargs=-1)
    @click.option("--all", "everything", is_flag=True, help="Every class of the configuration.")
    @order_options(ends=True)
    def switch(class_names: tuple[str, ...], everything: bool, **options: Any) -> None:
        _give(order_name, orders_of(**options), class_names, everything)

    return switch


pause = _switch("pause", "Give CLASS no new slots. Its running work finishes and its waiters keep their places.")
reject = _switch("reject", "Refuse whoever waits or comes in CLASS, at once. Its running work finishes.")
resume = _switch("resume", "Give CLASS slots again: what schedule and configuration say holds.")


@click.command("drain")
@click.argument("class_names", metavar="CLASS...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every class of the configuration.")
@click.option("--no-wait", is_flag=True, help="Return at once instead of when nothing is in use.")
@order_options(ends=True)
def drain(class_names: tuple[str, ...], everything: bool, no_wait: bool, **options: Any) -> None:
    """As pause, and return when CLASS uses no slot any more: its running work has finished.

    Ctrl-C ends the waiting; the class stays draining.
    """
    orders = orders_of(**options)
    names = _give("drain", orders, class_names, everything)
    if not no_wait:
        _wait_until_unused(orders, names)


def _wait_until_unused(orders: Orders, names: list[str]) -> None:
    """Says how many slots are left whenever that changes. Raises ClickException where somebody resumes the class."""
    told = ""
    while True:
        classes = {one["name"]: one for one in orders.status()["classes"]}
        used = {name: classes[name]["used"] for name in names if name in classes}
        for name in used:
            if classes[name]["state"] == "running":
                raise click.ClickException(f"{name} is running again{_by_whom(classes[name])}; it was not drained")
        left = ", ".join(f"{name} {count}" for name, count in used.items() if count)
        if left and left != told:
            click.echo(f"still in use: {left}")
        elif not left:
            click.echo(f"nothing is in use: {', '.join(names)}")
            return
        told = left
        time.sleep(_LOOK_EVERY_SECONDS)


def _by_whom(one: dict[str, Any]) -> str:
    last = one["last_switch"]
    return f", resumed by {last['by']}" if last and last["state"] == "running" else ""
