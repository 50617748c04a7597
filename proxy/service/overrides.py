"""Numbers that an operator has set beside the file: which of them hold.

Owns: checking them as a reload is checked, and the choice of those that stay where not all can.
Does not know: who sets them, when they end, how they are applied.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from proxy.service.config.errors import key_text
from proxy.service.config.model import Config
from proxy.service.config.settable import NotSettable, Number, leaves, read_setting, settable, with_values
from proxy.service.findings import Finding, Severity
from proxy.service.switchboard import OrderRefused, Override

# What the check has to say about a configuration, with what is known of the server.
Check = Callable[[Config], list[Finding]]


def read_all(config: Config, written: Mapping[str, object]) -> dict[str, Number]:
    """The values by key. Raises OrderRefused with a sentence for each that cannot be used."""
    values, problems = {}, []
    known = {key_text(path) for path, _ in leaves(config)}
    for key, text in written.items():
        try:
            values[key] = read_setting(config, key, text)
        except NotSettable as problem:
            problems.append(str(problem))
    if problems or not values:
        is_unknown = any(key not in known for key in written)
        raise OrderRefused("\n".join(problems) or "nothing to set: name a setting and its value", is_unknown=is_unknown)
    return values


def read_again(config: Config, override: Override) -> Override:
    """The override with its value as it would be read today: what was stored may have been edited, or be of another
    version. Raises OrderRefused. A key that is no setting any more is for `those_that_hold` to tell."""
    if override.key not in settable(config):
        return override
    try:
        return replace(override, value=read_setting(config, override.key, override.value))
    except NotSettable as problem:
        raise OrderRefused(str(problem)) from None


def check_values(config: Config, values: Mapping[str, Number], check: Check) -> list[str]:
    """Raises OrderRefused where the numbers cannot hold; returns the warnings that the file alone does not cause."""
    found = check(with_values(config, values))
    errors = [str(one) for one in found if one.severity is Severity.ERROR]
    if errors:
        raise OrderRefused("the numbers cannot hold:\n" + "\n".join(errors))
    known = {str(one) for one in check(config)}
    return [str(one) for one in found if str(one) not in known]


def those_that_hold(
    config: Config, overrides: Collection[Override], check: Check
) -> tuple[dict[str, Override], list[tuple[Override, str]]]:
    """The overrides that stay beside this configuration, and the others, each with the reason.

    Where not all hold together, the older ones are kept first; what holds only beside a later one is tried again.
    """
    known = settable(config)
    wanted = sorted((one for one in overrides if one.key in known), key=lambda one: one.at)
    gone = [(one, "there is no such setting any more") for one in overrides if one.key not in known]
    if not _errors(config, wanted, check):
        return {one.key: one for one in wanted}, gone
    kept: list[Override] = []
    refused: dict[str, str] = {}
    while (more := _next_that_holds(config, kept, wanted, check, refused)) is not None:
        kept.append(more)
    left = [(one, refused[one.key]) for one in wanted if one not in kept]
    return {one.key: one for one in kept}, [*gone, *left]


def _next_that_holds(
    config: Config, kept: list[Override], wanted: list[Override], check: Check, refused: dict[str, str]
) -> Override | None:
    """The oldest one that is not kept yet and holds beside those that are; why the others do not is in `refused`."""
    for one in wanted:
        if one in kept:
            continue
        errors = _errors(config, [*kept, one], check)
        if not errors:
            return one
        refused[one.key] = errors[0]
    return None


def _errors(config: Config, overrides: Iterable[Override], check: Check) -> list[str]:
    found = check(with_values(config, {one.key: one.value for one in overrides}))
    return [str(one) for one in found if one.severity is Severity.ERROR]
