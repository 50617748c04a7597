"""The file that declares traffic for a simulation: its settings, and from the file to sources with their classes.

Owns: the shape of the file, what is wrong in it by line, which class a source belongs to.
Does not know: how traffic is simulated.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from proxy.admission.classification import Classifier
from proxy.admission.simulation.durations import Constant, Duration, Exponential, Lognormal
from proxy.admission.simulation.server import ServerModel, SlowTime
from proxy.admission.simulation.traffic import (
    Arrivals,
    Burst,
    ClosedLoop,
    ConstantRate,
    Poisson,
    Retry,
    Source,
    Traffic,
    source_problems,
)
from proxy.service.config import fields
from proxy.service.config.errors import ConfigError, ConfigFinding, suggestion
from proxy.service.config.model import (
    AtLeastOne,
    Count,
    OptionalCount,
    OptionalText,
    Seconds,
    SecondsOrZero,
    Section,
)
from proxy.service.config.validation import validated
from proxy.service.config.yaml_reader import Document, read_yaml

Rate = Annotated[float, fields.positive_number()]
SourceName = Annotated[str, fields.class_name()]
OptionalClassName = Annotated[str | None, fields.class_name()]
ClientAddress = Annotated[str | None, fields.text("an address, as 10.0.0.7", optional=True)]


class OneOf(Section):
    """Exactly one of the settings has to be written; which one, `model_fields_set` tells."""

    CHOICES: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="after")
    def _says_exactly_one_thing(self) -> "OneOf":
        if len(self.model_fields_set) != 1:
            raise PydanticCustomError(fields.NOT_ALLOWED, "", {"allowed": f"exactly one of {', '.join(self.CHOICES)}"})
        return self

    def written(self) -> str:
        return next(iter(self.model_fields_set))


class LognormalSection(Section):
    median: Seconds = Field(description="half of them last no longer")
    p99: Seconds = Field(description="99 of 100 last no longer")


class DurationSection(OneOf):
    """A plain length of time is one that is always the same."""

    CHOICES: ClassVar[tuple[str, ...]] = ("constant", "exponential", "lognormal")

    constant: SecondsOrZero = Field(default=0.0, description="always the same")
    exponential: Seconds = Field(default=1.0, description="its mean")
    lognormal: LognormalSection = Field(
        default_factory=lambda: LognormalSection(median=1.0, p99=1.0), description="median and p99"
    )

    @model_validator(mode="before")
    @classmethod
    def _plain_length(cls, data: object) -> object:
        return {"constant": data} if isinstance(data, str | int | float) else data

    def duration(self) -> Duration:
        match self.written():
            case "exponential":
                return Exponential(self.exponential)
            case "lognormal":
                return Lognormal(self.lognormal.median, self.lognormal.p99)
            case _:
                return Constant(self.constant)


class BurstSection(Section):
    at: SecondsOrZero = Field(default=0.0, description="when it begins")
    workers: AtLeastOne = Field(description="clients that begin")
    jobs: AtLeastOne = Field(default=1, description="jobs that each does, one after the other")
    over: SecondsOrZero = Field(default=0.0, description="time over which the workers begin, evenly")
    every: SecondsOrZero = Field(default=0.0, description="it comes again after this time; 0 once")


class ClosedSection(Section):
    workers: AtLeastOne = Field(description="clients that do one job after the other")
    think: DurationSection = Field(
        default_factory=lambda: DurationSection(constant=0.0), description="pause between two jobs"
    )


class ArrivalsSection(OneOf):
    CHOICES: ClassVar[tuple[str, ...]] = ("poisson", "constant", "burst", "closed")

    poisson: Rate = Field(default=1.0, description="jobs per second, independent of each other")
    constant: Rate = Field(default=1.0, description="jobs per second, evenly spaced")
    burst: BurstSection = Field(
        default_factory=lambda: BurstSection(workers=1), description="workers that wake at once"
    )
    closed: ClosedSection = Field(
        default_factory=lambda: ClosedSection(workers=1), description="workers that go on from start to stop"
    )

    def arrivals(self) -> Arrivals:
        match self.written():
            case "poisson":
                return Poisson(self.poisson)
            case "constant":
                return ConstantRate(self.constant)
            case "closed":
                return ClosedLoop(self.closed.workers, self.closed.think.duration())
            case _:
                one = self.burst
                return Burst(one.at, one.workers, one.jobs, over_seconds=one.over, every_seconds=one.every)


class RetrySection(Section):
    attempts: AtLeastOne = Field(default=1, description="times a client asks in all; 1 never tries again")
    after: Seconds = Field(default=0.2, description="pause after the first refusal")
    factor: Rate = Field(default=2.0, description="each pause is this many times the last one")
    at_most: Seconds = Field(default=30.0, description="longest pause")
    jitter: Annotated[float, fields.positive_number(or_zero=True)] = Field(
        default=0.0, description="part of each pause that is taken off by chance, from 0 to 1"
    )
    listens: Annotated[bool, fields.true_or_false()] = Field(
        default=False, description="it waits at least as long as the refusal tells it (retry_after_ms)"
    )
    reconnects: Annotated[bool, fields.true_or_false()] = Field(
        default=False, description="a refusal ends its connection: to try again is to connect again"
    )


class SourceSection(Section):
    """One kind of client. Its class is named, or found as the proxy finds it."""

    class_name: OptionalClassName = Field(default=None, alias="class", description="its class, where it is not found")
    application_name: OptionalText = Field(default=None, description="what its clients call themselves")
    user: OptionalText = Field(default=None, description="as whom they log in")
    database: OptionalText = Field(default=None, description="to which database; the user's name where left out")
    address: ClientAddress = Field(default=None, description="where they come from; the unix socket where left out")
    arrivals: ArrivalsSection = Field(description="when they ask for a slot")
    hold: DurationSection = Field(description="how long they hold it: the length of a transaction")
    start: SecondsOrZero = Field(default=0.0, description="nothing arrives before")
    stop: Seconds = Field(default=math.inf, description="nothing arrives after; the end where left out")
    clients: OptionalCount = Field(default=None, description="connections of a poisson or constant source; empty: any")
    identities: AtLeastOne = Field(default=1, description="identities they have, for fairness inside the class")
    patience: Seconds = Field(
        default=math.inf, description="a job waits this long, retries included; for ever if empty"
    )
    retry: RetrySection = Field(default_factory=RetrySection, description="what a client does after a refusal")


class SlowSection(Section):
    from_: SecondsOrZero = Field(default=0.0, alias="from", description="when it begins")
    to: Seconds = Field(default=math.inf, description="when it is over; the end where left out")
    slower: Rate = Field(description="everything takes so many times as long")


class ServerSection(Section):
    """The database behind the slots. Where nothing is written every hold lasts as long as it is declared."""

    parallel: OptionalCount = Field(
        default=None, description="holds that go on at once at full speed; more share it; empty: any number"
    )
    slow: tuple[SlowSection, ...] = Field(default=(), description="times in which it is slower")

    def model(self) -> ServerModel:
        parallel = math.inf if self.parallel is None else float(self.parallel)
        return ServerModel(parallel, tuple(SlowTime(one.from_, one.to, one.slower) for one in self.slow))


class TrafficFile(Section):
    """The whole file."""

    duration: Seconds = Field(description="simulated time")
    seed: Count = Field(default=1, description="the same seed gives the same traffic; --seed wins")
    server: ServerSection = Field(default_factory=ServerSection, description="how the database behaves")
    sources: dict[SourceName, SourceSection] = Field(min_length=1, description="the kinds of clients")


@dataclass(frozen=True, slots=True)
class DeclaredTraffic:
    """What the file says. `unmatched` are the sources that no class matches: they are in the default class."""

    traffic: Traffic
    seed: int
    unmatched: tuple[str, ...]


def load_traffic(
    path: Path | str, classifier: Classifier, class_names: Sequence[str], environ: Mapping[str, str] | None = None
) -> DeclaredTraffic:
    """Read a traffic file against the classes of a configuration. Raises ConfigError with every finding."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError([ConfigFinding(str(path), 0, "", f"cannot be read: {reason}")]) from None
    return load_traffic_text(text, classifier, class_names, environ, file=str(path))


