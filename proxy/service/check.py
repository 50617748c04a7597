"""The start-up check: which numbers cannot hold, and which will hurt somebody.

Owns: the order in which everything is checked, and the order of all findings.
Does not know: the rules (the modules check_*.py have them), how the server was asked, how findings are shown.

The process refuses to start, and a reload is refused, where a finding is an error.
"""

from collections.abc import Mapping

from proxy.service.adaptive_settings import report_adaptive
from proxy.service.budget import budget_settings, usable_total
from proxy.service.check_access import report_access, report_access_of_part
from proxy.service.check_budget import report_budget, report_sums
from proxy.service.check_classes import report_class, report_default_class, report_order
from proxy.service.check_schedules import report_schedules
from proxy.service.check_upstreams import findings_between_upstreams
from proxy.service.config.model import Config
from proxy.service.config.parts import UpstreamPart, parts
from proxy.service.findings import Finding, Reporter, Severity
from proxy.service.server_facts import ServerFacts


def findings(config: Config, facts: ServerFacts | None = None) -> list[Finding]:
    """As findings_of_upstreams, with the same facts for each upstream: usually there is one."""
    return findings_of_upstreams(config, {part.name: facts for part in parts(config)})


def findings_of_upstreams(config: Config, facts: Mapping[str, ServerFacts | None]) -> list[Finding]:
    """Everything to say about `config`, errors first; facts that are None leave out what only that server can tell.

    Reads the files that the configuration names.
    """
    report = Reporter(config)
    found = [finding for part in parts(config) for finding in _findings_of_part(part, facts[part.name])]
    report_schedules(report, config)
    if config.pool.retry_min > config.pool.retry_max:
        report.error(("pool", "retry_min"), "longer than retry_max", "lower pool.retry_min, or raise pool.retry_max")
    report_access(report, config)
    found += [*report.findings, *findings_between_upstreams(config)]
    return sorted(found, key=lambda finding: (finding.severity is not Severity.ERROR, finding.line))


def _findings_of_part(part: UpstreamPart, facts: ServerFacts | None) -> list[Finding]:
    report = Reporter(part.config, part)
    total = usable_total(part, facts)
    report_budget(report, part, facts)
    for name, one in part.classes.items():
        report_class(report, name, one)
    if total is not None and total > 0:
        report_sums(report, part, total)
    report_order(report, part)
    report_default_class(report, part, total)
    report_access_of_part(report, part)
    report_adaptive(report, part)
    _report_what_the_core_says(report, part, total)
    return report.findings


def _report_what_the_core_says(report: Reporter, part: UpstreamPart, total: int | None) -> None:
    # The admission core judges its settings too; nothing it refuses may pass here for want of a rule of ours.
    if total is None or total < 1 or any(finding.severity is Severity.ERROR for finding in report.findings):
        return
    for problem in budget_settings(part, total).validate():
        report.error(("budget",), problem, "change the numbers it names")
