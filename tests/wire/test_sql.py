"""What statements leave in a session, what they clear, what they do to transactions."""

import pytest

from proxy.wire import _prefilter, prefilter
from proxy.wire.sql import (
    FOLLOWED_PARAMETERS,
    NEVER_CLEARED,
    PLAIN,
    PinReason,
    SqlFacts,
    inspect_sql,
    transaction_effect,
)

try:
    from proxy.wire import _compiled
except ImportError:
    _compiled = None

PREFILTERS = [_prefilter.may_matter] if _compiled is None else [_prefilter.may_matter, _compiled.may_matter]
ALL_CLEARED = frozenset(PinReason) - NEVER_CLEARED


@pytest.fixture(params=PREFILTERS, ids=["plain", "compiled"][: len(PREFILTERS)], autouse=True)
def both_prefilters(request, monkeypatch):
    """Every test runs with both prefilters."""
    monkeypatch.setattr(prefilter, "may_matter", request.param)
    return request.param


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("LISTEN jobs", "listen"),
        ('listen "Jobs"', "listen"),
        ("LOAD 'auto_explain'", "load"),
        ("PREPARE q AS SELECT 1", "prepare"),
        ("PREPARE transaction AS SELECT 1", "prepare"),
        ("CREATE TEMP TABLE t (a int)", "temporary_table"),
        ("CREATE TEMPORARY TABLE t (a int) ON COMMIT DROP", "temporary_table"),
        ("CREATE LOCAL TEMP TABLE t (a int)", "temporary_table"),
        ("CREATE GLOBAL TEMPORARY TABLE t (a int)", "temporary_table"),
        ("create or replace temp view v as select 1", "temporary_table"),
        ("CREATE TEMP SEQUENCE s", "temporary_table"),
        ("CREATE TABLE pg_temp.t (a int)", "temporary_table"),
        ('CREATE TABLE "pg_temp".t (a int)', "temporary_table"),
        ("CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'select 1'", "temporary_table"),
        ("SELECT * INTO TEMP t FROM u", "temporary_table"),
        ("SELECT 1 INTO TEMPORARY TABLE t", "temporary_table"),
        ("SELECT * INTO pg_temp.t FROM u", "temporary_table"),
        ("EXPLAIN ANALYZE CREATE TEMP TABLE t AS SELECT 1", "temporary_table"),
        ("SELECT pg_advisory_lock(1)", "advisory_lock"),
        ("SELECT pg_catalog.pg_advisory_lock (1, 2)", "advisory_lock"),
        ("select PG_TRY_ADVISORY_LOCK_SHARED(1)", "advisory_lock"),
        ('select "pg_advisory_lock"(1)', "advisory_lock"),
        ("select pg_advisory_lock/* */(1)", "advisory_lock"),
        ("WITH x AS (SELECT pg_advisory_lock_shared(1)) SELECT 1", "advisory_lock"),
        ("select 1union select pg_advisory_lock(1)", "advisory_lock"),
        ('select U&"pg\\005fadvisory_lock"(1)', "unknown"),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "with_hold_cursor"),
        ("declare c insensitive scroll cursor with hold for select 1", "with_hold_cursor"),
        ("SET search_path = a, pg_temp", "set"),
        ('SET "a b".c = 1', "set"),
        ("SET SEED TO 0.5", "set"),
        ("  -- a comment\n /* and /* one */ more */ set role = bob", "set_role"),
        ("SET ROLE bob", "set_role"),
        ("SET SESSION ROLE NONE", "set_role"),
        ("SET role = 'bob'", "set_role"),
        ('SET "role" = bob', "set_role"),
        ("SET SESSION AUTHORIZATION bob", "session_authorization"),
        ("SET session_authorization TO bob", "session_authorization"),
        ("SELECT set_config($1, $2, false)", "set_config"),
        ("SELECT set_config($1, $2, not true)", "set_config"),
        ("SELECT set_config(setting_name => 'a.b', new_value => 'c', is_local => false)", "set_config"),
        ("SELECT set_config(", "set_config"),
        ("SELECT dblink_connect('x', 'y')", "session_function"),
        ("SELECT pg_backup_start('x')", "session_function"),
        ("SELECT pg_create_logical_replication_slot('a', 'b', true)", "session_function"),
        ("SET search_path = 'a", "unknown"),
        ("LISTEN a; SELECT 'b", "listen"),
        ("SELECT E'a\\'; LISTEN x", "unknown"),
        ("SELECT E'a\\'' , pg_advisory_lock(1)", "advisory_lock"),
        ("SELECT E'a'\n'b\\'; select 1; --' ; LISTEN x", "listen"),
        ("SELECT $$;$$ , $a$ $$ $a$; LISTEN x", "listen"),
        ("SELECT ' -- ' ; LISTEN x", "listen"),
        ('SELECT 1 AS "it\'s"; LISTEN x', "listen"),
        ("SELECT 1 -- it's\n; LISTEN x", "listen"),
        ("SELECT 1 /* it's */; LISTEN x", "listen"),
    ],
)
def test_what_cannot_be_followed_pins(text, reason):
    assert inspect_sql(text.encode()).pin is PinReason(reason)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ";;",
        "SELECT 1",
        "UPDATE t SET a = 1 WHERE b = 'x; set y = 1'",
        "INSERT INTO temp VALUES (1)",
        "SELECT temp, temporary FROM sensors",
        "SELECT $$ ; LISTEN x $$",
        "SELECT $a$ ; LISTEN x $$ $a$",
        "SELECT 'pg_advisory_lock(1)', \"pg_x\" -- pg_advisory_lock(1)",
        "SELECT '''; LISTEN x; '''",
        "SELECT E'\\'; LISTEN x; --'",
        "SELECT 'a\\'; -- LISTEN x",
        "/* ; LISTEN x /* */ ; LISTEN y */ SELECT 1",
        "SELECT a$b$, c$b$ FROM t",
        "SELECT pg_advisory_xact_lock(1), pg_try_advisory_xact_lock_shared(1)",
        "SELECT pg_advisory_unlock(1)",
        "SELECT pg_advisory_lock FROM t",
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "SET CONSTRAINTS ALL DEFERRED",
        "PREPARE TRANSACTION 'x'",
        "DECLARE c CURSOR FOR SELECT 1",
        "DECLARE c CURSOR WITHOUT HOLD FOR SELECT 1",
        "CLOSE c",
        "DISCARD PLANS",
        "ALTER ROLE bob SET search_path = a",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 2 END; END",
        "CREATE RULE r AS ON INSERT TO t DO ALSO (NOTIFY a; NOTIFY b)",
        "SELECT listen, load FROM t",
    ],
)
def test_what_leaves_nothing_is_plain_and_the_same_object(text):
    assert inspect_sql(text.encode()) is PLAIN


