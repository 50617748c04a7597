"""What LISTEN and UNLISTEN name, as the server would call it."""

import pytest

from proxy.wire.sql_listen import ListenCommand, Verb, listen_commands


def names(sql: str | bytes, *, is_utf8: bool = True) -> list[tuple[Verb, str]] | None:
    raw = sql if isinstance(sql, bytes) else sql.encode()
    found = listen_commands(raw, backslash_escapes=False, is_utf8=is_utf8)
    return None if found is None else [(one.verb, one.channel.decode()) for one in found]


@pytest.mark.parametrize(
    ("sql", "channel"),
    [
        ("LISTEN Foo", "foo"),
        ('listen "Foo"', "Foo"),
        ('LISTEN "with "" quote"', 'with " quote'),
        ('LISTEN"tight";', "tight"),
        ("/* why /* nested */ */ listen -- here\n a1$_ ;;", "a1$_"),
        ("LISTEN ÄrgerUndMühe", "Ärgerundmühe"),
        ('LISTEN "*"', "*"),
        ("listen listen", "listen"),
    ],
)
def test_a_channel_is_named_as_the_server_names_it(sql: str, channel: str) -> None:
    assert names(sql) == [(Verb.LISTEN, channel)]


def test_several_statements_are_taken_in_order() -> None:
    assert names('listen a; unlisten "B"; UNLISTEN *; listen c') == [
        (Verb.LISTEN, "a"),
        (Verb.UNLISTEN, "B"),
        (Verb.UNLISTEN_ALL, ""),
        (Verb.LISTEN, "c"),
    ]


@pytest.mark.parametrize("letter", ["x", "é"])
def test_a_long_name_is_cut_as_the_server_cuts_it(letter: str) -> None:
    (command,) = listen_commands(f"listen y{letter * 70}".encode(), backslash_escapes=False, is_utf8=True) or ()
    assert command.is_cut
    assert command.channel.decode() == "y" + letter * (62 // len(letter.encode()))
    assert command.spelled == command.channel


def test_a_quoted_name_is_spelled_so_that_it_reads_the_same() -> None:
    (command,) = listen_commands(b'listen "a""b; c"', backslash_escapes=False, is_utf8=True) or ()
    assert command == ListenCommand(Verb.LISTEN, b'a"b; c', b'"a""b; c"')


@pytest.mark.parametrize(
    "sql",
    ["", ";", "-- nothing", "listen", "listen *", 'listen ""', "listen a b", "listen 'a'", "listen a.b", "listen 1",
     "listen a; select 1", "notify a", "begin; listen a; commit", 'listen "a', 'listen U&"a"', b"listen \xff",
     "listen a\0", "unlisten", "listen $1", "explain listen a"],
)  # fmt: skip
def test_anything_else_is_left_to_the_server(sql: str | bytes) -> None:
    assert names(sql) is None


def test_letters_beyond_ascii_are_left_to_a_server_that_may_fold_them() -> None:
    assert names("listen Ä", is_utf8=False) is None
    assert names("listen a", is_utf8=False) == [(Verb.LISTEN, "a")]
