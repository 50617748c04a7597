"""What `pgheadroom recommend` tells: the figures, the budget that follows, and how honest both are.

Owns: the keys of that document, when there is too little to tell, which sentences go with it.
Does not know: HTTP, how it is shown, how the traffic was seen.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from proxy.service.budget import capacity
from proxy.service.config.model import PriorityClass
from proxy.service.config.parts import UpstreamPart
from proxy.service.server_facts import ServerFacts
from proxy.service.traffic.likely_class import likely_class
from proxy.service.traffic.observed import Demand, Observation, Observed, observed
from proxy.service.traffic.recommendation import (
    CENSORED,
    Given,
    GivenBudget,
    Need,
    Recommendation,
    Role,
    TooFewSlots,
    recommend,
)
from proxy.service.traffic.recommendation_yaml import as_yaml
from proxy.service.traffic.record import HOUR_SECONDS, hours_of
from proxy.service.view import UnmatchedName, readable_name

# JSON has no better type; the keys are listed in the functions below.
Document = dict[str, Any]

SAMPLED_EVERY_SECONDS: Final = 1.0
_UNMATCHED_SHOWN: Final = 20
METHOD: Final = (
    f"demand: slots in use and clients that wait and count, looked at every {SAMPLED_EVERY_SECONDS:g} s; shorter peaks "
    "between two looks are not in it",
    "hold times: every hold that ended is counted, p95 is the upper bound of its bucket",
    "clients that wait for a class at its limit are not in its demand: it says for how much of the time that was",
)


class TooLittleSeen(Exception):  # noqa: N818 - says what is
    """The sentence says how much was seen and how to ask for less."""


@dataclass(frozen=True, slots=True)
class Question:
    """Everything to answer from. `hours`: how many hours of the clock to look back, the current one included."""

    part: UpstreamPart
    total: int
    facts: ServerFacts | None
    frozen: Sequence[tuple[int, bytes]]
    unmatched: Sequence[UnmatchedName]
    now: float
    hours: int | None = None
    at_least_seconds: float = 3600.0


def report(question: Question) -> Document:
    """Reads all hours: to be called beside the event loop. Raises TooLittleSeen."""
    since = 0 if question.hours is None else int(question.now // HOUR_SECONDS) - question.hours + 1
    seen = observed(hours_of(question.frozen, since))
    if seen.seconds < question.at_least_seconds:
        raise TooLittleSeen(
            f"{_length(seen.seconds)} of traffic were seen, and at least {_length(question.at_least_seconds)} "
            "are asked for: ask again later, or say --at-least with less"
        )
    suggestion, why_not = _suggestion(question, seen)
    total = _total(question, seen)
    unmatched = [one for one in question.unmatched if one.upstream == question.part.name]
    how_long = f"{_length(seen.seconds)} observed"
    return {
        "observed": {
            "seconds": round(seen.seconds, 1),
            "length": _length(seen.seconds),
            "since": seen.since_hour * HOUR_SECONDS,
            "clock_hours": seen.hours,
            "method": list(METHOD),
        },
        "upstream": question.part.name,
        "total": None if total is None else asdict(total),
        "classes": [_observation(seen.of_class(name)) for name in question.part.classes],
        "applications": [_observation(one) for one in seen.applications if one.class_name in question.part.classes],
        "unmatched": [_unmatched(one, question.part) for one in unmatched[:_UNMATCHED_SHOWN]],
        "suggestion": None if suggestion is None else _numbers(question, suggestion),
        "why_no_suggestion": why_not,
        "notes": list(_notes(question, seen, suggestion)),
        "yaml": None if suggestion is None else as_yaml(question.part, suggestion, how_long),
    }


def _length(seconds: float) -> str:
    """About how long, as people say it: 6 h 12 min."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"


# The suggestion


def _suggestion(question: Question, seen: Observed) -> tuple[Recommendation | None, str]:
    needs = {
        name: Need(one.demand, one.limited_share) for name in question.part.classes if (one := seen.of_class(name))
    }
    try:
        return recommend(given_budget(question.part, question.total), needs), ""
    except TooFewSlots as too_few:
        return None, str(too_few)


def _total(question: Question, seen: Observed) -> Demand | None:
    """Of all its classes together; None where all that was seen is older than the second upstream."""
    return seen.total if question.part.is_only else seen.upstreams.get(question.part.name)


