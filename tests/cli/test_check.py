"""The command `pgheadroom check` as a person and as a program see it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from proxy.cli.check import command
from proxy.service import server_watch
from proxy.service.server_facts import ServerFacts, ServerUnreachable

TEXT = """\
upstream: {url: "postgresql://proxy:hush@127.0.0.1/app"}
auth: {method: trust}
budget: {total: {value: 50, reason: "half of the server"}, keep_free: 5}
default_class: bulk
classes:
  web: {reason: "p95 is 12", match: [{application_name: "web*"}], priority: 1, reserved: 20, lendable: 10, limit: 30}
  bulk: {reason: "may wait", priority: 9, reserved: 2, lendable: 1, limit: 20, queue: {timeout: 8s, max: 0}}
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "pgheadroom.yaml"
    path.write_text(TEXT)
    return path


@pytest.fixture
def server(monkeypatch):
    """The server answers with these facts, or does not where they are an exception."""
    answers = [ServerFacts(100, 3, 0, 160004)]

    def read_server_facts(upstream, server_name=None):
        if isinstance(answers[0], Exception):
            raise answers[0]
        return answers[0]

    monkeypatch.setattr(server_watch, "read_server_facts", read_server_facts)
    return answers


def run(*arguments, **environ):
    return CliRunner().invoke(command, [str(argument) for argument in arguments], env=environ)


def test_a_sound_configuration_shows_its_classes_and_exits_with_0(config, server):
    result = run("-c", config)
    assert result.exit_code == 0, result.output
    assert "bulk (default)" in result.output
    assert "p95 is 12" in result.output
    assert "half of the server" in result.output
    assert "budget: 50 slots; the server can give 97 of 100" in result.output
    assert "0 errors, 0 warnings: the proxy can start." in result.output
    assert "hush" not in result.output


EXAMPLES = sorted(
    path
    for path in (Path(__file__).parents[2] / "config").rglob("*.yaml")
    if not path.name.startswith(("plan", "traffic"))
)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_sound_without_the_server(path, tmp_path):
    """As a copy beside a users file, which is how the quick start has it."""
    (tmp_path / "users.txt").write_text('"web" "a password"\n')
    (tmp_path / "users.txt").chmod(0o600)
    copy = tmp_path / path.name
    copy.write_text(path.read_text())
    environ = {
        "PGHEADROOM_UPSTREAM_URL": "postgresql://pgheadroom:hush@db.lan/app",
        "PGHEADROOM_REPLICA_URL": "postgresql://pgheadroom:hush@replica.lan/app",
        "PGHEADROOM_USERS_FILE": str(tmp_path / "users.txt"),
        "PGHEADROOM_INSTANCES": "4",
    }
    result = run("--offline", "-c", copy, **environ)
    assert result.exit_code == 0, result.output
    assert "0 errors" in result.output
    assert "the proxy can start" in result.output
    assert "hush" not in result.output


def test_the_tables_of_the_example_fit_into_80_columns(server):
    result = run("-c", "config/pgheadroom.yaml", COLUMNS="80", PGHEADROOM_UPSTREAM_URL="postgresql://h/d")
    tables = [line for line in result.output.splitlines() if not line.startswith(("budget:", "0 err"))]
    assert max(map(len, tables)) <= 80
    assert "a shell in an incident always gets in" in result.output


def test_what_cannot_hold_exits_with_1_and_names_setting_line_and_change(config, server):
    server[0] = ServerFacts(40)
    result = run("-c", config)
    assert result.exit_code == 1
    assert "budget.total" in result.output
    assert "1 error, 0 warnings: the proxy would refuse to start." in result.output


def test_offline_asks_nobody(config, server):
    server[0] = AssertionError("asked")
    assert run("-c", config, "--offline").exit_code == 0


def test_a_server_that_does_not_answer_is_an_error_of_this_check(config, server):
    server[0] = ServerUnreachable("connection refused")
    result = run("-c", config, "--json")
    assert result.exit_code == 1
    finding = json.loads(result.output)["findings"][0]
    assert finding["key"] == "upstream.url"
    assert finding["text"] == "postgresql://proxy@127.0.0.1:5432/app cannot be asked: connection refused"
    assert "--offline" in finding["hint"]


def test_programs_read_json(config, server):
    document = json.loads(run("-c", config, "--json").output)
    assert document["ok"] is True
    assert document["total"] == 50
    assert document["server"]["max_connections"] == 100
    assert document["classes"]["web"]["reserved"] == 20
    assert document["reasons"] == {"budget.total": "half of the server"}
    assert len(document["config_hash"]) == 12


def test_the_environment_names_the_configuration(config, server):
    assert run(PGHEADROOM_CONFIG=str(config)).exit_code == 0


def test_mistakes_in_the_file_are_told_without_a_traceback(config, server):
    config.write_text(TEXT.replace("limit: 30", "limit: thirty").replace("limit: 20", "limt: 20"))
    result = run("-c", config)
    assert result.exit_code == 1
    assert f"{config}:6: classes.web.limit: read 'thirty'" in result.output
    assert 'limt: unknown setting; did you mean "limit"?' in result.output
    assert "3 mistakes: the configuration cannot be read." in result.output
    assert isinstance(result.exception, SystemExit)


def test_mistakes_in_the_file_are_json_too(config, server):
    config.write_text(TEXT.replace("limit: 30", "limit: thirty"))
    document = json.loads(run("-c", config, "--json").output)
    assert document["ok"] is False
    assert document["findings"][0]["key"] == "classes.web.limit"
    assert document["findings"][0]["line"] == 6


def test_a_file_that_is_not_there_is_told(tmp_path, server):
    result = run("-c", tmp_path / "none.yaml")
    assert result.exit_code == 1
    assert "cannot be read: No such file or directory" in result.output


# A real server, and none


def on(url, total="auto"):
    return TEXT.replace("postgresql://proxy:hush@127.0.0.1/app", url).replace("value: 50", f"value: {total}")


def test_a_real_server_is_asked_for_its_limits(config, postgres):
    config.write_text(on(postgres.url()).replace("keep_free: 5", "keep_free: 5, instances: 1"))
    document = json.loads(run("-c", config, "--json").output)
    max_connections = int(postgres.psql("show max_connections"))
    reserved = int(postgres.psql("show superuser_reserved_connections"))
    assert document["server"]["max_connections"] == max_connections
    assert document["total"] == max_connections - reserved - 5


def test_a_total_that_a_real_server_cannot_give_is_refused(config, postgres):
    max_connections = int(postgres.psql("show max_connections"))
    config.write_text(on(postgres.url(), total=max_connections))
    document = json.loads(run("-c", config, "--json").output)
    assert document["findings"][0]["severity"] == "error"
    assert document["findings"][0]["text"].startswith(f"total {max_connections}, but the server can give")


def test_a_port_where_nobody_listens_leaves_the_json_whole(config, unused_tcp_port):
    config.write_text(on(f"postgresql://u:hush@127.0.0.1:{unused_tcp_port}/x"))
    result = run("-c", config, "--json")
    assert result.exit_code == 1
    assert "cannot be asked" in json.loads(result.stdout)["findings"][0]["text"]
    assert "hush" not in result.output
