"""A scenario for real: a fresh PostgreSQL, what is under test in front of it, the clients in a process of their own.

Owns: the targets, carrying out what happens when, asking the proxy what its classes hold.
Does not know: bounds, what a client does.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError
from urllib.request import Request, urlopen

from loadtests.pgbouncer import PgBouncer, find_pgbouncer
from loadtests.scenarios.generator import GRACE_SECONDS, Where
from loadtests.scenarios.record import ClassState, JobOver, Record, Sample, StateSample
from loadtests.scenarios.scenario import Event, Scenario, merged
from proxy.demo.errors import DemoError
from proxy.demo.postgres import DATABASE, ROLES, SUPERUSER, EmbeddedPostgres, PostgresServer, free_port, password_of
from proxy.demo.serving import ProxyProcess

SUPERUSER_SLOTS: Final = 3
LOOK_EVERY_SECONDS: Final = 0.1
_PREPARE: Final = """
CREATE TABLE pace (factor float8 NOT NULL);
INSERT INTO pace VALUES (1);
GRANT SELECT ON pace TO PUBLIC;
CREATE FUNCTION work(seconds float8) RETURNS void LANGUAGE plpgsql AS
  $$ BEGIN PERFORM pg_sleep(seconds * (SELECT factor FROM pace)); END $$;
