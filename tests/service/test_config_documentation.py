"""What is published beside the code follows the code: the schema, the table of settings, the examples."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import jsonschema
import pytest
import yaml

from proxy.admission.decisions import RefusalReason
from proxy.service.check import findings
from proxy.service.config.loading import load_config
from proxy.service.config.model import Config, Section
from proxy.service.config.schema import as_text, json_schema
from proxy.service.config.settable import refusals_of, reload_kind
from proxy.service.config.units import show_bytes, show_seconds, show_time_of_day
from proxy.service.config.upstream_keywords import KEYWORDS
from proxy.service.plan import KINDS, Server, Service, load_plan
from proxy.service.server_facts import ServerFacts

DIRECTORY = Path(__file__).parents[2] / "config"
README = (DIRECTORY / "README.md").read_text()

# Each example with the size of the server it was written for.
EXAMPLES = {
    "pgheadroom.yaml": 100,
    "examples/sidecar.yaml": 200,
    "examples/ai-jobs.yaml": 200,
    "examples/replica.yaml": 100,
}


def settings(model: type[Section], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Keys as in the file, with the field behind each."""
    for name, info in model.model_fields.items():
        key, annotation = prefix + (info.alias or name), info.annotation
        sections = [
            one for one in (annotation, *get_args(annotation)) if isinstance(one, type) and issubclass(one, Section)
        ]
        is_mapping = getattr(annotation, "__origin__", None) is dict
        if not sections or getattr(annotation, "__origin__", None) is tuple:
            yield key, info
        for section in sections:
            ending = ".<name>." if is_mapping else "[]." if getattr(annotation, "__origin__", None) is tuple else "."
            yield from settings(section, key + ending)


def documented() -> dict[str, list[str]]:
    """The cells of the table of settings, by key."""
    table = README.partition("## All settings")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.split(" | ")] for line in table.splitlines() if line.startswith("| `")]
    return {row[0].strip("|` "): row for row in rows}


def test_every_setting_is_documented_and_nothing_else():
    assert list(documented()) == [key for key, _ in settings(Config)]


@pytest.mark.parametrize(("key", "info"), list(settings(Config)))
def test_meaning_and_default_are_those_of_the_model(key, info):
    _, kind, default, meaning, _ = documented()[key]
    assert meaning == info.description
    if info.is_required():
        assert default == "**required**"
        return
    value = info.get_default(call_default_factory=True)
    value = ", ".join(value) if isinstance(value, tuple) and value else value
    shown = {
        "time": show_seconds,
        "time of day": show_time_of_day,
        "bytes": show_bytes,
        "true or false": lambda value: str(value).lower(),
    }.get(kind, lambda value: f"{value:g}" if isinstance(value, float) else value)
    assert default == ("empty" if value is None else "none" if value == () else f"`{shown(value)}`")


MARKS = {"restart": "**Restart.**", "new connections": "**New connections.**", "at once": ""}


@pytest.mark.parametrize(("key", "info"), list(settings(Config)))
def test_what_a_reload_does_with_a_setting_is_that_of_the_model(key, info):
    said = next((mark for mark in MARKS.values() if mark and documented()[key][-1].startswith(mark)), "")
    assert said == MARKS[reload_kind(info)]


@pytest.mark.parametrize(("key", "info"), list(settings(Config)))
def test_the_refusals_that_a_setting_causes_are_those_of_the_model(key, info):
    said = re.search(r"\*\*Clients:\*\* ((?:`\w+`(?:, )?)+)\.", documented()[key][-1])
    assert re.findall(r"\w+", said[1] if said else "") == refusals_of(info)


def test_every_refusal_is_caused_by_a_setting():
    caused = {reason for _, info in settings(Config) for reason in refusals_of(info)}
    assert caused == {reason.value for reason in RefusalReason}


def test_every_keyword_of_libpq_is_documented_with_what_becomes_of_it():
    table = README.partition("## Upstream URL")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| ([a-z ]+) \|", table, re.MULTILINE))
    assert rows == {name: keyword.use.value for name, keyword in KEYWORDS.items()}


def test_every_setting_and_kind_of_the_plan_is_documented():
    section = README.partition("## Plan file")[2]
    keys = [f"services.<name>.{info.alias or name}" for name, info in Service.model_fields.items()]
    keys += [f"server.{name}" for name in Server.model_fields]
    assert re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE) == [*keys, *KINDS]


def test_the_published_schema_is_current():
    assert (DIRECTORY / "schema.json").read_text() == as_text()


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(json_schema())


def refused_by_schema(data):
    return [error.message for error in jsonschema.Draft202012Validator(json_schema()).iter_errors(data)]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_fit_the_schema_and_point_to_it(name):
    path = DIRECTORY / name
    first, *_ = path.read_text().splitlines()
    reference = first.removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / reference).resolve() == DIRECTORY / "schema.json"
    assert refused_by_schema(yaml.safe_load(path.read_text())) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"listen": {"prot": 1}},
        {"classes": {"web": {"limit": "forty"}}},
        {"classes": {"web": {"limit": {"value": 4, "why": "x"}}}},
        {"pool": {"dial_timeout": "soon"}},
        {"auth": {"method": "kerberos"}},
    ],
)
def test_the_schema_refuses_what_loading_refuses(wrong):
    sound = {"upstream": {"url": "postgresql://h"}, "default_class": "web", "classes": {"web": {"limit": 4}}}
    assert refused_by_schema(sound) == []
    assert refused_by_schema(sound | wrong)


@pytest.mark.parametrize(("name", "max_connections"), EXAMPLES.items())
def test_the_check_has_nothing_to_say_about_the_examples(name, max_connections, tmp_path):
    users = tmp_path / "users.txt"
    users.write_text('"web" "a password"\n')
    users.chmod(0o600)
    environ = {
        "PGHEADROOM_UPSTREAM_URL": "postgresql://pgheadroom@127.0.0.1/app",
        "PGHEADROOM_REPLICA_URL": "postgresql://pgheadroom@127.0.0.1:5433/app",
        "PGHEADROOM_USERS_FILE": str(users),
        "PGHEADROOM_INSTANCES": "4",
    }
    config = load_config(DIRECTORY / name, environ)
    assert [str(finding) for finding in findings(config, ServerFacts(max_connections))] == []
    assert all(one.reason for one in config.classes.values())


def test_the_example_plans_add_up():
    plans = {name: load_plan(DIRECTORY / "examples" / name, {}) for name in ("plan.yaml", "plan-queue.yaml")}
    sums = {name: sum(one.connections() for one in plan.services.values()) for name, plan in plans.items()}
    assert sums == {"plan.yaml": 222, "plan-queue.yaml": 173}
