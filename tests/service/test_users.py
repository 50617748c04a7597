"""The users file, in PgBouncer's format."""

import pytest

from proxy.service.config.errors import ConfigError
from proxy.service.config.users import load_users, parse_users


def test_users_with_comments_doubled_quotes_and_any_kind_of_secret():
    text = (
        '; users\n\n"web" "plain text"\n  "md" "md5abc" ; remark\n'
        '"sc" "SCRAM-SHA-256$4096:c2FsdA==$c3RvcmVk:c2VydmVy"\n"qu""ote" "a""b;c"\r\n'
    )
    assert parse_users(text, "u") == {
        "web": "plain text",
        "md": "md5abc",
        "sc": "SCRAM-SHA-256$4096:c2FsdA==$c3RvcmVk:c2VydmVy",
        'qu"ote': 'a"b;c',
    }


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("web secretword", "not a user"),
        ('"web" secretword', "not a user"),
        ('"web" "secretword', "not a user"),
        ('"web" "secretword" "x"', "not a user"),
        ('"" "secretword"', "a user without a name"),
        ('"web" ""', 'the secret of user "web" is empty'),
        ('"web" "a"\n"web" "secretword"', "stands here a second time"),
    ],
)
def test_a_mistake_names_the_line_and_never_the_secret(line, told):
    with pytest.raises(ConfigError) as caught:
        parse_users(f"; one\n{line}", "users.txt")
    assert f"users.txt:{2 + line.count(chr(10))}: " in str(caught.value)
    assert told in str(caught.value)
    assert "secretword" not in str(caught.value)


def test_all_mistakes_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        parse_users("a\nb\n", "u")
    assert len(caught.value.findings) == 2


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ConfigError, match="users file cannot be read: No such file"):
        load_users(tmp_path / "none.txt")


def test_a_file_is_read(tmp_path):
    path = tmp_path / "users.txt"
    path.write_text('"ü" "p\x85w"\n')
    assert load_users(path) == {"ü": "p\x85w"}
