"""A recommended budget as it would stand in the configuration file, beside all that is kept of the one in force.

Owns: how `budget:`, `default_class:` and `classes:` of a file are written, with the sum of each number as its reason.
Does not know: how the numbers came about.
"""

from collections.abc import Mapping
from typing import Final

import yaml
from pydantic.fields import FieldInfo

from proxy.service.config.errors import Path, key_text
from proxy.service.config.fields import Setting
from proxy.service.config.model import Config, Section
from proxy.service.config.parts import UpstreamPart
from proxy.service.config.units import show_seconds
from proxy.service.traffic.recommendation import Number, Numbers, Recommendation

Plain = str | int | float | bool | None | list["Plain"] | dict[str, "Plain"]

_NUMBERS: Final = ("reserved", "lendable", "limit", "pinned_limit")


def as_yaml(part: UpstreamPart, found: Recommendation, how_long: str) -> str:
    """The block. `how_long` says what was observed, for the reasons of classes that have none of their own."""
    lines = ["budget:"] if part.is_only else [f"# in upstreams.{part.name}:", "budget:"]
    for key, value in _budget(part, found, how_long).items():
        lines.append(f"  {key}: {_flow(value)}")
    lines.append(f"default_class: {_flow(part.default_class)}")
    lines += ["classes:"] if part.is_only else ["# beside the classes of the other upstreams:", "classes:"]
    for one in found.classes:
        lines.append(f"  {_flow(one.name)}:")
        lines += [f"    {key}: {_flow(value)}" for key, value in _class(part, one, how_long).items()]
    return "\n".join(lines) + "\n"


def _budget(part: UpstreamPart, found: Recommendation, how_long: str) -> dict[str, Plain]:
    kept = _written(part.budget, part.config, part.path(("budget",)))
    kept.pop("headroom", None)
    kept.setdefault("total", "auto")
    if found.headroom_for:
        names: list[Plain] = [name for name in part.classes if name in found.headroom_for]
        kept["headroom"] = {"size": _number(found.headroom, how_long), "for": names}
    return kept


def _class(part: UpstreamPart, numbers: Numbers, how_long: str) -> dict[str, Plain]:
    one = part.classes[numbers.name]
    kept = _written(one, part.config, ("classes", numbers.name))
    document: dict[str, Plain] = {"reason": kept.pop("reason", None) or f"by what was seen of it in {how_long}"}
    new = {
        "reserved": numbers.reserved,
        "lendable": numbers.lendable,
        "limit": numbers.limit,
        "pinned_limit": numbers.pinned_limit,
    }
    for key in _NUMBERS:
        kept.pop(key, None)
    document |= kept
    document |= {key: _number(number, how_long) for key, number in new.items() if number is not None}
    return document


def _number(number: Number, how_long: str) -> Plain:
    return {"value": number.value, "reason": f"{number.sum}; {how_long}"}


# What is kept, as it may be read again


def _written(section: Section, config: Config, path: Path) -> dict[str, Plain]:
    """The settings of a section that somebody wrote, with their reasons."""
    reasons = config.reasons()
    written: dict[str, Plain] = {}
    for name, info in type(section).model_fields.items():
        if name not in section.model_fields_set:
            continue
        key = info.alias or name
        value = _value(getattr(section, name), info, config, (*path, key))
        reason = reasons.get(key_text((*path, key)))
        written[key] = value if reason is None else {"value": value, "reason": reason}
    return written


def _value(value: object, info: FieldInfo, config: Config, path: Path) -> Plain:
    if isinstance(value, Section):
        return dict(_written(value, config, path))
    if isinstance(value, tuple | list):
        return [_value(one, info, config, path) for one in value]
    if isinstance(value, Mapping):
        return {str(name): _value(one, info, config, path) for name, one in value.items()}
    if isinstance(value, float):
        return show_seconds(value) if _is_a_time(info) else value
    return value if isinstance(value, str | int) or value is None else str(value)


def _is_a_time(info: FieldInfo) -> bool:
    return any(isinstance(one, Setting) and one.allowed.startswith("a length of time") for one in info.metadata)


def _flow(value: Plain) -> str:
    """On one line. A `${` of a text must not be taken for a variable."""
    text = yaml.safe_dump(_escaped(value), default_flow_style=True, width=2**31, allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def _escaped(value: Plain) -> Plain:
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, list):
        return [_escaped(one) for one in value]
    if isinstance(value, dict):
        return {name: _escaped(one) for name, one in value.items()}
    return value
