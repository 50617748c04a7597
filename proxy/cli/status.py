"""`pgheadroom status`: the classes of a running proxy and its totals, once or every second.

Owns: which columns are shown.
Does not know: where the numbers come from (proxy/service/status.py), how tables are drawn.
"""

import time
from typing import Any

import click

from proxy.cli.output import print_json, print_line, print_table, when
from proxy.cli.remote import address_of, ask, remote_options
from proxy.cli.status_lines import lines_beneath, show_wait

WATCH_EVERY_SECONDS = 1.0
COLUMNS = ("class", "upstream", "used", "reserved", "limit", "borrowed", "pinned", "waiting", "oldest wait", "state")

CLIENT_COLUMNS = ("class", "application", "user", "address", "connections", "slots", "waiting")


@click.command()
@remote_options
@click.option("--watch", is_flag=True, help="Show it again every second until Ctrl-C.")
@click.option("--clients", is_flag=True, help="Show who has connections: the top by slots, waiting, connections.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole document as JSON for programs.")
def command(url: str | None, config_path: str | None, watch: bool, clients: bool, as_json: bool) -> None:
    """Show what every class uses and who waits. Exits with 1 where no proxy answers."""
    address = address_of(url, config_path)
    if not watch:
        _show(ask(address, "/status"), as_json, clients)
        return
    while True:
        _show_again(address, as_json, clients)
        time.sleep(WATCH_EVERY_SECONDS)


def _show_again(address: str, as_json: bool, clients: bool) -> None:
    """A proxy that restarts is what somebody watches for: its absence is shown, and watching goes on."""
    try:
        document = ask(address, "/status")
    except click.ClickException as problem:
        click.clear()
        click.echo(problem.message)
        return
    if not as_json:
        click.clear()
    _show(document, as_json, clients)


def _show(document: dict[str, Any], as_json: bool, clients: bool) -> None:
    if as_json:
        print_json(document)
        return
    if clients:
        print_table(CLIENT_COLUMNS, [client_row(one) for one in document["identities"]])
        if not document["identities"]:
            click.echo("nobody has a connection")
        return
    print_table(*_table(document))
    for line in lines_beneath(document):
        print_line(line)


def _table(document: dict[str, Any]) -> tuple[list[str], list[list[object]]]:
    """The columns and a row for each class. What is the same for all, or is nowhere, has no column."""
    is_set = {one["key"] for one in document["overrides"]}
    rows = [_row(one, f"classes.{one['name']}.limit" in is_set) for one in document["classes"]]
    left_out = set() if any(row["pinned"] for row in rows) else {"pinned"}
    left_out |= {"upstream"} if len(document["upstreams"]) == 1 else set()
    columns = [column for column in COLUMNS if column not in left_out]
    return columns, [[row[column] for column in columns] for row in rows]


def client_row(one: dict[str, Any]) -> tuple[object, ...]:
    """One identity: who it is and what it has."""
    who = one["class"], one["application_name"] or "(no name)", one["user"], one["address"]
    return *who, one["connections"], one["slots"], one["waiting"]


def _row(one: dict[str, Any], limit_is_set: bool = False) -> dict[str, object]:
    """A cell for each of COLUMNS."""
    limit = str(one["limit"] if one["warns"] is None else one["warns"]["limit"])
    if one["adaptive_limit"] < one["limit"]:
        limit = f"{one['adaptive_limit']} (of {one['limit']})"
    return {
        "class": one["name"],
        "upstream": one["upstream"],
        "used": one["used"],
        "reserved": one["reserved"],
        "limit": limit,
        "borrowed": one["borrowed"],
        "pinned": f"{one['pinned']} of {one['pinned_limit']}" if one["pinned"] else "",
        "waiting": one["waiting"],
        "oldest wait": show_wait(one["oldest_wait_seconds"]) if one["waiting"] else "",
        "state": _only_warns(_state(one, limit_is_set)) if one["mode"] == "warn" else _state(one, limit_is_set),
    }


def _only_warns(state: str) -> str:
    return "only warns" if state == "running" else f"{state}, only warns"


def _state(one: dict[str, Any], limit_is_set: bool) -> str:
    order, schedule = one["switch"], one["schedule"]
    if order is None and schedule is not None:
        return _scheduled(str(one["state"]), schedule, limit_is_set)
    if order is None:
        return str(one["state"])
    since = time.strftime("%H:%M:%S", time.localtime(order["at"]))
    why = f": {order['reason']}" if order["reason"] else ""
    return f"{one['state']} by {order['by']} at {since}{when(order['until'])}{why}"


def _scheduled(state: str, schedule: dict[str, Any], limit_is_set: bool) -> str:
    """What the windows of time of a class do now, or when they do something next."""
    now = schedule["now"]
    if not now["windows"]:
        return state if schedule["next_change_at"] is None else f"{state}{when(schedule['next_change_at'])}"
    changed = [now["state"]] if now["state"] is not None else []
    changed += [f"limit {now['limit']}"] if now["limit"] is not None and not limit_is_set else []
    if not changed:
        return state
    why = f": {now['reason']}" if now["reason"] else ""
    words = f"{', '.join(changed)} by schedule{when(schedule['next_change_at'])}{why}"
    return words if now["state"] is not None else f"{state}, {words}"
