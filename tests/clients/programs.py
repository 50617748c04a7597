"""The programs of the drivers: which there are, how each is installed, and talking to one.

Owns: the list of drivers, their ecosystems' folders, processes, and what is missing on a machine in words.
Does not know: servers, proxies, what a scenario must come to.

An ecosystem is installed once, by its own client, into its folder below tests/clients; git ignores what that makes.
"""

import fcntl
import hashlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.clients.scenarios import BY_NAME
from tests.support.not_here import NotHere, is_excused

HERE = Path(__file__).parent
INSTALL_SECONDS = 600
ANSWER_SECONDS = 60  # Horsies takes 10 to start its processes on an idle machine

# What package clients say where nobody answers for their registry, in contrast to a mistake of ours.
UNREACHABLE = (
    "ENOTFOUND",
    "EAI_AGAIN",
    "ECONNREFUSED",
    "ETIMEDOUT",
    "ENETUNREACH",
    "no such host",
    "connection refused",
    "i/o timeout",
    "Connection refused",
    "Unknown host",
    "Name or service not known",
    "Temporary failure in name resolution",
    "Network is unreachable",
)


@dataclass(frozen=True)
class Ecosystem:
    """Where programs are written, which tools that needs, and the commands that make them ready."""

    name: str
    tools: Sequence[str] = ()
    locked_by: Sequence[str] = ()  # files whose change means to install again
    install: Sequence[Sequence[str]] = ()

    @property
    def folder(self) -> Path:
        return HERE / self.name

    def make_ready(self) -> None:
        """Install, unless that was done for these files. Raises NotHere where a tool or the registry is missing.

        One process at a time does it, and the others find it done.
        """
        missing = [tool for tool in self.tools if shutil.which(tool) is None]
        if missing:
            is_outage = any(is_excused(tool) for tool in missing)  # one package brings several tools
            raise NotHere(f"{' and '.join(missing)} not installed", is_outage=is_outage)
        if not self.install:
            return
        stamp, digest = self.folder / ".installed", self._digest()
        with stamp.open("a+") as installed:
            fcntl.flock(installed, fcntl.LOCK_EX)
            if stamp.read_text() == digest:
                return
            for command in self.install:
                self._run(command)
            stamp.write_text(digest)

    def _digest(self) -> str:
        files = [path for pattern in self.locked_by for path in sorted(self.folder.glob(pattern))]
        return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()

    def _run(self, command: Sequence[str]) -> None:
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
        )
        if done.returncode == 0:
            return
        said = (done.stdout + done.stderr)[-3000:]
        if missing := re.search("^not installed: .*", said, re.MULTILINE):
            raise NotHere(missing[0])
        if any(words in said for words in UNREACHABLE):
            raise NotHere(f"the registry of {command[0]} does not answer", is_outage=True)
        raise RuntimeError(f"{' '.join(command)}: {said}")


PYTHON = Ecosystem("python")
NODE = Ecosystem(
    "node",
    tools=("node", "npm"),
    locked_by=("package-lock.json", "schema.prisma"),
    install=(
        ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"),
        # Prisma's command looks for an engine that making a client does not need, and would download it.
        ("env", "PRISMA_SCHEMA_ENGINE_BINARY=/bin/true", "npx", "--no-install", "prisma", "generate"),
    ),
)
GO = Ecosystem(
    "go", tools=("go",), locked_by=("go.sum", "*.go"), install=(("go", "build", "-mod=readonly", "-o", "program", "."),)
)
JAVA = Ecosystem(
    "java",
    tools=("java", "javac", "mvn"),
    locked_by=("pom.xml", "src/main/java/*.java"),
    install=(("mvn", "--batch-mode", "--quiet", "package"),),
)
HORSIES = Ecosystem(
    "horsies", tools=("sh",), locked_by=("requirements.txt", "install.sh"), install=(("sh", "install.sh"),)
)

ECOSYSTEMS = (PYTHON, NODE, GO, JAVA, HORSIES)

# Features of a scenario list that a client does not have at all, in words that the matrix can show.
Without = Mapping[str, str]


@dataclass(frozen=True)
class Driver:
    """One row of the matrix. `name` is for people, `id` for tests."""

    id: str
    name: str
    ecosystem: Ecosystem
    command: Sequence[str]
    without: Without = field(default_factory=dict)
    fails: Mapping[str, str] = field(default_factory=dict)  # what cannot be had through a pooler, and why
    asks_first: bool = False  # it asks new connections something of its own, and is tried after that was answered
    named_after_login: bool = False  # a class cannot be chosen by application_name while it connects
    crowded: bool = False  # it starts processes of its own and counts seconds: its tests run alone
    codes: str = "always"  # whether it shows the SQLSTATE of an error: always, "not at login", "never"

    @property
    def cwd(self) -> Path:
        """Programs in our own Python are modules of this repository."""
        return HERE.parent.parent if self.command[0] == sys.executable else self.ecosystem.folder


def in_python(key: str, name: str, **options: Any) -> Driver:
    return Driver(key, name, PYTHON, (sys.executable, "-m", f"tests.clients.python.{key}_program"), **options)


def in_node(key: str, name: str, **options: Any) -> Driver:
    return Driver(key, name, NODE, ("node", f"{key}_program.mjs"), **options)


