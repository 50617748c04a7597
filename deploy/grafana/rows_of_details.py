"""Folded rows for whoever looks into something: pins, clients and logins, the process itself.

Owns: their panels and queries.
Does not know: how Grafana writes that down (shapes.py).
"""

from deploy.grafana.shapes import Line, Panel, Row, Style, metric, of_class, of_upstream, rate

_PINS = Row(
    "Pins and admissions",
    (
        Panel(
            "Pinned slots",
            "Slots tied to one client by its session state. Dashed: pinned_limit.",
            (
                Line(f"sum by (class) ({of_class('class_pinned_slots')})", "{{class}}"),
                Line(
                    f"sum by (class) ({of_class('class_pinned_limit_slots')}) and "
                    f"sum by (class) ({of_class('class_pinned_slots')}) > 0",
                    "{{class}} limit",
                ),
            ),
            styles=(Style(".* limit"),),
        ),
        Panel(
            "Who is pinned, and why",
            "Clients that hold a server connection for their session state; the ten most frequent.",
            (
                Line(
                    f"topk(10, sum by (class, application_name, reason) ({of_class('pinned_clients')}))",
                    "{{class}} {{reason}} ({{application_name}})",
                ),
            ),
        ),
        Panel(
            "Pins per hour, by what did it",
            "Each of them asked to keep its connection: LISTEN, temporary tables, session locks ...",
            (
                Line(
                    f"sum by (class, reason) (increase({of_class('class_pins_total')}[1h])) > 0",
                    "{{class}} {{reason}}",
                ),
            ),
        ),
        Panel(
            "Admissions per second",
            "Slots granted. Dashed: after a wait.",
            (
                Line(
                    f"sum by (class) ({rate(of_class('class_admissions_total', queued='no'))})",
                    "{{class}}",
                ),
                Line(
                    f"sum by (class) ({rate(of_class('class_admissions_total', queued='yes'))})",
                    "{{class}} queued",
                ),
            ),
            unit="reqps",
            styles=(Style(".* queued"),),
        ),
    ),
    collapsed=True,
)

_CLIENTS = Row(
    "Clients and logins",
    (
        Panel(
            "Client connections",
            "By state.",
            (Line(f"sum by (state) ({of_class('client_connections')})", "{{state}}"),),
            fill=35,
            stacked=True,
        ),
        Panel(
            "Client connections by application",
            "The ten with most connections.",
            (
                Line(
                    f"topk(10, sum by (class, application_name) ({of_class('client_connections')}))",
                    "{{application_name}} ({{class}})",
                ),
            ),
        ),
        Panel(
            "Who may need a look, per hour",
            "Clients that match no class, and waits of clients that probably wait for themselves: they hold a slot, do "
            "nothing, and wait for a second one.",
            (
                Line(f"sum (increase({metric('unmatched_clients_total')}[1h]))", "of no class"),
                Line(
                    f"sum by (class, application_name) (increase({of_class('nested_acquire_suspects_total')}[1h])) > 0",
                    "{{application_name}} ({{class}}) waits for itself",
                ),
            ),
        ),
        Panel(
            "Logins and cancels",
            "Per second; failures by reason.",
            (
                Line(f"sum ({rate(metric('logins_total'))})", "logins"),
                Line(f"sum by (reason) ({rate(metric('login_failures_total'))})", "failed: {{reason}}"),
                Line(f"sum ({rate(metric('login_timeouts_total'))}) > 0", "timed out"),
                Line(f"sum by (outcome) ({rate(metric('cancels_total'))}) > 0", "cancel {{outcome}}"),
            ),
            unit="cps",
        ),
        Panel(
            "Asked of the server for logins",
            "Users looked up with auth_query and passwords passed through, per second; nothing where neither is set.",
            (
                Line(f"sum ({rate(metric('auth_queries_total'))}) > 0", "auth_query"),
                Line(f"sum ({rate(metric('auth_query_failures_total'))}) > 0", "auth_query failed"),
                Line(f"sum ({rate(metric('passthrough_logins_total'))}) > 0", "passed through"),
            ),
            unit="cps",
        ),
        Panel(
            "LISTEN over shared connections",
            "Clients and channels, and the server connections that carry them.",
            (
                Line(f"sum ({of_upstream('listen_clients')})", "clients"),
                Line(f"sum ({of_upstream('listen_channels')})", "channels"),
                Line(f"sum ({of_upstream('listen_connections')})", "server connections"),
            ),
        ),
        Panel(
            "Notifications",
            "Heard per second. Dashed, per hour: losses of a shared connection, and notifications dropped for a client "
            "that did not read; each was told.",
            (
                Line(f"sum ({rate(metric('listen_notifications_total'))})", "heard"),
                Line(f"sum (increase({metric('listen_gaps_total')}[1h])) > 0", "gaps per hour"),
                Line(f"sum (increase({metric('listen_dropped_total')}[1h])) > 0", "dropped per hour"),
            ),
            styles=(Style(".* per hour"),),
        ),
        Panel(
            "Prepared statements",
            "Different ones that somebody knows, and those parsed on server connections.",
            (
                Line(f"sum ({metric('prepared_statements')})", "different"),
                Line(f"sum ({metric('server_prepared_statements')})", "on server connections"),
            ),
        ),
    ),
    collapsed=True,
)

