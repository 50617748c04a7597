"""What is said about a configuration that cannot be used.

Owns: the form of one finding ("file:line: key: what was read, what is allowed") and the error that carries them all.
Does not know: what makes a value wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

# A place inside the file: names of mappings and positions in lists, from the outermost.
Path = tuple[str | int, ...]


def key_text(path: Path) -> str:
    """`("classes", "web", "match", 0, "user")` as `classes.web.match[0].user`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


@dataclass(frozen=True, slots=True)
class ConfigFinding:
    """One mistake. `line` counts from 1 and is 0 where no line is known; `key` is empty for the file as a whole."""

    file: str
    line: int
    key: str
    text: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.key}: {self.text}" if self.key else f"{place}: {self.text}"


class ConfigError(Exception):
    """The configuration cannot be used; `findings` holds every reason, in the order of the file."""

    def __init__(self, findings: Sequence[ConfigFinding]) -> None:
        assert findings, "an error without a finding says nothing"
        self.findings = tuple(sorted(findings, key=lambda finding: finding.line))
        super().__init__("\n".join(str(finding) for finding in self.findings))


def suggestion(read: str, known: Sequence[str]) -> str:
    """`; did you mean "limit"?` where one of `known` is close to what was read, else nothing."""
    close = get_close_matches(read, known, n=1, cutoff=0.6)
    return f'; did you mean "{close[0]}"?' if close else ""
