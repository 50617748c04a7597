"""`pgheadroom simulate`: declared traffic through the admission rule, a shared pool and static pools.

Owns: which settings and traffic are simulated, the progress line, how the reports are shown.
Does not know: how a simulation runs (proxy/admission/simulation), what a traffic file may hold.
"""

import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import click

from proxy.admission.classes import BudgetSettings
from proxy.admission.simulation.comparison import compare
from proxy.admission.simulation.report import ClassReport, PolicyReport
from proxy.cli.asking import config_or_message, part_or_message, upstream_option
from proxy.cli.output import print_json, print_table
from proxy.service.adaptive_settings import adaptive_settings, reference_class
from proxy.service.budget import budget_settings, classifier
from proxy.service.config.errors import ConfigError
from proxy.service.config.parts import UpstreamPart
from proxy.service.config.units import show_seconds
from proxy.service.traffic_file import DeclaredTraffic, load_traffic
from proxy.service.wiring import refusal_settings

# A simulation that is done sooner needs no progress line.
QUIET_SECONDS = 1.0
SECONDS_BETWEEN_LINES = 0.2
STEPS_SHOWN = 40


@click.command()
@click.argument("config_path", metavar="CONFIG", type=click.Path(dir_okay=False))
@click.option("--traffic", "traffic_path", required=True, type=click.Path(dir_okay=False), help="Declared traffic.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the traffic; else the one in the file.")
@click.option("--total", type=click.IntRange(min=1), help="Slots; needed where budget.total is auto.")
@upstream_option()
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def command(
    config_path: str, traffic_path: str, seed: int | None, total: int | None, upstream: str | None, as_json: bool
) -> None:
    """Simulate the traffic in a file against CONFIG: who waits how long, what gets done, what stands idle.

    Beside the configured classes, the same traffic meets one shared pool (first come, first served) and static pools
    cut from the reservations. Nothing is connected to.
    """
    part = part_or_message(config_or_message(config_path), upstream)
    settings = _settings(part, total)
    declared = _declared(part, settings, traffic_path)
    seed = declared.seed if seed is None else seed
    notes = list(_notes(part, declared))
    started = time.perf_counter()
    reports = _simulate(part, settings, declared, seed)
    took_seconds = time.perf_counter() - started
    if as_json:
        print_json(_document(settings, declared, seed, notes, took_seconds, reports))
    else:
        _show(settings, declared, seed, notes, took_seconds, reports)


def _settings(part: UpstreamPart, total: int | None) -> BudgetSettings:
    if total is None:
        if part.budget.total == "auto":
            raise click.ClickException(
                f"{part.key('budget', 'total')} is auto, and a simulation asks no server: give --total"
            )
        total = part.budget.total
    settings = budget_settings(part, total)
    problems = settings.validate()
    if problems:
        raise click.ClickException("the budget cannot hold\n" + "\n".join(problems))
    return settings


def _declared(part: UpstreamPart, settings: BudgetSettings, path: str) -> DeclaredTraffic:
    try:
        return load_traffic(path, classifier(part), [one.name for one in settings.classes])
    except ConfigError as error:
        raise click.ClickException(f"the traffic cannot be used\n{error}") from None


def _notes(part: UpstreamPart, declared: DeclaredTraffic) -> Iterator[str]:
    """What a reader of the figures has to know about these settings."""
    for name in declared.unmatched:
        yield f"{name} matches no class: it is in the default class {part.default_class}"
    clients: dict[str, float] = {}
    for source in declared.traffic.sources:
        clients[source.class_name] = clients.get(source.class_name, 0.0) + (source.workers() or source.clients)
    for class_name, count in clients.items():
        one = part.classes.get(class_name)
        if one is not None and one.max_clients is not None and count > one.max_clients:
            yield f"{class_name}: max_clients ({one.max_clients}) is not simulated; more clients may come at once"
        if one is not None and one.pool_mode == "session":
            yield f"{class_name} is in session mode: each job is simulated as a session of its own"
    if part.adaptive.mode == "observe":
        yield "adaptive is observe: the steps are those that would have been made, and none was"
    elif part.adaptive.mode == "on" and reference_class(part) is None:
        yield "adaptive limits are not simulated: no class is that of customers, see adaptive.reference_class"


