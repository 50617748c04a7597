"""CPU per transaction, result and login, and memory per idle client: pgheadroom beside PgBouncer in the same run.

    python -m loadtests.micro [--rounds N] [--only WORD ...] [--skip-memory] [--json FILE]

Owns: rounds, medians, ratios, the table.
Does not know: how one number is measured.

Machines are noisy: the proxies take turns within every round, and the table shows medians over the rounds with the
lowest and highest value beside them. CPU is that of the proxy process alone, as the kernel counts it.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from loadtests.micro.benchmarks import (
    BENCHMARKS,
    IDLE_CLIENTS,
    Benchmark,
    allow_open_files,
    bytes_per_idle_client,
    cpu_microseconds,
    prepare,
)
from loadtests.micro.subjects import PGHEADROOM, Subject, pgbouncer, start_pgheadroom
from loadtests.micro.tls import client_context, make_certificate
from loadtests.pgbouncer import find_pgbouncer
from proxy.demo.errors import DemoError
from proxy.demo.postgres import EmbeddedPostgres, PostgresServer

Results = dict[str, dict[str, list[float]]]  # benchmark -> proxy -> one value per round

MEMORY = f"bytes per idle client ({IDLE_CLIENTS})"
MEMORY_UNDER_TLS = "the same under TLS"


def subjects() -> list[Subject]:
    binary = find_pgbouncer()
    if binary is None:
        print("No pgbouncer binary in PATH, /usr/sbin or $PGBOUNCER: no ratios.", file=sys.stderr)
        return [PGHEADROOM]
    found = pgbouncer(binary)
    if found.remark_on_prepared:
        print(f"Note: {found.remark_on_prepared}.", file=sys.stderr)
    return [found, PGHEADROOM]


@contextmanager
def laboratory() -> Iterator[tuple[PostgresServer, Path]]:
    """A server without password hashing, and a folder with pgbench's scripts."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pgheadroom-micro-")))
        server = stack.enter_context(EmbeddedPostgres(18, auth="trust", max_connections=60))
        prepare(server, folder)
        yield server, folder


def measure(chosen: Sequence[Benchmark], competing: Sequence[Subject], rounds: int, memory: bool) -> Results:
    results: Results = defaultdict(lambda: defaultdict(list))
    with laboratory() as (server, folder):
        for round_number in range(rounds):
            for benchmark in chosen:
                for subject in competing:
                    _say(f"round {round_number + 1} of {rounds}: {benchmark.name}, {subject.name}")
                    with _surviving(subject), subject.start(server, benchmark.prepared) as process:
                        value = cpu_microseconds(server, folder, benchmark, process)
                        results[benchmark.name][subject.name].append(value)
        for subject in competing if memory else ():
            _say(f"{MEMORY}, {subject.name}")
            with _surviving(subject), subject.start(server, False) as process:
                results[MEMORY][subject.name].append(bytes_per_idle_client(process))
        if memory and PGHEADROOM in competing:
            _say(f"{MEMORY}, under TLS")
            with start_pgheadroom(server, False, make_certificate(folder)) as process:
                results[MEMORY_UNDER_TLS][PGHEADROOM.name].append(bytes_per_idle_client(process, client_context()))
    _say("")
    return results


@contextmanager
def _surviving(subject: Subject) -> Iterator[None]:
    """A proxy that cannot do one thing is still measured at the others."""
    try:
        yield
    except (DemoError, RuntimeError, OSError) as error:
        print(f"\r{subject.name}: {error}\n", file=sys.stderr)


def _say(text: str) -> None:
    print(f"\r{text:78}", end="", file=sys.stderr, flush=True)


def table(results: Results, names: Sequence[str]) -> str:
    lines = [f"{'median (lowest - highest)':32}" + "".join(f"{name:>26}" for name in names) + f"{'ratio':>8}"]
    for benchmark, by_proxy in results.items():
        cells = "".join(f"{_spread(by_proxy.get(name, [])):>26}" for name in names)
        lines.append(f"{benchmark:32}{cells}{_ratio(by_proxy):>8}")
    if "login" in results:
        per_second = {n: f"{1e6 / statistics.median(v):,.0f}" for n, v in results["login"].items()}
        lines.append(f"{'logins per second on one core':32}" + "".join(f"{per_second.get(n, '-'):>26}" for n in names))
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{statistics.median(values):,.1f} ({min(values):,.1f} - {max(values):,.1f})"


def _ratio(by_proxy: dict[str, list[float]]) -> str:
    ours, theirs = by_proxy.get("pgheadroom"), by_proxy.get("PgBouncer")
    return f"{statistics.median(ours) / statistics.median(theirs):.2f}x" if ours and theirs else "-"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.micro", description="What single things cost the proxy.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", action="append", metavar="WORD", help="only benchmarks whose name contains this")
    parser.add_argument("--subject", action="append", metavar="NAME", help="only this proxy")
    parser.add_argument("--skip-memory", action="store_true", help=f"do not open {IDLE_CLIENTS} idle clients")
    parser.add_argument("--json", type=Path, help="write every single value to this file")
    options = parser.parse_args()
    allow_open_files(IDLE_CLIENTS + 1000)  # inherited by the proxies
    competing = [s for s in subjects() if not options.subject or s.name in options.subject]
    chosen = [b for b in BENCHMARKS if not options.only or any(word in b.name for word in options.only)]
    results = measure(chosen, competing, options.rounds, memory=not options.skip_memory)
    print("CPU of the proxy process in microseconds per unit; memory in bytes.\n")
    print(table(results, [subject.name for subject in competing]))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    sys.exit(0 if all(results[b.name].get(s.name) for b in chosen for s in competing) else 1)


if __name__ == "__main__":
    main()
