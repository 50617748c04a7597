"""The image: small, without root, drained by SIGTERM, with the compiled extension."""

import json
import re

import pytest

from tests.deploy.artifacts import ROOT


def instructions():
    """(keyword, rest) of each instruction, continuation lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    joined = re.sub(r"\\\n\s*", "", text)
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


@pytest.fixture
def stages():
    """The instructions of each stage."""
    found = []
    for keyword, rest in instructions():
        if keyword == "FROM":
            found.append([])
        if found:
            found[-1].append((keyword, rest))
    return found


def values(stage, wanted):
    return [rest for keyword, rest in stage if keyword == wanted]


def test_the_compiler_stays_in_the_first_stage(stages):
    build, final = stages

    assert any("gcc" in rest for rest in values(build, "RUN"))
    assert values(final, "RUN") == []
    assert values(final, "COPY") == ["--from=build /opt/pgheadroom /opt/pgheadroom"]


def test_an_image_without_the_compiled_modules_is_not_built(stages):
    (check,) = [rest for rest in values(stages[0], "RUN") if "_compiled" in rest]

    assert json.loads(check)[2] == "import proxy.wire._compiled"


def test_it_runs_without_root_and_kubernetes_can_tell(stages):
    (user,) = values(stages[-1], "USER")

    assert int(user.split(":")[0]) > 0


def test_sigterm_drains_the_process_itself_and_no_shell(stages):
    final = stages[-1]

    assert values(final, "STOPSIGNAL") == ["SIGTERM"]
    assert json.loads(values(final, "ENTRYPOINT")[0]) == ["pgheadroom"]
    assert json.loads(values(final, "CMD")[0]) == ["serve"]


def test_health_is_being_alive_and_not_having_a_database(stages):
    (check,) = values(stages[-1], "HEALTHCHECK")
    command = json.loads(check.partition("CMD ")[2])

    assert command[:2] == ["python", "-c"]
    assert "http://127.0.0.1:9432/healthz" in command[2]
    compile(command[2], "HEALTHCHECK", "exec")


def test_only_what_the_wheel_needs_is_sent_to_the_build():
    lines = [line for line in (ROOT / ".dockerignore").read_text().split() if not line.startswith("#")]
    copied = [part for keyword, rest in instructions() if keyword == "COPY" for part in rest.split()[:-1]]
    wanted = {part for part in copied if not part.startswith(("--", "/"))}

    assert "*" in lines
    assert {line[1:] for line in lines if line.startswith("!")} == wanted
    assert all((ROOT / part).exists() for part in wanted)