def _simulate(part: UpstreamPart, settings: BudgetSettings, declared: DeclaredTraffic, seed: int) -> list[PolicyReport]:
    sessions = [name for name, one in part.classes.items() if one.pool_mode == "session"]
    line = ProgressLine(declared.traffic.duration_seconds)
    reports = compare(
        settings,
        declared.traffic,
        seed=seed,
        unbounded_classes=sessions,
        progress=line.show,
        adaptive=adaptive_settings(part),
        refusals=refusal_settings(part.config),
    )
    try:
        return list(reports)
    finally:
        line.clear()


class ProgressLine:
    """One line on a terminal's stderr, rewritten in place, once it is clear that it takes a while."""

    def __init__(self, duration_seconds: float) -> None:
        self._duration_seconds = duration_seconds
        self._next_line_at = time.monotonic() + QUIET_SECONDS
        self._is_shown = False

    def show(self, policy: str, now: float) -> None:
        if not sys.stderr.isatty() or time.monotonic() < self._next_line_at:
            return
        self._next_line_at = time.monotonic() + SECONDS_BETWEEN_LINES
        self._is_shown = True
        self._write(f"{policy}: {now / self._duration_seconds:.0%} of {show_seconds(self._duration_seconds)}")

    def clear(self) -> None:
        if self._is_shown:
            self._write("")

    def _write(self, text: str) -> None:
        click.echo(f"\r\x1b[K{text}", nl=False, err=True)


# For people


def _show(
    settings: BudgetSettings,
    declared: DeclaredTraffic,
    seed: int,
    notes: Sequence[str],
    took_seconds: float,
    reports: Sequence[PolicyReport],
) -> None:
    traffic = declared.traffic
    click.echo(f"{show_seconds(traffic.duration_seconds)} of traffic on {settings.total} slots, seed {seed}\n")
    _show_waits(reports)
    _show_jobs(reports)
    _show_refusals(reports)
    _show_slots(reports)
    _show_bursts(reports)
    _show_steps(reports)
    for note in notes:
        click.echo(f"note: {note}")
    jobs = sum(one.arrived for report in reports for one in report.classes)
    click.echo(f"{jobs} jobs simulated in {took_seconds:.1f} s")


def _show_waits(reports: Sequence[PolicyReport]) -> None:
    rows = [
        [one.class_name, report.policy]
        + [_length(wait) for wait in (one.wait.p50, one.wait.p95, one.wait.p99, one.wait.max)]
        + [_length(one.wait_in_burst.p99) if one.wait_in_burst.count else "", _drain(one.drain_seconds)]
        for one, report in _by_class(reports)
    ]
    title = "Waits for a slot, from a job's arrival; burst: p99 of those that came while one was under way"
    print_table(["class", "policy", "p50", "p95", "p99", "max", "burst", "drain"], rows, title=title)


def _by_class(reports: Sequence[PolicyReport]) -> list[tuple[ClassReport, PolicyReport]]:
    """Side by side: the policies of the first class, then those of the second."""
    per_policy = [[(one, report) for one in report.classes] for report in reports]
    return [pair for of_one_class in zip(*per_policy, strict=True) for pair in of_one_class]


def _show_jobs(reports: Sequence[PolicyReport]) -> None:
    rows: list[list[object]] = []
    for one, report in _by_class(reports):
        ends = [one.arrived, one.served, one.refused, one.left, one.still_there]
        rates = [_rate(one), f"{one.amplification:.2f}", _length(one.seconds_in_vain)]
        rows.append([one.class_name, report.policy, *ends, *rates])
    title = (
        "Jobs; refused for good, left without patience, or the rest, still there at the end; tries: attempts per job;"
        " in vain: all waits that ended so"
    )
    columns = ["class", "policy", "jobs", "served", "refused", "left", "rest", "served/s", "tries", "in vain"]
    print_table(columns, rows, title=title)


