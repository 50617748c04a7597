"""`pgheadroom plan`: add up every pool that can wake up, and suggest a budget.

Owns: where the number of slots comes from, and how the plan is shown.
Does not know: the formulas (proxy/service/plan.py), how slots are divided (proxy/service/plan_suggestion.py).
"""

from dataclasses import asdict

import click

from proxy.cli.asking import ask_server, config_option, config_or_message, part_or_message, upstream_option
from proxy.cli.output import print_json, print_table
from proxy.service.budget import usable_total
from proxy.service.config.errors import ConfigError
from proxy.service.config.upstream_url import UpstreamUrlError, parse_upstream_url
from proxy.service.plan import (
    KEEP_FREE,
    Plan,
    PlanFile,
    Slots,
    facts_of_file,
    load_plan,
    make_plan,
    slots_of_server,
)
from proxy.service.plan_suggestion import Suggestion, TooFewSlots, as_yaml, suggest
from proxy.service.providers import PRESETS, UnknownPreset, preset_facts
from proxy.service.server_facts import ServerFacts, ServerUnreachable

_EXAMPLES = ", ".join(preset.example for preset in PRESETS.values())


@click.command()
@click.argument("file", type=click.Path(dir_okay=False))
@config_option(required=False)
@upstream_option()
@click.option("--budget", type=click.IntRange(min=1), help="Slots to divide, as a number.")
@click.option("--preset", help=f"What a provider gives: {_EXAMPLES}.")
@click.option("--url", help="Ask this server, a libpq URI.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def command(
    file: str,
    config_path: str | None,
    upstream: str | None,
    budget: int | None,
    preset: str | None,
    url: str | None,
    as_json: bool,
) -> None:
    """Add up the pools of all services in FILE, compare with the budget, and suggest one.

    The slots come from --budget, --url, --preset, what FILE says of its server, or the configuration: the first that
    is given.
    """
    try:
        written = load_plan(file)
    except ConfigError as error:
        raise click.ClickException(f"the plan cannot be used\n{error}") from None
    plan = make_plan(written, _slots(written, config_path, upstream, budget, preset, url))
    suggestion, why_not = _suggestion(written, plan)
    if as_json:
        print_json(_document(plan, suggestion))
    else:
        _show(plan, suggestion, why_not)


# Where the slots come from


def _slots(
    written: PlanFile,
    config_path: str | None,
    upstream: str | None,
    budget: int | None,
    preset: str | None,
    url: str | None,
) -> Slots | None:
    if budget is not None:
        return Slots(budget, "--budget")
    if url is not None:
        return slots_of_server(_ask(url), "the server")
    try:
        facts = preset_facts(preset) if preset is not None else facts_of_file(written)
    except UnknownPreset as error:
        raise click.ClickException(str(error)) from None
    if facts is not None:
        return slots_of_server(facts, f"preset {preset}" if preset else "the plan")
    return None if config_path is None else _slots_of_config(config_path, upstream)


def _ask(url: str) -> ServerFacts:
    try:
        return ask_server(parse_upstream_url(url))
    except UpstreamUrlError as error:
        raise click.ClickException(f"--url: {error}") from None
    except ServerUnreachable as error:
        raise click.ClickException(f"the server cannot be asked: {error}") from None


def _slots_of_config(path: str, upstream: str | None) -> Slots:
    part = part_or_message(config_or_message(path), upstream)
    instances, total = part.budget.instances, part.key("budget", "total")
    each = usable_total(part, None)
    if each is not None:
        return Slots(each * instances, f"{total} in {path}")
    try:
        facts = ask_server(part.upstream.url, part.upstream.server_name)
    except ServerUnreachable as error:
        hint = "use --preset or --budget"
        raise click.ClickException(f"{total} is auto, and the server cannot be asked: {error}; {hint}") from None
    each = usable_total(part, facts)
    assert each is not None, "auto is known where the server is"
    return Slots(max(0, each * instances), f"{total} auto in {path}")


def _suggestion(written: PlanFile, plan: Plan) -> tuple[Suggestion | None, str]:
    if plan.slots is None:
        return None, ""
    try:
        return suggest(written, plan.slots.count), ""
    except TooFewSlots as error:
        return None, str(error)


# Showing


def _show(plan: Plan, suggestion: Suggestion | None, why_not: str) -> None:
    rows = [[row.service, row.formula, row.connections, row.reason] for row in plan.rows]
    columns = ["service", "processes x pool", "connections", "reason"]
    if not any(row.reason for row in plan.rows):
        columns, rows = columns[:3], [row[:3] for row in rows]
    print_table(columns, rows)
    click.echo(plan.verdict())
    if suggestion is not None:
        click.echo("\nA budget to start from; observed numbers are better:\n")
        click.echo(as_yaml(suggestion, KEEP_FREE), nl=False)
    elif why_not:
        click.echo(f"\nNo budget to suggest: {why_not}.")


def _document(plan: Plan, suggestion: Suggestion | None) -> dict[str, object]:
    return {
        "services": [asdict(row) for row in plan.rows],
        "connections": plan.connections,
        "slots": plan.slots.count if plan.slots else None,
        "slots_from": plan.slots.origin if plan.slots else None,
        "fits": None if plan.slots is None else not plan.missing,
        "missing": plan.missing,
        "suggestion": asdict(suggestion) if suggestion else None,
        "suggestion_yaml": as_yaml(suggestion, KEEP_FREE) if suggestion else None,
    }
