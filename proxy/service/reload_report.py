"""What a new configuration changes, class by class: who gains, who loses, and what is in use meanwhile.

Owns: the comparison of two configurations, setting by setting, and its words. Secrets are never shown.
Does not know: whether the new one can hold, how it is applied, how a table is drawn.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from pydantic.fields import FieldInfo

from proxy.service.config.errors import Path as KeyPath
from proxy.service.config.errors import key_text
from proxy.service.config.fields import Secrets, SecretText, Setting
from proxy.service.config.model import Config, PriorityClass
from proxy.service.config.settable import leaves, reload_kind, value_at
from proxy.service.config.upstream_url import UpstreamUrl

# Of these more is better for the class, and somebody else's loss.
_SLOTS: Final = frozenset({"reserved", "limit", "pinned_limit", "max_clients", "queue.max", "size"})
_WHEN: Final = {"restart": "after a restart", "new connections": "for new connections", "at once": ""}


@dataclass(frozen=True, slots=True)
class Change:
    """One setting. `class_name` is empty for what is no class's; `in_use` counts the slots of the class now."""

    class_name: str
    setting: str
    before: str
    after: str
    change: str
    in_use: int | None = None

    def line(self) -> str:
        key = f"{self.class_name}.{self.setting}" if self.class_name else self.setting
        why = f" ({self.change})" if self.change else ""
        return f"{key}: {self.before} -> {self.after}{why}"


@dataclass(frozen=True, slots=True)
class ReloadReport:
    """What changes, and what is worth a sentence beside it; the hash is that of the new configuration."""

    changes: tuple[Change, ...]
    notes: tuple[str, ...]
    config_hash: str

    def lines(self) -> list[str]:
        return [*(change.line() for change in self.changes), *self.notes]


def compare(
    old: Config, new: Config, renamed: Mapping[str, str], in_use: Mapping[str, int]
) -> tuple[list[Change], list[str]]:
    """All that differs, in the order of the new configuration, and a sentence for each class that comes or goes.

    `renamed` are old names and new ones. `in_use` counts the slots of each class by its old name.
    """
    changes = [
        change for path, info in leaves(new) if path[0] != "classes" for change in _differs(old, new, path, info)
    ]
    notes = []
    before = {new_name: old_name for old_name, new_name in renamed.items()}
    for name, one in new.classes.items():
        old_name = before.get(name, name)
        used = in_use.get(old_name, 0)
        if old_name not in old.classes:
            changes.append(Change(name, "class", "", _summary(one), "new"))
            continue
        if old_name != name:
            changes.append(Change(name, "class", old_name, name, "renamed", used))
            notes.append(f"{old_name} is {name} now: its clients keep their slots and their places in the queue")
        changes += _of_class(old.classes[old_name], one, name, used)
    for name, one in old.classes.items():
        if name not in new.classes and name not in renamed:
            used = in_use.get(name, 0)
            changes.append(Change(name, "class", _summary(one), "", f"removed, loses {one.limit}", used))
            notes.append(
                f"{name} leaves: {used} slots in use drain; its clients belong to another class from their next "
                "transaction on, and who waits does so there, by its time of arrival"
            )
    return changes, notes


def still_as_started(started: Config, old: Config, new: Config) -> list[str]:
    """A sentence for each setting that an earlier reload has changed, and that still runs as it did at the start."""
    return [
        f"{key_text(path)}: {_shown(value_at(started, path), info)} still runs; {_shown(value_at(new, path), info)} "
        "waits for a restart"
        for path, info in leaves(new)
        if path[0] != "classes"
        and reload_kind(info) == "restart"
        and value_at(old, path) == value_at(new, path) != value_at(started, path)
    ]


def _summary(one: PriorityClass) -> str:
    return f"limit {one.limit}, reserved {one.reserved}"


def _differs(old: Config, new: Config, path: KeyPath, info: FieldInfo) -> Iterable[Change]:
    """What is no class's."""
    if path[0] == "classes":
        return
    before, after = value_at(old, path), value_at(new, path)
    if before != after:
        yield _change("", key_text(path), before, after, info, None)


def _of_class(old: PriorityClass, new: PriorityClass, name: str, used: int) -> Iterable[Change]:
    for path, info in leaves(new):
        before, after = value_at(old, path), value_at(new, path)
        if before != after and path[-1] != "renamed_from":
            yield _change(name, key_text(path), before, after, info, used)


def _change(class_name: str, setting: str, before: object, after: object, info: FieldInfo, used: int | None) -> Change:
    texts = _shown(before, info), _shown(after, info)
    words = [_gain(setting, before, after), _WHEN[reload_kind(info)]]
    if texts[0] == texts[1]:
        words.insert(0, "changed")
    return Change(class_name, setting, *texts, " ".join(word for word in words if word), used)


def _gain(setting: str, before: object, after: object) -> str:
    is_slots = setting in _SLOTS or setting in {"budget.headroom.size", "budget.total"}
    if not is_slots or not isinstance(before, int) or not isinstance(after, int):
        return ""
    return f"gains {after - before}" if after > before else f"loses {before - after}"


def _shown(value: object, info: FieldInfo) -> str:
    """As it could be written; a secret by nothing but its being there, a list by its length."""
    if value is None:
        return "empty"
    if any(isinstance(one, Secrets | SecretText) for one in info.metadata):
        return "(secret)"
    if isinstance(value, UpstreamUrl):
        return value.shown()
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) if all(isinstance(one, str) for one in value) else f"{len(value)} entries"
    setting = next((one for one in info.metadata if isinstance(one, Setting)), None)
    return str(value) if setting is None else setting.show(value)
