"""The part of the start-up check about who gets in, as what, and over which wire.

Owns: the rules about listeners, TLS, the files they need, and how clients are told apart.
Does not know: the budget's numbers (check.py does), what clients have to prove (check_authentication.py does).
"""

from pathlib import Path

from proxy.service.check_authentication import report_authentication
from proxy.service.check_files import is_loopback, report_file
from proxy.service.config.errors import Path as KeyPath
from proxy.service.config.model import Config, ListenTls, Match, PriorityClass
from proxy.service.config.parts import UpstreamPart
from proxy.service.findings import Reporter
from proxy.service.tls import TlsFilesUnusable, tls_offer, upstream_tls

_SHORTEST_TOKEN = 16
_CREATE = "create it, owned by the proxy's user"


def report_access(report: Reporter, config: Config) -> None:
    _report_listeners(report, config)
    _report_tls(report, config)
    report_authentication(report, config)
    _report_kept_files(report, config)
    _report_tags(report, config)


def report_access_of_part(report: Reporter, part: UpstreamPart) -> None:
    """The same of one upstream, its classes included."""
    _report_upstream(report, part)
    _report_matching(report, part)
    _report_privileges(report, part)


# Files that are written


def _report_kept_files(report: Reporter, config: Config) -> None:
    """Files and directories that come into being, or into use, only while running: nobody would look for them then."""
    flags = config.switches.dir
    if flags is not None and not flags.is_dir():
        text = f"{flags} is no directory: no file in it is a switch until it is one"
        report.warning(("switches", "dir"), text, _CREATE)
    _report_kept_file(report, ("switches", "state_file"), config.switches.state_file, "orders end with the process")
    _report_kept_file(report, ("switches", "audit_file"), config.switches.audit_file, "orders stand in the log alone")
    lost = "what was seen of the traffic is lost at a restart"
    _report_kept_file(report, ("traffic", "file"), config.traffic.file, lost)


def _report_kept_file(report: Reporter, where: KeyPath, file: Path | None, otherwise: str) -> None:
    if file is None:
        return
    if file.is_dir():
        report.warning(where, f"{file} is a directory: {otherwise}", "name a file in it")
    elif not file.parent.is_dir():
        report.warning(where, f"{file.parent} is no directory: {otherwise}", _CREATE)


# Listeners


def _report_listeners(report: Reporter, config: Config) -> None:
    listen, http = config.listen, config.http
    if listen.host is None and listen.unix_socket_dir is None:
        report.error(("listen", "host"), "nowhere to listen", "set listen.host or listen.unix_socket_dir")
    if listen.port and listen.port == http.port and listen.host in {http.host, "0.0.0.0", "::"}:  # noqa: S104 - compared
        report.error(("http", "port"), f"{http.port} is also listen.port", "choose another port for http")
    if not is_loopback(http.host):
        text = f"whoever reaches {http.host} reads the names and numbers of all classes"
        hint = "set http.host to 127.0.0.1, or let a network rule guard the port"
        if http.switches_from == "anywhere" and http.switch_token is None:
            text += ", and may pause any class"
            hint += "; with http.switch_token orders need a secret"
        report.warning(("http", "host"), text, hint)
    if http.switch_token is not None and len(http.switch_token) < _SHORTEST_TOKEN:
        text = f"a token of fewer than {_SHORTEST_TOKEN} characters can be guessed"
        report.warning(("http", "switch_token"), text, "write a longer one, as `openssl rand -hex 16` makes them")
    if listen.unix_socket_dir is not None and not listen.unix_socket_dir.is_dir():
        text = f"{listen.unix_socket_dir} is no directory"
        report.error(("listen", "unix_socket_dir"), text, "create it, owned by the proxy's user")


def _report_upstream(report: Reporter, part: UpstreamPart) -> None:
    url, listen = part.upstream.url, part.listen
    for host, port in url.hosts:
        if port == listen.port and listen.host and is_loopback(host) and _covers_loopback(listen.host):
            text = f"{host}:{port} is the proxy itself"
            report.error(("upstream", "url"), text, "give PostgreSQL's own port, or move listen.port")
    _report_choice_of_host(report, part)
    try:
        upstream_tls(url)
    except TlsFilesUnusable as error:
        report.error(("upstream", "url"), str(error).removeprefix("upstream.url "), "correct the path in the URL")
    remote = [host.host for host in url.hosts if not host.is_unix_socket and not is_loopback(host.host)]
    if remote and url.sslmode in {"disable", "allow", "prefer"}:
        text = f"sslmode={url.sslmode} lets passwords and rows travel to {remote[0]} unencrypted"
        report.warning(
            ("upstream", "url"), text, "write sslmode=verify-full with sslrootcert, or at least sslmode=require"
        )


