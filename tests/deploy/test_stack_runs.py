"""The configuration, users and roles of the Compose stack, run without containers: every user gets into its class."""

import json
from urllib.request import urlopen

import psycopg
import pytest

from proxy.demo.postgres import EmbeddedPostgres, free_port
from proxy.demo.serving import ProxyProcess
from tests.deploy.artifacts import DEPLOY, read_yaml


@pytest.fixture(scope="module")
def postgres():
    with EmbeddedPostgres(max_connections=60) as server:
        server.psql("DROP OWNED BY web; DROP ROLE web", database="app")  # the stack creates its own
        server.psql((DEPLOY / "compose/init.sql").read_text(), database="app")
        yield server


@pytest.fixture(scope="module")
def proxy(postgres):
    config = read_yaml("compose/pgheadroom.yaml")
    config["listen"] = {"host": "127.0.0.1", "port": free_port()}
    config["http"] |= {"host": "127.0.0.1", "port": free_port()}
    config["upstream"] = {"url": postgres.url("app")}
    with ProxyProcess(config, files={"users.txt": (DEPLOY / "compose/users.txt").read_text()}) as proxy:
        yield proxy


def status(proxy):
    with urlopen(f"{proxy.http_url}/status") as answer:
        return json.load(answer)


def test_the_budget_is_what_the_server_gives(proxy):
    assert status(proxy)["budget"]["total"] == 60 - 3 - 5


@pytest.mark.parametrize(
    ("user", "password", "application_name", "class_name"),
    [
        ("web", "web-demo", "web-1", "web"),
        ("worker", "worker-demo", "worker-import", "bulk"),
        ("dba_anna", "anna-demo", "psql", "admin"),
        ("worker", "worker-demo", "something-new", "other"),
    ],
)
def test_every_user_gets_into_its_class(proxy, user, password, application_name, class_name):
    with psycopg.connect(proxy.url(user, password, "app"), application_name=application_name) as connection:
        assert connection.execute("SELECT current_user").fetchone() == (user,)

        (linked,) = [one["name"] for one in status(proxy)["classes"] if one["clients"]["linked"]]

    assert linked == class_name