def given_budget(part: UpstreamPart, total: int) -> GivenBudget:
    """What the arithmetic has to know of a configuration."""
    listening = part.pool.listen_connections
    reckoned = listening if "listen_connections" in part.pool.model_fields_set else min(listening, 1)
    classes = tuple(_given(part, name, one) for name, one in part.classes.items())
    return GivenBudget(total, classes, frozenset(part.budget.headroom.for_classes), reckoned)


def _given(part: UpstreamPart, name: str, one: PriorityClass) -> Given:
    return Given(
        name,
        priority=one.priority,
        is_shared=one.pool_mode != "session",
        is_default=name == part.default_class,
        is_matched=bool(one.match),
        reserved=one.reserved,
        lendable=one.lendable,
        limit=one.limit,
        pinned_limit=one.pinned_limit,
        max_clients=one.max_clients,
    )


# The document


def _observation(one: Observation) -> Document:
    document = asdict(one)
    application = document.pop("application")
    if application is not None:
        document["application_name"] = readable_name(application)
    document["class"] = document.pop("class_name")
    return document


def _unmatched(one: UnmatchedName, part: UpstreamPart) -> Document:
    patterns = {
        name: [entry.application_name for entry in each.match if entry.application_name]
        for name, each in part.classes.items()
        if name != part.default_class
    }
    guess = likely_class(one.application_name, patterns)
    return {
        "application_name": readable_name(one.application_name),
        "clients_total": one.clients_total,
        "first_seen": one.first_seen,
        "likely_class": None if guess is None else guess[0],
        "why": "no class has a name like it: give it one of its own" if guess is None else guess[1],
    }


def _numbers(question: Question, found: Recommendation) -> Document:
    return {
        "total": {"value": found.total, "sum": _why_total(question)},
        "headroom": asdict(found.headroom) | {"for": sorted(found.headroom_for)},
        "spare": found.spare,
        "classes": [
            {
                "class": one.name,
                "was": _configured(question.part.classes[one.name]),
                "reserved": asdict(one.reserved),
                "lendable": asdict(one.lendable),
                "limit": asdict(one.limit),
                "pinned_limit": None if one.pinned_limit is None else asdict(one.pinned_limit),
            }
            for one in found.classes
        ],
        "sum": _sum(found),
    }


def _configured(one: PriorityClass) -> dict[str, int | None]:
    return {
        "reserved": one.reserved,
        "lendable": one.lendable,
        "limit": one.limit,
        "pinned_limit": one.pinned_limit,
    }


def _why_total(question: Question) -> str:
    budget, facts = question.part.budget, question.facts
    if budget.total != "auto":
        return f"{question.part.key('budget', 'total')} as configured"
    if facts is None:
        return "auto"
    gives = f"{capacity(facts)} that the server gives"
    return f"auto: ({gives} - {budget.keep_free} keep_free) / {budget.instances} instances"


def _sum(found: Recommendation) -> str:
    terms = [f"{one.name} {one.reserved.value}" for one in found.classes]
    terms += [f"headroom {found.headroom.value}"] if found.headroom.value else []
    reserved = found.total - found.spare
    return f"{' + '.join(terms)} + internal 1 = {reserved} of {found.total} slots, {found.spare} for whoever needs them"


def _notes(question: Question, seen: Observed, found: Recommendation | None) -> Iterable[str]:
    """What a reader has to know before believing the numbers."""
    total = _total(question, seen)
    if total is not None and total.p95 > question.total:
        yield (
            f"all classes together asked for {total.p95} slots at p95, and there are {question.total}: more slots, or "
            "shorter holds, are needed whatever is reserved for whom"
        )
    if seen.hours < 24:
        yield "less than a day was seen: what happens once a day may be missing"
    for one in seen.classes:
        if one.limited_share > CENSORED and one.class_name in question.part.classes:
            yield (
                f"{one.class_name} was at its limit for {one.limited_share:.0%} of the time while clients waited: its "
                "demand was larger than what is shown"
            )
    if found is not None:
        customers = ", ".join(one.name for one in found.classes if one.role is Role.CUSTOMERS)
        yield f"taken for customers, the most important class that shares its connections: {customers}"
