"""`pgheadroom check`: what cannot hold and what will hurt, before anything starts.

Owns: how findings and classes are shown, and the exit code.
Does not know: the rules (proxy/service/check.py).
"""

from dataclasses import asdict

import click

from proxy.cli.asking import ask_server, config_option
from proxy.cli.output import print_json, print_table
from proxy.service.budget import capacity, pinned_limit, usable_total
from proxy.service.check import Finding, Severity, findings
from proxy.service.config.errors import ConfigError
from proxy.service.config.loading import config_hash, load_config
from proxy.service.config.model import Config, PriorityClass
from proxy.service.config.units import show_seconds
from proxy.service.server_facts import ServerFacts, ServerUnreachable


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
    facts, unreachable = (None, []) if offline else _facts(config)
    found = [*unreachable, *findings(config, facts)]
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


def _facts(config: Config) -> tuple[ServerFacts | None, list[Finding]]:
    try:
        return ask_server(config.upstream.url, config.upstream.server_name), []
    except ServerUnreachable as error:
        text = f"{config.upstream.url.shown()} cannot be asked: {error}"
        hint = "start it, correct the URL, or check what can be checked without it: --offline"
        line = config.line_of(("upstream", "url"))
        return None, [Finding(Severity.ERROR, "upstream.url", text, hint, config.file, line)]


def _count(found: list[Finding], severity: Severity) -> int:
    return sum(finding.severity is severity for finding in found)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


# For people


def _show(config: Config, facts: ServerFacts | None, found: list[Finding]) -> None:
    rows = [[finding.severity, finding.key, finding.line or "", finding.text, finding.hint] for finding in found]
    print_table(["", "setting", "line", "what", "what to change"], rows)
    _show_classes(config)
    reasons = [[key, reason] for key, reason in config.reasons().items()]
    print_table(["number", "reason"], reasons)
    click.echo(_budget_line(config, facts))
    errors, warnings = _count(found, Severity.ERROR), _count(found, Severity.WARNING)
    verdict = "the proxy would refuse to start" if errors else "the proxy can start"
    click.echo(f"{_counted(errors, 'error')}, {_counted(warnings, 'warning')}: {verdict}.")


def _show_classes(config: Config) -> None:
    columns = ["class", "priority", "reserved", "lendable", "limit", "pinned", "mode", "queue", "reason"]
    rows = [
        [
            f"{name} (default)" if name == config.default_class else name,
            *(one.priority, one.reserved, one.lendable, one.limit, pinned_limit(one), one.pool_mode),
            _queue(one),
            one.reason or "",
        ]
        for name, one in config.classes.items()
    ]
    print_table(columns, rows)


def _queue(one: PriorityClass) -> str:
    return f"{one.queue.max}, {show_seconds(one.queue.timeout)}" if one.queue.max else "none"


def _budget_line(config: Config, facts: ServerFacts | None) -> str:
    total = usable_total(config, facts)
    slots = "auto, not known without the server" if total is None else f"{total} slots"
    server = f"; the server can give {capacity(facts)} of {facts.max_connections}" if facts else ""
    return f"budget: {slots}{server}"


# For programs


def _document(config: Config, facts: ServerFacts | None, found: list[Finding]) -> dict[str, object]:
    classes = {
        name: one.model_dump(mode="json", by_alias=True) | {"pinned_limit": pinned_limit(one)}
        for name, one in config.classes.items()
    }
    return {
        "ok": not _count(found, Severity.ERROR),
        "config_hash": config_hash(config),
        "total": usable_total(config, facts),
        "server": asdict(facts) if facts else None,
        "findings": [asdict(finding) for finding in found],
        "classes": classes,
        "reasons": config.reasons(),
    }