# A layer above a driver: these are done with the driver below, which has a row of its own.
OF_ITS_DRIVER = dict.fromkeys(("copy_in", "copy_out", "listen", "cancel"), "done with the driver below")
OF_KNEX = {name: why for name, why in OF_ITS_DRIVER.items() if name != "cancel"} | {
    "prepared_statements": "it names none"
}
CANCELS_BY_PROCESS_ID = {
    "cancel": "pg_cancel_backend() with the process id of the login, which names no server process"
}
WITH_JAVA = ("java", "-cp", "target/classes:target/lib/*", "Scenarios")
NO_POOL = dict.fromkeys(("pool", "refused_begin"), "one client is one connection")
ONLY_COPIES = dict.fromkeys(
    (
        "connect_by_url",
        "pool",
        "crowd",
        "prepared_statements",
        "transactions",
        "listen",
        "cancel",
        "errors",
        "refused_begin",
    ),
    "not what it does",
)
ONLY_RUNS = NO_POOL | dict.fromkeys(("copy_in", "copy_out", "listen", "cancel", "errors"), "not what it does")
OF_A_QUEUE = {name: "it runs tasks, and hears of them" for name in BY_NAME if name not in ("pool", "listen")}

DRIVERS = (
    in_python("psycopg", "psycopg 3", codes="not at login"),
    in_python("psycopg_async", "psycopg 3 async, pipelines", codes="not at login"),
    in_python("psycopg2", "psycopg2", codes="not at login"),
    in_python("asyncpg", "asyncpg"),
    in_python("sqlalchemy", "SQLAlchemy, psycopg 3", codes="not at login", without=OF_ITS_DRIVER),
    in_python("sqlalchemy_asyncpg", "SQLAlchemy, asyncpg", without=OF_ITS_DRIVER),
    in_python("django", "Django, psycopg 3", codes="not at login", without=OF_ITS_DRIVER),
    in_node("pg", "node-postgres"),
    in_node("postgres", "postgres.js", asks_first=True),
    in_node("prisma", "Prisma, adapter-pg", without={**OF_ITS_DRIVER, "prepared_statements": "it names none"}),
    in_node("drizzle", "Drizzle, node-postgres", without=OF_ITS_DRIVER),
    in_node("knex", "Knex", without=OF_KNEX, fails=CANCELS_BY_PROCESS_ID, asks_first=True),
    Driver("pgx", "pgx", GO, ("./program",)),
    Driver("pgjdbc", "pgjdbc, HikariCP", JAVA, WITH_JAVA, named_after_login=True),
    Driver(
        "horsies",
        "Horsies",
        HORSIES,
        (sys.executable, "-m", "tests.clients.python.horsies_program"),
        without=OF_A_QUEUE,
        crowded=True,
    ),
    in_python("psql", "psql", codes="not at login", without=NO_POOL),
    in_python("pgbench", "pgbench", codes="never", without=ONLY_RUNS),
    in_python("pg_dump", "pg_dump, pg_restore", codes="never", without=ONLY_COPIES),
)


class Program:
    """A running program of a driver. It lives for many scenarios, and is started again after one that hung."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self._process: subprocess.Popen[str] | None = None
        self._version = ""

    def ask(self, scenario: str, url: str, *, within_seconds: float = ANSWER_SECONDS) -> dict[str, Any]:
        """The program's answer: `result`, or `failure` in words (a program that says nothing is stopped)."""
        process = self._running()
        assert process.stdin is not None, "made with pipes"
        assert process.stdout is not None, "made with pipes"
        process.stdin.write(json.dumps({"scenario": scenario, "url": url}) + "\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], within_seconds)[0]:
            self.stop()
            return {"failure": f"no answer within {within_seconds:g} s"}
        line = process.stdout.readline()
        if not line:
            self.stop()
            return {"failure": "the program ended"}
        answer: dict[str, Any] = json.loads(line)
        if "failure" in answer:
            self.stop()  # it may have left connections open, which the next scenario would meet
        return answer

    def version(self) -> str:
        """Of the driver, as it says itself."""
        if not self._version:
            self._version = str(self.ask("version", "")["result"]["driver"])
        return self._version

    def _running(self) -> "subprocess.Popen[str]":
        if self._process is None:
            self._process = subprocess.Popen(
                list(self.driver.command),
                cwd=self.driver.cwd,
                env={name: value for name, value in os.environ.items() if not name.startswith("PG")},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        return self._process

    def stop(self) -> None:
        """Also those that it has started: they would go on at the server, and the next scenario would meet them."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()
            self._process = None


class Programs:
    """The programs of a run of tests, each started when it is first asked for."""

    def __init__(self) -> None:
        self._programs: dict[str, Program] = {}
        self._missing: dict[str, NotHere] = {}

    def of(self, driver: Driver) -> Program:
        """Raises NotHere, every time, for a driver that cannot be had here."""
        ecosystem = driver.ecosystem
        if ecosystem.name in self._missing:
            raise self._missing[ecosystem.name]
        if driver.id not in self._programs:
            try:
                ecosystem.make_ready()
            except NotHere as missing:
                self._missing[ecosystem.name] = missing
                raise
            self._programs[driver.id] = Program(driver)
        return self._programs[driver.id]

    def stop(self) -> None:
        for program in self._programs.values():
            program.stop()
