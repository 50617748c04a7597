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
