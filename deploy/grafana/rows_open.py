"""The rows that stand open: what somebody looks at on a bad day, the worst first.

Owns: their panels and queries.
Does not know: how Grafana writes that down (shapes.py).
"""

from deploy.grafana.shapes import Line, Panel, Row, Style, of_class, of_one_class, of_upstream, quantile, rate

_BAD_DAY = Row(
    "The three numbers of a bad day, by class",
    (
        Panel(
            "Request latency",
            "From asking for a slot to the end of the transaction, the wait included: what an application sees. Solid "
            "p99, dashed p50.",
            (
                Line(quantile(0.99, of_class("class_transaction_seconds_bucket")), "{{class}} p99"),
                Line(quantile(0.5, of_class("class_transaction_seconds_bucket")), "{{class}} p50"),
            ),
            unit="s",
            styles=(Style(".* p50"),),
            width=8,
        ),
        Panel(
            "Queue drain",
            "Solid: how long the oldest client in the queue has waited. Dashed: how long the queue lasts at the pace "
            "of the last minutes. No dashed line while nothing moves.",
            (
                Line(f"max by (class) ({of_class('class_oldest_wait_seconds')})", "{{class}} oldest wait"),
                Line(
                    f"sum by (class) ({of_class('class_waiting_clients')}) / (sum by (class) "
                    f"({rate(of_class('class_admissions_total', queued='yes'))}) > 0)",
                    "{{class}} drains in",
                ),
            ),
            unit="s",
            styles=(Style(".* drains in"),),
            width=8,
        ),
        Panel(
            "Total open connections",
            "Slots in use by class (dialling and closing ones included) and the idle connections of the pool on top, "
            "against the budget.",
            (
                Line(f"sum by (class) ({of_class('class_used_slots')})", "{{class}}"),
                Line(f"sum ({of_upstream('server_connections', state='idle')})", "idle in the pool"),
                Line(f"sum ({of_upstream('budget_slots')})", "budget"),
            ),
            fill=35,
            stacked=True,
            styles=(Style("budget", "text"),),
            width=8,
        ),
    ),
    height=9,
)

_WAITS = Row(
    "Waits, errors and queues together",
    (
        Panel(
            "Wait for a slot, p99",
            "From asking for a slot to getting it. Dashed: what a client that asks now has to expect, at the pace of "
            "the queue.",
            (
                Line(quantile(0.99, of_class("class_wait_seconds_bucket", outcome="granted")), "{{class}}"),
                Line(f"max by (class) ({of_class('class_expected_wait_seconds')}) > 0", "{{class}}, expected now"),
            ),
            unit="s",
            styles=(Style(".* expected now"),),
        ),
        Panel(
            "Clients waiting",
            "Clients in the queue of each class.",
            (Line(f"sum by (class) ({of_class('class_waiting_clients')})", "{{class}}"),),
            fill=8,
        ),
        Panel(
            "Refusals per second",
            "By class and reason; the reason names the setting that decides.",
            (
                Line(
                    f"sum by (class, reason) ({rate(of_class('class_refusals_total'))}) > 0",
                    "{{class}} {{reason}}",
                ),
            ),
            unit="reqps",
            fill=8,
        ),
        Panel(
            "Requests per admission",
            "1 says nobody was sent away; more says clients ask again and again.",
            (Line(f"max by (class) ({of_class('retry_amplification')})", "{{class}}"),),
            least=1,
        ),
    ),
)

_SLOTS = Row(
    "Slots of $class",
    (
        Panel(
            "$class: used, reserved, limit",
            "Used above reserved is borrowed and comes back by itself. Without a line of its own the limit in force is "
            "the configured one.",
            (
                Line(f"sum ({of_one_class('class_used_slots')})", "used"),
                Line(f"sum ({of_one_class('class_held_slots')})", "held"),
                Line(f"sum ({of_one_class('class_reserved_slots')})", "reserved"),
                Line(
                    f"sum ({of_one_class('class_adaptive_limit_slots')}) < sum ({of_one_class('class_limit_slots')})",
                    "limit in force",
                ),
                Line(f"sum ({of_one_class('class_limit_slots')})", "limit"),
            ),
            fill=30,
            styles=(Style("reserved|held", "text"), Style("limit", "red"), Style("limit in force", "orange")),
            per_class=True,
            width=8,
        ),
    ),
)

