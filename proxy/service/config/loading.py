"""From a file to a validated configuration, or to the list of everything wrong with it.

Owns: the order of the steps, the sentences for what does not validate, checks of names that refer to classes.
Does not know: whether the numbers can hold (proxy/service/check.py), or what the server allows.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from proxy.service.config.errors import ConfigError, ConfigFinding, suggestion
from proxy.service.config.errors import Path as KeyPath
from proxy.service.config.fields import NOT_ALLOWED, SAID_IN_FULL
from proxy.service.config.model import Config, Section, Source
from proxy.service.config.yaml_reader import Document, Value, read_yaml

# The proxy's own connections belong to this class; it always exists.
INTERNAL_CLASS = "internal"
_SHOWN_CHARACTERS = 60


def load_config(path: Path | str, environ: Mapping[str, str] | None = None) -> Config:
    """Read and validate a configuration file; `environ` is the process's own where it is not given.

    Raises ConfigError with every finding, also where the file cannot be read.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError([ConfigFinding(str(path), 0, "", f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError:
        raise ConfigError([ConfigFinding(str(path), 0, "", "cannot be read: it is not UTF-8")]) from None
    return load_config_text(text, environ, file=str(path), directory=path.absolute().parent)


def load_config_text(
    text: str, environ: Mapping[str, str] | None = None, *, file: str = "<text>", directory: Path | None = None
) -> Config:
    """As load_config, of a text; relative paths in it count from `directory`."""
    environ = os.environ if environ is None else environ
    document = read_yaml(text, file, environ)
    context = {"directory": directory or Path.cwd(), "environ": environ}
    try:
        config = Config.model_validate(document.data, context=context)
    except ValidationError as error:
        raise ConfigError([*document.findings, *_findings(error, document)]) from None
    findings = [*document.findings, *_dangling_names(config, document)]
    if findings:
        raise ConfigError(findings)
    config._source = Source(file, document.lines, _reasons(document.data, ()))
    return config


def config_hash(config: Config) -> str:
    """Twelve digits that change when a setting changes. The password is no part of it."""
    settings = config.model_dump(mode="python", by_alias=True)
    settings["upstream"] = config.upstream.url.shown()
    text = json.dumps(settings, default=str, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


# Sentences


def _findings(error: ValidationError, document: Document) -> list[ConfigFinding]:
    complained = {finding.key for finding in document.findings}
    found = [_finding(details, document) for details in error.errors(include_url=False)]
    # A value that could not be expanded was said already; what became of it says nothing.
    return [finding for finding in found if finding.key not in complained]


def _finding(details: ErrorDetails, document: Document) -> ConfigFinding:
    path = tuple(part for part in details["loc"] if part != "[key]")
    kind = details["type"]
    if kind == "extra_forbidden":
        return document.finding(path, f"unknown setting{_what_else(path)}", at_key=True)
    if kind == "missing":
        return document.finding(path, f"missing; {_meaning(path)}")
    if kind == SAID_IN_FULL:
        return document.finding(path, details["ctx"]["sentence"])
    if kind == NOT_ALLOWED:
        return document.finding(path, f"read {_shown(details['input'])}, allowed: {details['ctx']['allowed']}")
    allowed = {"tuple_type": "a list", "dict_type": "names with their settings", "too_short": "at least one"}.get(kind)
    return document.finding(path, f"read {_shown(details['input'])}, allowed: {allowed or details['msg']}")


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return f"a section with {', '.join(map(str, value))}" if value else "an empty section"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    shown = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
    return f"'{shown}'" if isinstance(value, str) else shown


# The model, asked by path


def _fields_at(path: KeyPath) -> dict[str, FieldInfo]:
    """Settings by their name in the file, of the section at `path`; none where that is no section."""
    annotation: object = Config
    for part in path:
        annotation = _inside(annotation, part)
    return _fields_of(annotation)


def _inside(annotation: object, part: str | int) -> object:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        info = _fields_of(annotation).get(str(part))
        return info.annotation if info else None
    inner = [argument for argument in get_args(annotation) if argument is not Ellipsis]
    return inner[-1] if inner else None


def _fields_of(annotation: object) -> dict[str, FieldInfo]:
    if not (isinstance(annotation, type) and issubclass(annotation, Section)):
        return {}
    return {info.alias or name: info for name, info in annotation.model_fields.items()}


def _what_else(path: KeyPath) -> str:
    known = list(_fields_at(path[:-1]))
    return suggestion(str(path[-1]), known) or f"; allowed: {', '.join(known)}"


def _meaning(path: KeyPath) -> str:
    info = _fields_at(path[:-1]).get(str(path[-1]))
    return f"required: {info.description}" if info else "required"


# Names and reasons


def _dangling_names(config: Config, document: Document) -> list[ConfigFinding]:
    known = list(config.classes)
    references: list[tuple[KeyPath, str]] = [(("default_class",), config.default_class)]
    for position, name in enumerate(config.budget.headroom.for_classes):
        references.append((("budget", "headroom", "for", position), name))
    findings = [
        document.finding(path, f"read '{name}', allowed: {', '.join(known)}{suggestion(name, known)}")
        for path, name in references
        if name not in known
    ]
    if INTERNAL_CLASS in known:
        text = "the proxy's own connections are in a class of this name, which always exists; choose another name"
        findings.append(document.finding(("classes", INTERNAL_CLASS), text, at_key=True))
    return findings


def _reasons(value: Value, path: KeyPath) -> dict[KeyPath, str]:
    """The reasons of all numbers written as `{value: ..., reason: ...}`."""
    if isinstance(value, list):
        parts: list[tuple[str | int, Value]] = list(enumerate(value))
    elif isinstance(value, dict):
        reason = value.get("reason")
        if isinstance(reason, str) and "value" in value and not isinstance(value["value"], dict | list):
            return {path: reason}
        parts = list(value.items())
    else:
        return {}
    return {where: reason for part, inner in parts for where, reason in _reasons(inner, (*path, part)).items()}
