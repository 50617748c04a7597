"""Pydantic's errors as sentences: what was read, what is allowed, what was perhaps meant.

Owns: these sentences, for any model made of sections.
Does not know: which settings exist.
"""

from collections.abc import Mapping, Sequence
from types import NoneType
from typing import TypeVar, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from proxy.service.config.errors import ConfigError, ConfigFinding, suggestion
from proxy.service.config.errors import Path as KeyPath
from proxy.service.config.fields import NOT_ALLOWED, SAID_IN_FULL
from proxy.service.config.model import Section
from proxy.service.config.yaml_reader import Document

_SHOWN_CHARACTERS = 60

Model = TypeVar("Model", bound=Section)


def validated(
    model: type[Model], document: Document, context: Mapping[str, object], more: Sequence[ConfigFinding] = ()
) -> Model:
    """The document as `model`. Raises ConfigError with all that is wrong, also with what reading found, and `more`."""
    try:
        whole = model.model_validate(document.data, context=dict(context))
    except ValidationError as error:
        raise ConfigError([*document.findings, *more, *_findings(error, document, model)]) from None
    if more:
        raise ConfigError([*document.findings, *more])
    return whole


def _findings(error: ValidationError, document: Document, model: type[Section]) -> list[ConfigFinding]:
    complained = {finding.key for finding in document.findings}
    found = [_finding(details, document, model) for details in error.errors(include_url=False)]
    # A value that could not be expanded was said already; what became of it says nothing.
    return [finding for finding in found if finding.key not in complained]


def _finding(details: ErrorDetails, document: Document, model: type[Section]) -> ConfigFinding:
    path = tuple(part for part in details["loc"] if part != "[key]")
    kind = details["type"]
    if kind == "extra_forbidden":
        return document.finding(path, f"unknown setting{_what_else(model, path)}", at_key=True)
    if kind == "missing":
        return document.finding(path, f"missing; {_meaning(model, path)}")
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


def _fields_at(model: type[Section], path: KeyPath) -> dict[str, FieldInfo]:
    """Settings by their name in the file, of the section at `path`; none where that is no section."""
    annotation: object = model
    for part in path:
        annotation = _inside(annotation, part)
    return _fields_of(annotation)


def _inside(annotation: object, part: str | int) -> object:
    annotation = _without_none(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Section):
        info = _fields_of(annotation).get(str(part))
        return info.annotation if info else None
    inner = [argument for argument in get_args(annotation) if argument is not Ellipsis]
    return inner[-1] if inner else None


def _without_none(annotation: object) -> object:
    """`Upstream` of `Upstream | None`."""
    several = [argument for argument in get_args(annotation) if argument is not NoneType]
    return several[0] if NoneType in get_args(annotation) and len(several) == 1 else annotation


def _fields_of(annotation: object) -> dict[str, FieldInfo]:
    annotation = _without_none(annotation)
    if not (isinstance(annotation, type) and issubclass(annotation, Section)):
        return {}
    return {info.alias or name: info for name, info in annotation.model_fields.items()}


def _what_else(model: type[Section], path: KeyPath) -> str:
    known = list(_fields_at(model, path[:-1]))
    return suggestion(str(path[-1]), known) or f"; allowed: {', '.join(known)}"


def _meaning(model: type[Section], path: KeyPath) -> str:
    info = _fields_at(model, path[:-1]).get(str(path[-1]))
    return f"required: {info.description}" if info else "required"
