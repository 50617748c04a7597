"""The examples of config/README.md, section "Authentication": each is run as it stands there, and somebody logs in."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from proxy.demo.postgres import SUPERUSER, EmbeddedPostgres, password_of
from proxy.demo.serving import ProxyProcess
from tests.clients.ways import assert_left_quiet
from tests.support.certificates import issue
from tests.support.proxies import plain_config

README = (Path(__file__).parents[2] / "config" / "README.md").read_text()
SECTION = README.partition("\n## Authentication\n")[2].partition("\n## ")[0]
BLOCKS = {
    title: dict(re.findall(r"```(yaml|sql)\n(.*?)```", text, re.DOTALL))
    for title, text in re.findall(r"^### (.*?)\n(.*?)(?=^### |\Z)", SECTION, re.DOTALL | re.MULTILINE)
}

Login = dict[str, Any]
OVER_TLS: Login = {"sslmode": "require"}
IN_CLEAR: Login = {"sslmode": "disable"}
WRONG: Login = {"password": "wrong"}
AS_SUPERUSER = f"?user={SUPERUSER}&password={password_of(SUPERUSER)}"


@dataclass(frozen=True)
class Example:
    """Who gets in as user app, and who does not, with what the latter is told."""

    good: tuple[Login, ...] = ({},)
    bad: tuple[tuple[Login, str], ...] = ((WRONG, 'password authentication failed for user "app"'),)
    upstream: str = ""


EXAMPLES = {
    "Users in a file": Example(),
    "Users in the configuration": Example(),
    "Users asked from the server": Example(upstream=AS_SUPERUSER),
    "Rules": Example(
        good=(OVER_TLS, IN_CLEAR),
        bad=(
            ({**OVER_TLS, "user": "postgres"}, "connections are not allowed"),
            ({**IN_CLEAR, "dbname": "postgres"}, "connections are not allowed"),
            ({**OVER_TLS, **WRONG}, "password authentication failed"),
        ),
    ),
    "Certificates": Example(
        good=({**OVER_TLS, "sslcert": "app.crt", "sslkey": "app.key", "password": ""},),
        bad=((OVER_TLS, "requires a valid client certificate"),),
    ),
    "Passwords passed through to the server": Example(
        good=(OVER_TLS, OVER_TLS), bad=((IN_CLEAR, "over TLS only"), ({**OVER_TLS, **WRONG}, "authentication failed"))
    ),
    "Failed logins": Example(),
}


@contextmanager
def running(title: str, server: EmbeddedPostgres, certificates: Path, upstream: str, **auth: str) -> Iterator[Any]:
    """The example in front of `server`, with the files that it names."""
    example = yaml.safe_load(BLOCKS[title]["yaml"])
    config = plain_config(server, default_class="all", classes={"all": {"limit": 5}})
    config["listen"] |= example.get("listen", {})
    config["auth"] = {**example["auth"], **auth}
    config["upstream"]["url"] += upstream
    proxy = ProxyProcess(config, files={"users.txt": server.psql(BLOCKS["Users in a file"]["sql"]) + "\n"})
    for name in ("server.crt", "server.key", "ca.crt"):
        shutil.copy(certificates / name, proxy.folder)
    with proxy:
        yield proxy
        assert_left_quiet(proxy)


def log_in(proxy: ProxyProcess, certificates: Path, login: Login) -> str:
    known = {"host": proxy.host, "port": proxy.port, "user": "app", "dbname": "app", "password": password_of("app")}
    files = {key: str(certificates / login[key]) for key in ("sslcert", "sslkey") if key in login}
    with psycopg.connect(**{**known, "connect_timeout": 10, **login, **files}) as connection:
        row = connection.execute("SELECT current_user::text").fetchone()
    assert row is not None
    return str(row[0])


def test_every_example_is_run() -> None:
    assert [title for title, blocks in BLOCKS.items() if "yaml" in blocks] == list(EXAMPLES)


@pytest.mark.parametrize("title", EXAMPLES)
def test_the_example_does_what_it_says(
    title: str, embedded_postgres_18: EmbeddedPostgres, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APP_PASSWORD", password_of("app"))
    issue(certificates, "app", subject="/CN=app.example.org")
    example = EXAMPLES[title]
    with running(title, embedded_postgres_18, certificates, example.upstream) as proxy:
        for login in example.good:
            assert log_in(proxy, certificates, login) == "app"
        for login, told in example.bad:
            with pytest.raises(psycopg.OperationalError) as caught:
                log_in(proxy, certificates, login)
            assert told in str(caught.value)


def test_the_function_lets_an_ordinary_user_ask(embedded_postgres_18: EmbeddedPostgres, certificates: Path) -> None:
    server, title = embedded_postgres_18, "Users asked from the server"
    server.psql("CREATE ROLE pgheadroom LOGIN PASSWORD 'pgheadroom-secret'")
    server.psql(BLOCKS[title]["sql"], database="app")
    query = "SELECT usename, passwd FROM pgheadroom_user($1)"
    assert query in SECTION
    upstream = "?user=pgheadroom&password=pgheadroom-secret"
    with running(title, server, certificates, upstream, auth_query=query) as proxy:
        assert log_in(proxy, certificates, {}) == "app"
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            log_in(proxy, certificates, {"user": SUPERUSER, "password": password_of(SUPERUSER)})
