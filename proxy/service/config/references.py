"""What has to stand beside what, and names that refer to classes and upstreams.

Owns: these rules and their sentences.
Does not know: pydantic, and what a class or an upstream is for.
"""

from collections.abc import Iterator

from proxy.admission.classes import INTERNAL_CLASS
from proxy.service.config.errors import ConfigFinding, suggestion
from proxy.service.config.errors import Path as KeyPath
from proxy.service.config.model import Config
from proxy.service.config.parts import classes_named_by, owners_of_classes
from proxy.service.config.yaml_reader import Document

_EACH_HAS_ITS_OWN = ("budget", "default_class", "replication_class")


# The short form and the long one


def findings_of_form(document: Document) -> list[ConfigFinding]:
    """Of the file as it was read: one upstream, or several, and what belongs to each."""
    data = document.data or {}
    if not isinstance(data, dict):
        return []
    given = {key for key, value in data.items() if value is not None}
    if "upstreams" in given:
        return list(_several(document, given, has_none=data["upstreams"] == {}))
    return list(_single(document, given))


def _single(document: Document, given: set[str]) -> Iterator[ConfigFinding]:
    if "upstream" not in given:
        yield document.finding(("upstream",), "missing; required: the server")
    if "default_class" not in given:
        yield document.finding(("default_class",), "missing; required: class of clients that match nothing")


def _several(document: Document, given: set[str], *, has_none: bool) -> Iterator[ConfigFinding]:
    if "upstream" in given:
        text = "stands beside upstreams: give it a name, and write it as upstreams.<name>"
        yield document.finding(("upstream",), text, at_key=True)
    for key in _EACH_HAS_ITS_OWN:
        if key in given:
            text = f"of several upstreams each has its own: write it as upstreams.<name>.{key}"
            yield document.finding((key,), text, at_key=True)
    if has_none:
        yield document.finding(("upstreams",), "read nothing, allowed: at least one", at_key=True)


# Names


def findings_of_names(config: Config, document: Document) -> list[ConfigFinding]:
    """Of a configuration whose values are well-formed."""
    found = [*_names_of_upstreams(config, document), *_names_of_classes(config, document)]
    taken: dict[str, str] = {}
    for name, one in config.classes.items():
        if one.renamed_from is None:
            continue
        text = ""
        if one.renamed_from in config.classes:
            text = f"'{one.renamed_from}' is a class still; only one that is gone goes on under another name"
        elif taken.setdefault(one.renamed_from, name) != name:
            text = f"'{one.renamed_from}' goes on as {taken[one.renamed_from]} already; it cannot become two classes"
        if text:
            found.append(document.finding(("classes", name, "renamed_from"), text))
    if INTERNAL_CLASS in config.classes:
        text = "the proxy's own connections are in a class of this name, which always exists; choose another name"
        found.append(document.finding(("classes", INTERNAL_CLASS), text, at_key=True))
    return found


def _names_of_upstreams(config: Config, document: Document) -> Iterator[ConfigFinding]:
    known = list(config.upstreams)
    for name, owner in owners_of_classes(config).items():
        where: KeyPath = ("classes", name, "upstream")
        if owner is None and known:
            yield document.finding(where, f"missing; required where there are several upstreams: {', '.join(known)}")
        elif owner is not None and not known:
            yield document.finding(where, f"read '{owner}', and there is one upstream only: leave it out")
        elif owner is not None and owner not in known:
            yield document.finding(where, f"read '{owner}', allowed: {', '.join(known)}{suggestion(owner, known)}")


def _names_of_classes(config: Config, document: Document) -> Iterator[ConfigFinding]:
    everywhere = list(config.classes)
    for path, name in _of_the_file(config):
        if name not in everywhere:
            yield _unknown(document, path, name, everywhere)
    owners = owners_of_classes(config)
    for upstream, one in config.upstreams.items():
        own = [name for name, owner in owners.items() if owner == upstream]
        for name, path in classes_named_by(one).items():
            if name not in own:
                elsewhere = f"; it belongs to upstream {owners[name]}" if owners.get(name) else ""
                yield _unknown(document, ("upstreams", upstream, *path), name, own, elsewhere)


def _of_the_file(config: Config) -> Iterator[tuple[KeyPath, str]]:
    if config.default_class is not None:
        yield ("default_class",), config.default_class
    if config.replication_class is not None:
        yield ("replication_class",), config.replication_class
    if config.adaptive.reference_class is not None:
        yield ("adaptive", "reference_class"), config.adaptive.reference_class
    if config.canary.class_name not in (None, INTERNAL_CLASS):
        yield ("canary", "class"), str(config.canary.class_name)
    for position, name in enumerate(config.budget.headroom.for_classes):
        yield ("budget", "headroom", "for", position), name


def _unknown(
    document: Document, path: KeyPath, name: str, known: list[str], elsewhere: str | None = None
) -> ConfigFinding:
    what_else = elsewhere or suggestion(name, known)
    return document.finding(path, f"read '{name}', allowed: {', '.join(known) or 'a class of it'}{what_else}")
