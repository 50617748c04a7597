"""What a test needs and this machine lacks.

Owns: when that is a skip, and when a failure.
Does not know: what is needed.
"""

import os
from typing import NoReturn

import pytest

# Programs that .ci/run could not install because no registry of packages answered; names with spaces between.
EXCUSED = "PGHEADROOM_NOT_TO_BE_HAD"


class NotHere(Exception):
    """It cannot be had on this machine; the words say why. `is_outage`: a registry did not answer, nobody's mistake."""

    def __init__(self, why: str, *, is_outage: bool = False) -> None:
        super().__init__(why)
        self.is_outage = is_outage


def is_excused(program: str) -> bool:
    return program in os.environ.get(EXCUSED, "").split()


def skip_or_fail(what: str, missing: NotHere) -> NoReturn:
    """The test is skipped and tells why. In CI it fails: there only a registry that does not answer is an excuse."""
    if os.environ.get("CI") and not missing.is_outage:
        pytest.fail(f"{what}: {missing}")
    pytest.skip(f"{what}: {missing}")
