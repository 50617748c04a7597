"""What a reload and `set` change in the parts that are running, setting by setting, as the model says of each.

The tables name for every setting another value, and what of the running process has to show it: the part that goes by
it, and never the configuration alone. A setting that is new has to come into them.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from proxy.admission.classes import ClassSettings, ConnectSettings
from proxy.admission.snapshot import ClassSnapshot
from proxy.service.config.model import Config
from proxy.service.config.settable import only_in_the_file, reload_kind, settable, why_not_settable
from proxy.session import clock
from proxy.session.client import ClientConnection
from proxy.session.settings import PoolSettings
from proxy.session.tags import TagReader
from tests.service.test_config_documentation import documented
from tests.service.test_config_documentation import settings as settings_of_the_model
from tests.support.eventually import eventually
from tests.support.running import Running, RunProxy, config_of
from tests.support.servers import Postgres
from tests.support.wire_client import WireClient

BASE: Mapping[str, Any] = {
    "auth": {"method": "trust", "users_file": "users.txt"},
    "budget": {"total": 8, "keep_free": 0, "headroom": {"size": 0, "for": ["jobs"]}},
    "classes": {
        "all": {"limit": 4, "reserved": 2, "priority": 3},
        "jobs": {"limit": 3, "match": [{"application_name": "job*"}]},
    },
}


@dataclass(frozen=True)
class Seen:
    """The running parts, with a client of class all that came before the change, and one that comes after it."""

    proxy: Running
    before: ClientConnection
    late_client: WireClient | None

    @property
    def account(self) -> ClassSnapshot:
        return self.proxy.controller.snapshot(clock.now()).of_class("all")

    @property
    def numbers(self) -> ClassSettings:
        return self.account.settings

    @property
    def room(self) -> ClassSettings:
        return self.proxy.places._room("all").settings

    @property
    def connects(self) -> ConnectSettings:
        return self.proxy.upstream.connect_rate._settings["all"]

    @property
    def pool(self) -> PoolSettings:
        assert self.proxy.registry.settings is self.proxy.registry.connector.settings
        return self.proxy.registry.settings

    @property
    def tags(self) -> TagReader:
        assert self.before.tags is not None
        return self.before.tags

    @property
    def holds(self) -> Any:
        assert self.before.watch is not None
        return self.before.watch.bounds

    @property
    def late(self) -> ClientConnection:
        return next(one for one in self.proxy.desk.clients if one is not self.before)  # type: ignore[return-value]

    @property
    def upstream(self) -> Any:
        return self.proxy.process.upstreams[0]

    def class_of(self, application_name: str) -> str:
        return self.proxy.upstream.classifier.classify(application_name, "app", "app", None).class_name


Look = Callable[[Seen], object]
Change = Callable[[Running, Mapping[str, object]], None]


@dataclass(frozen=True)
class Case:
    """Another value of a setting, and what shows it. `value` is what is written, `shows` what is seen then."""

    value: object
    look: Look
    shows: object = None
    beside: Mapping[str, object] | None = None  # other settings without which it would mean nothing
    wants_late_client: bool = False  # one that comes after the change

    @property
    def expected(self) -> object:
        return self.value if self.shows is None else self.shows

    def changes(self, key: str) -> dict[str, object]:
        return {**(self.beside or {}), key: self.value}


def connection(seen: Seen) -> Any:
    """An idle connection to the server that was there before."""
    return next(iter(seen.proxy.registry.connections))


def lifetime(seen: Seen) -> bool:
    born_at, part = seen.proxy.registry._lives[connection(seen)]  # type: ignore[attr-defined]
    return bool(0.8 <= part <= 1.0 and connection(seen).retire_at == born_at + 50.0 * part)


def until_sweep(seen: Seen) -> float:
    timer = seen.proxy.registry._sweep  # type: ignore[attr-defined]
    return round(timer.when() - seen.proxy.desk.loop.time())


CLASS = "classes.all"
ON = {"adaptive.mode": "observe"}
ASKED = {"canary.interval": 3600}
TAGGED = {"tags.comments": "lower"}

CASES: Mapping[str, Case] = {
    "listen.login_timeout": Case(7, lambda s: s.proxy.desk.settings.listen.login_timeout_seconds),
    "listen.max_client_connections": Case(
        40,
        lambda s: (
            s.proxy.desk.settings.listen.max_client_connections,
            s.proxy.desk.failed_logins.lateness.settings.max_held,
            s.proxy.desk.connects.late.lateness.settings.max_held,
        ),
        (40, 10, 10),
    ),
    "http.switches_from": Case("anywhere", lambda s: s.proxy.process.http._surface.settings.switches_from.value),
    "http.switch_token": Case("a-long-secret-token", lambda s: s.proxy.process.http._surface.settings.switch_token),
    "http.trusted_hosts": Case(["db.lan"], lambda s: list(s.proxy.process.http._surface.settings.trusted_hosts)),
    "reload.watch": Case(True, lambda s: s.proxy.process.config_watch._timer is not None),
    "upstream.server_name": Case(
        "db.lan",
        lambda s: s.proxy.registry.connector._dialler.upstream.tls.server_name,  # type: ignore[attr-defined]
    ),
    "auth.method": Case("scram", lambda s: s.proxy.desk.auth_rules._rules[0].method),
    "auth.rules": Case(
        [{"method": "reject"}], lambda s: s.proxy.desk.auth_rules._rules[0].method, "reject", {"auth.method": None}
    ),
    "auth.users": Case({"zoe": "secret"}, lambda s: "zoe" in s.proxy.desk.settings.auth.users, True),
    "auth.users_file": Case("others.txt", lambda s: list(s.proxy.desk.settings.auth.users), ["carl"]),
    "auth.auth_query": Case("select $1", lambda s: s.proxy.desk.settings.auth.auth_query),
    "auth.cache.ttl": Case(3, lambda s: s.proxy.desk.settings.auth.cache.ttl_seconds),
    "auth.cache.negative_ttl": Case(2, lambda s: s.proxy.desk.settings.auth.cache.negative_ttl_seconds),
    "auth.cache.max_users": Case(11, lambda s: s.proxy.desk.settings.auth.cache.max_users),
    "auth.cert_users": Case({"a.lan": "app"}, lambda s: s.proxy.desk.settings.auth.cert_users),
    "auth.passthrough_dials": Case(3, lambda s: s.proxy.upstream.passthrough._turns._count),
    "auth.failures.delay": Case(0.1, lambda s: s.proxy.desk.failed_logins.lateness.settings.delay_seconds),
    "auth.failures.max_delay": Case(3, lambda s: s.proxy.desk.failed_logins.lateness.settings.max_delay_seconds),
    "auth.failures.forget_after": Case(9, lambda s: s.proxy.desk.failed_logins.lateness.settings.forget_after_seconds),
    "auth.failures.max_held": Case(8, lambda s: s.proxy.desk.failed_logins.lateness.settings.max_held),
    "budget.total": Case(7, lambda s: (s.proxy.controller.total, s.proxy.registry.total), (7, 7)),
    "budget.keep_free": Case(87, lambda s: s.proxy.controller.total, 10, {"budget.total": "auto"}),
    "budget.instances": Case(9, lambda s: s.proxy.controller.total, 10, {"budget.total": "auto"}),
    "budget.headroom.size": Case(1, lambda s: s.proxy.controller.snapshot(clock.now()).headroom),
    "budget.headroom.for": Case(
        ["all"],
        lambda s: "all" in s.proxy.controller.settings.headroom_for,
        True,
        {"budget.headroom.size": 1},
    ),
    "default_class": Case("jobs", lambda s: s.class_of("nobody's")),
    "replication_class": Case("jobs", lambda s: s.proxy.upstream.settings.replication_class),
    f"{CLASS}.reason": Case("why", lambda s: s.proxy.process.view.class_reasons()["all"]),
    f"{CLASS}.match": Case(
        [{"application_name": "x"}], lambda s: s.proxy.upstream.classifier.classify("x", "a", "b", None).matched, True
    ),
    f"{CLASS}.mode": Case("warn", lambda s: s.account.would_queue, 0),
    f"{CLASS}.priority": Case(2, lambda s: (s.numbers.priority, s.proxy.desk.behaviour("all").priority), (2, 2)),
    f"{CLASS}.reserved": Case(3, lambda s: s.account.reserved),
    f"{CLASS}.lendable": Case(1, lambda s: s.account.reserved - s.account.floor, 1),
    f"{CLASS}.limit": Case(5, lambda s: s.account.limit),
    f"{CLASS}.weight": Case(2.5, lambda s: s.numbers.weight),
    f"{CLASS}.pool_mode": Case(
        "session", lambda s: (s.before.session_hold, s.late.session_hold), (False, True), None, True
    ),
    f"{CLASS}.on_session_state": Case("reject", lambda s: s.proxy.desk.behaviour("all").on_session_state.value),
    f"{CLASS}.queue.timeout": Case(
        3,
        lambda s: (
            s.numbers.queue_timeout_seconds,
            s.room.queue_timeout_seconds,
            s.proxy.desk.queue_timeout("all"),
        ),
        (3, 3, 3),
    ),
    f"{CLASS}.queue.max": Case(7, lambda s: (s.numbers.queue_max, s.room.queue_max), (7, 7)),
    f"{CLASS}.queue.refuse_hopeless": Case(False, lambda s: s.numbers.refuse_hopeless),
    f"{CLASS}.connects.rate": Case(3, lambda s: s.connects.rate),
    f"{CLASS}.connects.burst": Case(3, lambda s: s.connects.burst),
    f"{CLASS}.connects.per_identity.rate": Case(3, lambda s: s.connects.identity_rate),
    f"{CLASS}.connects.per_identity.burst": Case(3, lambda s: s.connects.identity_burst),
    f"{CLASS}.max_clients": Case(9, lambda s: s.proxy.places._room("all").max_clients),
    f"{CLASS}.max_clients_per_identity": Case(9, lambda s: s.room.max_clients_per_identity),
    f"{CLASS}.pinned_limit": Case(1, lambda s: s.numbers.pinned_limit),
    f"{CLASS}.parameters": Case(
        {"work_mem": "7MB"}, lambda s: s.late_client and s.late_client.value("show work_mem"), "7MB", None, True
    ),
    f"{CLASS}.holds.idle_in_transaction": Case(90, lambda s: s.holds.idle_in_transaction),
    f"{CLASS}.holds.borrowed_idle_in_transaction": Case(90, lambda s: s.holds.borrowed_idle_in_transaction),
    f"{CLASS}.holds.transaction": Case(90, lambda s: s.holds.transaction),
    f"{CLASS}.holds.query": Case(90, lambda s: s.holds.query),
    f"{CLASS}.holds.client_idle": Case(90, lambda s: s.holds.client_idle),
    f"{CLASS}.holds.slow_reader": Case(90, lambda s: s.holds.slow_reader),
    f"{CLASS}.flow_key": Case("user", lambda s: s.proxy.desk.flow(s.before.identity, "all"), "app"),
    f"{CLASS}.schedules": Case([{"limit": 3}], lambda s: s.account.limit, 3),
    f"{CLASS}.slow_start": Case(9, lambda s: s.numbers.slow_start_seconds),
    f"{CLASS}.lend_memory": Case(9, lambda s: s.numbers.lend_memory_seconds),  # type: ignore[attr-defined]
    f"{CLASS}.notify_after": Case(1, lambda s: (s.numbers.notify_after_seconds, s.room.notify_after_seconds), (1, 1)),
    "adaptive.mode": Case("observe", lambda s: s.upstream.adaptive.state().mode),
    "adaptive.reference_class": Case("all", lambda s: s.upstream.adaptive._run.settings.reference_class, None, ON),
    "adaptive.tolerance": Case(3, lambda s: s.upstream.adaptive._run.settings.tolerance, None, ON),
    "adaptive.wait_target": Case(0.2, lambda s: s.upstream.adaptive._run.settings.wait_target_seconds, None, ON),
    "adaptive.lock_probe": Case(3600, lambda s: s.upstream.locks._task is not None, True),
    "canary.interval": Case(3600, lambda s: s.upstream.canary.state().interval_seconds),
    "canary.class": Case("internal", lambda s: s.upstream.canary.state().class_name, None, ASKED),
    "canary.query": Case("select 2", lambda s: s.upstream.canary._settings.query, None, ASKED),
    "canary.timeout": Case(1, lambda s: s.upstream.canary.state().timeout_seconds, None, ASKED),
    "tags.comments": Case("trust", lambda s: s.tags._is_trusted, True),
    "tags.key": Case("route", lambda s: s.tags._key, b"route", TAGGED),
    "tags.value": Case("application_name", lambda s: s.tags._is_name, True, TAGGED),
    "pool.server_lifetime": Case(50, lifetime, True),
    "pool.server_idle_timeout": Case(100, until_sweep, 50),
    "pool.check_after": Case(1, lambda s: s.before.pool.check_after_seconds),
    "pool.dial_timeout": Case(3, lambda s: s.pool.dial_timeout_seconds),
    "pool.max_dials": Case(3, lambda s: s.proxy.registry.connector.turns._count),
    "pool.max_prepared_statements": Case(
        9, lambda s: (s.before.pool.max_statements, connection(s).statements.max_statements), (9, 9)
    ),
    "pool.gone_timeout": Case(3, lambda s: s.pool.gone_timeout_seconds),
    "pool.retry_min": Case(0.3, lambda s: s.pool.retry_min_seconds),
    "pool.retry_max": Case(3, lambda s: s.pool.retry_max_seconds),
    "pool.cancel_on_disconnect": Case(False, lambda s: s.pool.cancel_on_disconnect),
    "pool.listen_connections": Case(0, lambda s: s.proxy.upstream.listen_hubs.is_on, False),
    "limits.max_message_bytes": Case(20_000, lambda s: s.proxy.desk.settings.limits.max_message_bytes),
    "limits.max_startup_bytes": Case(9_000, lambda s: s.proxy.desk.settings.limits.max_startup_bytes),
    "limits.max_inspected_bytes": Case(9_000, lambda s: s.proxy.desk.settings.limits.max_inspected_bytes),
    "limits.max_waiting_bytes": Case(9_000, lambda s: s.proxy.desk.settings.limits.max_waiting_bytes),
    "limits.max_statement_bytes": Case(9_000, lambda s: s.proxy.desk.settings.limits.max_statement_bytes),
    "limits.max_notification_bytes": Case(20_000, lambda s: s.proxy.desk.settings.limits.max_notification_bytes),
    "refusals.delay": Case(0.1, lambda s: s.proxy.desk.connects.late.lateness.settings.delay_seconds),
    "refusals.max_delay": Case(3, lambda s: s.proxy.desk.connects.late.lateness.settings.max_delay_seconds),
    "refusals.forget_after": Case(9, lambda s: s.proxy.desk.connects.late.lateness.settings.forget_after_seconds),
    "refusals.max_held": Case(8, lambda s: s.proxy.desk.connects.late.lateness.settings.max_held),
    "shutdown.drain_timeout": Case(3, lambda s: s.proxy.process.in_force.shutdown.drain_timeout),
    "traffic.file": Case("seen.json", lambda s: s.proxy.process.traffic.file.name),  # type: ignore[union-attr]
    "traffic.keep": Case(7200, lambda s: s.proxy.process.traffic.record.keep_hours, 2),
}

LONG_FORM: Mapping[str, Any] = {
    "budget": None,
    "default_class": None,
    "classes": {"all": {"limit": 4}, "jobs": {"limit": 3}, "more": {"upstream": "two", "limit": 3}},
}
UPSTREAMS: Mapping[str, Any] = {
    "one": {"databases": ["app"], "default_class": "all", "budget": {"total": 6, "keep_free": 0}},
    "two": {"default_class": "jobs", "budget": {"total": 8, "keep_free": 0, "headroom": {"size": 0, "for": ["jobs"]}}},
}


def two(seen: Seen) -> Any:
    """The second upstream as it runs."""
    return seen.proxy.process.upstreams[1]


# The settings of an upstream in the long form, of the one called two.
TWO = "upstreams.two"
OF_UPSTREAMS: Mapping[str, Case] = {
    f"{TWO}.server_name": Case("db.lan", lambda s: two(s).registry.connector._dialler.upstream.tls.server_name),
    f"{TWO}.budget.total": Case(7, lambda s: (two(s).controller.total, two(s).registry.total), (7, 7)),
    f"{TWO}.budget.keep_free": Case(87, lambda s: two(s).controller.total, 10, {f"{TWO}.budget.total": "auto"}),
    f"{TWO}.budget.instances": Case(9, lambda s: two(s).controller.total, 10, {f"{TWO}.budget.total": "auto"}),
    f"{TWO}.budget.headroom.size": Case(1, lambda s: two(s).controller.snapshot(clock.now()).headroom),
    f"{TWO}.budget.headroom.for": Case(
        ["more"],
        lambda s: "more" in two(s).controller.settings.headroom_for,
        True,
        {f"{TWO}.budget.headroom.size": 1},
    ),
    f"{TWO}.default_class": Case("more", lambda s: two(s).upstream.classifier.classify("", "a", "b", None).class_name),
    f"{TWO}.replication_class": Case("more", lambda s: two(s).upstream.settings.replication_class),
}

# What is not shown by looking at a part: the name of the test that shows it.
SHOWN_ELSEWHERE: Mapping[str, str] = {
    "listen.tls.mode": "test_what_clients_are_offered_of_tls_is_that_of_the_last_reload",
    "listen.tls.cert": "test_a_renewed_certificate_is_shown_after_a_reload_and_old_connections_stay",
    "listen.tls.key": "test_a_renewed_certificate_is_shown_after_a_reload_and_old_connections_stay",
    "listen.tls.client_ca": "test_what_clients_are_offered_of_tls_is_that_of_the_last_reload",
    "classes.<name>.renamed_from": "test_a_renamed_class_goes_on_with_holders_waiters_and_orders",
    "classes.<name>.upstream": "test_a_class_that_goes_to_another_upstream",
    "upstreams.<name>.databases": "test_databases_come_go_and_move_between_upstreams",
    "upstreams.<name>.database": "test_databases_come_go_and_move_between_upstreams",
}


def nested(changes: Mapping[str, object]) -> dict[str, Any]:
    """{"a.b": 1} as {"a": {"b": 1}}."""
    whole: dict[str, Any] = {}
    for key, value in changes.items():
        *path, last = key.split(".")
        section: dict[str, Any] = {last: value}
        for name in reversed(path):
            section = {name: section}
        whole = deep(whole, section)
    return whole


def deep(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        name: deep(base[name], one) for name, one in changes.items() if is_section(base.get(name)) and is_section(one)
    }
    return {**base, **changes, **both}


def is_section(value: object) -> bool:
    return isinstance(value, Mapping)


def reloadable() -> list[str]:
    return [key for key, info in settings_of_the_model(Config) if reload_kind(info) != "restart"]


def of_the_model(key: str) -> str:
    return key.replace(CLASS, "classes.<name>")


def test_every_setting_that_a_reload_takes_over_is_shown_to_be() -> None:
    lists = ("auth.rules[]", "classes.<name>.match[]", "classes.<name>.schedules[]")  # each list is one setting
    wanted = [key for key in reloadable() if not key.startswith(lists)]
    shown = {*map(of_the_model, CASES), *SHOWN_ELSEWHERE}
    assert [key for key in wanted if key not in shown and not key.startswith("upstreams.")] == []
    of_upstreams = {key for key in wanted if key.startswith("upstreams.")}
    assert of_upstreams - shown - {key.replace("two", "<name>") for key in OF_UPSTREAMS} == set()
    assert shown - set(wanted) == set()
    code = "".join(one.read_text() for one in Path(__file__).parent.glob("test_*.py"))
    assert [name for name in SHOWN_ELSEWHERE.values() if f"def {name}(" not in code] == []


@pytest.fixture
async def running(run_proxy: RunProxy) -> Running:
    proxy = await run_proxy(**BASE)
    (proxy.folder / "others.txt").write_text('"carl" "secret"\n')
    await (await proxy.connect()).query("select 1")
    return proxy


async def look(proxy: Running, case: Case) -> object:
    (before,) = proxy.desk.clients
    assert isinstance(before, ClientConnection)
    late = await proxy.connect() if case.wants_late_client else None
    try:
        found = case.look(Seen(proxy, before, late))
        return await found if inspect.isawaitable(found) else found
    finally:
        if late is not None:
            await late.abort()
            await eventually(lambda: len(proxy.desk.clients) == 1)


async def look_before(proxy: Running, case: Case) -> object:
    """None where the part is not even there."""
    try:
        return await look(proxy, case)
    except (AttributeError, AssertionError, LookupError):
        return None


async def problem(proxy: Running, case: Case, before: object) -> str | None:
    seen = await look(proxy, case)
    if seen != case.expected:
        return f"{seen!r} instead of {case.expected!r}"
    return "the same as before: this proves nothing" if before == seen else None


def reload_to(proxy: Running, changes: Mapping[str, object]) -> None:
    settings = deep(proxy.settings, nested(changes)) if changes else proxy.settings
    proxy.process.reload(config_of(settings, proxy.folder))


def set_beside_file(proxy: Running, changes: Mapping[str, object]) -> None:
    steering, written = proxy.process.steering, {key: str(value).lower() for key, value in changes.items()}
    kept = {one.order.key for one in steering.overrides()} - set(written)
    if kept:
        steering.unset(kept, by="anna", reason="")
    if written:
        steering.set(written, by="anna", reason="a test")


@pytest.mark.parametrize("by", [reload_to, set_beside_file])
async def test_settings_of_an_upstream_reach_its_parts(run_proxy: RunProxy, postgres: Postgres, by: Change) -> None:
    upstreams = {name: {"url": postgres.url("app"), **one} for name, one in UPSTREAMS.items()}
    proxy = await run_proxy("", upstreams=upstreams, **LONG_FORM)
    await (await proxy.connect()).query("select 1")
    can_be_set = settable(proxy.process.config)
    assert (
        await problems(
            proxy, {key: one for key, one in OF_UPSTREAMS.items() if by is reload_to or key in can_be_set}, by
        )
        == {}
    )


SECTIONS = sorted({key.split(".")[0] for key in CASES})


@pytest.mark.parametrize("section", SECTIONS)
async def test_a_reload_reaches_the_parts_that_run(running: Running, section: str) -> None:
    cases = {key: case for key, case in CASES.items() if key.split(".")[0] == section}
    assert await problems(running, cases, reload_to) == {}


@pytest.mark.parametrize("section", SECTIONS)
async def test_what_is_set_reaches_the_parts_that_run_as_a_reload_does(running: Running, section: str) -> None:
    can_be_set = settable(running.process.config)
    cases = {key: case for key, case in CASES.items() if key.split(".")[0] == section and key in can_be_set}
    if "budget.headroom.size" in cases:
        reload_to(running, {"budget.headroom.for": ["jobs"]})
    assert await problems(running, cases, set_beside_file) == {}


async def problems(proxy: Running, cases: Mapping[str, Case], change: Change) -> dict[str, str]:
    """What the change did not reach, or did not leave again."""
    found = {}
    for key, case in cases.items():
        change(proxy, case.beside or {})
        before = await look_before(proxy, case)
        change(proxy, case.changes(key))
        found[key] = await problem(proxy, case, before)
        change(proxy, case.beside or {})
        if await look_before(proxy, case) != before:
            found[key] = "not as before when the change is taken back"
        change(proxy, {})
    return {key: one for key, one in found.items() if one}


async def test_what_needs_a_restart_is_kept_as_it_runs_and_said_so(running: Running) -> None:
    process, url = running.process, running.settings["upstream"]["url"]
    ports, looks = (running.port, process.http.port), running.upstream.settings.check_seconds
    changes = {
        "listen.host": "localhost",
        "listen.port": 1,
        "http.port": 2,
        "switches.state_file": "orders.json",
        "upstream.url": f"{url.replace('app', 'other')}{'&' if '?' in url else '?'}connect_timeout=77&sslmode=disable",
        "upstream.check_hosts": 60,
        "log.level": "debug",
    }
    said = process.reload(config_of(deep(running.settings, nested(changes)), running.folder)).lines()
    assert {line.partition(":")[0] for line in said if line.endswith("(after a restart)")} == set(changes)
    assert (running.port, process.http.port) == ports
    assert running.upstream.settings.check_seconds == looks
    assert running.upstream.settings.user == "app"
    assert running.registry.settings.dial_timeout_seconds == 5, (
        "and not the connect_timeout of a URL that is not dialled"
    )
    assert running.registry.connector.upstream.tls.context is not None, "nor is its sslmode, half of it"
    process.steering.set({"classes.all.limit": "3"}, by="anna", reason="")
    assert await process.steering.saved() is None
    assert not (running.folder / "orders.json").exists()
    late = await running.connect()
    assert await late.value("select 1") == "1"
    again = process.reload(config_of(deep(running.settings, nested(changes)), running.folder)).lines()
    assert {line.partition(":")[0] for line in again if line.endswith("waits for a restart")} == set(changes)
    back = process.reload(config_of(running.settings, running.folder)).lines()
    assert not [line for line in back if line.endswith("waits for a restart")]


# Those that a reload takes over and `set` does not, though a single value stands there.
ONLY_IN_THE_FILE = {"http.switches_from", "listen.tls.mode"}


def test_what_a_reload_takes_over_can_be_set_unless_the_model_says_why_not() -> None:
    """Texts, lists and files are for the file. Of the others each is settable, or is named here and in the model."""
    fields = dict(settings_of_the_model(Config))
    marked = {key for key, info in fields.items() if only_in_the_file(info) is not None}
    assert marked == ONLY_IN_THE_FILE
    refused = {key: why_not_settable(key, fields[key]) or "" for key in reloadable()}
    one_value = {"number", "time", "bytes", "number or `auto`", "true or false", "word"}
    kinds = {key: cells[1] for key, cells in documented().items()}
    in_lists = {key for key in refused if "[]" in key}
    assert {key for key, why in refused.items() if why and kinds[key] in one_value} - in_lists == (
        ONLY_IN_THE_FILE | {"auth.method"}
    )
    assert {key for key, why in refused.items() if not why and kinds[key] not in one_value} - in_lists == set()
