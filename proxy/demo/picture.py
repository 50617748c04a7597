"""The picture of the three arms: web latency above, server connections below, on the same axes.

Owns: matplotlib.
Does not know: how anything was measured.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from proxy.demo.figures import Observations, percentile
from proxy.demo.noon_import import PLAN, SLOTS, ArmResult
from proxy.demo.report import duration

INK, FAINT, GRID = "#1f2933", "#7b8794", "#e4e7eb"
WEB, BULK, IDLE, BURST, ERROR = "#2563eb", "#e8871e", "#cbd2d9", "#fdf1dc", "#d21f3c"
BIN_SECONDS = 0.25
LATENCY_TICKS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)

STYLE: Any = {  # Any: the stubs want a key of theirs
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
}

Axes = Any  # matplotlib is untyped


def draw(results: Sequence[ArmResult], path: Path) -> None:
    """Write the picture; the format is that of the file's name (png, svg, pdf)."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(13, 7.5), dpi=110, facecolor="white")
        axes = figure.subplots(2, len(results), sharex=True, sharey="row", squeeze=False, height_ratios=(3, 2))
        for column, result in enumerate(results):
            _draw_latency(axes[0][column], result)
            _draw_connections(axes[1][column], result)
        _limit(axes, results)
        _label(figure, axes)
        _head(figure)
        figure.savefig(path)


def _draw_latency(axes: Axes, result: ArmResult) -> None:
    seen, noon = result.seen, result.seen.burst_at
    answered = [request for request in seen.web if request.error is None]
    failed = [request for request in seen.web if request.error is not None]
    _prepare(axes, seen)
    axes.set_yscale("log")
    axes.scatter(
        [r.intended_at - noon for r in answered],
        [r.latency for r in answered],
        s=5,
        alpha=0.25,
        color=WEB,
        linewidths=0,
        label="one web request",
    )
    axes.plot(*_p99_over_time(seen), color=INK, linewidth=1.6, label=f"p99 of each {BIN_SECONDS} s")
    if failed:
        places = [r.intended_at - noon for r in failed]
        heights = [max(r.latency, LATENCY_TICKS[0]) for r in failed]
        axes.scatter(places, heights, s=26, marker="x", color=ERROR, linewidths=1.2, label="failed web request")
    figures = result.figures
    axes.set_title(result.arm.name, fontsize=14, fontweight="bold", loc="left", pad=36, color=INK)
    axes.text(0, 1.085, result.arm.explanation, transform=axes.transAxes, color=FAINT)
    summary = f"web p99 {duration(figures.web_calm.p99)} calm, {duration(figures.web_burst.p99)} under the burst"
    axes.text(0, 1.02, summary, transform=axes.transAxes, color=WEB, fontweight="bold")


def _draw_connections(axes: Axes, result: ArmResult) -> None:
    seen, noon = result.seen, result.seen.burst_at
    at = [sample.at - noon for sample in seen.samples]
    web = [sample.active_web for sample in seen.samples]
    both = [sample.active_web + sample.active_bulk for sample in seen.samples]
    _prepare(axes, seen)
    axes.fill_between(at, [s.total for s in seen.samples], step="mid", color=IDLE, linewidth=0, label="open, idle")
    axes.fill_between(at, both, web, step="mid", color=BULK, linewidth=0, label="busy for bulk")
    axes.fill_between(at, web, step="mid", color=WEB, linewidth=0, label="busy for web")
    axes.axhline(SLOTS, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    figures = result.figures
    summary = f"import done in {duration(figures.drain_seconds)}"
    if figures.bulk_failed:
        summary += f", {figures.bulk_failed} of {figures.bulk_jobs} jobs failed"
    color = ERROR if figures.bulk_failed else BULK
    axes.text(0, 1.03, summary, transform=axes.transAxes, color=color, fontweight="bold")


def _prepare(axes: Axes, seen: Observations) -> None:
    axes.axvspan(0, seen.drained_at - seen.burst_at, color=BURST, linewidth=0, zorder=0)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _p99_over_time(seen: Observations) -> tuple[list[float], list[float]]:
    bins: dict[int, list[float]] = {}
    for request in seen.web:
        if request.error is None:
            bins.setdefault(int((request.intended_at - seen.burst_at) // BIN_SECONDS), []).append(request.latency)
    order = sorted(bins)
    return [(n + 0.5) * BIN_SECONDS for n in order], [percentile(bins[n], 0.99) for n in order]


def _limit(axes: Axes, results: Sequence[ArmResult]) -> None:
    """The same axes for all arms: from the calm before to the end of the longest one."""
    ends = [max(request.intended_at for request in r.seen.web) - r.seen.burst_at for r in results]
    slowest = max(request.latency for r in results for request in r.seen.web)
    axes[0][0].set_xlim(-(results[0].seen.burst_at - results[0].seen.calm_from), max(ends))
    axes[0][0].set_ylim(LATENCY_TICKS[0] * 0.8, max(slowest * 1.5, 1.0))
    axes[1][0].set_ylim(0, SLOTS * 1.15)


def _head(figure: Figure) -> None:
    web = f"{PLAN.web_rate:.0f} web requests per second"
    bulk = f"{PLAN.bulk_workers} bulk workers with {PLAN.jobs_per_worker} jobs of {duration(PLAN.job_seconds)} each"
    text = f"A noon import on a database with {SLOTS} connections: {web}, and {bulk}."
    figure.text(0.065, 0.965, text, color=FAINT)
    figure.text(0.065, 0.937, "Latency counts from the intended send time.", color=FAINT)


def _label(figure: Figure, axes: Axes) -> None:
    axes[0][0].yaxis.set_major_locator(FixedLocator(LATENCY_TICKS))
    axes[0][0].yaxis.set_major_formatter(FuncFormatter(lambda seconds, _: _tick(seconds)))
    axes[0][0].yaxis.set_minor_locator(NullLocator())
    axes[0][0].set_ylabel("web latency")
    axes[1][0].set_ylabel("server connections")
    axes[1][0].text(0.01, SLOTS + 0.4, "all there are", color=FAINT, transform=axes[1][0].get_yaxis_transform())
    for below in axes[1]:
        below.set_xlabel("seconds since the workers woke")
    entries: dict[str, Any] = {}
    for one in axes.flat:
        handles, labels = one.get_legend_handles_labels()
        entries.update(dict(zip(labels, handles, strict=True)))
    look: dict[str, Any] = {"loc": "lower center", "ncols": len(entries), "frameon": False, "markerscale": 2}
    legend = figure.legend(entries.values(), entries.keys(), **look)
    for handle in filter(None, legend.legend_handles):
        handle.set_alpha(1)
    figure.subplots_adjust(left=0.065, right=0.985, top=0.81, bottom=0.125, hspace=0.2, wspace=0.06)


def _tick(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.0f} s"
