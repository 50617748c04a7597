"""The demo on the terminal: where the run stands while it runs, and the table at the end.

Owns: rich.
Does not know: how anything is measured. Written to a file or a pipe it prints a line when an arm begins and ends.
"""

import math
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.bar import Bar
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from proxy.demo.load import LoadPlan
from proxy.demo.load_process import Tell
from proxy.demo.noon_import import ARMS, SLOTS, Arm, ArmResult
from proxy.demo.report import Mood, Row, closing_sentence, duration, rows

STYLES = {Mood.GOOD: "green", Mood.BAD: "bold red", Mood.PLAIN: ""}
BLOCKS = "▁▂▃▄▅▆▇█"
BOTTOM_SECONDS, TOP_SECONDS = 0.002, 4.0  # of the sparkline, whose steps are even on a log scale
BAR_WIDTH = 40


class Screen:
    """A live view of the running arm below the finished ones; a context manager."""

    def __init__(self, console: Console, plan: LoadPlan) -> None:
        self._console = console
        self._plan = plan
        self._finished: list[ArmResult] = []
        self._arm: Arm | None = None
        self._tells: list[Tell] = []
        self._live = Live(console=console, refresh_per_second=8, transient=True, get_renderable=self._render)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.__exit__(kind, error, traceback)

    def begin(self, arm: Arm) -> None:
        self._arm, self._tells = arm, []
        if not self._console.is_terminal:
            self._console.print(f"{arm.name}: {arm.explanation} ...")

    def tell(self, tell: Tell) -> None:
        self._tells.append(tell)

    def finish(self, result: ArmResult) -> None:
        self._finished.append(result)
        self._arm = None
        if not self._console.is_terminal:
            self._console.print(_one_line(result), highlight=False)

    # -- the live view

    def _render(self) -> RenderableType:
        lines: list[RenderableType] = [Text("The noon import, three times", style="bold")]
        lines += [Text(f"  ✓ {_one_line(result)}") for result in self._finished]
        if self._arm is not None:
            lines.append(self._running(self._arm))
        waiting = [arm.name for arm in ARMS[len(self._finished) + (self._arm is not None) :]]
        lines += [Text(f"  · {name}", style="dim") for name in waiting]
        return Group(*lines)

    def _running(self, arm: Arm) -> RenderableType:
        title = f"[bold]{arm.name}[/] - {arm.explanation}"
        if not self._tells:
            return Panel("starting PostgreSQL ...", title=title, title_align="left")
        now = self._tells[-1]
        grid = Table.grid(padding=(0, 2))
        grid.add_row("", self._phase(now))
        grid.add_row("web", f"{now.web_sent} requests, {now.web_waiting} waiting", _errors(now.web_errors))
        grid.add_row("web p99, last second", duration(now.web_lately.p99), Text(self._sparkline(), style="blue"))
        jobs = self._plan.bulk_workers * self._plan.jobs_per_worker
        grid.add_row("bulk", f"{now.bulk_done} of {jobs} jobs", _bar(now.bulk_done, jobs, "dark_orange"))
        grid.add_row("", "", _errors(now.bulk_failed))
        connections = f"{now.connections.total} of {SLOTS}"
        grid.add_row("server connections", connections, _bar(now.connections.total, SLOTS, "blue"))
        return Panel(grid, title=title, title_align="left")

    def _phase(self, now: Tell) -> str:
        if now.at < self._plan.warmup_seconds:
            return "warming up"
        if now.at < self._plan.burst_at:
            return f"calm; the workers wake in {self._plan.burst_at - now.at:.0f} s"
        jobs = self._plan.bulk_workers * self._plan.jobs_per_worker
        return "[bold dark_orange]import[/]" if now.bulk_done < jobs else "calm again"

    def _sparkline(self) -> str:
        return "".join(_block(tell.web_lately.p99) for tell in self._tells[-BAR_WIDTH:])


def _block(seconds: float) -> str:
    if math.isnan(seconds):
        return " "
    share = math.log(max(seconds, BOTTOM_SECONDS) / BOTTOM_SECONDS) / math.log(TOP_SECONDS / BOTTOM_SECONDS)
    return BLOCKS[min(int(share * len(BLOCKS)), len(BLOCKS) - 1)]


def _bar(done: int, of: int, color: str) -> RenderableType:
    return Bar(size=of, begin=0, end=done, width=BAR_WIDTH, color=color, bgcolor="grey23")


def _errors(count: int) -> Text:
    return Text(f"{count} failed", style="bold red") if count else Text("")


def _one_line(result: ArmResult) -> str:
    figures = result.figures
    calm, burst = duration(figures.web_calm.p99), duration(figures.web_burst.p99)
    failed = f"{figures.web_errors} web requests and {figures.bulk_failed} jobs failed"
    return f"{result.arm.name}: web p99 {calm} calm, {burst} under the burst; {failed}"


# -- the end


def show_table(console: Console, results: Sequence[ArmResult], shown: Sequence[Row] | None = None) -> None:
    table = Table(title="The noon import, three times", title_style="bold", header_style="bold")
    table.add_column("")
    for result in results:
        table.add_column(result.arm.name, justify="right")
    for row in shown or rows(results):
        table.add_row(row.label, *(Text(text, style=STYLES[mood]) for text, mood in row.cells))
    console.print(table)
    console.print(closing_sentence(results), highlight=False)
