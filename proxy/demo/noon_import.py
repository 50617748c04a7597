"""The demo's story: the same noon import three times, and what each time measured.

Owns: the three arms, their sizes, the order of events.
Does not know: the screen, the picture.

A web application asks all the time; at noon 60 workers wake and import. The database has 20 connections. Everybody uses
the same DATABASE_URL with the same user; only `application_name` tells web from bulk. The shared pool is pgheadroom
itself with one class for everybody and one queue, first come first served: what differs between the arms is the
decision who is next, and nothing else.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from proxy.demo.client import Login
from proxy.demo.figures import Figures, Observations, reckon
from proxy.demo.load import LoadPlan
from proxy.demo.load_process import Tell, run_load
from proxy.demo.postgres import DATABASE, SUPERUSER, EmbeddedPostgres, PostgresServer, password_of
from proxy.demo.serving import in_front_of

SLOTS = 20
SUPERUSER_SLOTS = 3
# A superuser's connection takes an ordinary slot first: the reserved ones must be free *beside* it. With the one that
# counts connections, ordinary roles get exactly SLOTS.
MAX_CONNECTIONS = SLOTS + SUPERUSER_SLOTS + 1

PATIENT = {"timeout": "60s", "max": 5000}

ONE_FOR_ALL = {
    # One user, so flows by user are one queue.
    "everybody": {"limit": SLOTS - 1, "flow_key": "user", "queue": PATIENT},
}

CLASSES = {
    "web": {
        "reason": "half a slot on average; peaks stay below 6",
        "match": [{"application_name": "web", "user": "app"}],
        "priority": 1,
        "reserved": 5,
        "lendable": 3,
        "limit": 16,
        "queue": PATIENT,
    },
    "bulk": {
        "reason": "may always wait",
        "match": [{"application_name": "bulk"}],
        "priority": 9,
        "reserved": 1,
        "limit": 15,
        "queue": PATIENT,
    },
}
HEADROOM = {"size": 2, "for": ["web"]}

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to connect the same load to the same database."""

    name: str
    explanation: str
    connect: Callable[[PostgresServer], AbstractContextManager[Address]]


@dataclass(frozen=True, slots=True)
class ArmResult:
    arm: Arm
    figures: Figures
    seen: Observations
    refusals_in_server_log: int


@contextmanager
def _direct(postgres: PostgresServer) -> Iterator[Address]:
    yield postgres.host, postgres.port


def _through_proxy(budget: dict[str, Any], classes: dict[str, Any]) -> Callable[..., AbstractContextManager[Address]]:
    @contextmanager
    def start(postgres: PostgresServer) -> Iterator[Address]:
        users, default = postgres.users_file(), list(classes)[-1]
        with in_front_of(postgres, budget=budget, classes=classes, default_class=default, users=users) as proxy:
            yield proxy.host, proxy.port

    return start


_shared = _through_proxy({"total": SLOTS}, ONE_FOR_ALL)
_classes = _through_proxy({"total": SLOTS, "headroom": HEADROOM}, CLASSES)

ARMS = (
    Arm("direct", "everybody connects to the database", _direct),
    Arm("one shared pool", "first come, first served", _shared),
    Arm("classes", "web has its own slots, bulk gets the rest", _classes),
)

# Without addresses: where the load goes is the arm's.
PLAN = LoadPlan(
    web=Login("", 0, "app", password_of("app"), DATABASE, "web"),
    bulk=Login("", 0, "app", password_of("app"), DATABASE, "bulk"),
    superuser=Login("", 0, SUPERUSER, "", DATABASE, "sampler"),
    web_rate=150.0,
    web_query_seconds=0.003,
    web_pool=40,
    web_connection_lifetime=2.0,
    web_patience=15.0,
    warmup_seconds=1.5,
    calm_seconds=4.0,
    bulk_workers=60,
    jobs_per_worker=6,
    job_seconds=0.2,
    after_seconds=2.0,
    limit_seconds=25.0,
)


def run_arm(arm: Arm, plan: LoadPlan = PLAN, watch: Callable[[Tell], None] | None = None) -> ArmResult:
    """One arm against a fresh server. Raises DemoError where something did not start."""
    with EmbeddedPostgres(
        18, max_connections=MAX_CONNECTIONS, superuser_reserved_connections=SUPERUSER_SLOTS
    ) as postgres:
        counting = replace(plan.superuser, host=str(postgres.socket_directory), port=postgres.port)
        with arm.connect(postgres) as (host, port):
            here = replace(
                plan,
                web=replace(plan.web, host=host, port=port),
                bulk=replace(plan.bulk, host=host, port=port),
                superuser=counting,
            )
            seen = run_load(here, watch)
        return ArmResult(arm, reckon(seen), seen, postgres.refusals_in_log())
