"""Fixtures of the tests of sockets, which run on the loop that serves."""

from collections.abc import Callable, Mapping

import pytest
import uvloop

from tests.session.fake_server import fake_server
from tests.support.running import run_proxy

__all__ = ["fake_server", "run_proxy"]


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], uvloop.Loop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shared LISTEN stays for a second after its last listener; the check at the end of a test waits for its end."""
    monkeypatch.setattr("proxy.session.listen_hub._LINGER_SECONDS", 0.1)
