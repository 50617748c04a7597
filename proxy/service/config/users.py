"""The users file: who may log in, and what is known of each password.

Owns: PgBouncer's `auth_file` format, `"user" "secret"` on a line, quotes doubled inside, `;` starts a comment.
Does not know: what a secret means (plain text, md5..., SCRAM-SHA-256$...). No secret is ever part of a message.
Source: PgBouncer, configuration, "Authentication file format".
"""

import re
from pathlib import Path

from proxy.service.config.errors import ConfigError, ConfigFinding

_QUOTED = r'"((?:[^"]|"")*)"'
_LINE = re.compile(rf"\s*{_QUOTED}\s+{_QUOTED}\s*(?:;.*)?\Z")


def load_users(path: Path | str) -> dict[str, str]:
    """Users and what is stored of their passwords, in the order of the file.

    Raises ConfigError naming file and line of everything that cannot be read.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError([ConfigFinding(str(path), 0, "", f"the users file cannot be read: {reason}")]) from None
    return parse_users(text, str(path))


def parse_users(text: str, file: str) -> dict[str, str]:
    """As load_users, of a text; `file` is the name used in findings."""
    users: dict[str, str] = {}
    findings: list[ConfigFinding] = []
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith(";"):
            continue
        mistake = _take_line(line, users)
        if mistake:
            findings.append(ConfigFinding(file, number, "", mistake))
    if findings:
        raise ConfigError(findings)
    return users


def _take_line(line: str, users: dict[str, str]) -> str:
    """Add one line to `users`; the mistake in it, or nothing."""
    match = _LINE.match(line)
    if match is None:
        return 'not a user; allowed: "user" "secret", with quotes doubled inside, and ; before a comment'
    user, secret = (part.replace('""', '"') for part in match.groups())
    if not user:
        return "a user without a name"
    if not secret:
        # An empty secret would be a password that anybody can guess.
        return f'the secret of user "{user}" is empty; leave the line out to shut the user out'
    if user in users:
        return f'user "{user}" stands here a second time; keep one line'
    users[user] = secret
    return ""
