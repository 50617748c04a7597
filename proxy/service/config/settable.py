"""Settings that can be changed by themselves while the process runs: numbers, words of a few, yes or no.

Owns: which settings these are, reading one value as the file would, putting values into a configuration.
Does not know: who changes them, whether the numbers hold together (proxy/service/check.py does).

Which they are follows from the model: whatever a reload takes over, is one of these kinds, and is not marked there as
a matter of the file alone.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from proxy.service.config.errors import Path as KeyPath
from proxy.service.config.errors import key_text, suggestion
from proxy.service.config.fields import Setting
from proxy.service.config.model import Config, Section

Number = int | float | str | None  # True and False are whole numbers, and text is a word: `auto`, `warn`


class NotSettable(Exception):  # noqa: N818 - says what is
    """The key or the value cannot be used; the text is one sentence."""


def settable(config: Config) -> dict[str, KeyPath]:
    """Every key that can be set, with its place."""
    return {key_text(path): path for path, info in leaves(config) if _why_never(config, path, info) is None}


def _why_never(config: Config, path: KeyPath, info: FieldInfo) -> str | None:
    """Why the setting at `path` cannot be set; None where it can."""
    if path[0] == "budget" and config.upstream is None:
        return f"{key_text(path)} has no effect beside upstreams: each has a budget of its own"
    return why_not_settable(key_text(path), info)


def why_not_settable(key: str, info: FieldInfo) -> str | None:
    """Why a setting of the model is never set by itself, with the way out; None where it is."""
    if reload_kind(info) == "restart":
        return f"{key} cannot change while the process runs: write it into the file and restart"
    if not _is_one_value(info):
        return f"{key} is no number, word of a few, or yes or no: write it into the file and reload"
    if (why := only_in_the_file(info)) is not None:
        return f"{key} is {why}: write it into the file and reload"
    return None


def leaves(section: Section, path: KeyPath = ()) -> Iterator[tuple[KeyPath, FieldInfo]]:
    """Every setting by itself, with its place in the file; a list is one setting."""
    for name, info in type(section).model_fields.items():
        here, value = (*path, info.alias or name), getattr(section, name)
        if isinstance(value, Section):
            yield from leaves(value, here)
        elif isinstance(value, dict) and all(isinstance(one, Section) for one in value.values()):
            for inner, one in value.items():
                yield from leaves(one, (*here, inner))
        else:
            yield here, info


def reload_kind(info: FieldInfo) -> str:
    """What a reload does with the setting: "at once", "new connections" or "restart"."""
    extra = info.json_schema_extra
    return str(extra.get("reload", "at once")) if isinstance(extra, dict) else "at once"


def refusals_of(info: FieldInfo) -> list[str]:
    """The reasons with which clients are refused where the setting decides."""
    extra = info.json_schema_extra
    reasons = extra.get("refuses", []) if isinstance(extra, dict) else []
    return [str(reason) for reason in reasons] if isinstance(reasons, list) else []


def only_in_the_file(info: FieldInfo) -> str | None:
    """What kind of setting it is that an order must not change, as the model says; None for the others."""
    extra = info.json_schema_extra
    why = extra.get("only_in_the_file") if isinstance(extra, dict) else None
    return None if why is None else str(why)


def _is_one_value(info: FieldInfo) -> bool:
    """A number (a time, an amount), a word of a few, yes or no: what can be written in one word and checked alone."""
    kind = info.annotation
    kinds = get_args(kind) if get_origin(kind) in {Union, UnionType} else (kind,)
    return any(one is int or one is float or one is bool or get_origin(one) is Literal for one in kinds)


def read_setting(config: Config, key: str, written: object) -> Number:
    """The value of a settable key, as the file would be read. Raises NotSettable."""
    path = settable(config).get(key)
    if path is None:
        raise NotSettable(_why_not(config, key))
    setting = _setting(dict(leaves(config))[path])
    if setting.optional and (written is None or written == ""):
        return None
    value = setting.read(written, Path())
    if not isinstance(value, int | float | str):
        raise NotSettable(f"{key}: read '{written}', allowed: {setting.allowed}")
    return value


def _why_not(config: Config, key: str) -> str:
    known = {key_text(path): (path, info) for path, info in leaves(config)}
    if key in known:
        return _why_never(config, *known[key]) or key
    inside = [one for one in settable(config) if one.startswith(f"{key}.")]
    if inside:
        return f"{key} is a section: name one of its settings, as {inside[0]}"
    return f'there is no setting "{key}"{suggestion(key, list(settable(config))) or "; config/README.md lists them"}'


def shown(config: Config, key: str, value: object) -> str:
    """A value as it could be written in the file."""
    path = settable(config).get(key)
    if value is None:
        return "empty"
    return str(value) if path is None else _setting(dict(leaves(config))[path]).show(value)


def _setting(info: FieldInfo) -> Setting:
    found = next((one for one in info.metadata if isinstance(one, Setting)), None)
    assert found is not None, "every value of the model that can be set is a Setting"
    return found


def value_at(config: Section, path: KeyPath) -> object:
    """What the configuration says there. Raises KeyError."""
    value: object = config
    for part in path:
        value = value[part] if isinstance(value, dict) else getattr(value, _field_name(value, part))
    return value


def with_values(config: Config, values: Mapping[str, Number]) -> Config:
    """The configuration with these values instead of its own; keys that it does not have are left out."""
    known = settable(config)
    for key, value in values.items():
        if key in known:
            config = _replaced(config, known[key], value)
    return config


def _replaced(section: Section, path: KeyPath, value: object) -> Config:
    replaced = _inside(section, path, value)
    assert isinstance(replaced, Config), "the whole stays the whole"
    return replaced


def _inside(around: object, path: KeyPath, value: object) -> object:
    if not path:
        return value
    part, rest = path[0], path[1:]
    if isinstance(around, dict):
        return {**around, part: _inside(around[part], rest, value)}
    assert isinstance(around, Section), "the path leads through sections"
    name = _field_name(around, part)
    return around.model_copy(update={name: _inside(getattr(around, name), rest, value)})


def _field_name(section: object, part: str | int) -> str:
    """The attribute behind a name of the file."""
    fields = type(section).model_fields if isinstance(section, Section) else {}
    found = next((name for name, info in fields.items() if (info.alias or name) == part), None)
    if found is None:
        raise KeyError(part)
    return found
