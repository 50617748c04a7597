"""The traffic file: every way to declare a source, and every mistake with its line."""

import math

import pytest

from proxy.admission.classification import Classifier, MatchEntry
from proxy.admission.simulation.durations import Constant, Exponential, Lognormal
from proxy.admission.simulation.server import ServerModel, SlowTime
from proxy.admission.simulation.traffic import Burst, ClosedLoop, ConstantRate, Poisson, Source
from proxy.service.config.errors import ConfigError
from proxy.service.traffic_file import DeclaredTraffic, load_traffic, load_traffic_text

CLASSIFIER = Classifier(
    [("web", [MatchEntry(application_name="web*", user="app")]), ("near", [MatchEntry(address="10.0.0.0/8")])], "bulk"
)
CLASSES = ("web", "near", "bulk")


def read(text: str) -> DeclaredTraffic:
    return load_traffic_text(text, CLASSIFIER, CLASSES, {}, file="traffic.yaml")


def source(fields: str) -> Source:
    (only,) = read(f"duration: 1m\nsources:\n  a: {{{fields}}}\n").traffic.sources
    return only


def mistakes(fields: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        source(fields)
    return [str(finding) for finding in error.value.findings]


@pytest.mark.parametrize(
    ("written", "arrivals"),
    [
        ("{poisson: 300}", Poisson(300.0)),
        ("{constant: 0.5}", ConstantRate(0.5)),
        ("{burst: {at: 20s, workers: 150, jobs: 6}}", Burst(20.0, 150, 6)),
        (
            "{burst: {workers: 2, jobs: 1, over: 5s, every: 15m}}",
            Burst(0.0, 2, 1, over_seconds=5.0, every_seconds=900.0),
        ),
        ("{closed: {workers: 20}}", ClosedLoop(20, Constant(0.0))),
        ("{closed: {workers: 20, think: {exponential: 2s}}}", ClosedLoop(20, Exponential(2.0))),
    ],
)
def test_arrivals(written, arrivals):
    assert source(f"class: bulk, hold: 1s, arrivals: {written}").arrivals == arrivals


@pytest.mark.parametrize(
    ("written", "hold"),
    [
        ("200ms", Constant(0.2)),
        ("0.2", Constant(0.2)),
        ("{constant: 200ms}", Constant(0.2)),
        ("{exponential: 200ms}", Exponential(0.2)),
        ("{lognormal: {median: 8ms, p99: 60ms}}", Lognormal(0.008, 0.06)),
    ],
)
def test_holds(written, hold):
    assert source(f"class: bulk, arrivals: {{poisson: 1}}, hold: {written}").hold == hold


def test_what_is_left_out_bounds_nothing():
    one = source("class: bulk, arrivals: {poisson: 1}, hold: 1s")
    assert (one.stop_seconds, one.clients, one.patience_seconds, one.retry.attempts) == (
        math.inf,
        math.inf,
        math.inf,
        1,
    )


def test_what_is_written_is_kept():
    one = source(
        "class: bulk, arrivals: {poisson: 1}, hold: 1s, start: 1m, stop: 2m, clients: 40, identities: 3, patience: 5s, "
        "retry: {attempts: 4, after: 1s, factor: 3, at_most: 10s}"
    )
    kept = (one.start_seconds, one.stop_seconds, one.clients, one.identities, one.patience_seconds)
    assert kept == (60.0, 120.0, 40, 3, 5.0)
    assert [one.retry.pause_seconds(made) for made in (1, 2, 3, 4)] == [1.0, 3.0, 9.0, 10.0]


@pytest.mark.parametrize(
    ("tags", "class_name"),
    [
        ("application_name: web-1, user: app", "web"),
        ("application_name: web-1, user: somebody", "bulk"),
        ("user: app, address: 10.1.2.3", "near"),
    ],
)
def test_a_source_gets_the_class_the_proxy_would_give_it(tags, class_name):
    assert source(f"{tags}, arrivals: {{poisson: 1}}, hold: 1s").class_name == class_name


def test_sources_that_match_nothing_are_named():
    text = "duration: 1m\nsources:\n  a: {user: x, arrivals: {poisson: 1}, hold: 1}\n"
    assert read(text).unmatched == ("a",)


def test_the_seed_of_the_file():
    assert read("duration: 1m\nseed: 9\nsources:\n  a: {class: web, arrivals: {poisson: 1}, hold: 1}\n").seed == 9


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("class: bulk, arrivals: {poison: 1}, hold: 1s", 'arrivals.poison: unknown setting; did you mean "poisson"?'),
        (
            "class: bulk, arrivals: {poisson: 1, constant: 2}, hold: 1s",
            "allowed: exactly one of poisson, constant, burst",
        ),
        ("class: bulk, arrivals: {}, hold: 1s", "allowed: exactly one of poisson, constant, burst, closed"),
        ("class: bulk, arrivals: {burst: {at: 1s, jobs: 2}}, hold: 1s", "burst.workers: missing"),
        ("class: bulk, arrivals: {burst: {workers: 2, job: 2}}, hold: 1s", 'did you mean "jobs"?'),
        ("class: bulk, arrivals: {poisson: 0}, hold: 1s", "arrivals.poisson: read 0, allowed: a number > 0"),
        ("class: bulk, arrivals: {poisson: 1}", "sources.a.hold: missing"),
        (
            "class: bulk, arrivals: {poisson: 1}, hold: 2 weeks",
            "hold.constant: read '2 weeks', allowed: a length of time",
        ),
        ("class: bulk, arrivals: {poisson: 1}, hold: {lognormal: {median: 2s, p99: 1s}}", "is below its median"),
        (
            "class: blk, arrivals: {poisson: 1}, hold: 1s",
            "read 'blk', allowed: web, near, bulk; did you mean \"bulk\"?",
        ),
        ("arrivals: {poisson: 1}, hold: 1s", "neither a class nor a tag"),
        ("class: web, user: app, arrivals: {poisson: 1}, hold: 1s", "both a class and tags"),
        ("class: bulk, arrivals: {closed: {workers: 1}}, hold: 0", "endless work in no time"),
    ],
)
def test_a_mistake_is_said_with_its_line(fields, words):
    (mistake,) = mistakes(fields)
    assert mistake.startswith("traffic.yaml:3: sources.a")
    assert words in mistake


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_traffic(tmp_path / "none.yaml", CLASSIFIER, CLASSES)


