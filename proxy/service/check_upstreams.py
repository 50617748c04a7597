"""The part of the start-up check about several upstreams beside each other.

Owns: the rules about who is led where, and two budgets on one server.
Does not know: the rules within one upstream (check.py, check_access.py).
"""

from proxy.service.config.model import Config
from proxy.service.config.parts import UpstreamPart, parts
from proxy.service.findings import Finding, Reporter


def findings_between_upstreams(config: Config) -> list[Finding]:
    report, earlier = Reporter(config), list[UpstreamPart]()
    for part in parts(config):
        _report_reach(report, part, earlier)
        _report_same_server(report, part, earlier)
        earlier.append(part)
    return report.findings


def _report_reach(report: Reporter, part: UpstreamPart, earlier: list[UpstreamPart]) -> None:
    """The first upstream that serves a database gets its clients: what stands behind `*` gets none."""
    where = ("upstreams", part.name, "databases")
    taken = {pattern: other.name for other in reversed(earlier) for pattern in other.databases}
    if not part.databases:
        report.warning(where, "no database is served by it, so no client gets there", "name databases, or leave it out")
        return
    for pattern in part.databases:
        owner = taken.get("*", taken.get(pattern))
        if owner is not None:
            text = f"no client that names {pattern} gets here: upstream {owner} stands earlier and takes it"
            report.warning(where, text, f"move {part.name} up, or narrow upstreams.{owner}.databases")


def _report_same_server(report: Reporter, part: UpstreamPart, earlier: list[UpstreamPart]) -> None:
    for other in earlier:
        shared = [host for host in part.upstream.url.hosts if host in other.upstream.url.hosts]
        if shared:
            text = f"{shared[0].host}:{shared[0].port} is also a host of upstream {other.name}: both budgets fall on it"
            hint = "write a number as budget.total of each, which together fit that server"
            report.warning(("upstreams", part.name, "url"), text, hint)
