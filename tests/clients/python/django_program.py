"""Django on psycopg 3: its ORM, its connections per thread that live on between requests, and its pool."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import django
import django.db
from django.conf import settings

settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.postgresql"}}, INSTALLED_APPS=[])
django.setup()

from django.db import DatabaseError, connections, models, transaction  # noqa: E402 - settings come first

from tests.clients.python.program import NAMES, scenarios_of, serve  # noqa: E402


class Row(models.Model):
    a = models.IntegerField(primary_key=True)

    class Meta:
        app_label = "scenario"
        db_table = "scenario_django"


def version(_: str) -> Any:
    return {"driver": django.__version__}


def point_at(url: str, **options: Any) -> None:
    """What a settings file says, for all connections that are made from now on. Django reads no URLs itself."""
    parts = urlsplit(url)
    given = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path.lstrip("/"),
        "USER": parts.username,
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname,
        "PORT": parts.port,
        "CONN_MAX_AGE": 0 if "pool" in options else None,  # to Django it is either of them
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {**dict(parse_qsl(parts.query)), **options},
    }
    connections.settings = connections.configure_settings({"default": given, "other": dict(given)})


def leave() -> None:
    """Close what this thread has open, and forget it."""
    for name in ("default", "other"):
        if hasattr(connections._connections, name):
            connections[name].close()
            connections[name].close_pool()
            del connections[name]


def value(query: str, *arguments: Any, using: str = "default") -> Any:
    with connections[using].cursor() as cursor:
        cursor.execute(query, arguments or None)
        return cursor.fetchone()[0]


def run(query: str, using: str = "default") -> None:
    with connections[using].cursor() as cursor:
        cursor.execute(query)


def code_of(query: str) -> str | None:
    try:
        run(query)
    except DatabaseError as error:
        return getattr(error.__cause__, "sqlstate", None)
    return None


def make_table() -> None:
    run("DROP TABLE IF EXISTS scenario_django")
    with connections["default"].schema_editor() as editor:
        editor.create_model(Row)


def drop_table() -> None:
    with connections["default"].schema_editor() as editor:
        editor.delete_model(Row)


def connect_by_url(url: str) -> Any:
    point_at(url)
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT current_setting('application_name'), current_database(), current_user, 42")
        found = cursor.fetchone()
    leave()
    return dict(zip(("application_name", "database", "user", "answer"), found, strict=True))


def pool(url: str) -> Any:
    point_at(url, pool={"min_size": 1, "max_size": 5})

    def double(i: int) -> Any:
        found = value("SELECT %s::int * 2", i)
        connections["default"].close()  # back into the pool, as at the end of a request
        return found

    with ThreadPoolExecutor(10) as executor:
        found = list(executor.map(double, range(40)))
    leave()
    connections["default"].close_pool()
    leave()
    return {"rows": found}


def crowd(url: str) -> Any:
    point_at(url)
    all_are_connected = threading.Barrier(8, timeout=20)

    def turns(client: int) -> list[Any]:
        connections["default"].ensure_connection()
        all_are_connected.wait()
        found = []
        for i in range(5):
            with transaction.atomic():
                found.append(value("SELECT %s", 100 * client + i))
        leave()
        return found

    with ThreadPoolExecutor(8) as executor:
        return {"rows": list(executor.map(turns, range(8)))}


def prepared_statements(url: str) -> Any:
    """Django leaves them off unless asked, as here."""
    point_at(url, server_side_binding=True, prepare_threshold=3)
    first = [value("SELECT %s::int + 1", i) for i in range(8)]
    with transaction.atomic(using="other"):
        second = [value("SELECT 'x' || %s::text", str(i), using="other") for i in range(8)]
        first += [value("SELECT %s::int + 1", i) for i in range(8, 11)]
    leave()
    return {"one": first, "other": second}


def transactions(url: str) -> Any:
    """With iterator(), which keeps a server-side cursor open from one transaction to the next."""
    point_at(url)
    make_table()
    with transaction.atomic():
        Row.objects.create(a=1)
    with transaction.atomic():
        Row.objects.create(a=2)
        transaction.set_rollback(True)
    with transaction.atomic():
        Row.objects.create(a=3)
        with transaction.atomic():
            Row.objects.create(a=4)
            transaction.set_rollback(True)
    found = [row.a for row in Row.objects.order_by("a").iterator(chunk_size=1)]
    drop_table()
    leave()
    return {"rows": found}


def errors(url: str) -> Any:
    point_at(url)
    make_table()
    unique = code_of("INSERT INTO scenario_django VALUES (1), (1)")
    syntax = code_of("SELEC 1")
    drop_table()
    transaction.set_autocommit(False)
    code_of("SELECT 1/0")
    aborted = code_of("SELECT 1")
    transaction.rollback()
    transaction.set_autocommit(True)
    after = value("SELECT 1")
    leave()
    return {"unique": unique, "syntax": syntax, "aborted": aborted, "after": after}


def refusal_while_full(url: str) -> Any:
    point_at(url)
    found: dict[str, Any] = {"code": None}
    with transaction.atomic(using="other"):
        value("SELECT 1", using="other")
        try:
            value("SELECT 1")
        except DatabaseError as error:
            code = getattr(error.__cause__, "sqlstate", None)
            found = {"code": code, "message": str(error), "type": type(error).__name__}
    leave()
    return found


def recovery(url: str) -> Any:
    return after_refusals(url, lambda: value("SELECT 0"))


def refused_begin(url: str) -> Any:
    def begin() -> None:
        with transaction.atomic():
            value("SELECT 0")

    return after_refusals(url, begin)


def after_refusals(url: str, ask: Callable[[], Any]) -> Any:
    point_at(url)
    refused = 0
    with transaction.atomic(using="other"):
        value("SELECT 1", using="other")
        for _ in range(2):
            try:
                ask()
            except DatabaseError:
                refused += 1
    connections["other"].close()
    django.db.close_old_connections()  # as between two requests: what is broken is made anew
    found = [value("SELECT %s", i) for i in range(5)]
    leave()
    return {"refused": refused == 2, "after": found}


if __name__ == "__main__":
    serve(scenarios_of(globals(), NAMES))
