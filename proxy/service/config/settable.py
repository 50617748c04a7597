"""Numbers of the configuration that can be changed by themselves while the process runs.

Owns: which settings these are, reading one value as the file would, putting values into a configuration.
Does not know: who changes them, whether the numbers hold together (proxy/service/check.py does).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, get_args

from pydantic.fields import FieldInfo

from proxy.service.config.errors import Path as KeyPath
from proxy.service.config.errors import key_text, suggestion
from proxy.service.config.fields import Setting
from proxy.service.config.model import Config, Section

Number = int | float | str | None  # text only where a word stands for a number, as `auto`

# The others are bounds of logins and of what somebody else looks after.
_SECTIONS: Final = frozenset({"listen", "budget", "classes", "pool", "limits", "shutdown"})


class NotSettable(Exception):  # noqa: N818 - says what is
    """The key or the value cannot be used; the text is one sentence."""


def settable(config: Config) -> dict[str, KeyPath]:
    """Every key that can be set, with its place: numbers that need no restart."""
    return {key_text(path): path for path, info in leaves(config) if _may_be_set(config, path) and _is_number(info)}


def _may_be_set(config: Config, path: KeyPath) -> bool:
    if path[0] == "upstreams":
        return len(path) > 2 and path[2] == "budget"
    return path[0] in _SECTIONS and (path[0] != "budget" or config.upstream is not None)


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


def _is_number(info: FieldInfo) -> bool:
    kinds = (info.annotation, *get_args(info.annotation))
    return any(kind is int or kind is float for kind in kinds) and reload_kind(info) != "restart"


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
    known = {key_text(path): info for path, info in leaves(config)}
    if key in known and reload_kind(known[key]) == "restart":
        return f"{key} cannot change while the process runs: write it into the file and restart"
    if key in known:
        return f"{key} is no number that can be set by itself: write it into the file and reload"
    return f'there is no setting "{key}"{suggestion(key, list(settable(config))) or "; config/README.md lists them"}'


def shown(config: Config, key: str, value: object) -> str:
    """A value as it could be written in the file."""
    path = settable(config).get(key)
    if value is None:
        return "empty"
    return str(value) if path is None else _setting(dict(leaves(config))[path]).show(value)


def _setting(info: FieldInfo) -> Setting:
    found = next((one for one in info.metadata if isinstance(one, Setting)), None)
    assert found is not None, "every number of the model is a Setting"
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
