"""Adaptive limits and the canary in the configuration: what is refused, warned about, taken for what."""

import pytest

from proxy.service.adaptive_settings import adaptive_settings, canary_class, reference_class
from proxy.service.config.errors import ConfigError
from proxy.service.config.loading import load_config_text
from proxy.service.config.parts import UpstreamPart, parts
from proxy.service.config.schema import json_schema
from tests.service.test_check import SOUND, told


def load(text: str) -> UpstreamPart:
    return parts(load_config_text(SOUND + text, {}, file="f.yaml"))[0]


def test_nothing_adapts_and_no_canary_sings_unless_it_is_asked_for():
    config = load("")
    assert adaptive_settings(config) is None
    assert (config.adaptive.mode, config.canary.interval, config.adaptive.lock_probe) == ("off", 0.0, 0.0)


@pytest.mark.parametrize("written", ["on", "{mode: on}", "{mode: on, reference_class: web, tolerance: 2}"])
def test_the_mode_may_stand_alone(written):
    settings = adaptive_settings(load(f"adaptive: {written}\n"))
    assert settings is not None
    assert (settings.reference_class, settings.tolerance, settings.observes) == ("web", 2.0, False)


def test_observing_is_told_to_the_core():
    settings = adaptive_settings(load("adaptive: observe\n"))
    assert settings is not None
    assert settings.observes


def test_the_queues_that_count_are_those_of_classes_as_important_that_share_their_connections():
    settings = adaptive_settings(load("adaptive: {mode: on, reference_class: bulk}\n"))
    assert settings is not None
    assert settings.waits_of == {"web", "bulk"}


def test_the_customers_class_is_the_reference_and_the_canarys():
    config = load("canary: {interval: 5s}\n")
    assert (reference_class(config), canary_class(config)) == ("web", "web")
    assert canary_class(load("canary: {interval: 5s, class: internal}\n")) == "internal"


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("adaptive: maybe\n", "adaptive.mode: read 'maybe', allowed: off, observe, on"),
        (
            "adaptive: {mode: on, reference_class: wbe}\n",
            "adaptive.reference_class: read 'wbe', allowed: admin, web, bulk, other; did you mean \"web\"?",
        ),
        ("canary: {class: wbe}\n", "canary.class: read 'wbe', allowed: admin, web, bulk, other"),
        ("adaptive: {mode: on, slower: 2}\n", "adaptive.slower: unknown setting"),
    ],
)
def test_a_mistake_is_said_with_the_setting(written, words):
    with pytest.raises(ConfigError) as error:
        load(written)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("written", "findings"),
    [
        ("adaptive: on\n", []),
        ("adaptive: {mode: off, tolerance: 1, wait_target: 1h}\n", []),
        ("adaptive: {mode: on, reference_class: admin}\n", [("error", "adaptive.reference_class")]),
        ("adaptive: {mode: on, reference_class: other}\n", [("warning", "adaptive.reference_class")]),
        ("adaptive: {mode: observe, tolerance: 1}\n", [("error", "adaptive.tolerance")]),
        ("adaptive: {mode: on, tolerance: 1.2}\n", [("warning", "adaptive.tolerance")]),
        ("adaptive: {mode: on, wait_target: 5s}\n", [("warning", "adaptive.wait_target")]),
        ("canary: {interval: 5s}\n", []),
        ("canary: {interval: 5s, class: admin}\n", [("warning", "canary.class")]),
        ("canary: {interval: 1s}\n", [("warning", "canary.timeout")]),
    ],
)
def test_what_cannot_hold_and_what_will_hurt(written, findings):
    assert told(SOUND + written) == findings


@pytest.mark.parametrize("section", ["adaptive: on\n", "canary: {interval: 5s}\n"])
def test_without_a_class_of_customers_one_has_to_be_named(section):
    text = SOUND.replace('match: [{application_name: "web*"}]', "").replace('match: [{application_name: "bulk*"}]', "")
    text = text.replace("{, ", "{").replace("for: [web]", "for: [admin]")
    assert any(severity == "error" and key.split(".")[0] in section for severity, key in told(text + section))


def test_an_editor_accepts_both_ways_to_write_it():
    alternatives = json_schema()["$defs"]["Adaptive"]["anyOf"]
    assert {"enum": ["off", "observe", "on"]} in alternatives
