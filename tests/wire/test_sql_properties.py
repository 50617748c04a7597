"""Drawn texts: neither prefilter lets anything past that matters, and reading never fails."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.wire import _prefilter, sql
from proxy.wire.sql import FOLLOWED_PARAMETERS, PLAIN, inspect_sql, look_closely, transaction_effect
from proxy.wire.sql_tokens import Unterminated, statements, tokens

try:
    from proxy.wire import _compiled
except ImportError:
    _compiled = None

PIECES = [
    *["'", "''", '"', '""', "$$", "$a$", "$1", "\\", "\\'", "E'", "e'", 'U&"', "u&'", "N'", "--", "/*", "*/", "-", "/"],
    *["\n", " ", "\r", "\t", ";", "(", ")", ",", ".", "*", "=", "x", "1", "ä", "b'", "::"],
    *["set ", "SET", "reset all", "reset", "listen x", "unlisten *", "load 'x'", "discard all", "deallocate all"],
    *["prepare ", "transaction", "declare c cursor", "with hold", "close all", "local ", "session ", "role", "names "],
    *["create ", "or replace ", "temp ", "temporary table", "into ", "insert ", "pg_temp", '"pg_temp"', "select "],
    *["pg_advisory_lock", "set_config", "'search_path'", "true", "false", "dblink_connect", "begin", "commit", "end"],
    *["rollback", "to a", "and chain", "function f", "procedure", "atomic", "case", "work_mem = 1", "timezone = 'x'"],
]
texts = st.lists(st.sampled_from(PIECES), max_size=25).map(lambda pieces: "".join(pieces).encode())
PREFILTERS = [_prefilter.may_matter] if _compiled is None else [_prefilter.may_matter, _compiled.may_matter]


@pytest.mark.parametrize("may_matter", PREFILTERS)
@settings(max_examples=1500, deadline=None)
@given(text=texts, backslash_escapes=st.booleans())
def test_no_prefilter_lets_past_what_matters(may_matter, text, backslash_escapes):
    try:
        list(tokens(text, backslash_escapes))
    except Unterminated:
        return  # the server refuses the whole text
    if look_closely(text, FOLLOWED_PARAMETERS, backslash_escapes) is not PLAIN:
        assert may_matter(text, backslash_escapes)


@settings(max_examples=500, deadline=None)
@given(text=st.one_of(texts, st.binary(max_size=60)), backslash_escapes=st.booleans())
def test_any_bytes_can_be_looked_at(text, backslash_escapes):
    assert isinstance(inspect_sql(text, backslash_escapes=backslash_escapes), sql.SqlFacts)
    transaction_effect(text, backslash_escapes)


@settings(max_examples=500, deadline=None)
@given(content=st.text(max_size=30), quote=st.sampled_from(["single", "escaped", "dollar", "comment", "identifier"]))
def test_nothing_inside_quotes_or_comments_is_a_statement(content, quote):
    content = content.replace("\0", "") + "; LISTEN x;"
    spelt = {
        "single": "SELECT '" + content.replace("'", "''") + "'",
        "escaped": "SELECT E'" + content.replace("\\", "\\\\").replace("'", "\\'") + "'",
        "dollar": "SELECT $q$" + content.replace("$", "") + "$q$",
        "comment": "SELECT 1 /* " + content.replace("*", "").replace("/", "") + " */",
        "identifier": 'SELECT 1 AS "a' + content.replace('"', '""') + '"',
    }[quote].encode()
    assert look_closely(spelt, FOLLOWED_PARAMETERS, False) is PLAIN
    assert len(list(statements(spelt))) == 1


LONG = 100_000
HOSTILE = [
    b"'" * LONG,
    b"E'" + b"\\'" * LONG,
    b"E'a'" + b" -- " * LONG,
    b"E'a'\n" * (LONG // 5),
    b"$a" * LONG,
    b"$" * LONG,
    b"$" + b"a" * LONG + b"$" + (b"$" + b"a" * 100) * (LONG // 100),
    b"/*" * LONG,
    b"/" * LONG,
    b"-" * LONG,
    b'"' * LONG,
    b"\n" * LONG,
    b"; " * LONG,
    b"(" * LONG,
    b"set_config(" * (LONG // 11),
    b"u&" * LONG,
    b"set x;" * (LONG // 6),
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:6].decode())
def test_hostile_texts_are_read_to_their_end(text):
    """In linear time each takes a second at most; in quadratic time minutes, and the suite's timeout ends the test."""
    for may_matter in PREFILTERS:
        may_matter(b"select pg" + text, False)
    look_closely(b"select 1, " + text, FOLLOWED_PARAMETERS, False)
    look_closely(b"select 1, " + text, FOLLOWED_PARAMETERS, True)