_PROCESS = Row(
    "Dials, the proxy itself, what should not happen",
    (
        Panel(
            "Dials, failures, losses",
            'Retries are the server saying "too many connections"; clients never see those. Moves: another host or '
            "address is dialled than before.",
            (
                Line(f"sum ({rate(metric('dials_total'))})", "dials"),
                Line(f"sum ({rate(metric('dial_failures_total'))})", "failures"),
                Line(f"sum ({rate(metric('dial_timeouts_total'))}) > 0", "timeouts"),
                Line(f"sum ({rate(metric('dial_retries_total'))})", "retries"),
                Line(f"sum by (state) ({rate(metric('server_connections_lost_total'))})", "lost while {{state}}"),
                Line(f"sum ({rate(metric('upstream_moves_total'))}) > 0", "moves"),
            ),
            unit="cps",
        ),
        Panel(
            "Ready",
            "Whether somebody can log in to the server of each upstream, and whether new clients are served at all.",
            (
                Line(f"min by (upstream) ({of_upstream('upstream_ready')})", "{{upstream}}"),
                Line(f"min ({metric('ready')})", "new clients"),
            ),
            states=(("not ready", "red"), ("ready", "green")),
        ),
        Panel(
            "CPU of the proxy",
            "One process uses one core at most: near 100 % it is the bottleneck.",
            (
                Line(
                    'rate(process_cpu_seconds_total{job="pgheadroom",instance=~"$instance"}[$__rate_interval])',
                    "{{instance}}",
                ),
            ),
            unit="percentunit",
            fill=8,
        ),
        Panel(
            "Memory of the proxy",
            "Resident; dashed: the texts of prepared statements in it.",
            (
                Line('process_resident_memory_bytes{job="pgheadroom",instance=~"$instance"}', "{{instance}}"),
                Line(f"sum by (instance) ({metric('prepared_statement_bytes')})", "{{instance}} statements"),
            ),
            unit="bytes",
            fill=8,
            styles=(Style(".* statements"),),
        ),
        Panel(
            "Descriptors of the proxy",
            "Open files and sockets, of those it may open: each client and each server connection is one.",
            (
                Line(
                    'process_open_fds{job="pgheadroom",instance=~"$instance"} / '
                    'process_max_fds{job="pgheadroom",instance=~"$instance"}',
                    "{{instance}}",
                ),
            ),
            unit="percentunit",
        ),
        Panel(
            "What should not happen, per hour",
            "Protocol violations, failed TLS handshakes, session parameters the server refused, errors of the proxy "
            "itself.",
            (
                Line(
                    f"sum by (side) (increase({metric('protocol_violations_total')}[1h])) > 0",
                    "violation by {{side}}",
                ),
                Line(f"sum (increase({metric('client_tls_failures_total')}[1h])) > 0", "TLS handshakes failed"),
                Line(f"sum (increase({metric('parameters_failed_total')}[1h])) > 0", "parameters refused"),
                Line(f"sum (increase({metric('crashes_total')}[1h]))", "crashes"),
            ),
        ),
        Panel(
            "Parameters set again, per second",
            "Session parameters that followed their client to another server connection, and times the server was "
            "asked what a SET came to.",
            (
                Line(f"sum ({rate(metric('parameters_reapplied_total'))})", "set again"),
                Line(f"sum ({rate(metric('parameters_asked_total'))})", "asked"),
            ),
            unit="ops",
        ),
    ),
    collapsed=True,
)

DETAIL_ROWS = (_PINS, _CLIENTS, _PROCESS)
