"""What the log must not say."""

from collections.abc import Iterator

import pytest
import structlog

from proxy.service.logs import set_up_logging


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("format_name", ["json", "text"])
def test_a_traceback_shows_no_values(format_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Where rich is installed, tracebacks for people came with the local variables: passwords, query texts."""

    def log_in(password: str) -> None:
        raise RuntimeError(f"a bug of ours with {len(password)} letters")

    set_up_logging("info", format_name)
    try:
        log_in("".join(("hunt", "er2")))
    except RuntimeError:
        structlog.get_logger().exception("login_crashed")
    said = capsys.readouterr().err
    assert "a bug of ours with 7 letters" in said
    assert "hunter2" not in said


@pytest.mark.parametrize("format_name", ["json", "text"])
def test_what_a_client_calls_itself_is_one_line_and_no_order_to_the_terminal(
    format_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up_logging("info", format_name)

    structlog.get_logger().warning("hold_ended", application_name="web\x1b[2J\x9b2J", user="anna\nswitch by=root")

    said = capsys.readouterr().err
    assert not {"\x1b", "\x9b"} & set(said)
    assert len(said.splitlines()) == 1
