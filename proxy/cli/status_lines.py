"""The sentences beneath the table of `pgheadroom status`: totals, orders, what has happened, what is wrong.

Owns: which of them are shown and when. A line stands there only where something is set, or has happened.
Does not know: the table, how lines are wrapped.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from proxy.cli.output import when

_PINS_SHOWN: Final = 5
_STRANGERS_SHOWN: Final = 5
_REFUSED_SHOWN: Final = 3
_UNMATCHED_HINT: Final = "  `pgheadroom recommend` says to which class they might belong"


def lines_beneath(document: dict[str, Any]) -> list[str]:
    budget, servers, clients = document["budget"], document["server_connections"], document["clients"]
    closing = "".join(f", {servers[state]} {state}" for state in ("dialling", "closing") if servers[state])
    lines = [
        f"slots: {budget['in_use']} of {budget['total']} in use, headroom {budget['headroom_left']} of "
        f"{budget['headroom']} left",
        f"server connections: {servers['total']} open, {servers['in_use']} active, {servers['idle']} idle{closing}"
        f"{_server(document['server'])}",
        f"clients: {clients['total']} connected, {clients['linked']} linked, {clients['waiting']} waiting, "
        f"{clients['idle']} idle",
        *_upstreams(document["upstreams"]),
        f"{_readiness(document)} (version {document['version']}, configuration {document['config_hash']})",
    ]
    lines += [_override(one) for one in document["overrides"]]
    return [
        *lines,
        *_adaptive(document),
        *_expected_waits(document["classes"]),
        *_warns(document["classes"]),
        *_refused(document),
        *_holds_ended(document["classes"]),
        *_tags(document["classes"]),
        *_nested(document),
        *_problems(document),
        *_pins(document["pins"]),
        *_unmatched(document),
    ]


def _upstreams(upstreams: list[dict[str, Any]]) -> list[str]:
    """Where there are several, each by itself: the totals above say nothing of one that is full or lost."""
    if len(upstreams) == 1:
        return []
    return [
        f"upstream {one['name']}: {one['budget']['in_use']} of {one['budget']['total']} slots in use, "
        f"{one['budget']['waiting']} waiting, {one['server_connections']['total']} server connections"
        f"{_server(one['server'])}, {one['readiness']}"
        for one in upstreams
    ]


def _nested(document: dict[str, Any]) -> list[str]:
    """Who probably waits for itself, what that means and what helps."""
    lines = [
        f"probably waits for itself: {one['application_name'] or 'no name'} of {one['user']} from {one['address']} in "
        f"{one['class']} holds {one['holding']} and does nothing while {one['waiting']} of it wait, for "
        f"{show_wait(one['waited_seconds'])}"
        for one in document["nested_acquires"]
    ]
    hint = (
        "  a job that opens a second connection inside its transaction waits for a slot that its own first one holds: "
        "let it use one connection, raise the class's limit above one job's need, or bound it with "
        "max_clients_per_identity"
    )
    return [*lines, hint] if lines else []


def _problems(document: dict[str, Any]) -> list[str]:
    """Where the budget does not hold with the server as it is, and who connects past the proxy."""
    lines = [f"{one['severity']}: {one['key']}: {one['text']} ({one['hint']})" for one in document["budget_problems"]]
    missing = document["server"]["overcommitted_slots"]
    if missing:
        lines.append(f"{missing} slots of the budget could not be had now if all were asked for")
    strangers = [
        f"{one['application_name'] or 'no name'} of {one['user']}"
        + (f" from {one['address']}" if one["address"] else "")
        + (f" at {one['upstream']}" if len(document["upstreams"]) > 1 else "")
        + f": {one['connections']}"
        for one in document["server"]["strangers"][:_STRANGERS_SHOWN]
    ]
    return [*lines, *([f"past the proxy: {', '.join(strangers)}"] if strangers else [])]


def _adaptive(document: dict[str, Any]) -> list[str]:
    """How customers fare, and what follows from it; nothing where nobody asked. What is true of all is said once."""
    upstreams = document["upstreams"]
    lines = [*_of_each(upstreams, "adaptive limits", _overload), *_of_each(upstreams, "lock waits", _lock_waits)]
    canaries = {one["canary"]["class"]: one["canary"]["sentence"] for one in upstreams if one["canary"] is not None}
    return [*lines, *([f"canary: {'; '.join(canaries.values())}"] if canaries else [])]


def _of_each(upstreams: list[dict[str, Any]], what: str, told: Callable[[dict[str, Any]], str]) -> list[str]:
    def whose(names: list[str]) -> str:
        return "" if len(names) == len(upstreams) else f" of {', '.join(names)}"

    names: dict[str, list[str]] = {}
    for one in upstreams:
        names.setdefault(told(one), []).append(one["name"])
    return [f"{what}{whose(of)}{sentence}" for sentence, of in names.items() if sentence]


def _overload(upstream: dict[str, Any]) -> str:
    adaptive = upstream["adaptive"]
    if adaptive is None:
        return ""
    why = f": {adaptive['why']}" if adaptive["why"] else ""
    wanted = ", ".join(f"{name} {limit}" for name, limit in adaptive["limits"].items())
    lowered = f"; {'would lower' if adaptive['mode'] == 'observe' else 'lowered'}: {wanted}" if wanted else ""
    return f" ({adaptive['mode']}): {adaptive['load']}{why}{lowered}"


def _lock_waits(upstream: dict[str, Any]) -> str:
    waits = upstream["lock_waits"]
    return f": {waits} server processes wait for a lock" if waits else ""


def _expected_waits(classes: list[dict[str, Any]]) -> list[str]:
    waits = [
        f"{one['name']} {show_wait(one['expected_wait_seconds'])}" for one in classes if one["expected_wait_seconds"]
    ]
    return [f"who asks now has to expect a wait: {', '.join(waits)}"] if waits else []


def _warns(classes: list[dict[str, Any]]) -> list[str]:
    """What classes in `mode: warn` would have done so far."""
    return [f"{one['name']} only warns: {_would(one['warns'])}" for one in classes if one["warns"] is not None]


def _would(warns: dict[str, Any]) -> str:
    refused = warns["would_refuse_total"]
    done = [f"refused {counted(refused)}"] if refused else []
    done += (
        [f"queued {warns['would_queue_total']} above its limit of {warns['limit']}"]
        if warns["would_queue_total"]
        else []
    )
    return f"it would have {' and '.join(done)} so far" if done else "nothing would have been refused or queued so far"


def _refused(document: dict[str, Any]) -> list[str]:
    """Since the start by class, and who was refused most often lately while connecting."""
    by_class = [
        f"{one['name']} {counted(one['refusals_total'])}" for one in document["classes"] if one["refusals_total"]
    ]
    lately = [
        f"{one['identity']} in {one['class']} {one['refusals']} times"
        for one in document["refused_identities"][:_REFUSED_SHOWN]
    ]
    lines = [f"refused so far: {', '.join(by_class)}"] if by_class else []
    return [*lines, *([f"refused again and again while connecting: {', '.join(lately)}"] if lately else [])]


def _holds_ended(classes: list[dict[str, Any]]) -> list[str]:
    """Who was cut off at a bound of `holds`: the bound with its length, and how often."""
    ended = [
        f"{one['application_name'] or 'no name'} in {each['name']} {one['count']} times "
        f"({one['bound']}{_length(each, one)})"
        for each in classes
        for one in each["holds_ended"][:_REFUSED_SHOWN]
    ]
    return [f"cut off at a bound of holds: {', '.join(ended)}"] if ended else []


def _length(of_class: dict[str, Any], ended: dict[str, Any]) -> str:
    """The bound may have been taken away since."""
    seconds = of_class["hold_bounds"].get(ended["bound"])
    return "" if seconds is None else f" {show_wait(seconds)}"


def _tags(classes: list[dict[str, Any]]) -> list[str]:
    tagged = [f"{one['name']} {counted(one['tagged_units_total'])}" for one in classes if one["tagged_units_total"]]
    return [f"tags in comments: {', '.join(tagged)}"] if tagged else []


def counted(counts: Mapping[str, int]) -> str:
    """The sum and what it is made of, the most frequent first: "7 (deadline)", "9 (queue_full 6, limit 3)"."""
    if len(counts) == 1:
        return "".join(f"{count} ({word})" for word, count in counts.items())
    parts = ", ".join(f"{word} {count}" for word, count in sorted(counts.items(), key=lambda one: (-one[1], one[0])))
    return f"{sum(counts.values())} ({parts})"


def _override(one: dict[str, Any]) -> str:
    why = f": {one['reason']}" if one["reason"] else ""
    return (
        f"set: {one['key']} is {one['value']} instead of {one['configured']}, by {one['by']}{when(one['until'])}{why}"
    )


def _pins(pins: list[dict[str, Any]]) -> list[str]:
    """Who holds a server connection from one transaction to the next, and for what."""
    shown = [
        f"{one['clients']} of {one['class']} ({one['application_name'] or 'no name'}: {one['reason']})"
        for one in pins[:_PINS_SHOWN]
    ]
    more = [f"and {len(pins) - _PINS_SHOWN} more"] if len(pins) > _PINS_SHOWN else []
    return [f"pinned: {', '.join([*shown, *more])}"] if pins else []


def _readiness(document: dict[str, Any]) -> str:
    state = "ready" if document["ready"] else "not ready"
    return state if document["readiness"] == state else f"{state}: {document['readiness']}"


def _server(server: dict[str, Any]) -> str:
    facts = []
    if server["max_connections"] is not None:
        facts.append(f"the server allows {server['max_connections']}")
    if server["external_connections"] is not None:
        facts.append(f"{server['external_connections']} used by others")
    return f" ({', '.join(facts)})" if facts else ""


def _unmatched(document: dict[str, Any]) -> list[str]:
    unmatched, several = document["unmatched"], len(document["upstreams"]) > 1
    names = [_unmatched_name(one, several) for one in unmatched["names"]]
    if not names:
        return []
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return [f"names no class knows ({unmatched['clients_total']} clients): {shown}", _UNMATCHED_HINT]


def _unmatched_name(one: dict[str, Any], several: bool) -> str:
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(one["first_seen"]))
    at = f" at {one['upstream']}" if several else ""
    return f"{one['application_name'] or '(no name)'} ({one['clients_total']}{at} since {since})"


def show_wait(seconds: float) -> str:
    """A wait as people say it; the table is read at a glance."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds / 60:.1f} min"
