"""The part of the start-up check about windows of time.

Owns: which windows cannot hold, and which contradict each other.
Does not know: what time it is; every window has to hold whenever it comes.
"""

from itertools import combinations

from proxy.service.budget import windows
from proxy.service.config.model import Config, PriorityClass
from proxy.service.findings import Reporter
from proxy.service.schedule import Window, overlap

# A moment to compare windows from, for a year: two zones may change their clocks in different weeks.
_REFERENCE = 1_767_225_600.0  # 2026-01-01


def report_schedules(report: Reporter, config: Config) -> None:
    for name, one in config.classes.items():
        _report_limits(report, name, one)
        _report_contradictions(report, name, one)


def _report_limits(report: Reporter, name: str, one: PriorityClass) -> None:
    for position, schedule in enumerate(one.schedules):
        if schedule.limit is not None and schedule.limit < one.reserved:
            text = f"{one.reserved} slots are reserved, but limit is {schedule.limit} in this window"
            hint = f"raise it to {one.reserved}, or lower classes.{name}.reserved"
            report.error(("classes", name, "schedules", position, "limit"), text, hint)


def _report_contradictions(report: Reporter, name: str, one: PriorityClass) -> None:
    for (_, first), (position, second) in combinations(enumerate(windows(one)), 2):
        about = _contradiction(first, second)
        if about and overlap(first, second, _REFERENCE):
            text = f"it overlaps {first.text}, which stands earlier and says another {about}"
            hint = "the first one decides: order them so that it is meant, or set their hours apart"
            report.warning(("classes", name, "schedules", position), text, hint)


def _contradiction(first: Window, second: Window) -> str:
    if None not in (first.limit, second.limit) and first.limit != second.limit:
        return "limit"
    return "state" if None not in (first.state, second.state) and first.state is not second.state else ""
