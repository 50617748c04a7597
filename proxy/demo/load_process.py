"""The load runs in a process of its own: on the proxy's event loop it would measure itself.

Owns: the plan on the way in, progress and observations on the way out (one line of JSON each), and both ends of them.
Does not know: what the load is, what becomes of the observations.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import uvloop

from proxy.demo.client import Login
from proxy.demo.errors import DemoError
from proxy.demo.figures import BulkJob, ConnectionSample, Latency, Observations, WebRequest, latency_of
from proxy.demo.load import LoadPlan, LoadRun, Progress

TELL_EVERY_SECONDS = 0.2
LOOK_BACK_SECONDS = 1.0

SCALARS = ("calm_from", "burst_at", "drained_at", "lateness")  # fields of Observations that JSON has words for


@dataclass(frozen=True, slots=True)
class Tell:
    """Where a run stands: counts so far, and the latency of the requests answered within the last second."""

    at: float
    web_sent: int
    web_waiting: int
    web_errors: int
    web_lately: Latency
    bulk_done: int
    bulk_failed: int
    connections: ConnectionSample


class LoadFailed(DemoError):  # noqa: N818 - an event
    """The load could not be run at all."""


def run_load(plan: LoadPlan, watch: Callable[[Tell], None] | None = None) -> Observations:
    """Run the plan in a new process and wait for it; `watch` is called some times per second."""
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen(
            [sys.executable, "-m", "proxy.demo.load_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        try:
            seen = _converse(process, plan, watch)
        finally:
            process.kill()
        if seen is None:
            complaints.seek(0)
            raise LoadFailed(f"the load ended early:\n{complaints.read()[-2000:]}")
        return seen


def _converse(
    process: subprocess.Popen[str], plan: LoadPlan, watch: Callable[[Tell], None] | None
) -> Observations | None:
    """None where the other end stopped before it told its observations."""
    assert process.stdin is not None, "started with a pipe"
    assert process.stdout is not None, "started with a pipe"
    process.stdin.write(json.dumps(asdict(plan)))
    process.stdin.close()
    for line in process.stdout:
        read = _parse(line)
        if "observations" in read:
            return _observations(read["observations"])
        if watch is not None:
            watch(_tell(read["tell"]))
    return None


def _parse(line: str) -> dict[str, Any]:  # Any: JSON's values
    try:
        read: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError as error:
        cut = f"{len(line)} characters, {line[:40]!r} ... {line[-40:]!r}"
        raise LoadFailed(f"the load said what is not JSON ({error}): {cut}") from error
    return read


def _tell(read: dict[str, object]) -> Tell:
    lately, connections = read.pop("web_lately"), read.pop("connections")
    return Tell(**read, web_lately=Latency(**lately), connections=ConnectionSample(**connections))  # type: ignore[arg-type]  # our own asdict


def _observations(read: dict[str, list[list[object]]]) -> Observations:
    seen = Observations(**{name: read[name] for name in SCALARS})  # type: ignore[arg-type]  # our own numbers
    seen.web = [WebRequest(*fields) for fields in read["web"]]  # type: ignore[arg-type]
    seen.bulk = [BulkJob(*fields) for fields in read["bulk"]]  # type: ignore[arg-type]
    seen.samples = [ConnectionSample(*fields) for fields in read["samples"]]  # type: ignore[arg-type]
    return seen


# -- the other end


def _say(document: dict[str, object]) -> None:
    """Not print: where PYTHONUNBUFFERED is set, standard output drops what one write did not take (64 kB of a pipe)."""
    with open(sys.stdout.fileno(), "w", closefd=False) as out:
        out.write(json.dumps(document) + "\n")


class _Teller:
    """Prints a line of progress every TELL_EVERY_SECONDS."""

    def __init__(self) -> None:
        self._next_at = 0.0

    def watch(self, seen: Observations, progress: Progress) -> None:
        if progress.at < self._next_at:
            return
        self._next_at = progress.at + TELL_EVERY_SECONDS
        _say({"tell": asdict(_summary(seen, progress))})


def _summary(seen: Observations, progress: Progress) -> Tell:
    since = progress.at - LOOK_BACK_SECONDS
    lately = [request for request in seen.web[-2000:] if request.intended_at + request.latency > since]
    return Tell(
        at=progress.at,
        web_sent=progress.web_sent,
        web_waiting=progress.web_waiting,
        web_errors=sum(request.error is not None for request in seen.web),
        web_lately=latency_of(lately),
        bulk_done=progress.bulk_done,
        bulk_failed=sum(job.error is not None for job in seen.bulk),
        connections=seen.samples[-1],
    )


def _plain(seen: Observations) -> dict[str, object]:
    rows: dict[str, object] = {name: getattr(seen, name) for name in SCALARS}
    rows["web"] = [(request.intended_at, request.latency, request.error) for request in seen.web]
    rows["bulk"] = [(job.started_at, job.ended_at, job.failed_attempts, job.error) for job in seen.bulk]
    rows["samples"] = [(sample.at, sample.total, sample.active_web, sample.active_bulk) for sample in seen.samples]
    return rows


def main() -> None:
    read = json.loads(sys.stdin.read())
    for role in ("web", "bulk", "superuser"):
        read[role] = Login(**read[role])
    run = LoadRun(LoadPlan(**read), _Teller().watch)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        seen = runner.run(run.run())
    _say({"observations": _plain(seen)})


if __name__ == "__main__":
    main()
