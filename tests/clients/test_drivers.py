"""Every driver works through every scenario: straight at the server, through both pool modes, and beside PgBouncer.

The results make the matrix in the README (`make matrix`).

No client is given any flag for a pooler.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from loadtests.pgbouncer import PgBouncer, find_pgbouncer, users_with_passwords
from proxy.demo.postgres import EmbeddedPostgres
from proxy.demo.serving import ProxyProcess
from tests.clients.matrix import BESIDE, HERE, Results, written_in_readme
from tests.clients.programs import DRIVERS, Driver, Program, Programs
from tests.clients.scenarios import APPLICATION_NAME, FULL, NARROW, NARROW_SLOTS, ROOMY, SCENARIOS, Scenario
from tests.clients.ways import assert_left_quiet
from tests.support.not_here import NotHere, skip_or_fail
from tests.support.proxies import plain_config, users_file

LIMITS = {NARROW: NARROW_SLOTS, FULL: 1, ROOMY: 12}
PAIRS = [(driver, scenario) for driver in DRIVERS for scenario in SCENARIOS if scenario.name not in driver.without]
Pair = tuple[Driver, Scenario]


def each(pairs: list[Pair], *, pooled: bool = True) -> Any:
    """With `pooled`, what a driver is known to fail at must fail: if it no longer does, the README is to be told."""

    def marks(driver: Driver, scenario: Scenario) -> Iterator[pytest.MarkDecorator]:
        if pooled and scenario.name in driver.fails:
            yield pytest.mark.xfail(strict=True, reason=driver.fails[scenario.name])
        if driver.crowded:
            yield pytest.mark.alone

    return pytest.mark.parametrize(
        ("driver", "scenario"),
        [
            pytest.param(driver, scenario, id=f"{driver.id}-{scenario.name}", marks=list(marks(driver, scenario)))
            for driver, scenario in pairs
        ],
    )


def fits_session_mode(driver: Driver, scenario: Scenario) -> bool:
    """There an open connection has a slot: none is left for a crowd, nor for others of a class with a single one.

    And the class is chosen at login, before some drivers say their name.
    """
    if scenario.name == "refused_begin":
        return False  # the refusal comes earlier
    if scenario.at == FULL:
        return not driver.named_after_login and not (driver.asks_first and scenario.name == "recovery")
    return scenario.at != NARROW


def in_mode(mode: str) -> Any:
    return pytest.mark.parametrize("proxy", [mode], indirect=True, ids=[""])


def classes(mode: str) -> dict[str, Any]:
    """A refusal comes soon, and yet late enough for a slot that somebody is just leaving."""
    return {
        name: {
            "match": [{"application_name": f"{name}*"}],
            "priority": 1,
            "reserved": limit,
            "limit": limit,
            "pool_mode": mode,
            "queue": {"timeout": "500ms" if name == FULL else "5s", "max": 100},
        }
        for name, limit in LIMITS.items()
    }


@pytest.fixture(scope="module")
def proxy(embedded_postgres_18: EmbeddedPostgres, request: pytest.FixtureRequest) -> Iterator[ProxyProcess]:
    given = classes(request.param)
    config = plain_config(embedded_postgres_18, default_class=ROOMY, classes=given, budget={"total": 18})
    with ProxyProcess(config, files={"users.txt": users_file()}) as proxy:
        yield proxy


@pytest.fixture
def pgbouncer(embedded_postgres_18: EmbeddedPostgres) -> Iterator[PgBouncer]:
    """In transaction mode. It has no classes: a database of its own, as clients see it, stands for each.

    A new one for each scenario: what statements another has left behind on a server connection is not held against it.
    """
    binary = find_pgbouncer()
    if binary is None:
        pytest.skip("pgbouncer is not installed")
    databases = {name: f"dbname=app pool_size={limit}" for name, limit in LIMITS.items()}
    settings = {"query_wait_timeout": "2"}
    with PgBouncer(
        binary, embedded_postgres_18, databases=databases, users=users_with_passwords(), settings=settings
    ) as pgbouncer:
        yield pgbouncer


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    programs = Programs()
    yield programs
    programs.stop()


@pytest.fixture
def program(programs: Programs, driver: Driver) -> Program:
    try:
        return programs.of(driver)
    except NotHere as missing:
        skip_or_fail(driver.name, missing)


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> Iterator[Results]:
    results = Results()
    yield results
    if target := request.config.getoption("--matrix-out", default=None):
        results.write(target)


def url(port: int, at: str, database: str = "app") -> str:
    return f"postgresql://app:app-secret@127.0.0.1:{port}/{database}?application_name={APPLICATION_NAME[at]}"


def wrong_with(program: Program, scenario: Scenario, url: str, *, at_login: bool = False) -> str | None:
    """At login a full class says so while its client connects, which some drivers tell by words alone."""
    answer = program.ask(scenario.name, url)
    if "result" not in answer:
        return str(answer["failure"])
    hides_code = program.driver.codes == "never" or (at_login and program.driver.codes == "not at login")
    return scenario.judge(answer["result"], without="code" if hides_code and scenario.at == FULL else "")


@pytest.mark.drivers
@each([pair for pair in PAIRS if pair[1].is_direct_too], pooled=False)
def test_straight_at_the_server(
    program: Program, driver: Driver, scenario: Scenario, embedded_postgres_18: EmbeddedPostgres
) -> None:
    """The programs themselves are right: what differs on another way is the way's doing."""
    wrong = wrong_with(program, scenario, url(embedded_postgres_18.port, scenario.at))
    assert wrong is None, wrong


@pytest.mark.drivers
@in_mode("transaction")
@each(PAIRS)
def test_in_transaction_mode(
    proxy: ProxyProcess, program: Program, driver: Driver, scenario: Scenario, results: Results
) -> None:
    wrong = wrong_with(program, scenario, url(proxy.port, scenario.at))
    results.found(driver.id, scenario.name, HERE, wrong is None)
    results.versions[driver.id] = program.version()
    assert wrong is None, wrong
    assert_left_quiet(proxy)


@pytest.mark.drivers
@in_mode("session")
@each([pair for pair in PAIRS if fits_session_mode(*pair)])
def test_in_session_mode(proxy: ProxyProcess, program: Program, driver: Driver, scenario: Scenario) -> None:
    wrong = wrong_with(program, scenario, url(proxy.port, scenario.at), at_login=True)
    assert wrong is None, wrong
    assert_left_quiet(proxy)


@pytest.mark.beside
@each(PAIRS, pooled=False)
def test_beside_pgbouncer(
    pgbouncer: PgBouncer, program: Program, driver: Driver, scenario: Scenario, results: Results
) -> None:
    """What the README says of PgBouncer in transaction mode is what it does here, for better or worse."""
    wrong = wrong_with(program, scenario, url(pgbouncer.port, scenario.at, database=scenario.at))
    results.found(driver.id, scenario.name, BESIDE, wrong is None)
    assert written_in_readme(driver.id, scenario.name, BESIDE) is (wrong is None), wrong
