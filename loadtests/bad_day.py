"""The bad day: a steady web load, and 150 bulk workers that wake in the middle of it.

    python -m loadtests.bad_day [--json FILE] [--only NAME ...] [--rounds N]

Owns: the targets that are compared, and the table.
Does not know: how load is sent (proxy.demo.load).

The server gives ordinary roles exactly 50 connections. Every target gets the same arrival times. Targets that share one
pool log in as one user; "per-user pools" as two, with 35 and 15 connections. Nothing but loopback is touched.
"""

import argparse
import json
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from loadtests.pgbouncer import PgBouncer, find_pgbouncer, pgbouncer_version
from proxy.demo.client import Login
from proxy.demo.errors import DemoError
from proxy.demo.figures import Figures, reckon
from proxy.demo.load import LoadPlan
from proxy.demo.load_process import Tell, run_load
from proxy.demo.postgres import DATABASE, SUPERUSER, EmbeddedPostgres, PostgresServer, password_of
from proxy.demo.serving import in_front_of

SLOTS = 50
SUPERUSER_SLOTS = 3
# A superuser's connection takes an ordinary slot first: the reserved ones must be free *beside* it. With the sampler
# connected, ordinary roles get exactly SLOTS.
MAX_CONNECTIONS = SLOTS + SUPERUSER_SLOTS + 1

CLASSES = {
    "web": {
        "reason": "0.6 slots on average; the peaks of a Poisson stream on a busy machine stay below 12",
        "match": [{"application_name": "web*"}],
        "priority": 1,
        "reserved": 12,
        "lendable": 4,
        "limit": 45,
        "queue": {"timeout": "5s", "max": 2000},
    },
    "bulk": {
        "reason": "may always wait",
        "match": [{"application_name": "bulk*"}],
        "priority": 9,
        "reserved": 2,
        "limit": 45,
        "queue": {"timeout": "30s", "max": 2000},
    },
}
HEADROOM = {"size": 3, "for": ["web"]}


@dataclass(frozen=True, slots=True)
class Logins:
    """Where the load goes and as whom."""

    host: str
    port: int
    web_user: str = "app"
    bulk_user: str = "app"
    web_database: str = DATABASE
    bulk_database: str = DATABASE

    def web(self) -> Login:
        return Login(self.host, self.port, self.web_user, password_of(self.web_user), self.web_database, "web")

    def bulk(self) -> Login:
        return Login(self.host, self.port, self.bulk_user, password_of(self.bulk_user), self.bulk_database, "bulk")


Target = Callable[[PostgresServer], AbstractContextManager[Logins]]


@contextmanager
def direct(postgres: PostgresServer) -> Iterator[Logins]:
    yield Logins(postgres.host, postgres.port)


def pgbouncer_one_pool(binary: Path) -> Target:
    @contextmanager
    def start(postgres: PostgresServer) -> Iterator[Logins]:
        databases = {DATABASE: f"dbname={DATABASE} pool_size={SLOTS}"}
        with PgBouncer(binary, postgres, databases=databases, users=postgres.users_file()) as pooler:
            yield Logins(pooler.host, pooler.port)

    return start


def pgbouncer_per_user(binary: Path) -> Target:
    @contextmanager
    def start(postgres: PostgresServer) -> Iterator[Logins]:
        databases = {"web": f"dbname={DATABASE} pool_size=35", "bulk": f"dbname={DATABASE} pool_size=15"}
        with PgBouncer(binary, postgres, databases=databases, users=postgres.users_file()) as pooler:
            yield Logins(pooler.host, pooler.port, "web", "bulk", "web", "bulk")

    return start


@contextmanager
def classes(postgres: PostgresServer) -> Iterator[Logins]:
    budget = {"total": SLOTS, "headroom": HEADROOM}
    users = postgres.users_file()
    with in_front_of(postgres, budget=budget, classes=CLASSES, default_class="bulk", users=users) as proxy:
        yield Logins(proxy.host, proxy.port)


def targets() -> dict[str, Target]:
    """By name, in the order of the table."""
    found: dict[str, Target] = {"direct": direct}
    binary = find_pgbouncer()
    if binary is None:
        print("No pgbouncer binary in PATH, /usr/sbin or $PGBOUNCER: its two rows are left out.", file=sys.stderr)
    else:
        print(f"PgBouncer: {pgbouncer_version(binary)} ({binary})", file=sys.stderr)
        found["PgBouncer, one pool"] = pgbouncer_one_pool(binary)
        found["PgBouncer, per-user pools"] = pgbouncer_per_user(binary)
    found["pgheadroom"] = classes
    return found