"""


class CannotPlay(DemoError):  # noqa: N818 - says what is the matter
    """The target has nothing that would answer to what the scenario does."""


class Target:
    """What is in front of the server. A base class: of itself it can do nothing that happens to a proxy."""

    name = "direct"

    def __init__(self, host: str, port: int, databases: Mapping[str, str], users: Mapping[str, str]) -> None:
        self.host = host
        self.port = port
        self.databases = databases
        self.users = users

    def order(self, event: Event) -> None:
        raise CannotPlay(f"{self.name} has no {event.do}")

    def state(self, at: float) -> StateSample | None:
        """What its classes hold, None where it has none."""


class Pgheadroom(Target):
    name = "pgheadroom"

    def __init__(self, process: ProxyProcess) -> None:
        super().__init__(process.host, process.port, dict.fromkeys(ROLES, DATABASE), {})
        self._process = process

    def order(self, event: Event) -> None:
        if event.do == "reload":
            self._process.write_config(merged(self._process.config, event.change))
            self._post("/reload")
        else:
            self._post(f"/classes/{event.class_name}/{event.do}")

    def _post(self, path: str) -> None:
        body = json.dumps({"by": "scenario", "reason": "a load test"}).encode()
        headers = {"Content-Type": "application/json"}
        with urlopen(Request(self._process.http_url + path, body, headers), timeout=10):
            pass

    def state(self, at: float) -> StateSample | None:
        try:
            with urlopen(f"{self._process.http_url}/status", timeout=2) as answer:
                document = json.load(answer)
        except (URLError, OSError):
            return None
        classes = {
            one["name"]: ClassState(one["used"], min(one["limit"], one["adaptive_limit"]), one["waiting"])
            for one in document["classes"]
        }
        budget = document["budget"]
        return StateSample(at, budget["total"], budget["in_use"], classes)


class OnePool(Target):
    name = "PgBouncer, one pool"


class PoolPerUser(Target):
    name = "PgBouncer, a pool per user"


@contextmanager
def pgheadroom(scenario: Scenario, postgres: PostgresServer) -> Iterator[Target]:
    config: dict[str, Any] = {
        "listen": {"host": postgres.host, "port": free_port()},
        "http": {"host": postgres.host, "port": free_port()},
        "upstream": {"url": postgres.url("app")},
        "auth": {"method": "scram", "users_file": "users.txt"},
    }
    files = {"users.txt": postgres.users_file()}
    with ProxyProcess(merged(config, scenario.settings), files=files) as process:
        yield Pgheadroom(process)


@contextmanager
def pgbouncer_one_pool(scenario: Scenario, postgres: PostgresServer) -> Iterator[Target]:
    databases = {DATABASE: f"dbname={DATABASE} pool_size={scenario.connections}"}
    with PgBouncer(_binary(scenario), postgres, databases=databases, users=postgres.users_file()) as pooler:
        yield OnePool(pooler.host, pooler.port, dict.fromkeys(ROLES, DATABASE), dict.fromkeys(ROLES, "app"))


@contextmanager
def pgbouncer_per_user(scenario: Scenario, postgres: PostgresServer) -> Iterator[Target]:
    databases = {user: f"dbname={DATABASE} pool_size={size}" for user, size in scenario.pgbouncer.items()}
    with PgBouncer(_binary(scenario), postgres, databases=databases, users=postgres.users_file()) as pooler:
        yield PoolPerUser(pooler.host, pooler.port, {user: user for user in databases}, {})


def _binary(scenario: Scenario) -> Path:
    binary = find_pgbouncer()
    if binary is None:
        raise CannotPlay("no pgbouncer binary in PATH, /usr/sbin or $PGBOUNCER")
    if not scenario.pgbouncer:
        raise CannotPlay(f"PgBouncer has nothing to play {scenario.name} with")
    return binary


Start = Callable[[Scenario, PostgresServer], AbstractContextManager[Target]]
TARGETS: Final[Mapping[str, Start]] = {
    Pgheadroom.name: pgheadroom,
    PoolPerUser.name: pgbouncer_per_user,
    OnePool.name: pgbouncer_one_pool,
}

Tell = Callable[[float], None]


def run(scenario: Scenario, start: Start, tell: Tell) -> Record:
    """One run against a fresh server. Raises CannotPlay, and DemoError where something did not start.

    `tell` is given the seconds since the start, again and again.
    """
    # One more for the superuser that watches: its connection takes an ordinary slot first.
    with EmbeddedPostgres(
        18,
        max_connections=scenario.connections + SUPERUSER_SLOTS + 1,
        superuser_reserved_connections=SUPERUSER_SLOTS,
    ) as postgres:
        postgres.psql(_PREPARE, database=DATABASE)
        with start(scenario, postgres) as target:
            record = _Run(scenario, postgres, target, tell).run()
        record.refusals_in_server_log = postgres.refusals_in_log()
        return record


@dataclass(frozen=True, slots=True)
class _Due:
    """Something to do at a moment of the run."""

    at: float
    act: Callable[[], None]


class _Run:
    def __init__(self, scenario: Scenario, postgres: PostgresServer, target: Target, tell: Tell) -> None:
        self._scenario = scenario
        self._postgres = postgres
        self._target = target
        self._tell = tell
        self._record = Record()

    def run(self) -> Record:
        due = sorted(self._due(), key=lambda one: one.at)
        with tempfile.TemporaryDirectory(prefix="pgheadroom-scenario-") as folder:
            out, complaints = Path(folder) / "record.json", Path(folder) / "stderr.txt"
            with complaints.open("w") as stderr, self._generator(out, stderr) as process:
                try:
                    self._accompany(process, due)
                finally:
                    process.kill()
            if not out.exists():
                raise DemoError(f"the clients ended early:\n{complaints.read_text()[-2000:]}")
            read = json.loads(out.read_text())
        self._record.jobs = [JobOver(**one) for one in read["jobs"]]
        self._record.samples = [Sample(**one) for one in read["samples"]]
        return self._record

    def _generator(self, out: Path, stderr: Any) -> subprocess.Popen[str]:  # Any: an open file, as Popen takes it
        postgres, target = self._postgres, self._target
        where = Where(
            host=target.host,
            port=target.port,
            passwords={role: password_of(role) for role in ROLES},
            databases=target.databases,
            users=target.users,
            server_socket=str(postgres.socket_directory),
            server_port=postgres.port,
            superuser=SUPERUSER,
            server_database=DATABASE,
        )
        command = [sys.executable, "-m", "loadtests.scenarios.generator", str(self._scenario.file)]
        return subprocess.Popen(
            [*command, json.dumps(asdict(where)), str(out)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )

    def _accompany(self, process: subprocess.Popen[str], due: Sequence[_Due]) -> None:
        """Do what is due, and look, until the clients have done all that they had to do."""
        assert process.stdout is not None, "started with a pipe"
        process.stdout.readline()  # the clock starts
        began, waiting = time.monotonic(), list(due)
        longest = self._scenario.traffic.duration_seconds + GRACE_SECONDS + 30.0
        while process.poll() is None:
            now = time.monotonic() - began
            if now > longest:
                raise DemoError(f"{self._scenario.name} is not over after {longest:.0f} s")
            while waiting and waiting[0].at <= now:
                waiting.pop(0).act()
            state = self._target.state(now)
            if state is not None:
                self._record.states.append(state)
            self._tell(now)
            time.sleep(LOOK_EVERY_SECONDS)

    def _due(self) -> Iterator[_Due]:
        for event in self._scenario.events:
            match event.do:
                case "freeze":
                    yield _Due(event.at, self._postgres.freeze)
                    yield _Due(event.at + event.lasts, self._postgres.thaw)
                case "slower":
                    yield _Due(event.at, lambda factor=event.times: self._pace(factor))  # type: ignore[misc]
                    yield _Due(event.at + event.lasts, lambda: self._pace(1.0))
                case _:
                    yield _Due(event.at, lambda event=event: self._target.order(event))  # type: ignore[misc]

    def _pace(self, factor: float) -> None:
        self._postgres.psql(f"UPDATE pace SET factor = {factor:f}", database=DATABASE)
