"""From the configuration to what adaptive limits and the canary are told, and what is wrong with it.

Owns: which class is the reference, whose waits count, the findings of `check` about both sections.
Does not know: how limits are decided, the running process.
"""

from proxy.admission.adaptive import AdaptiveSettings
from proxy.admission.classes import INTERNAL_CLASS
from proxy.service.config.parts import UpstreamPart
from proxy.service.config.units import show_seconds
from proxy.service.customers import customer_class
from proxy.service.findings import Reporter

LEAST_WISE_TOLERANCE = 1.5


def reference_class(part: UpstreamPart) -> str | None:
    """The class by which an overload is told; None where nothing is written and no class is that of customers."""
    written = part.adaptive.reference_class
    return written if written in part.classes else customer_class(part)


def canary_class(part: UpstreamPart) -> str | None:
    """The class that the canary speaks for; None as above."""
    written = part.canary.class_name
    return written if written == INTERNAL_CLASS or written in part.classes else customer_class(part)


def adaptive_settings(part: UpstreamPart) -> AdaptiveSettings | None:
    """None where limits do not adapt."""
    reference = reference_class(part)
    if part.adaptive.mode == "off" or reference is None:
        return None
    return AdaptiveSettings(
        reference_class=reference,
        waits_of=frozenset(
            name
            for name, one in part.classes.items()
            if one.priority <= part.classes[reference].priority and one.pool_mode != "session"
        ),
        tolerance=part.adaptive.tolerance,
        wait_target_seconds=part.adaptive.wait_target,
        observes=part.adaptive.mode == "observe",
    )


def report_adaptive(report: Reporter, part: UpstreamPart) -> None:
    if part.adaptive.mode != "off":
        _report_reference(report, part)
        _report_thresholds(report, part)
    if part.canary.interval:
        _report_canary(report, part)


def _report_reference(report: Reporter, part: UpstreamPart) -> None:
    where, reference = ("adaptive", "reference_class"), reference_class(part)
    if reference is None:
        text = "no class is that of customers, so an overload cannot be told"
        say = report.error if part.is_only else report.warning  # one of several may have no customers
        text += "" if part.is_only else f" on upstream {part.name}"
        say(where, text, "name a class in adaptive.reference_class, or set adaptive to off")
    elif part.classes[reference].pool_mode == "session":
        text = f"{reference} is in session mode: its slots are held from login to logout, which tells nothing"
        report.error(where, text, "name a class in transaction mode")
    elif all(one.priority <= part.classes[reference].priority for one in part.classes.values()):
        text = f"no class is less important than {reference}, so no limit is ever lowered"
        report.warning(where, text, "give the classes that may wait a larger priority number")


def _report_thresholds(report: Reporter, part: UpstreamPart) -> None:
    adaptive, reference = part.adaptive, reference_class(part)
    if adaptive.tolerance <= 1:
        text = f"{adaptive.tolerance:g} times as long as usual is always so"
        report.error(("adaptive", "tolerance"), text, "write a number above 1; 2 suits most")
    elif adaptive.tolerance < LEAST_WISE_TOLERANCE:
        text = f"holds that take {adaptive.tolerance:g} times as long come and go every day"
        report.warning(("adaptive", "tolerance"), text, f"set adaptive.tolerance to {LEAST_WISE_TOLERANCE:g} or more")
    if reference is None:
        return
    patience = part.classes[reference].queue.timeout
    if adaptive.wait_target >= patience:
        text = f"{show_seconds(adaptive.wait_target)}, and {reference} waits at most {show_seconds(patience)}"
        hint = f"set it below classes.{reference}.queue.timeout"
        report.warning(("adaptive", "wait_target"), text, hint)


def _report_canary(report: Reporter, part: UpstreamPart) -> None:
    canary, name = part.canary, canary_class(part)
    if name is None:
        text = "no class is that of customers, so the canary speaks for nobody"
        report.error(("canary", "class"), text, "name a class in canary.class, or internal")
    elif name in part.classes and part.classes[name].pool_mode == "session":
        text = f"{name} is in session mode, and the canary asks for a slot as one transaction does"
        report.warning(("canary", "class"), text, "name a class in transaction mode")
    if canary.timeout > canary.interval:
        text = f"longer than canary.interval ({show_seconds(canary.interval)}): the next canary waits for the last one"
        report.warning(("canary", "timeout"), text, "set it to at most canary.interval")
