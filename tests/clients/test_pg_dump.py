"""pg_dump, pg_restore and psql through the proxy: a database taken out, put back, and the same in every row.

pg_dump sets a dozen parameters, empties search_path, reads in one repeatable-read transaction and, with several jobs,
shares its snapshot between connections: all of it has to survive on pooled connections.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.ways import Target, Way, assert_left_quiet

SCHEMA = r"""
CREATE TYPE mood AS ENUM ('low', 'it''s high');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE customers (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, mood mood DEFAULT 'low', photo bytea,
    tags text[], extra jsonb, born date, seen timestamptz, ratio float8, price numeric(12, 3),
    shout text GENERATED ALWAYS AS (upper(name)) STORED
);
INSERT INTO customers (name, mood, photo, tags, extra, born, seen, ratio, price)
    SELECT E'name\t' || g || E'\n ✓ \\ ''quoted''', 'it''s high', decode(md5(g::text), 'hex'), ARRAY['a,b', NULL, '"'],
           jsonb_build_object('n', g, 'deep', '[1, {"x": null}]'::jsonb), '0044-03-15 BC'::date + g,
           '2024-02-29 12:00+00'::timestamptz + g * '1.000001 hour'::interval, 1 / g::float8, g * 1.125
    FROM generate_series(1, 600) g;
CREATE INDEX customers_name ON customers (lower(name)) WHERE id > 10;
CREATE TABLE orders (customer int REFERENCES customers, amount positive, at date) PARTITION BY RANGE (at);
CREATE TABLE orders_old PARTITION OF orders FOR VALUES FROM ('2000-01-01') TO ('2020-01-01');
CREATE TABLE orders_new PARTITION OF orders DEFAULT;
INSERT INTO orders SELECT g % 600 + 1, g, '2019-12-01'::date + g % 60 FROM generate_series(1, 1000) g;
CREATE SCHEMA "Other Place";
CREATE FUNCTION "Other Place".total(int) RETURNS bigint LANGUAGE sql STABLE
    AS $$ SELECT coalesce(sum(amount), 0) FROM public.orders WHERE customer = $1 $$;
CREATE VIEW "Other Place".spenders AS SELECT name, "Other Place".total(id) FROM public.customers;
CREATE MATERIALIZED VIEW best AS SELECT customer, sum(amount) AS sum FROM orders GROUP BY 1;
CREATE SEQUENCE tickets START 77 INCREMENT 11;
SELECT nextval('tickets');
SELECT lo_from_bytea(0, decode(repeat('00ff', 3000), 'hex'));
"""

CHECKSUMS = r"""
SELECT 'customers', count(*), md5(string_agg(c::text, E'\n' ORDER BY id)) FROM customers c
UNION ALL SELECT 'orders', count(*), md5(string_agg(o::text, E'\n' ORDER BY amount)) FROM orders o
UNION ALL SELECT 'best', count(*), md5(string_agg(b::text, E'\n' ORDER BY customer)) FROM best b
UNION ALL SELECT 'spenders', count(*), md5(string_agg(s::text, E'\n' ORDER BY name)) FROM "Other Place".spenders s
UNION ALL SELECT 'large object', count(*), md5(string_agg(lo_get(oid), '' ORDER BY oid)) FROM pg_largeobject_metadata
UNION ALL SELECT 'tickets', last_value, is_called::text FROM tickets
ORDER BY 1
"""


@pytest.fixture(scope="module")
def databases(target: Target) -> Iterator[Target]:
    """`dump_source` with the schema above in it, to be read only."""
    target.postgres.psql("CREATE DATABASE dump_source OWNER app STRATEGY file_copy")
    target.way("transaction-dump").to("dump_source").straight.psql("-q", "-v", "ON_ERROR_STOP=1", "-c", SCHEMA)
    yield target
    target.postgres.psql("DROP DATABASE dump_source WITH (FORCE)")


@pytest.fixture(params=["transaction", "session"])
def source(databases: Target, request: pytest.FixtureRequest) -> Iterator[Way]:
    yield databases.way(f"{request.param}-dump").to("dump_source")
    assert_left_quiet(databases.proxy)


@pytest.fixture
def copy_of_source(databases: Target, source: Way) -> Iterator[Way]:
    """An empty database to restore into."""
    databases.postgres.psql("CREATE DATABASE dump_target OWNER app STRATEGY file_copy")
    yield source.to("dump_target")
    databases.postgres.psql("DROP DATABASE dump_target WITH (FORCE)")


def checksums(way: Way) -> str:
    return way.straight.psql("-At", "-c", CHECKSUMS).stdout


def dumped(way: Way, *options: str) -> str:
    """A plain dump without the random key that newer versions of pg_dump write at both ends."""
    return re.sub(r"(?m)^\\(un)?restrict .*$", "", way.run("pg_dump", *options).stdout)


def test_a_plain_dump_is_the_same_byte_for_byte(source: Way) -> None:
    text = dumped(source)
    assert text == dumped(source.straight)
    assert text.count("\n") > 1600


def test_a_dump_of_inserts_and_of_parts_is_the_same(source: Way) -> None:
    for options in (["--inserts", "--rows-per-insert=50"], ["-s"], ["-a", "-t", "orders*"]):
        assert dumped(source, *options) == dumped(source.straight, *options)


def test_a_plain_dump_restores_through_psql(source: Way, copy_of_source: Way) -> None:
    dump = source.run("pg_dump").stdout
    copy_of_source.psql("-q", "-v", "ON_ERROR_STOP=1", "-f", "-", stdin=dump)
    assert checksums(copy_of_source) == checksums(source)


def test_several_jobs_share_a_snapshot_and_restore_in_parallel(
    source: Way, copy_of_source: Way, tmp_path: Path
) -> None:
    source.run("pg_dump", "-Fd", "-j", "3", "-f", str(tmp_path / "dump"))
    copy_of_source.run("pg_restore", "-j", "3", "--exit-on-error", "-d", "dump_target", str(tmp_path / "dump"))
    assert checksums(copy_of_source) == checksums(source)
