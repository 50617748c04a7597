"""`pgheadroom check`: what cannot hold and what will hurt, before anything starts.

Owns: how findings and classes are shown, and the exit code.
Does not know: the rules (proxy/service/check.py).
"""

from dataclasses import asdict

import click

from proxy.cli.asking import ask_server, config_option
from proxy.cli.output import print_json, print_table
from proxy.service.budget import capacity, pinned_limit, usable_total
from proxy.service.check import findings_of_upstreams
from proxy.service.config.errors import ConfigError
from proxy.service.config.loading import config_hash, load_config
from proxy.service.config.model import Config, PriorityClass
from proxy.service.config.parts import UpstreamPart, parts
from proxy.service.config.units import show_seconds
from proxy.service.findings import Finding, Reporter, Severity
from proxy.service.server_facts import ServerFacts, ServerUnreachable

Facts = dict[str, ServerFacts | None]  # by upstream; None where it was not asked


@click.command()
@config_option(required=True)
@click.option("--offline", is_flag=True, help="Do not ask the server; check what can be checked without it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def command(config_path: str, offline: bool, as_json: bool) -> None:
    """Check a configuration, and the server behind it. Exits with 1 where the proxy would refuse to start."""
    try:
        config = load_config(config_path)
    except ConfigError as error:
        _show_unreadable(error, as_json)
        raise SystemExit(1) from None
    facts: Facts = {part.name: None for part in parts(config)}
    unreachable: list[Finding] = []
    for part in () if offline else parts(config):
        facts[part.name], silent = _facts(part)
        unreachable += silent
    found = [*unreachable, *findings_of_upstreams(config, facts)]
    if as_json:
        print_json(_document(config, facts, found))
    else:
        _show(config, facts, found)
    if _count(found, Severity.ERROR):
        raise SystemExit(1)


def _show_unreadable(error: ConfigError, as_json: bool) -> None:
    if as_json:
        told = [{"severity": "error", "hint": "", **asdict(finding)} for finding in error.findings]
        print_json({"ok": False, "findings": told})
        return
    click.echo(str(error), err=True)
    click.echo(f"\n{_counted(len(error.findings), 'mistake')}: the configuration cannot be read.", err=True)


def _facts(part: UpstreamPart) -> tuple[ServerFacts | None, list[Finding]]:
    try:
        return ask_server(part.upstream.url, part.upstream.server_name), []
    except ServerUnreachable as error:
        report = Reporter(part.config, part)
        text = f"{part.upstream.url.shown()} cannot be asked: {error}"
        hint = "start it, correct the URL, or check what can be checked without it: --offline"
        report.error(("upstream", "url"), text, hint)
        return None, report.findings


def _count(found: list[Finding], severity: Severity) -> int:
    return sum(finding.severity is severity for finding in found)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


# For people


def _show(config: Config, facts: Facts, found: list[Finding]) -> None:
    rows = [[finding.severity, finding.key, finding.line or "", finding.text, finding.hint] for finding in found]
    print_table(["", "setting", "line", "what", "what to change"], rows)
    _show_classes(config)
    of_classes = [[f"classes.{name}", one.reason] for name, one in config.classes.items() if one.reason]
    reasons = [[key, reason] for key, reason in config.reasons().items()]
    print_table(["number", "reason"], [*of_classes, *reasons])
    for part in parts(config):
        click.echo(_budget_line(part, facts[part.name]))
    errors, warnings = _count(found, Severity.ERROR), _count(found, Severity.WARNING)
    verdict = "the proxy would refuse to start" if errors else "the proxy can start"
    click.echo(f"{_counted(errors, 'error')}, {_counted(warnings, 'warning')}: {verdict}.")


def _show_classes(config: Config) -> None:
    columns = ["class", "upstream", "priority", "reserved", "lendable", "limit", "pinned", "mode", "queue"]
    rows = [
        [
            f"{name} (default)" if name == part.default_class else name,
            part.name,
            *(one.priority, one.reserved, one.lendable, one.limit, pinned_limit(one), one.pool_mode),
            _queue(one),
        ]
        for part in parts(config)
        for name, one in part.classes.items()
    ]
    if config.upstream is not None:
        columns, rows = [columns[0], *columns[2:]], [[row[0], *row[2:]] for row in rows]
    print_table(columns, rows)


def _queue(one: PriorityClass) -> str:
    return f"{one.queue.max}, {show_seconds(one.queue.timeout)}" if one.queue.max else "none"


def _budget_line(part: UpstreamPart, facts: ServerFacts | None) -> str:
    total = usable_total(part, facts)
    slots = "auto, not known without the server" if total is None else f"{total} slots"
    server = f"; the server can give {capacity(facts)} of {facts.max_connections}" if facts else ""
    whose = "" if part.is_only else f" of {part.name}"
    return f"budget{whose}: {slots}{server}"


# For programs


def _document(config: Config, facts: Facts, found: list[Finding]) -> dict[str, object]:
    classes = {
        name: one.model_dump(mode="json", by_alias=True) | {"pinned_limit": pinned_limit(one)}
        for name, one in config.classes.items()
    }
    upstreams = {part.name: _upstream(part, facts[part.name]) for part in parts(config)}
    return {
        "ok": not _count(found, Severity.ERROR),
        "config_hash": config_hash(config),
        **_of_the_only(upstreams),
        "upstreams": upstreams,
        "findings": [asdict(finding) for finding in found],
        "classes": classes,
        "reasons": config.reasons(),
    }


def _upstream(part: UpstreamPart, facts: ServerFacts | None) -> dict[str, object]:
    return {
        "total": usable_total(part, facts),
        "server": asdict(facts) if facts else None,
        "classes": list(part.classes),
    }


def _of_the_only(upstreams: dict[str, dict[str, object]]) -> dict[str, object]:
    """Where there is one, its total and its server stand beside the classes too."""
    only = next(iter(upstreams.values()))
    return {key: only[key] if len(upstreams) == 1 else None for key in ("total", "server")}
