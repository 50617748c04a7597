"""Tags in the comments of statements, in the format of SQLCommenter."""

import time
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.sql_comments import MAX_COMMENT_BYTES, tag_or_none

# As opentelemetry-sqlcommenter, marginalia's SQLCommenter format and others write them.
FOUND = {
    "select 1 /*class='bulk'*/": "bulk",
    "select 1 /*class='bulk'*/;": "bulk",
    "select 1 /* class = 'bulk' , action='a' */ ; \n": "bulk",
    "/*class='bulk'*/ select 1": "bulk",
    "\n\t/*action='%2Fa%20b',class='bulk'*/select 1": "bulk",
    "select 1 /*action='%2Fparam*d',class='index',framework='spring',tracestate='congo%3Dt61rcWkgMzE'*/": "index",
    "select 1 /*class='a%20b%2C%27c%27'*/": "a b,'c'",
    "select 1 /*class='it\\'s'*/": "it's",
    "select 1 /*class='it''s'*/": "it's",
    "select 1 /*%63lass='bulk'*/": "bulk",
    "select 1 /*class=''*/": "",
    "select 1 /*class='first',class='second'*/": "first",
    "/*class='front'*/ select 1 /*class='behind'*/": "behind",
    "/*class='front'*/ select 1 /*action='none of it'*/": "front",
    "/*class='front'*/ select 1 /* about what it does */": "front",
    "select '/*' /*class='bulk'*/": "bulk",
    "select 1 /*class='gr%C3%BCn'*/": "grün",
}
NOT_FOUND = [
    "",
    "select 1",
    "select 1 /* class */",
    "select 1 /*class=bulk*/",
    "select 1 /*class='bulk' and more*/",
    "select 1 /*class='bulk',*/",
    "select 1 /*, class='bulk'*/",
    "select 1 /*subclass='bulk'*/",
    "select 1 /*Class='bulk'*/",
    "select 1 /*class='bulk'*/ from t",  # neither in front nor behind
    "select '/*class=''bulk''*/'",  # a string
    "select $$/*class='bulk'*/$$",
    "select 1 /*class='bulk",
    "*/ class='bulk'*/",
    "/*/",
    "select 1 /*class='%ff'*/",  # no UTF-8
    "select 1 -- class='bulk'",
    "select 1 /* /*class='bulk'*/ */",  # a comment in a comment
]


@pytest.mark.parametrize(("sql", "value"), FOUND.items())
def test_a_tag_is_read_in_front_and_behind(sql: str, value: str) -> None:
    assert tag_or_none(sql.encode(), b"class") == value


@pytest.mark.parametrize("sql", NOT_FOUND)
def test_what_is_no_tag_is_a_comment(sql: str) -> None:
    assert tag_or_none(sql.encode(), b"class") is None


def test_of_a_text_that_is_cut_only_the_front_counts() -> None:
    assert tag_or_none(b"/*class='bulk'*/ select 1 /*class='web'*/", b"class", is_whole=False) == "bulk"
    assert tag_or_none(b"select 1 /*class='web'*/", b"class", is_whole=False) is None


def test_a_long_comment_is_not_looked_at() -> None:
    for length, found in ((MAX_COMMENT_BYTES - 20, "bulk"), (MAX_COMMENT_BYTES + 20, None)):
        comment = b"/*class='bulk',rest='" + b"x" * (length - 20) + b"'*/"
        assert tag_or_none(comment + b"select 1", b"class") == found
        assert tag_or_none(b"select 1" + comment, b"class") == found


@given(st.dictionaries(st.text(min_size=1, max_size=20), st.text(max_size=50), min_size=1, max_size=5))
def test_whatever_the_specification_lets_write_is_read_back(tags: dict[str, str]) -> None:
    written = ",".join(f"{quote(key, safe='')}='{quote(value, safe='')}'" for key, value in sorted(tags.items()))
    for key, value in tags.items():
        assert tag_or_none(f"select 1 /*{written}*/".encode(), key.encode()) == value


@given(st.binary(max_size=300))
def test_any_bytes_are_read_without_an_error(sql: bytes) -> None:
    tag_or_none(b"/*" + sql + b"*/", b"class")
    tag_or_none(sql, b"class")


@pytest.mark.parametrize("piece", [b"a='", b"a='b',", b"\\'", b"/*", b"*/", b" ", b"a=", b"''"])
def test_nothing_takes_long(piece: bytes) -> None:
    sql = piece * (1_000_000 // len(piece))
    began = time.process_time()
    tag_or_none(sql, b"class")
    tag_or_none(b"/*" + sql + b"*/", b"class")
    assert time.process_time() - began < 0.5
