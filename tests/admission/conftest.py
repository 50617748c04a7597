"""A small budget that most stories of the admission core are told with."""

import pytest

from proxy.admission.classes import BudgetSettings, ClassSettings
from proxy.admission.controller import Controller

WEB = ClassSettings("web", priority=1, reserved=4, lendable=3, limit=8, lend_memory_seconds=10.0)
BULK = ClassSettings("bulk", priority=9, limit=10, queue_timeout_seconds=60.0, notify_after_seconds=5.0)
ADMIN = ClassSettings("admin", priority=0, reserved=1, limit=2)


@pytest.fixture
def settings() -> BudgetSettings:
    """10 slots: 4 of web (3 of them lendable), 1 of admin, 2 headroom for both, 3 that nobody has reserved."""
    return BudgetSettings(10, headroom=2, headroom_for=frozenset({"web", "admin"}), classes=(ADMIN, WEB, BULK))


@pytest.fixture
def core(settings: BudgetSettings) -> Controller:
    return Controller(settings, now=0.0)