_BUDGET = Row(
    "Budget and server, by upstream",
    (
        Panel(
            "Slots in use",
            "Of each budget, against all its slots.",
            (
                Line(f"sum by (upstream) ({of_upstream('used_slots')})", "{{upstream}}"),
                Line(f"sum by (upstream) ({of_upstream('budget_slots')})", "{{upstream}} budget"),
            ),
            fill=8,
            styles=(Style(".* budget"),),
        ),
        Panel(
            "Headroom left",
            "What the classes that headroom is for may still take beyond their reservations, and all there is.",
            (
                Line(f"sum by (upstream) ({of_upstream('headroom_left_slots')})", "{{upstream}}"),
                Line(f"sum by (upstream) ({of_upstream('headroom_slots')})", "{{upstream}} headroom"),
            ),
            fill=8,
            styles=(Style(".* headroom"),),
        ),
        Panel(
            "Server connections",
            "Ours by state, those of others, and what the server allows.",
            (
                Line(f"sum by (state) ({of_upstream('server_connections')})", "{{state}}"),
                Line(f"sum (max by (upstream) ({of_upstream('external_connections')}))", "of others"),
                Line(f"sum (max by (upstream) ({of_upstream('server_max_connections')}))", "max_connections"),
            ),
            fill=35,
            stacked=True,
            styles=(Style("max_connections", "red"),),
        ),
        Panel(
            "Past the proxy, and what it costs",
            "Connections that are not ours, slots of the budget that the server could not give if all were asked for, "
            "and numbers of the budget that do not hold. `pgheadroom status` names who it is.",
            (
                Line(f"max by (upstream) ({of_upstream('external_connections')})", "{{upstream}}: of others"),
                Line(
                    f"sum by (upstream) ({of_upstream('budget_overcommitted_slots')}) > 0",
                    "{{upstream}}: slots not to be had",
                ),
                Line(
                    f"sum by (upstream, severity) ({of_upstream('budget_problems')}) > 0",
                    "{{upstream}}: {{severity}} of the budget",
                ),
            ),
        ),
    ),
)

_HOLDS = Row(
    "Lending, holds and pins",
    (
        Panel(
            "Lent and borrowed",
            "Lent: idle slots of the reservation that others use. Borrowed: used beyond the reservation.",
            (
                Line(f"sum by (class) ({of_class('class_borrowed_slots')}) > 0", "{{class}} borrows"),
                Line(f"-sum by (class) ({of_class('class_lent_slots')}) < 0", "{{class}} lends"),
            ),
            fill=8,
            least=None,
        ),
        Panel(
            "Hold of a slot, p99",
            "How long a slot is kept without a break: long holds make queues.",
            (Line(quantile(0.99, of_class("class_hold_seconds_bucket")), "{{class}}"),),
            unit="s",
        ),
        Panel(
            "Idle in transaction",
            "Clients that hold a slot in a transaction and send nothing; the ten applications with most of them.",
            (
                Line(
                    f"topk(10, sum by (class, application_name) ({of_class('idle_in_transaction_clients')}) > 0)",
                    "{{application_name}} ({{class}})",
                ),
            ),
            fill=8,
        ),
        Panel(
            "Held too long, per hour",
            "Queries cancelled and clients ended because a bound of their class (holds) was reached, by bound; the ten "
            "most frequent.",
            (
                Line(
                    "topk(10, sum by (class, application_name, bound) (increase("
                    f"{of_class('class_holds_ended_total')}[1h])) > 0)",
                    "{{class}} {{bound}} ({{application_name}})",
                ),
            ),
        ),
    ),
)

OPEN_ROWS = (_BAD_DAY, _WAITS, _SLOTS, _BUDGET, _HOLDS)
