"""The plan: every pool that can wake up, added, against what the server can give.

Owns: the plan file, what one process of each kind of program opens, the sum, whether it fits.
Does not know: the suggestion that follows from it (plan_suggestion.py), how it is printed, how the server was asked.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field

from proxy.admission.classes import INTERNAL_CLASS
from proxy.service.budget import capacity
from proxy.service.config import fields
from proxy.service.config.errors import ConfigError, ConfigFinding
from proxy.service.config.model import AtLeastOne, ClassName, Count, OptionalCount, OptionalText, Section
from proxy.service.config.validation import validated
from proxy.service.config.yaml_reader import read_yaml
from proxy.service.providers import UnknownPreset, preset_facts
from proxy.service.server_facts import ServerFacts

KEEP_FREE: Final = 5  # as budget.keep_free
TAKEN: Final = ("admin", "other", INTERNAL_CLASS)


@dataclass(frozen=True, slots=True)
class Kind:
    """What one process opens by default: its pool, what the pool adds under load, LISTEN, and pools of children."""

    pool: int
    overflow: int = 0
    listen: int = 0
    child_pool: int = 0


# Defaults of each program's own manual. A queue worker keeps two connections for LISTEN, and each of the processes it
# forks for its jobs opens a pool of its own: 3 + 2 + 2 + 8 x 2 = 23 at 8 children.
KINDS: Final[dict[str, Kind]] = {
    "asyncpg": Kind(10),
    "django": Kind(1),
    "drizzle": Kind(10),
    "hikaricp": Kind(10),
    "knex": Kind(10),
    "node-postgres": Kind(10),
    "pgx": Kind(4),
    "postgres.js": Kind(10),
    "prisma": Kind(10),
    "psycopg_pool": Kind(4),
    "queue_producer": Kind(5, overflow=10),
    "queue_worker": Kind(3, overflow=2, listen=2, child_pool=2),
    "sequelize": Kind(5),
    "sqlalchemy": Kind(5, overflow=10),
    "sqlx": Kind(10),
}


class Service(Section):
    """One deployment. What is left out comes from `kind`; without a kind, `pool` has to be given."""

    processes: AtLeastOne = Field(default=1, description="processes that may run at once, at the largest scale")
    kind: Annotated[str | None, fields.choice(*KINDS)] = Field(default=None, description="whose default pool it has")
    pool: OptionalCount = Field(default=None, description="connections of one process's pool")
    overflow: OptionalCount = Field(default=None, description="connections it may open above the pool")
    listen: OptionalCount = Field(default=None, description="connections held for LISTEN")
    children: Count = Field(default=0, description="processes that each process forks for jobs")
    child_pool: OptionalCount = Field(default=None, description="connections of one child's pool")
    class_name: Annotated[str | None, fields.class_name()] = Field(
        default=None, alias="class", description="class of the suggestion; the service's own name where left out"
    )
    reason: OptionalText = Field(default=None, description="why the numbers are what they are")

    def shape(self) -> Kind:
        """What one process opens: what is written, else the kind's default, else nothing."""
        default = KINDS[self.kind] if self.kind else Kind(0)
        return Kind(
            pool=default.pool if self.pool is None else self.pool,
            overflow=default.overflow if self.overflow is None else self.overflow,
            listen=default.listen if self.listen is None else self.listen,
            child_pool=default.child_pool if self.child_pool is None else self.child_pool,
        )

    def connections(self) -> int:
        one = self.shape()
        return self.processes * (one.pool + one.overflow + one.listen + self.children * one.child_pool)

    def formula(self) -> str:
        """How the number comes about, as "8 x (3 + 2 overflow + 2 listen)"."""
        one = self.shape()
        terms = [str(one.pool)]
        terms += [f"{one.overflow} overflow"] if one.overflow else []
        terms += [f"{one.listen} listen"] if one.listen else []
        terms += [f"{self.children} children x {one.child_pool}"] if self.children and one.child_pool else []
        inner = " + ".join(terms)
        return f"{self.processes} x ({inner})" if len(terms) > 1 else f"{self.processes} x {inner}"