def _rate(one: ClassReport) -> str:
    return f"{one.served_per_second:.1f}"


def _show_refusals(reports: Sequence[PolicyReport]) -> None:
    rows = [
        [one.class_name, report.policy, reason, count]
        for one, report in _by_class(reports)
        for reason, count in sorted(one.refusals.items())
    ]
    title = "Refusals, those after which a client tried again included"
    print_table(["class", "policy", "reason", "refusals"], rows, title=title)


def _show_slots(reports: Sequence[PolicyReport]) -> None:
    rows: list[list[object]] = []
    for one, report in _by_class(reports):
        share = one.mean_slots / report.total
        use = [f"{one.mean_slots:.1f}", one.most_slots, f"{share:.0%}", _length(one.longest_queue_seconds)]
        rows.append([one.class_name, report.policy, *use, ""])
    for report in reports:
        mean = report.utilisation * report.total
        idle = f"{report.idle_slots_while_waiting:.1f}" if report.queued_seconds else ""
        all_of_them = [f"{mean:.1f}", report.most_in_use, f"{report.utilisation:.0%}", ""]
        rows.append(["all", report.policy, *all_of_them, idle])
    title = "Slots in use; queue: the longest time somebody waited all along; idle: free slots while anybody waits"
    print_table(["class", "policy", "mean", "most", "share", "queue", "idle"], rows, title=title)


def _show_bursts(reports: Sequence[PolicyReport]) -> None:
    rows: list[list[object]] = []
    for of_one_burst in zip(*(report.bursts for report in reports), strict=True):
        first = of_one_burst[0]
        drains = [_drain(one.drain_seconds) for one in of_one_burst]
        rows.append([first.source_name, show_seconds(first.began_at), _length(first.ideal_drain_seconds), *drains])
    columns = ["burst", "at", "ideal", *(report.policy for report in reports)]
    print_table(columns, rows, title="Drain of each burst; ideal: all slots that the other sources leave on average")


def _show_steps(reports: Sequence[PolicyReport]) -> None:
    steps = [one for report in reports for one in report.steps]
    rows: list[list[object]] = [
        [f"{one.at_seconds:.0f} s", one.class_name, one.direction.value, one.cause.value, one.was, one.limit, one.why]
        for one in steps[:STEPS_SHOWN]
    ]
    if not rows:
        return
    more = f", the first {STEPS_SHOWN} of {len(steps)}" if len(steps) > STEPS_SHOWN else ""
    print_table(["at", "class", "step", "cause", "was", "limit", "why"], rows, title=f"Steps of adaptive limits{more}")


def _length(seconds: float) -> str:
    if seconds == math.inf:
        return "never"
    if seconds < 0.001:
        return "0"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _drain(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return "not done" if seconds == math.inf else _length(seconds)


# For programs


def _document(
    settings: BudgetSettings,
    declared: DeclaredTraffic,
    seed: int,
    notes: Sequence[str],
    took_seconds: float,
    reports: Sequence[PolicyReport],
) -> dict[str, Any]:
    return {
        "total": settings.total,
        "duration_seconds": declared.traffic.duration_seconds,
        "seed": seed,
        "notes": list(notes),
        "took_seconds": round(took_seconds, 3),
        "policies": [_without_infinity(asdict(report)) for report in reports],
    }


def _without_infinity(value: Any) -> Any:
    """JSON knows no infinity: a drain that was not done is null. Any, because asdict gives whatever the fields hold."""
    match value:
        case dict():
            return {key: _without_infinity(one) for key, one in value.items()}
        case list() | tuple():
            return [_without_infinity(one) for one in value]
        case float() if math.isinf(value):
            return None
        case _:
            return value