@pytest.mark.parametrize(
    "text",
    [
        "SET LOCAL work_mem = 1",
        "SET LOCAL ROLE bob",
        "SET LOCAL SESSION AUTHORIZATION bob",
        "SET transaction_isolation = 'serializable'",
        "SET application_name = 'web'",
        "SET SESSION client_encoding TO 'UTF8'",
        "SET DateStyle = ISO, MDY",
        "SET TIME ZONE 'Europe/Berlin'",
        "SET SESSION TIME ZONE INTERVAL '-08:00' HOUR TO MINUTE",
        "SET \"TimeZone\" TO 'UTC'",
        "SET IntervalStyle = iso_8601",
        "SET standard_conforming_strings = on",
        "SET default_transaction_read_only = on",
        "SELECT set_config('search_path', 'a, b', true)",
        "SELECT set_config($1, f(a, b), TRUE), 1",
        "SELECT pg_catalog.set_config('TimeZone', 'UTC', false)",
    ],
)
def test_what_sets_a_parameter_and_leaves_nothing_unseen_says_only_that(text):
    assert inspect_sql(text.encode()) == SqlFacts(sets_parameters=True)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("SET search_path = a, b", {"search_path"}),
        ("SET SCHEMA 'a'", {"search_path"}),
        ("SET SESSION statement_timeout = 0; SET lock_timeout TO 1", {"statement_timeout", "lock_timeout"}),
        ("SET my.own = 1", {"my.own"}),
        ("SET my.application_name = 1", {"my.application_name"}),
        ("SET XML OPTION DOCUMENT", {"xmloption"}),
        (
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            {"default_transaction_deferrable", "default_transaction_isolation"},
        ),
        ("SET work_mem TO DEFAULT", {"work_mem"}),
        ("RESET work_mem", {"work_mem"}),
        ("SELECT set_config('search_path', 'a', false)", {"search_path"}),
        ("SELECT set_config('lock_timeout', '1', $1)", {"lock_timeout"}),
        ("SELECT set_config('a.b', (select 'x,true'), false)", {"a.b"}),
    ],
)
def test_what_sets_a_parameter_unreported_names_it(text, names):
    facts = inspect_sql(text.encode())
    assert (facts.pin, facts.sets, facts.sets_parameters) == (None, names, True)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("DEALLOCATE q", b"q"),
        ("deallocate prepare Q;", b"q"),
        ('DEALLOCATE "all"', b"all"),
        ("DEALLOCATE q; SELECT 1", None),
        ("DEALLOCATE ALL", None),
    ],
)
def test_one_deallocate_names_its_statement(text, name):
    assert inspect_sql(text.encode()).deallocates == name