def test_a_file_without_sources():
    with pytest.raises(ConfigError, match="sources: read an empty section, allowed: at least one"):
        read("duration: 1m\nsources: {}\n")


SOURCES = "sources:\n  a: {class: bulk, arrivals: {poisson: 1}, hold: 1s}\n"


def test_the_server_is_ideal_where_nothing_is_said_of_it():
    assert read(f"duration: 1m\n{SOURCES}").traffic.server.is_ideal


def test_how_the_server_behaves():
    server = "server: {parallel: 16, slow: [{from: 60s, to: 2m, slower: 5}, {from: 5m, slower: 1.5}]}\n"
    slow_times = (SlowTime(60.0, 120.0, 5.0), SlowTime(300.0, math.inf, 1.5))
    assert read(f"duration: 1m\n{server}{SOURCES}").traffic.server == ServerModel(16.0, slow_times)


@pytest.mark.parametrize(
    ("server", "words"),
    [
        ("{parallel: 0}", "server: server.parallel is 0.0, it must be at least 1"),
        ("{slow: [{from: 9s, to: 9s, slower: 5}]}", "is not after from (9.0 s)"),
        ("{slow: [{from: 9s, slower: 0}]}", "allowed: a number > 0"),
        ("{slow: [{from: 9s}]}", "slower: missing"),
    ],
)
def test_a_mistake_about_the_server(server, words):
    with pytest.raises(ConfigError) as error:
        read(f"duration: 1m\nserver: {server}\n{SOURCES}")
    assert words in str(error.value)