class Server(Section):
    preset: OptionalText = Field(default=None, description="a provider's limit, as rds:4GiB")
    max_connections: Annotated[int | None, fields.whole(1, optional=True)] = Field(
        default=None, description="as the server has it"
    )
    superuser_reserved_connections: Count = Field(default=3, description="as the server has it")
    reserved_connections: Count = Field(default=0, description="as the server has it, from PostgreSQL 16 on")


class PlanFile(Section):
    services: dict[ClassName, Service] = Field(min_length=1, description="the services, the most important one first")
    server: Server = Field(default_factory=Server, description="what the server gives, unless it is asked")


@dataclass(frozen=True, slots=True)
class Slots:
    """How many connections there are to have, and how that is known."""

    count: int
    origin: str


@dataclass(frozen=True, slots=True)
class Row:
    service: str
    formula: str
    connections: int
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The sum of all services, and the slots it is held against (None where nothing is known of the server)."""

    rows: tuple[Row, ...]
    slots: Slots | None

    @property
    def connections(self) -> int:
        return sum(row.connections for row in self.rows)

    @property
    def missing(self) -> int:
        """Connections too few if everything wakes at once; 0 where all fits."""
        return max(0, self.connections - self.slots.count) if self.slots else 0

    def verdict(self) -> str:
        if self.slots is None:
            return (
                f"{self.connections} connections can be asked for at once. "
                "What the server can give is not known: use --preset, --url, --config or --budget."
            )
        against = f"{self.connections} connections can be asked for at once, and there are {self.slots.count}"
        if not self.missing:
            return f"{against} ({self.slots.origin}): it fits, {self.slots.count - self.connections} to spare."
        return (
            f"{against} ({self.slots.origin}): {self.missing} too many. Through pgheadroom they wait in line instead."
        )


def load_plan(path: Path | str, environ: Mapping[str, str] | None = None) -> PlanFile:
    """Read a plan file. Raises ConfigError with every finding."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError([ConfigFinding(str(path), 0, "", f"cannot be read: {reason}")]) from None
    return load_plan_text(text, environ, file=str(path))


def load_plan_text(text: str, environ: Mapping[str, str] | None = None, *, file: str = "<text>") -> PlanFile:
    document = read_yaml(text, file, os.environ if environ is None else environ)
    plan = validated(PlanFile, document, {})
    findings = list(document.findings)
    for name, service in plan.services.items():
        if service.kind is None and service.pool is None:
            findings.append(document.finding(("services", name), "neither pool nor kind; one of them has to be given"))
        if (service.class_name or name) in TAKEN:
            findings.append(
                document.finding(
                    ("services", name), f"the classes {', '.join(TAKEN)} are suggested anyway; name another in class"
                )
            )
        if service.children and not service.shape().child_pool:
            findings.append(document.finding(("services", name, "children"), "children without child_pool"))
    if plan.server.preset:
        try:
            preset_facts(plan.server.preset)
        except UnknownPreset as error:
            findings.append(document.finding(("server", "preset"), str(error)))
    if findings:
        raise ConfigError(findings)
    return plan


def facts_of_file(plan: PlanFile) -> ServerFacts | None:
    """What the plan file says of the server; its max_connections is better than its preset."""
    server = plan.server
    if server.max_connections is not None:
        return ServerFacts(server.max_connections, server.superuser_reserved_connections, server.reserved_connections)
    return preset_facts(server.preset) if server.preset else None


def slots_of_server(facts: ServerFacts, origin: str, keep_free: int = KEEP_FREE) -> Slots:
    """What a server leaves for the budget: not what is kept for superusers, and not what is kept free."""
    kept = facts.max_connections - capacity(facts)
    words = f"{origin}: {facts.max_connections} less {kept} reserved and {keep_free} kept free"
    return Slots(max(0, capacity(facts) - keep_free), words)


def make_plan(plan: PlanFile, slots: Slots | None) -> Plan:
    rows = (
        Row(name, service.formula(), service.connections(), service.reason or "")
        for name, service in plan.services.items()
    )
    return Plan(tuple(rows), slots)