@pytest.mark.parametrize(
    ("text", "channels"),
    [
        ("UNLISTEN Jobs", {b"jobs"}),
        ('select 1; unlisten "A b"; unlisten c', {b"A b", b"c"}),
        ("unlisten a; listen a", set()),
        ("begin; unlisten a; rollback", set()),
        ("begin; unlisten a; commit", {b"a"}),
        ("unlisten *", set()),
    ],
)
def test_channels_that_are_left_are_named(text, channels):
    assert inspect_sql(text.encode()).unlistens == channels


@pytest.mark.parametrize(
    ("text", "clears"),
    [
        ("DISCARD ALL", ALL_CLEARED),
        ("RESET ALL", {PinReason.SET, PinReason.SET_CONFIG}),
        ("UNLISTEN *", {PinReason.LISTEN}),
        ("DEALLOCATE ALL", {PinReason.PREPARE}),
        ("DEALLOCATE PREPARE ALL", {PinReason.PREPARE}),
        ("DISCARD TEMP", {PinReason.TEMPORARY_TABLE}),
        ("DISCARD TEMPORARY", {PinReason.TEMPORARY_TABLE}),
        ("CLOSE ALL", {PinReason.WITH_HOLD_CURSOR}),
        ("RESET ROLE", {PinReason.SET_ROLE}),
        ("RESET SESSION AUTHORIZATION", {PinReason.SESSION_AUTHORIZATION}),
        ("SET SESSION AUTHORIZATION DEFAULT", {PinReason.SESSION_AUTHORIZATION}),
        ("SELECT pg_advisory_unlock_all()", {PinReason.ADVISORY_LOCK}),
        ("select pg_catalog.pg_advisory_unlock_all ( ) ;", {PinReason.ADVISORY_LOCK}),
        ("CLOSE ALL; UNLISTEN *; ", {PinReason.LISTEN, PinReason.WITH_HOLD_CURSOR}),
        ("BEGIN; UNLISTEN *; COMMIT; ROLLBACK", {PinReason.LISTEN}),
    ],
)
def test_what_clears_session_state_says_so(text, clears):
    facts = inspect_sql(text.encode())
    assert facts.pin is None
    assert facts.clears == clears


@pytest.mark.parametrize(
    "text",
    [
        "SELECT pg_advisory_unlock_all() WHERE false",
        "BEGIN; UNLISTEN *; ROLLBACK",
        "UNLISTEN *; ROLLBACK TO a",
    ],
)
def test_what_may_not_have_happened_clears_nothing(text):
    assert inspect_sql(text.encode()) is PLAIN


def test_what_is_set_again_behind_is_not_cleared():
    facts = inspect_sql(b"DISCARD ALL; LISTEN a; SET x.y = 1")
    assert facts.pin is PinReason.LISTEN
    assert facts.pins == {PinReason.LISTEN}
    assert facts.clears == ALL_CLEARED - facts.pins
    assert facts.sets == {"x.y"}


def test_a_reset_that_is_rolled_back_resets_nothing():
    facts = inspect_sql(b"BEGIN; RESET ALL; ABORT")
    assert (facts.clears, facts.resets_parameters) == (frozenset(), False)


def test_what_is_cleared_again_behind_pins_until_it_succeeded():
    facts = inspect_sql(b"LISTEN a; UNLISTEN *")
    assert (facts.pin, facts.clears) == (PinReason.LISTEN, {PinReason.LISTEN})


@pytest.mark.parametrize(("text", "resets"), [("RESET ALL", True), ("DISCARD ALL", True), ("CLOSE ALL", False)])
def test_what_resets_all_parameters_says_so(text, resets):
    assert inspect_sql(text.encode()).resets_parameters is resets


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("RESET TimeZone", {"timezone"}),
        ("RESET TIME ZONE", {"timezone"}),
        ("SET TIME ZONE LOCAL", {"timezone"}),
        ("SET NAMES", {"client_encoding"}),
        ("RESET work_mem", {"work_mem"}),
        ("RESET search_path", {"search_path"}),
        ("SET application_name TO DEFAULT; SET DateStyle = DEFAULT", {"application_name", "datestyle"}),
    ],
)
def test_parameters_that_go_back_to_their_default_are_named(text, names):
    facts = inspect_sql(text.encode())
    assert (facts.pin, facts.resets) == (None, names)


