"""A scenario as data: the budget under test, the traffic, what goes wrong when, and what has to hold.

Owns: the shape of the files in this folder, and what is wrong in one, by line.
Does not know: how a scenario is run, real or simulated.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import Field

from loadtests.scenarios.record import FIGURES, OF_THE_WHOLE, Window
from proxy.admission.simulation.traffic import Traffic
from proxy.service.budget import classifier
from proxy.service.config import fields
from proxy.service.config.loading import load_config_text
from proxy.service.config.model import AtLeastOne, OptionalText, Seconds, SecondsOrZero, Section
from proxy.service.config.parts import UpstreamPart, parts
from proxy.service.config.validation import validated
from proxy.service.config.yaml_reader import read_yaml
from proxy.service.traffic_file import DeclaredTraffic, TrafficFile, load_traffic_text

FOLDER: Final = Path(__file__).parent
END: Final = "end"
# For reading a configuration that stands in no front of any server yet.
_NOWHERE: Final[Mapping[str, object]] = {
    "upstream": {"url": "postgresql://app@127.0.0.1/app"},
    "auth": {"method": "trust"},
}

Text = Annotated[str, fields.text("some text")]


class Event(Section):
    """Something that happens at a moment. `class` is for switches, `for` for what goes wrong for a while."""

    at: SecondsOrZero = Field(description="when")
    do: Annotated[
        Literal["pause", "resume", "reject", "freeze", "slower", "reload"],
        fields.choice("pause", "resume", "reject", "freeze", "slower", "reload"),
    ] = Field(description="what")
    class_name: OptionalText = Field(default=None, alias="class", description="which class is switched")
    lasts: Seconds = Field(default=1.0, alias="for", description="how long the server is frozen or slower")
    times: Annotated[float, fields.positive_number()] = Field(default=1.0, description="how many times slower")
    change: dict[str, object] = Field(default_factory=dict, description="what a reload changes in the configuration")


class Squatter(Section):
    """Clients that take a server connection and do nothing with it."""

    application_name: Text = Field(description="what they call themselves")
    kind: Annotated[
        Literal["listen", "idle_in_transaction", "stops_reading"],
        fields.choice("listen", "idle_in_transaction", "stops_reading"),
    ] = Field(description="what they do")
    clients: AtLeastOne = Field(description="how many")
    at: SecondsOrZero = Field(description="when they begin")
    lasts: Seconds = Field(alias="for", description="when they leave, unless they are sent away before")


class Span(Section):
    begins: SecondsOrZero = Field(alias="from", description="its beginning")
    ends: Seconds = Field(alias="to", description="its end")


class Quantity(Section):
    figure: Text = Field(description="a figure, as web.p99")
    within: Text = Field(alias="in", description="a window, or whole")


class Expectation(Quantity):
    """`at_most` and `at_least` are numbers, or multiples of another figure where `of` names one."""

    at_most: float | None = Field(default=None, description="the highest value that is well")
    at_least: float | None = Field(default=None, description="the lowest value that is well")
    of: Quantity | None = Field(default=None, description="another figure, which the bound is a multiple of")


class ScenarioFile(Section):
    story: Text = Field(description="what happens, in a sentence")
    proxy: dict[str, object] = Field(description="sections of the configuration: budget, classes, default_class ...")
    pgbouncer: dict[str, int] = Field(
        default_factory=dict, description="pool sizes by user, where PgBouncer can play this at all"
    )
    connections: AtLeastOne = Field(description="connections that the server gives to ordinary roles")
    traffic: dict[str, object] = Field(description="a traffic file, as for `pgheadroom simulate`")
    events: tuple[Event, ...] = Field(default=(), description="what happens when")
    squatters: tuple[Squatter, ...] = Field(default=(), description="clients that hold on to connections")
    windows: dict[str, Span] = Field(default_factory=dict, description="parts of the run that figures are taken from")
    expect: tuple[Expectation, ...] = Field(description="what has to hold")


@dataclass(frozen=True, slots=True)
class Client:
    """Who the clients of one source say they are."""

    application_name: str
    user: str


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario that can be run. `settings` are the sections of the configuration, as they were written."""

    name: str
    file: Path
    story: str
    settings: Mapping[str, object]
    part: UpstreamPart
    pgbouncer: Mapping[str, int]
    connections: int
    declared: DeclaredTraffic
    clients: Mapping[str, Client]
    events: tuple[Event, ...]
    squatters: tuple[Squatter, ...]
    windows: Mapping[str, Window]
    expect: tuple[Expectation, ...]

    @property
    def traffic(self) -> Traffic:
        return self.declared.traffic

    def class_of(self, application_name: str) -> str:
        found = classifier(self.part).classify(application_name, "", "", None)
        return found.class_name


def names() -> list[str]:
    """The scenarios there are, in the order of their names."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name: str) -> Scenario:
    """The scenario of this folder. Raises as `load_file`."""
    return load_file(FOLDER / f"{name}.yaml")


def load_file(path: Path) -> Scenario:
    """Raises ConfigError with every finding, UnknownName, OSError where there is no such file."""
    name, file = path.stem, str(path)
    document = read_yaml(path.read_text(), file, {})
    written = validated(ScenarioFile, document, {})
    part = part_of(written.proxy)
    traffic_text = yaml.safe_dump(written.traffic)
    declared = load_traffic_text(traffic_text, classifier(part), list(part.classes), {}, file=f"{file}: traffic")
    sources = validated(TrafficFile, read_yaml(traffic_text, file, {}), {}).sources
    whole = Window(0.0, declared.traffic.duration_seconds)
    windows = {name: Window(span.begins, span.ends) for name, span in written.windows.items()}
    scenario = Scenario(
        name=name,
        file=path.absolute(),
        story=written.story,
        settings=written.proxy,
        part=part,
        pgbouncer=written.pgbouncer,
        connections=written.connections,
        declared=declared,
        clients={name: Client(one.application_name or name, one.user or "app") for name, one in sources.items()},
        events=written.events,
        squatters=written.squatters,
        windows={"whole": whole, **windows},
        expect=written.expect,
    )
    _check_names(scenario)
    return scenario


def part_of(settings: Mapping[str, object]) -> UpstreamPart:
    """The one upstream that a scenario is about. Raises ConfigError."""
    (part,) = parts(load_config_text(yaml.safe_dump({**_NOWHERE, **settings}), {}))
    return part


class UnknownName(ValueError):  # noqa: N818 - says what is wrong
    """A scenario speaks of a figure, class or window that there is not."""


def _check_names(scenario: Scenario) -> None:
    for expectation in scenario.expect:
        for quantity in (expectation, *([expectation.of] if expectation.of is not None else [])):
            split_figure(quantity.figure, [*scenario.part.classes, *scenario.clients])
            if quantity.within not in scenario.windows:
                raise UnknownName(f"{scenario.name}: no window is called {quantity.within!r}")
        if expectation.at_most is None and expectation.at_least is None:
            raise UnknownName(f"{scenario.name}: {expectation.figure} is expected to be what?")


def split_figure(text: str, known: list[str]) -> tuple[str, str]:
    """`web.p99` as class (or source) and figure. Raises UnknownName."""
    name, _, figure = text.rpartition(".")
    if figure not in FIGURES or (figure not in OF_THE_WHOLE and name not in known):
        raise UnknownName(f"there is no figure {text!r}; classes and sources: {known}, figures: {list(FIGURES)}")
    return name, figure


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` in it, section by section."""
    whole = dict(base)
    for name, value in changes.items():
        old = whole.get(name)
        whole[name] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return whole
