"""`pgheadroom status`: the classes of a running proxy and its totals, once or every second.

Owns: which columns are shown and the sentences around them.
Does not know: where the numbers come from (proxy/service/status.py), how tables are drawn.
"""

import time
from typing import Any

import click

from proxy.cli.output import print_json, print_table, when
from proxy.cli.remote import address_of, ask, remote_options

WATCH_EVERY_SECONDS = 1.0
_PINS_SHOWN = 5
_UNMATCHED_HINT = "  `pgheadroom recommend` says to which class they might belong"
_STRANGERS_SHOWN = 5
COLUMNS = ("class", "used", "reserved", "limit", "borrowed", "pinned", "waiting", "oldest wait", "state")

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
    is_set = {one["key"] for one in document["overrides"]}
    print_table(COLUMNS, [_row(one, f"classes.{one['name']}.limit" in is_set) for one in document["classes"]])
    for line in _totals(document):
        click.echo(line)


def client_row(one: dict[str, Any]) -> tuple[object, ...]:
    """One identity: who it is and what it has."""
    who = one["class"], one["application_name"] or "(no name)", one["user"], one["address"]
    return *who, one["connections"], one["slots"], one["waiting"]


def _row(one: dict[str, Any], limit_is_set: bool = False) -> tuple[object, ...]:
    limit = str(one["limit"])
    if one["adaptive_limit"] < one["limit"]:
        limit = f"{one['adaptive_limit']} (of {one['limit']})"
    oldest = show_wait(one["oldest_wait_seconds"]) if one["waiting"] else ""
    pinned = f"{one['pinned']} of {one['pinned_limit']}" if one["pinned"] else ""
    counts = one["used"], one["reserved"], limit, one["borrowed"], pinned, one["waiting"]
    return one["name"], *counts, oldest, _state(one, limit_is_set)


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


def _totals(document: dict[str, Any]) -> list[str]:
    budget, servers, clients = document["budget"], document["server_connections"], document["clients"]
    closing = "".join(f", {servers[state]} {state}" for state in ("dialling", "closing") if servers[state])
    lines = [
        f"slots: {budget['in_use']} of {budget['total']} in use, headroom {budget['headroom_left']} of "
        f"{budget['headroom']} left",
        f"server connections: {servers['total']} open, {servers['in_use']} active, {servers['idle']} idle{closing}"
        f"{_server(document['server'])}",
        f"clients: {clients['total']} connected, {clients['linked']} linked, {clients['waiting']} waiting, "
        f"{clients['idle']} idle",
        *_upstreams(document["upstreams"]),
        f"{_readiness(document)} (version {document['version']}, configuration {document['config_hash']})",
    ]
    lines += [_override(one) for one in document["overrides"]]
    return [
        *lines,
        *_adaptive(document),
        *_nested(document),
        *_problems(document),
        *_pins(document["pins"]),
        *_unmatched(document["unmatched"]),
    ]


def _upstreams(upstreams: list[dict[str, Any]]) -> list[str]:
    """Where there are several, each by itself: the totals above say nothing of one that is full or lost."""
    if len(upstreams) == 1:
        return []
    return [
        f"upstream {one['name']}: {one['budget']['in_use']} of {one['budget']['total']} slots in use, "
        f"{one['budget']['waiting']} waiting, {one['server_connections']['total']} server connections"
        f"{_server(one['server'])}, {one['readiness']}"
        for one in upstreams
    ]


def _nested(document: dict[str, Any]) -> list[str]:
    """Who probably waits for itself, what that means and what helps."""
    lines = [
        f"probably waits for itself: {one['application_name'] or 'no name'} of {one['user']} from {one['address']} in "
        f"{one['class']} holds {one['holding']} and does nothing while {one['waiting']} of it wait, for "
        f"{show_wait(one['waited_seconds'])}"
        for one in document["nested_acquires"]
    ]
    hint = (
        "  a job that opens a second connection inside its transaction waits for a slot that its own first one holds: "
        "let it use one connection, raise the class's limit above one job's need, or bound it with "
        "max_clients_per_identity"
    )
    return [*lines, hint] if lines else []


def _problems(document: dict[str, Any]) -> list[str]:
    """Where the budget does not hold with the server as it is, and who connects past the proxy."""
    lines = [f"{one['severity']}: {one['key']}: {one['text']} ({one['hint']})" for one in document["budget_problems"]]
    missing = document["server"]["overcommitted_slots"]
    if missing:
        lines.append(f"{missing} slots of the budget could not be had now if all were asked for")
    strangers = [
        f"{one['application_name'] or 'no name'} of {one['user']}"
        + (f" from {one['address']}" if one["address"] else "")
        + f": {one['connections']}"
        for one in document["server"]["strangers"][:_STRANGERS_SHOWN]
    ]
    return [*lines, *([f"past the proxy: {', '.join(strangers)}"] if strangers else [])]


def _adaptive(document: dict[str, Any]) -> list[str]:
    """How customers fare, and what follows from it; nothing where nobody asked for either."""
    adaptive, canary, lines = document["adaptive"], document["canary"], []
    if adaptive is not None:
        why = f": {adaptive['why']}" if adaptive["why"] else ""
        wanted = ", ".join(f"{name} {limit}" for name, limit in adaptive["limits"].items())
        lowered = f"; {'would lower' if adaptive['mode'] == 'observe' else 'lowered'}: {wanted}" if wanted else ""
        lines.append(f"adaptive limits ({adaptive['mode']}): {adaptive['load']}{why}{lowered}")
    if canary is not None:
        lines.append(f"canary: {canary['sentence']}")
    return lines


def _override(one: dict[str, Any]) -> str:
    why = f": {one['reason']}" if one["reason"] else ""
    return (
        f"set: {one['key']} is {one['value']} instead of {one['configured']}, by {one['by']}{when(one['until'])}{why}"
    )


def _pins(pins: list[dict[str, Any]]) -> list[str]:
    """Who holds a server connection from one transaction to the next, and for what."""
    shown = [
        f"{one['clients']} of {one['class']} ({one['application_name'] or 'no name'}: {one['reason']})"
        for one in pins[:_PINS_SHOWN]
    ]
    more = [f"and {len(pins) - _PINS_SHOWN} more"] if len(pins) > _PINS_SHOWN else []
    return [f"pinned: {', '.join([*shown, *more])}"] if pins else []


def _readiness(document: dict[str, Any]) -> str:
    state = "ready" if document["ready"] else "not ready"
    return state if document["readiness"] == state else f"{state}: {document['readiness']}"


def _server(server: dict[str, Any]) -> str:
    facts = []
    if server["max_connections"] is not None:
        facts.append(f"the server allows {server['max_connections']}")
    if server["external_connections"] is not None:
        facts.append(f"{server['external_connections']} used by others")
    return f" ({', '.join(facts)})" if facts else ""


def _unmatched(unmatched: dict[str, Any]) -> list[str]:
    names = [_unmatched_name(one) for one in unmatched["names"]]
    if not names:
        return []
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return [f"names no class knows ({unmatched['clients_total']} clients): {shown}", _UNMATCHED_HINT]


def _unmatched_name(one: dict[str, Any]) -> str:
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(one["first_seen"]))
    return f"{one['application_name'] or '(no name)'} ({one['clients_total']} since {since})"


def show_wait(seconds: float) -> str:
    """A wait as people say it; the table is read at a glance."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds / 60:.1f} min"
