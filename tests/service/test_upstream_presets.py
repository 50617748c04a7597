"""The configurations below config/upstreams hold, and those that say they are tested are, with real servers."""

from collections.abc import Callable
from pathlib import Path

import pytest

from loadtests.pgbouncer import PgBouncer, find_pgbouncer, users_with_passwords
from proxy.demo.postgres import DATABASE, EmbeddedPostgres, password_of
from proxy.service.check import findings
from proxy.service.config.loading import load_config_text
from proxy.service.config.model import Config
from proxy.service.findings import Severity
from proxy.service.server_facts import ServerFacts
from proxy.service.server_watch import read_server_facts
from tests.support import standby

FOLDER = Path(__file__).parents[2] / "config" / "upstreams"
PRESETS = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def preset(name: str, folder: Path, **environ: str) -> Config:
    users = folder / "users.txt"
    users.write_text(users_with_passwords())
    users.chmod(0o600)
    return load_config_text((FOLDER / f"{name}.yaml").read_text(), environ, directory=folder)


def with_hosts(name: str, folder: Path, *servers: EmbeddedPostgres | PgBouncer) -> Config:
    """The preset, with these servers in place of its hosts and its parameters as they are."""
    text = (FOLDER / f"{name}.yaml").read_text()
    parameters = text.split("?", 1)[1].split("}", 1)[0]
    hosts = ",".join(f"{server.host}:{server.port}" for server in servers)
    url = f"postgresql://app:{password_of('app')}@{hosts}/{DATABASE}?{parameters}"
    return preset(name, folder, PGHEADROOM_UPSTREAM_URL=url)


def errors(config: Config, facts: ServerFacts | None = None) -> list[str]:
    return [str(one) for one in findings(config, facts) if one.severity is Severity.ERROR]


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_started_from(name: str, tmp_path: Path) -> None:
    assert errors(preset(name, tmp_path)) == []


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_listed_in_the_documentation(name: str) -> None:
    assert f"(upstreams/{name}.yaml)" in (FOLDER.parent / "README.md").read_text()


@pytest.mark.skipif(find_pgbouncer() is None, reason="no PgBouncer is installed")
def test_the_preset_for_pgbouncer_holds_before_pgbouncer(
    embedded_postgres_18: EmbeddedPostgres, tmp_path: Path
) -> None:
    binary = find_pgbouncer()
    assert binary is not None
    databases = {DATABASE: f"dbname={DATABASE}"}
    settings = {"pool_mode": "session"}
    with PgBouncer(
        binary, embedded_postgres_18, databases=databases, users=users_with_passwords(), settings=settings
    ) as running:
        config = with_hosts("pgbouncer", tmp_path, running)
        facts = read_server_facts(config.upstream.url)
        assert facts.is_behind_pooler
        assert errors(config, facts) == []


@pytest.mark.parametrize(("name", "is_standby"), [("several-hosts", False), ("standbys", True)])
def test_the_presets_for_several_hosts_find_the_one_they_mean(
    make_postgres: Callable[..., EmbeddedPostgres], tmp_path: Path, name: str, is_standby: bool
) -> None:
    # As many connections as the standbys' preset counts on; the wanted server can be told by its limit.
    servers = [make_postgres(18, settings=standby.SETTINGS, max_connections=count) for count in (90, 91)]
    standby.demote(servers[0])
    config = with_hosts(name, tmp_path, *servers)
    facts = read_server_facts(config.upstream.url)
    assert facts.max_connections == (90 if is_standby else 91)
    assert errors(config, facts) == []
