"""Folded rows, one for each thing that steers classes: orders and schedules, adaptive limits, bounds on retries.

Owns: their panels and queries. Nothing is drawn of what is off.
Does not know: how Grafana writes that down (shapes.py).
"""

from deploy.grafana.shapes import Line, Panel, Row, Style, metric, of_class, of_upstream, quantile, rate

_ORDERS = Row(
    "Switches, schedules, modes and tags",
    (
        Panel(
            "State of the classes",
            "Whether a class gets new slots, and whether an order or a window of its schedule stops it. `pgheadroom "
            "status` says by whom and why.",
            (
                Line(
                    f"max by (class) ({of_class('class_paused')} + {of_class('class_paused_by_schedule')})",
                    "{{class}}",
                ),
            ),
            states=(("running", "green"), ("stopped", "orange"), ("stopped by schedule", "blue")),
            width=12,
        ),
        Panel(
            "Numbers set beside the file",
            "Each is in force until it is unset, or its time is over: `pgheadroom set --list`.",
            (Line(f"sum by (instance) ({metric('overrides')})", "{{instance}}"),),
            width=12,
        ),
        Panel(
            "mode: warn: would have refused",
            "Per second, of classes that only warn, by the reason; nothing where a class decides. What stays at zero "
            "for a normal day may be enforced.",
            (
                Line(
                    f"sum by (class, reason) ({rate(of_class('class_would_refuse_total'))})",
                    "{{class}} {{reason}}",
                ),
            ),
            unit="reqps",
            fill=8,
            width=8,
        ),
        Panel(
            "mode: warn: would have queued",
            "Slots that such a class gave at once above its limit, per second.",
            (Line(f"sum by (class) ({rate(of_class('class_would_queue_total'))})", "{{class}}"),),
            unit="reqps",
            width=8,
        ),
        Panel(
            "Units of work with a tag",
            "By the client's own class: followed, or not, because the tag may only lower (not_lower) or names no class "
            "(unknown).",
            (
                Line(
                    f"sum by (class, outcome) ({rate(of_class('class_tagged_units_total'))})",
                    "{{class}} {{outcome}}",
                ),
            ),
            unit="reqps",
            width=8,
        ),
    ),
    collapsed=True,
)

_ADAPTIVE = Row(
    "Adaptive limits and the canary",
    (
        Panel(
            "Limit in force, of the configured one",
            "100 % while nothing is held back. Dashed: what adaptive limits want; with observe it is not in force.",
            (
                Line(
                    f"sum by (class) ({of_class('class_adaptive_limit_slots')}) / "
                    f"sum by (class) ({of_class('class_limit_slots')})",
                    "{{class}}",
                ),
                Line(
                    f"sum by (class) ({of_class('class_adaptive_target_slots')}) / "
                    f"sum by (class) ({of_class('class_limit_slots')})",
                    "{{class}}, wanted",
                ),
            ),
            unit="percentunit",
            styles=(Style(".* wanted"),),
            width=8,
        ),
        Panel(
            "Steps by cause, per 5 minutes",
            "Cuts and raises of limits; with observe those that would have been made.",
            (
                Line(
                    f"sum by (class, direction, cause) (increase({of_class('class_adaptive_steps_total')}[5m])) > 0",
                    "{{class}} {{direction}}: {{cause}}",
                ),
            ),
            width=8,
        ),
        Panel(
            "Overload",
            "Whether customers feel an overload.",
            (Line(f"max by (upstream) ({of_upstream('adaptive_overloaded')})", "{{upstream}}"),),
            states=(("calm", "green"), ("overloaded", "red")),
            width=8,
        ),
        Panel(
            "Hold of the reference class",
            "Now, and (dashed) what is usual: the distance is what adaptive limits go by.",
            (
                Line(
                    f"max by (class) ({metric('adaptive_usual_hold_seconds')} * {metric('adaptive_slowdown_ratio')})",
                    "{{class}}",
                ),
                Line(f"max by (class) ({metric('adaptive_usual_hold_seconds')})", "{{class}}, usual"),
            ),
            unit="s",
            styles=(Style(".* usual"),),
        ),
        Panel(
            "Lock waits",
            "Server processes that wait for a lock, where lock_probe is set.",
            (Line(f"max by (upstream) ({of_upstream('lock_waits')})", "{{upstream}}"),),
        ),
        Panel(
            "Canary",
            "Whether a customer of that class would be served.",
            (Line(f"min by (class) ({of_class('canary_up')})", "{{class}}"),),
            states=(("not served", "red"), ("served", "green")),
        ),
        Panel(
            "Time of a canary, and failures",
            "The p99 of the time it took, its wait for a slot included; failures per minute by outcome.",
            (
                Line(quantile(0.99, of_class("canary_seconds_bucket")), "{{class}} p99"),
                Line(
                    f"sum by (class, outcome) (increase({of_class('canary_runs_total', outcome='!answered')}[1m])) > 0",
                    "{{class}} {{outcome}} per minute",
                ),
            ),
            unit="s",
            styles=(Style(".* per minute", "red"),),
        ),
    ),
    collapsed=True,
)

_STORMS = Row(
    "Retry storms and honest waiting",
    (
        Panel(
            "Connects per second",
            "Clients that proved who they are. Dashed: those that were refused for coming too often for nothing "
            "(rate). /status names the identities.",
            (
                Line(f"sum by (class) ({rate(of_class('class_connects_total'))})", "{{class}}"),
                Line(
                    f"sum by (class) ({rate(of_class('class_refusals_total', reason='rate'))}) > 0",
                    "{{class}} refused",
                ),
            ),
            unit="cps",
            styles=(Style(".* refused"),),
        ),
        Panel(
            "Answers told late",
            "Refusals that are told late to who was refused before, per second; and the answers that wait now.",
            (
                Line(f"sum by (class) ({rate(of_class('class_refusals_late_total'))}) > 0", "{{class}} per second"),
                Line(f"sum by (kind) ({metric('late_answers')}) > 0", "waiting now: {{kind}}"),
            ),
        ),
        Panel(
            "Expected wait",
            "Of a client that asks now. Where it is longer than queue.timeout it is refused at once (deadline).",
            (Line(f"max by (class) ({of_class('class_expected_wait_seconds')})", "{{class}}"),),
            unit="s",
        ),
        Panel(
            "What became of waits",
            "Per second: waits that ended with no slot. deadline: refused at once as hopeless; queue_timeout: after "
            "the wait; left: the client gave up first.",
            (
                Line(
                    "sum by (class, reason) ("
                    f"{rate(of_class('class_refusals_total', reason='deadline|queue_timeout'))}) > 0",
                    "{{class}} {{reason}}",
                ),
                Line(
                    f"sum by (class) ({rate(of_class('class_wait_seconds_count', outcome='left'))}) > 0",
                    "{{class}} left",
                ),
            ),
            unit="reqps",
        ),
    ),
    collapsed=True,
)

FEATURE_ROWS = (_ORDERS, _ADAPTIVE, _STORMS)