def _report_choice_of_host(report: Reporter, part: UpstreamPart) -> None:
    url, here = part.upstream.url, ("upstream", "url")
    if len(url.hosts) > 1 and url.target_session_attrs == "any":
        text = f"{len(url.hosts)} hosts and target_session_attrs=any: whichever answers is used, a standby too"
        report.warning(here, text, "write target_session_attrs=read-write, or what the clients need")
    if url.load_balance_hosts == "random" and url.target_session_attrs in {"read-write", "primary"}:
        text = f"load_balance_hosts=random with target_session_attrs={url.target_session_attrs}: there is one such host"
        report.warning(here, text, "leave load_balance_hosts out")
    if part.upstream.server_name is not None and url.sslmode != "verify-full":
        text = f"sslmode={url.sslmode} compares no names"
        report.warning(("upstream", "server_name"), text, "write sslmode=verify-full, or leave server_name out")


def _covers_loopback(host: str) -> bool:
    return is_loopback(host) or host in {"0.0.0.0", "::", "*"}  # noqa: S104 - compared, not bound


# TLS and files


def _report_tls(report: Reporter, config: Config) -> None:
    tls = config.listen.tls
    here = ("listen", "tls")
    if tls.mode in {"require", "verify"} and tls.cert is None:
        report.error((*here, "cert"), f"mode is {tls.mode}, and there is no certificate", "set listen.tls.cert and key")
    if (tls.cert is None) != (tls.key is None):
        text = "a certificate and its key belong together, and only one is given"
        report.error((*here, "key" if tls.key is None else "cert"), text, "set listen.tls.cert and listen.tls.key")
    if tls.mode == "verify" and tls.client_ca is None:
        text = "mode is verify, and there is no CA to verify clients' certificates with"
        report.error((*here, "client_ca"), text, "set listen.tls.client_ca, or mode: require")
    if tls.mode == "disable":
        return
    files = {"cert": tls.cert, "key": tls.key, "client_ca": tls.client_ca}
    readable = [report_file(report, (*here, name), path, secret=name == "key") for name, path in files.items() if path]
    if all(readable) and tls.cert and tls.key:
        _report_contents(report, tls)


def _report_contents(report: Reporter, tls: ListenTls) -> None:
    if tls.mode == "verify" and tls.client_ca is None:
        return
    try:
        tls_offer(tls)
    except TlsFilesUnusable as error:
        report.error(("listen", "tls"), str(error), "give PEM files that belong together")


# Who is who


def _report_tags(report: Reporter, config: Config) -> None:
    if config.tags.comments == "trust":
        text = "whoever can write a comment into a statement chooses its class, the most important one too"
        report.warning(("tags", "comments"), text, "write lower, unless every client is under your control")


def _report_matching(report: Reporter, part: UpstreamPart) -> None:
    seen: dict[Match, str] = {}
    everything_goes_to = ""
    for name, one in part.classes.items():
        where = ("classes", name, "match")
        if not one.match and name not in (part.default_class, part.replication_class):
            text = "no client can be in this class: it matches nobody and is not the default"
            report.warning(where, text, f"add entries to classes.{name}.match, or leave the class out")
        elif everything_goes_to and one.match:
            text = f"no client gets this far: class {everything_goes_to} stands earlier and matches everybody"
            report.warning(where, text, f"move {name} up, or make it narrower: classes.{everything_goes_to}.match")
        for entry in one.match:
            if seen.setdefault(entry, name) != name:
                text = f"class {seen[entry]} stands earlier with the same entry"
                report.warning(where, text, "the first match wins: keep one of the two")
            if _matches_everybody(entry):
                everything_goes_to = everything_goes_to or name


def _matches_everybody(entry: Match) -> bool:
    return entry.address is None and {entry.application_name, entry.user, entry.database} <= {None, "*"}


def is_privileged(part: UpstreamPart, one: PriorityClass, name: str) -> bool:
    """Whether being in the class is worth pretending: served first, with slots that nobody else gets."""
    if len(part.classes) == 1:
        return False
    priorities = {each.priority for each in part.classes.values()}
    keeps_slots = (one.reserved > 0 and one.lendable == 0) or name in part.budget.headroom.for_classes
    return one.priority == min(priorities) and (keeps_slots or (one.priority == 0 and len(priorities) > 1))


def _report_privileges(report: Reporter, part: UpstreamPart) -> None:
    for name, one in part.classes.items():
        if not is_privileged(part, one, name):
            continue
        for position, entry in enumerate(one.match):
            if not any(value not in {None, "*"} for value in (entry.user, entry.database, entry.address)):
                text = "a privileged class by application_name alone, which every client chooses for itself"
                hint = "add user, database or address to this entry"
                report.warning(("classes", name, "match", position), text, hint)