@pytest.mark.parametrize(
    ("text", "pins"),
    [
        ("SET search_path = a, b", False),
        ("SET SCHEMA 'a'", False),
        ("SELECT set_config('search_path', 'a, b', false)", False),
        ("SET search_path = a, pg_temp", True),
        ('SET search_path = "pg_temp_3"', True),
        ("SET search_path = E'pg\\x5ftemp'", True),
        ("SELECT set_config('search_path', 'pg_temp', false)", True),
        ("SELECT set_config('search_path', f('x'), false)", True),
    ],
)
def test_a_server_that_reports_search_path_lets_it_be_followed(text, pins):
    facts = inspect_sql(text.encode(), followed=FOLLOWED_PARAMETERS | {"search_path"})
    assert (facts.pin is not None) is pins


def test_backslashes_escape_in_all_strings_when_the_client_says_so():
    hidden = b"SELECT 'it\\'; LISTEN x; --'"
    assert inspect_sql(hidden).pin is PinReason.LISTEN
    assert inspect_sql(hidden, backslash_escapes=True) is PLAIN
    shown = b"SELECT 'a\\\\'; LISTEN x"
    assert inspect_sql(shown, backslash_escapes=True).pin is PinReason.LISTEN


def test_bytes_of_any_encoding_are_letters():
    assert inspect_sql("SELECT pg_advisory_lockä(1), äset_config(1)".encode("latin-1")) is PLAIN


def test_a_text_ends_at_its_nul():
    assert inspect_sql(b"RESET ALL\0").resets_parameters


def test_long_texts_are_looked_at_as_short_ones_are():
    assert inspect_sql(b"SELECT 1;" * 1000 + b"LISTEN x").pin is PinReason.LISTEN


# -- transactions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "statements", "opens", "ends"),
    [
        ("", (), False, False),
        (" ; -- nothing\n;", (), False, False),
        ("SELECT 1", ("SELECT",), False, False),
        ("begin", ("BEGIN",), True, False),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE; UPDATE t SET a = 1", ("BEGIN", "UPDATE"), True, False),
        ("START TRANSACTION READ ONLY", ("BEGIN",), True, False),
        ("BEGIN; SELECT 1; COMMIT", ("BEGIN", "SELECT", "COMMIT"), False, True),
        ("END", ("COMMIT",), False, True),
        ("ABORT WORK", ("ROLLBACK",), False, True),
        ("COMMIT AND NO CHAIN", ("COMMIT",), False, True),
        ("COMMIT TRANSACTION AND CHAIN", ("COMMIT AND CHAIN",), True, True),
        ("ROLLBACK AND CHAIN", ("ROLLBACK AND CHAIN",), True, True),
        ("ROLLBACK TO a", ("ROLLBACK TO",), False, False),
        ("ROLLBACK WORK TO SAVEPOINT a", ("ROLLBACK TO",), False, False),
        ("PREPARE TRANSACTION 'x'", ("PREPARE TRANSACTION",), False, True),
        ("PREPARE transaction AS SELECT 1", ("PREPARE",), False, False),
        ("COMMIT PREPARED 'x'", ("COMMIT PREPARED",), False, False),
        ("ROLLBACK PREPARED 'x'", ("ROLLBACK PREPARED",), False, False),
        ("COMMIT; BEGIN", ("COMMIT", "BEGIN"), True, True),
        ("CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT 1; SELECT 2); BEGIN", ("CREATE", "BEGIN"), True, False),
        ("SAVEPOINT a; RELEASE a", ("SAVEPOINT", "RELEASE"), False, False),
        ("(SELECT 1)", ("",), False, False),
        ("SELECT 'BEGIN", ("",), False, False),
        ("SELECT ';BEGIN'", ("SELECT",), False, False),
        ("CREATE OR REPLACE PROCEDURE p() BEGIN ATOMIC SELECT 1; END; BEGIN", ("CREATE", "BEGIN"), True, False),
        (
            "CREATE FUNCTION f() BEGIN ATOMIC SELECT CASE WHEN a THEN b END; END; COMMIT",
            ("CREATE", "COMMIT"),
            False,
            True,
        ),
    ],
)
def test_what_a_text_does_to_transactions(text, statements, opens, ends):
    effect = transaction_effect(text.encode())
    assert (effect.statements, effect.opens, effect.ends) == (statements, opens, ends)


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        ("COMMIT", True),
        ("END; SELECT 1", True),
        ("ROLLBACK", True),
        ("PREPARE TRANSACTION 'x'", True),
        ("ROLLBACK TO a", False),
        ("COMMIT AND CHAIN", False),
        ("SELECT 1; COMMIT", False),
        ("", False),
    ],
)
def test_a_failed_block_is_left_by_what_ends_it_and_opens_no_other(text, accepted):
    assert transaction_effect(text.encode()).first_ends is accepted
