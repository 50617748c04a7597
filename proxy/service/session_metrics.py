"""Metrics of sessions: what clients and server connections did, and clients in a state worth a look.

Owns: their names, help texts and label sets.
Does not know: how anything is counted, slots and queues (class_metrics.py), the text exposition.
"""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from proxy.service.metric_shapes import PREFIX
from proxy.service.view import ClientKey, ClientState, ProcessView, fold_names, fold_pins, readable_name
from proxy.session.measures import Measures

# Counters without labels: name, help, how it is read.
PLAIN_COUNTERS: tuple[tuple[str, str, Callable[[Measures], float]], ...] = (
    ("logins", "Clients that logged in.", lambda m: m.logins),
    ("upstream_moves", "Changes of the host or address that is dialled.", lambda m: m.upstream_moves),
    (
        "client_tls_failures",
        "TLS handshakes of clients that came to nothing.",
        lambda m: m.client_tls_failures,
    ),
    ("auth_queries", "Users looked up on the server with auth_query.", lambda m: m.auth_queries),
    ("auth_query_failures", "Lookups of users that failed; their logins with them.", lambda m: m.auth_query_failures),
    ("passthrough_logins", "Passwords of clients that were tried at the server.", lambda m: m.passthrough_logins),
    ("login_timeouts", "Clients that did not finish their login in time.", lambda m: m.login_timeouts),
    ("dials", "Server connections dialled.", lambda m: m.dials),
    ("dial_failures", "Server connections that could not be opened.", lambda m: m.dial_failures),
    (
        "dial_retries",
        'Times the server said "too many connections" and was asked again; clients never see it.',
        lambda m: m.dial_retries,
    ),
    ("dial_timeouts", "Server connections that the server did not let in in time.", lambda m: m.dial_timeouts),
    (
        "parameters_reapplied",
        "Session parameters set again on another server connection.",
        lambda m: m.parameters_reapplied,
    ),
    (
        "parameters_asked",
        "Times the server was asked what a SET of a parameter that it does not report came to.",
        lambda m: m.parameters_asked,
    ),
    (
        "parameters_failed",
        "Session parameters the server refused when they were set again.",
        lambda m: m.parameters_failed,
    ),
    (
        "listen_gaps",
        "Losses of a shared LISTEN connection while clients listened; each of them was told.",
        lambda m: m.listen_gaps,
    ),
    ("listen_notifications", "Notifications heard over shared connections.", lambda m: m.notifications_received),
    (
        "listen_dropped",
        "Notifications dropped for one client that was busy or did not read; it was told.",
        lambda m: m.notifications_dropped,
    ),
    ("crashes", "Errors of our own; each ended one connection and left a traceback in the log.", lambda m: m.crashes),
)

# Counters with one label: name, help, label, how it is read.
LABELLED_COUNTERS: tuple[tuple[str, str, str, Callable[[Measures], Mapping[str, int]]], ...] = (
    ("protocol_violations", "Peers that broke the protocol.", "side", lambda m: m.protocol_violations),
    ("login_failures", "Logins refused, by reason.", "reason", lambda m: m.login_failures),
    (
        "server_connections_lost",
        "Server connections that ended by themselves; the loss of an idle one no client notices.",
        "state",
        lambda m: {"linked": m.servers_lost_linked, "idle": m.servers_lost_idle},
    ),
    (
        "cancels",
        "Cancel requests: forwarded to the server, answered for a waiting client, or with an unknown key.",
        "outcome",
        lambda m: {"forwarded": m.cancels_forwarded, "waiting": m.cancels_of_waiting, "unknown": m.cancels_unknown},
    ),
)


def session_counters(measures: Measures) -> Iterator[Metric]:
    for name, text, read in PLAIN_COUNTERS:
        yield CounterMetricFamily(f"{PREFIX}{name}", text, value=read(measures))
    for name, text, label, read_by_label in LABELLED_COUNTERS:
        family = CounterMetricFamily(f"{PREFIX}{name}", text, labels=[label])
        for value, count in read_by_label(measures).items():
            family.add_metric([value], count)
        yield family
    pins = CounterMetricFamily(
        f"{PREFIX}class_pins", "Slots tied to a client, by what did it.", labels=["class", "reason"]
    )
    for (class_name, reason), count in measures.pins.items():
        pins.add_metric([class_name, reason], count)
    yield pins
    tagged = CounterMetricFamily(
        f"{PREFIX}class_tagged_units",
        "Units of work with a tag in a comment, by the client's own class: followed, not_lower, or unknown to us.",
        labels=["class", "outcome"],
    )
    for (class_name, outcome), count in measures.tagged_units.items():
        tagged.add_metric([class_name, outcome], count)
    yield tagged
    holds = CounterMetricFamily(
        f"{PREFIX}class_holds_ended",
        "Queries cancelled, and clients ended, because a bound of their class (holds) was reached.",
        labels=["class", "application_name", "bound"],
    )
    for (class_name, application, bound), count in measures.holds_ended.items():
        holds.add_metric([class_name, readable_name(application), bound], count)
    yield holds


def idle_in_transaction(view: ProcessView) -> Metric:
    family = GaugeMetricFamily(
        f"{PREFIX}idle_in_transaction_clients",
        'Clients that hold a slot in a transaction and send nothing. Rare application names are added up as "other".',
        labels=["class", "application_name"],
    )
    for key, count in fold_names(view.idle_in_transaction()).items():
        family.add_metric([key.class_name, key.application_name], count)
    return family


def nested_acquires(view: ProcessView) -> Metric:
    family = CounterMetricFamily(
        f"{PREFIX}nested_acquire_suspects",
        "Waits of clients whose own identity holds a slot and does nothing: probably they wait for themselves.",
        labels=["class", "application_name"],
    )
    counts = view.nested_acquires().counts
    folded = fold_names({ClientKey(*key, ClientState.WAITING): count for key, count in counts.items()})
    for key, count in folded.items():
        family.add_metric([key.class_name, key.application_name], count)
    return family


def pinned_clients(view: ProcessView) -> Metric:
    family = GaugeMetricFamily(
        f"{PREFIX}pinned_clients",
        'Clients that hold a server connection for their session state, by what did it. Rare names count as "other".',
        labels=["class", "application_name", "reason"],
    )
    for key, count in fold_pins(view.pins()).items():
        family.add_metric(list(key), count)
    return family


def prepared_statements(view: ProcessView) -> Iterator[Metric]:
    counts = view.prepared_statements()
    texts = "Different prepared statements of the protocol that a client or a server connection knows."
    yield GaugeMetricFamily(f"{PREFIX}prepared_statements", texts, value=counts.shared)
    yield GaugeMetricFamily(
        f"{PREFIX}prepared_statement_bytes", "Bytes of the texts of these, each held once.", value=counts.bytes
    )
    parsed = "Prepared statements on all server connections; each has at most pool.max_prepared_statements."
    yield GaugeMetricFamily(f"{PREFIX}server_prepared_statements", parsed, value=counts.on_servers)
