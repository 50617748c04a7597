"""SQLAlchemy on psycopg 3, with its own pool and pings as people configure them, and its ORM for transactions."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import sqlalchemy
from sqlalchemy import Engine, MetaData, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from tests.clients.python.program import NAMES, scenarios_of, serve

ABOUT = "SELECT current_setting('application_name'), current_database(), current_user, 42"
NUMBER = text("SELECT CAST(:i AS int)")


class Base(DeclarativeBase):
    metadata = MetaData()


class Row(Base):
    __tablename__ = "scenario_sqlalchemy"
    a: Mapped[int] = mapped_column(primary_key=True)


def version(_: str) -> Any:
    return {"driver": sqlalchemy.__version__}


def engine_at(url: str, **options: Any) -> Engine:
    return create_engine(make_url(url).set(drivername="postgresql+psycopg"), **options)


def code_of(connection: sqlalchemy.Connection, query: str) -> str | None:
    try:
        connection.execute(text(query))
    except DBAPIError as error:
        return getattr(error.orig, "sqlstate", None)
    return None


def connect_by_url(url: str) -> Any:
    engine = engine_at(url)
    with engine.connect() as connection:
        found = connection.execute(text(ABOUT)).one()
    engine.dispose()
    return dict(zip(("application_name", "database", "user", "answer"), found, strict=True))


def pool(url: str) -> Any:
    engine = engine_at(url, pool_size=5, max_overflow=0, pool_pre_ping=True)

    def double(i: int) -> Any:
        with engine.connect() as connection:
            return connection.execute(text("SELECT CAST(:i AS int) * 2"), {"i": i}).scalar_one()

    with ThreadPoolExecutor(10) as executor:
        found = list(executor.map(double, range(40)))
    engine.dispose()
    return {"rows": found}


def crowd(url: str) -> Any:
    engine = engine_at(url, pool_size=8, max_overflow=0)
    connections = [engine.connect() for _ in range(8)]
    for connection in connections:
        connection.rollback()  # SQLAlchemy asks each new connection a few things

    def turns(client: int) -> list[Any]:
        found = []
        for i in range(5):
            with connections[client].begin():
                for _ in range(2):
                    last = connections[client].execute(NUMBER, {"i": 100 * client + i}).scalar_one()
                found.append(last)
        return found

    with ThreadPoolExecutor(8) as executor:
        rows = list(executor.map(turns, range(8)))
    for connection in connections:
        connection.close()
    engine.dispose()
    return {"rows": rows}


def prepared_statements(url: str) -> Any:
    engine = engine_at(url)
    autocommitting = engine.execution_options(isolation_level="AUTOCOMMIT")
    plus, word = text("SELECT CAST(:i AS int) + 1"), text("SELECT 'x' || CAST(:i AS text)")
    with autocommitting.connect() as one, engine.connect() as other:
        first = [one.execute(plus, {"i": i}).scalar_one() for i in range(8)]
        second = [other.execute(word, {"i": str(i)}).scalar_one() for i in range(8)]
        first += [one.execute(plus, {"i": i}).scalar_one() for i in range(8, 11)]
    engine.dispose()
    return {"one": first, "other": second}


def transactions(url: str) -> Any:
    engine = engine_at(url)
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        session.add(Row(a=1))
    with Session(engine) as session:
        session.add(Row(a=2))
        session.flush()
        session.rollback()
    with Session(engine) as session, session.begin():
        session.add(Row(a=3))
        session.flush()
        inner = session.begin_nested()
        session.add(Row(a=4))
        session.flush()
        inner.rollback()
    with Session(engine) as session:
        found = list(session.scalars(sqlalchemy.select(Row.a).order_by(Row.a)))
    Base.metadata.drop_all(engine)
    engine.dispose()
    return {"rows": found}


def errors(url: str) -> Any:
    engine = engine_at(url)
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    with engine.connect() as connection:
        unique = code_of(connection, f"INSERT INTO {Row.__tablename__} VALUES (1), (1)")
        aborted = code_of(connection, "SELECT 1")
        connection.rollback()
        syntax = code_of(connection, "SELEC 1")
        connection.rollback()
        after = connection.execute(text("SELECT 1")).scalar_one()
    Base.metadata.drop_all(engine)
    engine.dispose()
    return {"unique": unique, "syntax": syntax, "aborted": aborted, "after": after}


def refusal_while_full(url: str) -> Any:
    engine = engine_at(url)
    try:
        with engine.connect() as holder:
            holder.execute(text("SELECT 1"))
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))
    except DBAPIError as error:
        code = getattr(error.orig, "sqlstate", None)
        return {"code": code, "message": str(error), "type": type(error).__name__}
    finally:
        engine.dispose()
    return {"code": None}


def recovery(url: str) -> Any:
    engine, others = engine_at(url, pool_size=1, max_overflow=0), engine_at(url)

    def ask(i: int) -> Any:
        with engine.connect() as connection:
            return connection.execute(NUMBER, {"i": i}).scalar_one()

    refused = 0
    with others.connect() as holder:
        holder.execute(text("SELECT 1"))
        for _ in range(2):
            try:
                ask(0)
            except DBAPIError:
                refused += 1
    others.dispose()
    found = [ask(i) for i in range(5)]
    engine.dispose()
    return {"refused": refused == 2, "after": found}


refused_begin = recovery  # each statement there is the first of a transaction that the driver begins


if __name__ == "__main__":
    serve(scenarios_of(globals(), NAMES))
