"""The configuration as each upstream has it: its server, its budget, its classes.

Owns: which part of the file belongs to which upstream, in the short form (`upstream`, `budget`) and in the long one
(`upstreams`), and what a setting is called there.
Does not know: which numbers fit together (proxy/service/check.py does).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from proxy.service.config.errors import Path as KeyPath
from proxy.service.config.errors import key_text
from proxy.service.config.model import (
    Adaptive,
    Auth,
    Budget,
    Canary,
    Config,
    Listen,
    NamedUpstream,
    Pool,
    PriorityClass,
    Upstream,
)

ONLY: Final = "main"  # the name of the upstream in the short form
_OF_AN_UPSTREAM: Final = ("upstream", "budget", "default_class", "replication_class")


@dataclass(frozen=True, slots=True)
class UpstreamPart:
    """What belongs to one upstream, under the names that a file with a single one has for it."""

    name: str
    config: Config
    upstream: Upstream
    budget: Budget
    default_class: str
    replication_class: str | None
    classes: Mapping[str, PriorityClass]
    databases: tuple[str, ...] = ("*",)
    database: str | None = None

    @property
    def auth(self) -> Auth:
        return self.config.auth

    @property
    def pool(self) -> Pool:
        return self.config.pool

    @property
    def adaptive(self) -> Adaptive:
        return self.config.adaptive

    @property
    def canary(self) -> Canary:
        return self.config.canary

    @property
    def is_only(self) -> bool:
        """The file is in the short form."""
        return self.config.upstream is not None

    @property
    def listen(self) -> Listen:
        return self.config.listen

    def path(self, path: KeyPath) -> KeyPath:
        """Where the setting that stands at `path` in a file with a single upstream is written in this one."""
        if self.is_only or not path or path[0] not in _OF_AN_UPSTREAM:
            return path
        return ("upstreams", self.name, *(path[1:] if path[0] == "upstream" else path))

    def key(self, *path: str | int) -> str:
        """The same as text: "budget.total", or "upstreams.replica.budget.total"."""
        return key_text(self.path(path))


def parts(config: Config) -> tuple[UpstreamPart, ...]:
    """One for each upstream, in the order of the file."""
    if config.upstream is None:
        owners = owners_of_classes(config)
        return tuple(_part(name, one, config, owners) for name, one in config.upstreams.items())
    assert config.default_class is not None, "loading refuses a file without it"
    return (
        UpstreamPart(
            ONLY,
            config,
            config.upstream,
            config.budget,
            config.default_class,
            config.replication_class,
            config.classes,
        ),
    )


def _part(name: str, one: NamedUpstream, config: Config, owners: Mapping[str, str | None]) -> UpstreamPart:
    classes = {each: settings for each, settings in config.classes.items() if owners[each] == name}
    return UpstreamPart(
        name, config, one, one.budget, one.default_class, one.replication_class, classes, one.databases, one.database
    )


def owners_of_classes(config: Config) -> dict[str, str | None]:
    """The upstream of each class: the one it names, else the one that names it, else the only one; None for neither."""
    named_by = {
        name: upstream for upstream, one in reversed(config.upstreams.items()) for name in classes_named_by(one)
    }
    only = next(iter(config.upstreams)) if len(config.upstreams) == 1 else None
    return {name: one.upstream or named_by.get(name, only) for name, one in config.classes.items()}


def classes_named_by(one: NamedUpstream) -> dict[str, KeyPath]:
    """Classes that the settings of an upstream speak of, and where."""
    named: dict[str, KeyPath] = {one.default_class: ("default_class",)}
    if one.replication_class is not None:
        named.setdefault(one.replication_class, ("replication_class",))
    for position, name in enumerate(one.budget.headroom.for_classes):
        named.setdefault(name, ("budget", "headroom", "for", position))
    return named