@dataclass(frozen=True, slots=True)
class Outcome:
    target: str
    figures: Figures
    refusals_in_server_log: int


def measure(name: str, target: Target, **changes: float) -> Outcome:
    """One run against a fresh server. `changes` replace numbers of the plan."""
    with EmbeddedPostgres(
        18, max_connections=MAX_CONNECTIONS, superuser_reserved_connections=SUPERUSER_SLOTS
    ) as postgres:
        watching = Login(str(postgres.socket_directory), postgres.port, SUPERUSER, "", DATABASE, "sampler")
        with target(postgres) as logins:
            plan = LoadPlan(web=logins.web(), bulk=logins.bulk(), superuser=watching, **changes)  # type: ignore[arg-type]
            seen = run_load(plan, lambda tell: _show(name, tell))
        print(file=sys.stderr)
        return Outcome(name, reckon(seen), postgres.refusals_in_log())


def _show(name: str, tell: Tell) -> None:
    if not sys.stderr.isatty():
        return  # a file would get one line of many thousand letters
    text = f"{name}: {tell.at:5.1f} s, web p99 {_ms(tell.web_lately.p99)} ms, bulk {tell.bulk_done} jobs"
    print(f"\r{text}, {tell.connections.total} server connections ", end="", file=sys.stderr)


# -- the table

# Name of the row, the value in an outcome, its format.
ROWS: tuple[tuple[str, Callable[[Outcome], float], str], ...] = (
    ("web p50 calm, ms", lambda o: o.figures.web_calm.p50 * 1000, ".1f"),
    ("web p99 calm, ms", lambda o: o.figures.web_calm.p99 * 1000, ".1f"),
    ("web p50 under the burst, ms", lambda o: o.figures.web_burst.p50 * 1000, ".1f"),
    ("web p99 under the burst, ms", lambda o: o.figures.web_burst.p99 * 1000, ".1f"),
    ("web p99, burst / calm", lambda o: o.figures.p99_ratio, ".2f"),
    ("web requests", lambda o: o.figures.web_requests, ".0f"),
    ("web errors", lambda o: o.figures.web_errors, ".0f"),
    ("bulk drain, s", lambda o: o.figures.drain_seconds, ".2f"),
    ("bulk jobs failed", lambda o: o.figures.bulk_failed, ".0f"),
    ("bulk attempts failed", lambda o: o.figures.bulk_failed_attempts, ".0f"),
    ("peak server connections", lambda o: o.figures.peak_connections, ".0f"),
    ("refusals in the server's log", lambda o: o.refusals_in_server_log, ".0f"),
    ("load generator late, p99 ms", lambda o: o.figures.generator_late_p99 * 1000, ".1f"),
)


def table(outcomes: Sequence[Outcome]) -> str:
    """One column per target; where a target was measured several times, the median (lowest - highest)."""
    by_target: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_target[outcome.target].append(outcome)
    cells = [["", *by_target]]
    for name, value, form in ROWS:
        cells.append([name, *(_spread([value(outcome) for outcome in of_one], form) for of_one in by_target.values())])
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)


def _spread(values: Sequence[float], form: str) -> str:
    median = format(statistics.median(values), form)
    if len(values) == 1:
        return "-" if math.isnan(values[0]) else median
    return f"{median} ({min(values):{form}} - {max(values):{form}})"


def _ms(seconds: float) -> str:
    return "-" if math.isnan(seconds) else f"{seconds * 1000:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.bad_day", description="The bad day, target by target.")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--only", action="append", metavar="NAME", help="measure only targets whose name contains this")
    parser.add_argument("--rounds", type=int, default=1, help="measure every target so often, interleaved")
    options = parser.parse_args()
    chosen = {n: t for n, t in targets().items() if not options.only or any(part in n for part in options.only)}
    outcomes: list[Outcome] = []
    for _ in range(options.rounds):
        for name, target in chosen.items():
            try:
                outcomes.append(measure(name, target))
            except DemoError as error:
                print(f"{name} could not be measured: {error}", file=sys.stderr)
    print(f"Latencies in ms from the intended send time. {SLOTS} connections for ordinary roles.\n")
    print(table(outcomes))
    if options.json:
        rows = [{**asdict(outcome), "p99_ratio": outcome.figures.p99_ratio} for outcome in outcomes]
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    sys.exit(0 if len(outcomes) == options.rounds * len(chosen) else 1)


if __name__ == "__main__":
    main()
