"""A YAML file as plain values, each with the line it stands on.

Owns: the YAML 1.2 core reading of scalars (`off` and `8:30` are texts), duplicate keys as mistakes, `${ENV}` in texts.
Does not know: which keys exist and what they mean.
Source: YAML 1.2.2, section 10.3 "Core Schema". PyYAML by itself reads YAML 1.1.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import yaml

from proxy.service.config.errors import ConfigError, ConfigFinding, Path, key_text
from proxy.service.config.expansion import ExpansionError, expand

# What a file may hold: scalars, and lists and mappings of them.
Value = None | bool | int | float | str | list["Value"] | dict[str, "Value"]

_MAX_DEPTH = 32  # deeper than any setting; also what ends an alias that contains itself
_MAX_VALUES = 50_000  # thousands of classes; what ends aliases that multiply each other

_CORE_TAGS = (
    ("tag:yaml.org,2002:null", re.compile(r"(?:~|null|Null|NULL|)\Z"), ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), list("tTfF")),
    (
        "tag:yaml.org,2002:int",
        re.compile(r"(?:[-+]?[0-9]{1,18}|0o[0-7]{1,18}|0x[0-9a-fA-F]{1,15})\Z"),
        list("-+0123456789"),
    ),
    (
        "tag:yaml.org,2002:float",
        re.compile(
            r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
        ),
        list("-+.0123456789"),
    ),
)


class CoreLoader(yaml.SafeLoader):
    """SafeLoader whose plain scalars are those of the YAML 1.2 core schema."""

    yaml_implicit_resolvers = {}


for _tag, _pattern, _first in _CORE_TAGS:
    CoreLoader.add_implicit_resolver(_tag, _pattern, _first)


@dataclass(slots=True)
class Document:
    """What was read. `lines` counts from 1; `file` is the name as the user wrote it."""

    file: str
    data: Value = None
    lines: dict[Path, int] = field(default_factory=dict)
    key_lines: dict[Path, int] = field(default_factory=dict)
    findings: list[ConfigFinding] = field(default_factory=list)

    def line_of(self, path: Path) -> int:
        """The line of the value at `path`, or of the nearest thing around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)

    def finding(self, path: Path, text: str, *, at_key: bool = False) -> ConfigFinding:
        line = self.key_lines.get(path, 0) if at_key else 0
        return ConfigFinding(self.file, line or self.line_of(path), key_text(path), text)


def read_yaml(text: str, file: str, environ: Mapping[str, str]) -> Document:
    """Read one YAML document. Mistakes of keys and variables are collected in `findings`.

    Raises ConfigError where the text is not YAML at all.
    """
    document = Document(file)
    try:
        node = yaml.compose(text, Loader=CoreLoader)
    except yaml.YAMLError as error:
        raise ConfigError([_syntax_finding(error, file)]) from None
    if node is not None:
        document.data = _Reader(document, environ).value(node, ())
    return document


def _syntax_finding(error: yaml.YAMLError, file: str) -> ConfigFinding:
    if not isinstance(error, yaml.MarkedYAMLError):
        return ConfigFinding(file, 0, "", f"not YAML: {str(error).splitlines()[0]}")
    mark = error.problem_mark or error.context_mark
    sentence = ", ".join(part for part in (error.problem, error.context) if part)
    return ConfigFinding(file, mark.line + 1 if mark else 0, "", f"not YAML: {sentence}")


class _Reader:
    """Turns composed nodes into values and notes where each stood."""

    def __init__(self, document: Document, environ: Mapping[str, str]) -> None:
        self._document = document
        self._environ = environ
        self._count = 0

    def value(self, node: yaml.Node, path: Path) -> Value:
        self._document.lines.setdefault(path, node.start_mark.line + 1)
        self._count += 1
        if self._count > _MAX_VALUES:
            raise ConfigError([self._document.finding((), f"more than {_MAX_VALUES} values, or aliases that multiply")])
        if len(path) > _MAX_DEPTH:
            raise ConfigError([self._document.finding(path[:2], "nested too deep, or an alias that contains itself")])
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, position)) for position, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode), "YAML has mappings, sequences and scalars"
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Value]:
        result: dict[str, Value] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._complain(path, "a key that is itself a list or a mapping; allowed: a name", line)
                continue
            name: str = key_node.value
            here = (*path, name)
            if name in result:
                self._complain(here, f"written twice, first on line {self._document.key_lines[here]}; keep one", line)
                continue
            self._document.key_lines[here] = line
            result[name] = self.value(value_node, here)
        return result

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Value:
        text: str = node.value
        if "${" in text:
            return self._expanded(text, path)
        kind = node.tag.rpartition(":")[2]
        if kind == "null":
            return None
        if kind == "bool":
            return text[0] in "tT"
        if kind == "int":
            return _whole(text)
        if kind == "float":
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        if kind != "str":
            self._complain(path, f"the YAML tag {node.tag}; allowed: plain values without tags")
        return text

    def _expanded(self, text: str, path: Path) -> str:
        try:
            return expand(text, self._environ)
        except ExpansionError as error:
            self._complain(path, str(error))
            return ""

    def _complain(self, path: Path, text: str, line: int = 0) -> None:
        finding = ConfigFinding(self._document.file, line or self._document.line_of(path), key_text(path), text)
        self._document.findings.append(finding)


def _whole(text: str) -> int:
    # Base 10 by name: int(text, 0) would refuse the leading zeros that YAML 1.2 allows.
    return int(text, 0) if text[:2] in {"0o", "0x"} else int(text, 10)
