"""`pgheadroom top`: the classes and the busiest identities of a running proxy, every second.

Owns: what is shown of two readings, the rates between them, the keys that end it.
Does not know: where the numbers come from (proxy/service/status.py).
"""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import click

from proxy.cli.output import plain_table, print_json
from proxy.cli.remote import address_of, ask, remote_options
from proxy.cli.status import CLIENT_COLUMNS, client_row
from proxy.cli.status_lines import show_wait

EVERY_SECONDS = 1.0
COLUMNS = ("class", "used", "reserved", "limit", "borrowed", "waiting", "oldest wait", "adm/s", "ref/s", "state")
_LINES_AROUND = 9  # headings, rules and the line on top
_LEAST_IDENTITIES = 3


class Rates(NamedTuple):
    """Of one class, between two readings."""

    admissions: float
    refusals: float


def rates(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Rates]:
    """By class; nothing of one that is new, and none below 0 where the proxy was started again."""
    seconds = after["at"] - before["at"]
    earlier = {one["name"]: one for one in before["classes"]}
    return {
        one["name"]: Rates(
            _rate(one["admissions_total"] - earlier[one["name"]]["admissions_total"], seconds),
            _rate(_refusals(one) - _refusals(earlier[one["name"]]), seconds),
        )
        for one in after["classes"]
        if one["name"] in earlier
    }


def _rate(count: int, seconds: float) -> float:
    return max(0.0, count / seconds) if seconds > 0 else 0.0


def _refusals(one: dict[str, Any]) -> int:
    return sum(one["refusals_total"].values())


@click.command()
@remote_options
@click.option("--once", is_flag=True, help="Two readings a second apart, shown once.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON for programs: a line every second, or one with --once."
)
def command(url: str | None, config_path: str | None, once: bool, as_json: bool) -> None:
    """Show classes and the busiest identities, with admissions and refusals per second. Ends with q or Ctrl-C."""
    address = address_of(url, config_path)
    before = ask(address, "/status")
    if once:
        time.sleep(EVERY_SECONDS)
        _show_once(before, ask(address, "/status"), as_json)
    elif as_json:
        _follow(address, before, lambda old, new: click.echo(json.dumps(_document(old, new), ensure_ascii=False)))
    else:
        with _screen(address) as show, _keys() as is_to_end:
            _follow(address, before, show, is_to_end)


