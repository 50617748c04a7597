"""From the configuration to what adaptive limits and the canary are told, and what is wrong with it.

Owns: which class is the reference, whose waits count, the findings of `check` about both sections.
Does not know: how limits are decided, the running process.
"""

from proxy.admission.adaptive import AdaptiveSettings
from proxy.service.config.model import Config
from proxy.service.config.units import show_seconds
from proxy.service.customers import customer_class
from proxy.service.findings import Reporter

LEAST_WISE_TOLERANCE = 1.5


def reference_class(config: Config) -> str | None:
    """The class by which an overload is told; None where nothing is written and no class is that of customers."""
    return config.adaptive.reference_class or customer_class(config)


def canary_class(config: Config) -> str | None:
    """The class that the canary speaks for; None as above."""
    return config.canary.class_name or customer_class(config)


def adaptive_settings(config: Config) -> AdaptiveSettings | None:
    """None where limits do not adapt."""
    reference = reference_class(config)
    if config.adaptive.mode == "off" or reference is None:
        return None
    return AdaptiveSettings(
        reference_class=reference,
        waits_of=frozenset(
            name
            for name, one in config.classes.items()
            if one.priority <= config.classes[reference].priority and one.pool_mode != "session"
        ),
        tolerance=config.adaptive.tolerance,
        wait_target_seconds=config.adaptive.wait_target,
        observes=config.adaptive.mode == "observe",
    )


def report_adaptive(report: Reporter, config: Config) -> None:
    if config.adaptive.mode != "off":
        _report_reference(report, config)
        _report_thresholds(report, config)
    if config.canary.interval:
        _report_canary(report, config)


def _report_reference(report: Reporter, config: Config) -> None:
    where, reference = ("adaptive", "reference_class"), reference_class(config)
    if reference is None:
        text = "no class is that of customers, so an overload cannot be told"
        report.error(where, text, "name a class in adaptive.reference_class, or set adaptive to off")
    elif config.classes[reference].pool_mode == "session":
        text = f"{reference} is in session mode: its slots are held from login to logout, which tells nothing"
        report.error(where, text, "name a class in transaction mode")
    elif all(one.priority <= config.classes[reference].priority for one in config.classes.values()):
        text = f"no class is less important than {reference}, so no limit is ever lowered"
        report.warning(where, text, "give the classes that may wait a larger priority number")


def _report_thresholds(report: Reporter, config: Config) -> None:
    adaptive, reference = config.adaptive, reference_class(config)
    if adaptive.tolerance <= 1:
        text = f"{adaptive.tolerance:g} times as long as usual is always so"
        report.error(("adaptive", "tolerance"), text, "write a number above 1; 2 suits most")
    elif adaptive.tolerance < LEAST_WISE_TOLERANCE:
        text = f"holds that take {adaptive.tolerance:g} times as long come and go every day"
        report.warning(("adaptive", "tolerance"), text, f"set adaptive.tolerance to {LEAST_WISE_TOLERANCE:g} or more")
    if reference is None:
        return
    patience = config.classes[reference].queue.timeout
    if adaptive.wait_target >= patience:
        text = f"{show_seconds(adaptive.wait_target)}, and {reference} waits at most {show_seconds(patience)}"
        hint = f"set it below classes.{reference}.queue.timeout"
        report.warning(("adaptive", "wait_target"), text, hint)


def _report_canary(report: Reporter, config: Config) -> None:
    canary, name = config.canary, canary_class(config)
    if name is None:
        text = "no class is that of customers, so the canary speaks for nobody"
        report.error(("canary", "class"), text, "name a class in canary.class, or internal")
    elif name in config.classes and config.classes[name].pool_mode == "session":
        text = f"{name} is in session mode, and the canary asks for a slot as one transaction does"
        report.warning(("canary", "class"), text, "name a class in transaction mode")
    if canary.timeout > canary.interval:
        text = f"longer than canary.interval ({show_seconds(canary.interval)}): the next canary waits for the last one"
        report.warning(("canary", "timeout"), text, "set it to at most canary.interval")
