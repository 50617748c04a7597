"""The stack for one machine: its files exist, its numbers and passwords fit together, nothing leaves loopback."""

import re
import shutil
import subprocess

import jsonschema
import pytest

from proxy.service.budget import usable_total
from proxy.service.check import findings
from proxy.service.config.loading import load_config
from proxy.service.config.parts import parts
from proxy.service.config.units import read_seconds
from proxy.service.config.users import load_users
from proxy.service.findings import Severity
from proxy.service.server_facts import ServerFacts
from tests.deploy.artifacts import DEPLOY, read_yaml

# The part of the Compose specification that this file uses; an unknown key is a typing mistake.
SERVICE_KEYS = [
    "image", "build", "command", "environment", "volumes", "ports", "depends_on", "restart", "healthcheck",
    "stop_grace_period", "read_only", "cap_drop", "security_opt",
]  # fmt: skip
SCHEMA = {
    "type": "object",
    "required": ["name", "services", "volumes"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"},
        "volumes": {"type": "object"},
        "services": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "required": ["image"],
                "propertyNames": {"enum": SERVICE_KEYS},
                "properties": {
                    "environment": {"type": "object", "additionalProperties": {"type": "string"}},
                    "volumes": {"type": "array", "items": {"type": "string", "pattern": "^[^:]+:/[^:]+(:ro)?$"}},
                    "ports": {"type": "array", "items": {"type": "string"}},
                },
            },
        },
    },
}


@pytest.fixture
def stack():
    return read_yaml("compose.yaml")


@pytest.fixture
def config():
    return load_config(DEPLOY / "compose/pgheadroom.yaml", {"PGHEADROOM_UPSTREAM_URL": upstream_url()})


def upstream_url():
    return read_yaml("compose.yaml")["services"]["pgheadroom"]["environment"]["PGHEADROOM_UPSTREAM_URL"]


def has_compose():
    return shutil.which("docker") is not None and compose("version").returncode == 0


def compose(*arguments):
    return subprocess.run(["docker", "compose", *arguments], check=False, capture_output=True, text=True)


@pytest.mark.skipif(not has_compose(), reason="no docker client with compose on this machine")
def test_compose_itself_accepts_the_file():
    done = compose("-f", DEPLOY / "compose.yaml", "config", "--quiet")

    assert done.returncode == 0, done.stderr


def test_the_keys_are_those_of_the_specification(stack):
    jsonschema.validate(stack, SCHEMA)


def test_every_mounted_file_exists_and_every_volume_is_declared(stack):
    sources = [volume.split(":")[0] for one in stack["services"].values() for volume in one.get("volumes", [])]

    assert [path for path in sources if path.startswith(".") and not (DEPLOY / path).exists()] == []
    assert {name for name in sources if not name.startswith(".")} == set(stack["volumes"])


def test_all_ports_are_published_on_loopback(stack):
    ports = [port for one in stack["services"].values() for port in one.get("ports", [])]

    assert len(ports) == 4
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_dependency_is_a_service(stack):
    wanted = {name for one in stack["services"].values() for name in one.get("depends_on", [])}

    assert wanted <= set(stack["services"])


def test_images_are_pinned(stack):
    images = [one["image"] for one in stack["services"].values() if "build" not in one]

    assert all(re.search(r":v?\d+", image) for image in images)


def server_facts(stack):
    (setting,) = [part for part in stack["services"]["postgres"]["command"] if part.startswith("max_connections=")]
    return ServerFacts(int(setting.partition("=")[2]), superuser_reserved_connections=3, server_version=170000)


def test_the_budget_holds_on_the_server_of_the_stack(stack, config):
    facts = server_facts(stack)

    assert usable_total(parts(config)[0], facts) == 52
    assert [str(one) for one in findings(config, facts) if one.severity is Severity.ERROR] == []


def test_a_drain_ends_before_compose_kills(stack, config):
    grace = read_seconds(stack["services"]["pgheadroom"]["stop_grace_period"])

    assert config.shutdown.drain_timeout + 10 <= grace


def test_the_users_are_the_roles_that_the_database_creates(config):
    created = dict(re.findall(r"CREATE ROLE (\w+) LOGIN PASSWORD '([^']+)'", (DEPLOY / "compose/init.sql").read_text()))

    assert load_users(config.auth.users_file) == created


def test_the_proxys_own_login_is_that_of_the_server(stack, config):
    environment = stack["services"]["postgres"]["environment"]
    url = config.upstream.url

    assert (url.user, url.password, url.database) == (
        environment["POSTGRES_USER"], environment["POSTGRES_PASSWORD"], environment["POSTGRES_DB"]
    )  # fmt: skip


def test_the_page_may_switch_and_only_this_machine_reaches_it(stack, config):
    assert config.http.switches_from == "anywhere"
    assert "127.0.0.1:9432:9432" in stack["services"]["pgheadroom"]["ports"]
