"""`pgheadroom recommend`: what was seen of the traffic, and a budget that suits it, with every sum.

Owns: how the figures and the suggestion are shown.
Does not know: how they came about (proxy/service/traffic), where the proxy runs.
"""

import time
from typing import Any
from urllib.parse import quote

import click

from proxy.cli.asking import upstream_option
from proxy.cli.output import print_json, print_table
from proxy.cli.remote import address_of, ask, remote_options
from proxy.service.config.units import read_seconds

_APPLICATIONS_SHOWN = 15
_LONGEST_SECONDS = 366 * 86_400.0


def _length(_: click.Context, __: click.Parameter, text: str) -> int:
    seconds = read_seconds(text)
    if seconds is None or seconds > _LONGEST_SECONDS:
        raise click.BadParameter(f"{text!r} is no length of time like 2h, 10m or 90s, at most 366d")
    return round(seconds)


@click.command()
@remote_options
@click.option("--at-least", default="1h", callback=_length, help="Refuse where less was seen; default 1h.")
@click.option("--hours", type=click.IntRange(min=1), help="Look back so many hours of the clock; else at all there is.")
@upstream_option()
@click.option("--yaml", "only_yaml", is_flag=True, help="Print only the budget, to be put into the configuration.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole document as JSON for programs.")
def command(
    url: str | None,
    config_path: str | None,
    at_least: int,
    hours: int | None,
    upstream: str | None,
    only_yaml: bool,
    as_json: bool,
) -> None:
    """Show demand and hold times by class and application, and suggest a budget by what was seen.

    Asks the running proxy, which has looked on since it was started (and before, where traffic.file is set). Of several
    upstreams each has its own budget, one after the other.
    """
    back = "" if hours is None else f"&hours={hours}"
    whose = "" if upstream is None else f"&upstream={quote(upstream)}"
    document = ask(address_of(url, config_path), f"/recommend?at_least={at_least}{back}{whose}")
    of_each = document.get("upstreams", [document])
    if as_json:
        print_json(document)
    elif only_yaml:
        click.echo("\n".join(_yaml_or_why_not(one) for one in of_each), nl=False)
    else:
        _show_length(of_each[0])
        for one in of_each:
            _show(one, f"upstream {one['upstream']}" if len(of_each) > 1 else "")
        _show_method(of_each[0])


def _yaml_or_why_not(document: dict[str, Any]) -> str:
    if document["yaml"] is None:
        raise click.ClickException(f"no budget to suggest for {document['upstream']}: {document['why_no_suggestion']}")
    return str(document["yaml"])


def _show_length(document: dict[str, Any]) -> None:
    seen = document["observed"]
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(seen["since"]))
    click.echo(f"{seen['length']} of traffic, seen in {seen['clock_hours']} hours of the clock since {since}\n")


def _show(document: dict[str, Any], heading: str) -> None:
    if heading:
        click.echo(f"{heading}\n{'=' * len(heading)}\n")
    _show_classes(document)
    _show_applications(document)
    _show_suggestion(document)
    for note in document["notes"]:
        click.echo(f"note: {note}")
    _show_unmatched(document["unmatched"])
    if document["yaml"] is not None:
        click.echo("\nTo be put in place of budget, default_class and classes; then pgheadroom check:\n")
        click.echo(document["yaml"])


def _show_method(document: dict[str, Any]) -> None:
    click.echo("how the figures were obtained:")
    for sentence in document["observed"]["method"]:
        click.echo(f"  - {sentence}")


# The figures


def _show_classes(document: dict[str, Any]) -> None:
    columns = ("class", "p50", "p95", "busiest hour p95", "most", "mean", "at limit", "holds", "mean hold", "p95 hold")
    rows = [(one["class"], *_demand(one), _share(one["limited_share"]), *_holds(one)) for one in document["classes"]]
    if (total := document["total"]) is not None:
        rows.append(("all", total["p50"], total["p95"], total["busiest_hour_p95"], total["most"], *[""] * 5))
    print_table(columns, rows, title="Demand in slots, and how long they were held")
    click.echo()


def _demand(one: dict[str, Any]) -> tuple[object, ...]:
    demand = one["demand"]
    return demand["p50"], demand["p95"], demand["busiest_hour_p95"], demand["most"], f"{one['mean_slots']:.1f}"


def _holds(one: dict[str, Any]) -> tuple[object, ...]:
    holds = one["holds"]
    if not holds["count"]:
        return "", "", ""
    p95 = "> 5 min" if holds["p95_seconds"] is None else f"<= {_time(holds['p95_seconds'])}"
    return holds["count"], _time(holds["mean_seconds"]), p95


def _share(share: float) -> str:
    return f"{share:.0%}" if share >= 0.005 else ""


def _time(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 60 else f"{seconds / 60:.3g} min"


def _show_applications(document: dict[str, Any]) -> None:
    everything = document["applications"]
    slots = sum(one["mean_slots"] for one in everything) or 1.0
    shown = sorted(everything, key=lambda one: -one["mean_slots"])[:_APPLICATIONS_SHOWN]
    rows = [
        (one["class"], one["application_name"] or "(no name)", *_demand(one), share, *_holds(one))
        for one in shown
        for share in [_share(one["mean_slots"] / slots)]
    ]
    columns = ("class", "application", "p50", "p95", "busiest hour p95", "most", "mean", "share", "holds", "mean hold")
    more = f"; {len(everything) - len(shown)} more in --json" if len(everything) > len(shown) else ""
    print_table((*columns, "p95 hold"), rows, title=f"The same by application, the one with most slot time first{more}")
    click.echo()


# The suggestion


def _show_suggestion(document: dict[str, Any]) -> None:
    suggestion = document["suggestion"]
    if suggestion is None:
        click.echo(f"No budget to suggest: {document['why_no_suggestion']}.\n")
        return
    rows: list[tuple[object, ...]] = [("budget", "total", "", suggestion["total"]["value"], suggestion["total"]["sum"])]
    headroom = suggestion["headroom"]
    rows.append(("budget", "headroom", "", headroom["value"], headroom["sum"]))
    for one in suggestion["classes"]:
        for key in ("reserved", "lendable", "limit", "pinned_limit"):
            if one[key] is not None:
                was = one["was"][key]
                value = one[key]["value"]
                rows.append((one["class"], key, was if was != value else "same", value, one[key]["sum"]))
    print_table(("", "number", "was", "suggested", "its sum"), rows, title="A budget by what was seen")
    click.echo(f"{suggestion['sum']}\n")


def _show_unmatched(unmatched: list[dict[str, Any]]) -> None:
    if not unmatched:
        return
    rows = [
        (
            one["application_name"] or "(no name)",
            one["clients_total"],
            time.strftime("%Y-%m-%d %H:%M", time.localtime(one["first_seen"])),
            one["likely_class"] or "",
            one["why"],
        )
        for one in unmatched
    ]
    click.echo()
    print_table(("name no class knows", "clients", "first seen", "may belong to", ""), rows)