def _show_once(before: dict[str, Any], after: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(_document(before, after))
    else:
        click.echo(_text(before, after, shutil.get_terminal_size((120, 50))), nl=False)


def _follow(
    address: str,
    before: dict[str, Any],
    show: Callable[[dict[str, Any], dict[str, Any]], None],
    is_to_end: Callable[[], bool] | None = None,
) -> None:
    """A proxy that restarts is waited for: what was last seen stays on the screen."""
    try:
        while not (is_to_end or _sleep)():
            try:
                after = ask(address, "/status")
            except click.ClickException:
                continue
            show(before, after)
            before = after
    except KeyboardInterrupt:
        return


def _sleep() -> bool:
    time.sleep(EVERY_SECONDS)
    return False


@contextmanager
def _keys() -> Iterator[Callable[[], bool]]:
    """A function that waits for a second and says whether q was pressed; keys are read without Enter, unseen."""
    if not sys.stdin.isatty():
        yield _sleep
        return
    import select  # noqa: PLC0415 (only of use on a terminal)
    import termios  # noqa: PLC0415
    import tty  # noqa: PLC0415

    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield lambda: bool(select.select([sys.stdin], [], [], EVERY_SECONDS)[0]) and sys.stdin.read(1) in "qQ"
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


@contextmanager
def _screen(address: str) -> Iterator[Callable[[dict[str, Any], dict[str, Any]], None]]:
    """What draws one reading: over the last one, without flicker where rich is installed."""
    try:
        from rich.console import Console  # noqa: PLC0415 - optional
        from rich.live import Live  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415
    except ImportError:
        yield _draw_plain
        return
    console = Console()
    if not console.is_terminal:
        yield _draw_plain
        return
    with Live(Text(f"asking {address}"), console=console, screen=True, auto_refresh=False) as live:
        yield lambda before, after: live.update(Text(_text(before, after, console.size)), refresh=True)


def _draw_plain(before: dict[str, Any], after: dict[str, Any]) -> None:
    click.clear()
    click.echo(_text(before, after, shutil.get_terminal_size((120, 50))), nl=False)


# One reading as text


def _text(before: dict[str, Any], after: dict[str, Any], size: tuple[int, int]) -> str:
    """No wider and, on a terminal, no longer than it is."""
    width, height = size
    speed = rates(before, after)
    rows = [_row(one, speed.get(one["name"], Rates(0.0, 0.0))) for one in after["classes"]]
    columns = list(COLUMNS)
    if all(row[-1] == "" for row in rows):
        columns.pop()
        rows = [row[:-1] for row in rows]
    left = max(_LEAST_IDENTITIES, height - len(rows) - _LINES_AROUND)
    identities = [[str(cell) for cell in client_row(one)] for one in after["identities"][:left]]
    parts = [_head(after, width), plain_table(columns, rows, width=width)]
    if identities:
        parts.append(plain_table(CLIENT_COLUMNS, identities, width=width))
    return "\n".join(parts)


def _row(one: dict[str, Any], speed: Rates) -> list[str]:
    limit = min(one["limit"] if one["warns"] is None else one["warns"]["limit"], one["adaptive_limit"])
    oldest = show_wait(one["oldest_wait_seconds"]) if one["waiting"] else ""
    counts = (one["used"], one["reserved"], limit, one["borrowed"] or "", one["waiting"] or "", oldest)
    states = ["" if one["state"] == "running" else one["state"], "only warns" if one["mode"] == "warn" else ""]
    return [
        one["name"],
        *map(str, counts),
        _speed(speed.admissions),
        _speed(speed.refusals),
        ", ".join(filter(None, states)),
    ]


def _speed(per_second: float) -> str:
    if per_second == 0:
        return ""
    return f"{per_second:.0f}" if per_second >= 10 else f"{per_second:.1f}"


def _head(after: dict[str, Any], width: int) -> str:
    budget, servers, external = after["budget"], after["server_connections"], after["server"]["external_connections"]
    parts = [
        time.strftime("%H:%M:%S", time.localtime(after["at"])),
        "ready" if after["ready"] else f"not ready: {after['readiness']}",
        f"{budget['in_use']} of {budget['total']} slots, headroom {budget['headroom_left']} of {budget['headroom']}",
        f"{servers['total']} server connections" + (f" and {external} of others" if external else ""),
        f"{budget['waiting']} waiting",
        *_alarms(after),
    ]
    lines = [""]
    for part in parts:
        joined = f"{lines[-1]}  {part}".strip()
        if lines[-1] and len(joined) > width:
            lines.append(part)
        else:
            lines[-1] = joined
    return "\n".join(lines) + "\n"


def _alarms(after: dict[str, Any]) -> list[str]:
    """What deserves a look at `pgheadroom status`."""
    alarms = [f"{len(after['nested_acquires'])} wait for themselves"] if after["nested_acquires"] else []
    missing = after["server"]["overcommitted_slots"]
    return alarms + ([f"{missing} slots could not be had"] if missing else [])


# For programs


def _document(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    speed = rates(before, after)
    shown = (
        "name",
        "state",
        "used",
        "reserved",
        "limit",
        "adaptive_limit",
        "borrowed",
        "waiting",
        "oldest_wait_seconds",
    )
    classes = [
        {key: one[key] for key in (*shown, "oldest_wait_seconds")}
        | {
            "admissions_per_second": round(speed[one["name"]].admissions, 3),
            "refusals_per_second": round(speed[one["name"]].refusals, 3),
        }
        for one in after["classes"]
        if one["name"] in speed
    ]
    return {"at": after["at"], "budget": after["budget"], "classes": classes, "identities": after["identities"]}
