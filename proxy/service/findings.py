"""One thing that the start-up check has to say.

Owns: its form: how bad, about which setting, what is wrong, what to change.
Does not know: the rules.
"""

from dataclasses import dataclass
from enum import StrEnum

from proxy.service.config.errors import Path, key_text
from proxy.service.config.model import Config
from proxy.service.config.parts import UpstreamPart


class Severity(StrEnum):
    ERROR = "error"  # cannot hold: the process does not start, a reload is refused
    WARNING = "warning"  # will hurt somebody


@dataclass(frozen=True, slots=True)
class Finding:
    """`key` is the setting as in the file, `line` 0 where it is not written there."""

    severity: Severity
    key: str
    text: str
    hint: str
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}: " if self.line else ""
        return f"{place}{self.severity}: {self.key}: {self.text} ({self.hint})"


class BudgetCannotHold(Exception):  # noqa: N818 - says what is
    """The numbers cannot be kept with this server; `problems` are the findings that say why."""

    def __init__(self, problems: list[Finding]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = problems


class Reporter:
    """Collects findings about one configuration and adds where each setting is written.

    With a `part` the paths are those of a file with a single upstream: the part knows where they stand in this one.
    """

    def __init__(self, config: Config, part: UpstreamPart | None = None) -> None:
        self._config = config
        self._part = part
        self.findings: list[Finding] = []

    def error(self, path: Path, text: str, hint: str) -> None:
        self._add(Severity.ERROR, path, text, hint)

    def warning(self, path: Path, text: str, hint: str) -> None:
        self._add(Severity.WARNING, path, text, hint)

    def _add(self, severity: Severity, path: Path, text: str, hint: str) -> None:
        config = self._config
        path = path if self._part is None else self._part.path(path)
        self.findings.append(Finding(severity, key_text(path), text, hint, config.file, config.line_of(path)))