def load_traffic_text(
    text: str,
    classifier: Classifier,
    class_names: Sequence[str],
    environ: Mapping[str, str] | None = None,
    *,
    file: str = "<text>",
) -> DeclaredTraffic:
    document = read_yaml(text, file, os.environ if environ is None else environ)
    written = validated(TrafficFile, document, {})
    findings = [*document.findings, *_class_findings(written, document, class_names)]
    if findings:
        raise ConfigError(findings)
    found = {name: _class_of(one, classifier) for name, one in written.sources.items()}
    sources = tuple(_source(name, one, found[name][0]) for name, one in written.sources.items())
    server = written.server.model()
    findings = [
        document.finding(("sources", source.name), problem)
        for source in sources
        for problem in source_problems(source, class_names)
    ]
    findings += [document.finding(("server",), problem) for problem in server.problems()]
    if findings:
        raise ConfigError(findings)
    unmatched = tuple(name for name, (_, matched) in found.items() if not matched)
    return DeclaredTraffic(Traffic(written.duration, sources, server), written.seed, unmatched)


def _class_findings(written: TrafficFile, document: Document, class_names: Sequence[str]) -> Iterator[ConfigFinding]:
    for name, one in written.sources.items():
        tags = [one.application_name, one.user, one.database, one.address]
        path = ("sources", name)
        if one.class_name is None:
            if not any(tags):
                allowed = "class, or what its clients are known by: application_name, user, database, address"
                yield document.finding(path, f"neither a class nor a tag; allowed: {allowed}")
        elif any(tags):
            yield document.finding((*path, "class"), "both a class and tags; give one: tags find the class themselves")
        elif one.class_name not in class_names:
            known = f"{', '.join(class_names)}{suggestion(one.class_name, list(class_names))}"
            yield document.finding((*path, "class"), f"read '{one.class_name}', allowed: {known}")


def _class_of(one: SourceSection, classifier: Classifier) -> tuple[str, bool]:
    """The class of a source, and whether anything matched."""
    if one.class_name is not None:
        return one.class_name, True
    user = one.user or ""
    found = classifier.classify(one.application_name or "", user, one.database or user, one.address)
    return found.class_name, found.matched


def _source(name: str, one: SourceSection, class_name: str) -> Source:
    retry = one.retry
    return Source(
        name,
        class_name,
        one.arrivals.arrivals(),
        one.hold.duration(),
        start_seconds=one.start,
        stop_seconds=one.stop,
        clients=math.inf if one.clients is None else one.clients,
        identities=one.identities,
        patience_seconds=one.patience,
        retry=Retry(
            retry.after,
            retry.attempts,
            factor=retry.factor,
            at_most_seconds=retry.at_most,
            jitter=retry.jitter,
            listens=retry.listens,
            reconnects=retry.reconnects,
        ),
    )
