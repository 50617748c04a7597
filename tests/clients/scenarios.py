"""What applications do with a database, as a list that every driver works through in its own way.

Owns: the names of the scenarios, what each must come to, and which address it is given.
Does not know: drivers, servers, how a scenario is written.

A driver's program gets a URL and the name of a scenario and returns a value. The value is the same for all drivers, on
the way through the proxy and straight at the server, so that one table says what is right.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# A class with room, one with fewer slots than clients, and one whose only slot somebody holds.
ROOMY, NARROW, FULL = "roomy", "narrow", "full"
NARROW_SLOTS = 2
APPLICATION_NAME = {name: f"{name}-app" for name in (ROOMY, NARROW, FULL)}

Check = Callable[[Any], bool]


@dataclass(frozen=True)
class Scenario:
    """`expected` is what the program returns. `told` judges what is worded differently by every server."""

    name: str
    words: str
    expected: Mapping[str, Any]
    at: str = ROOMY
    told: Check | None = None
    is_direct_too: bool = True  # straight at the server it comes to the same

    def judge(self, found: Any, *, without: str = "") -> str | None:
        """Why `found` is wrong, or None. The entry `without` is not looked at."""
        if not isinstance(found, dict):
            return f"no result: {found!r}"
        if any(found.get(key) != value for key, value in self.expected.items() if key != without):
            return f"expected {dict(self.expected)}, found {found}"
        return f"not readable: {found}" if self.told and not self.told(found) else None


def names_the_class(found: Mapping[str, Any]) -> bool:
    return f'class "{FULL}' in str(found.get("message"))


SCENARIOS = (
    Scenario(
        "connect_by_url",
        "connect by a URL with application_name",
        {"application_name": APPLICATION_NAME[ROOMY], "database": "app", "user": "app", "answer": 42},
    ),
    Scenario("pool", "40 queries over the driver's pool of 5", {"rows": [2 * i for i in range(40)]}),
    Scenario(
        "crowd",
        f"8 open connections take turns on {NARROW_SLOTS} server connections",
        {"rows": [[100 * client + i for i in range(5)] for client in range(8)]},
        at=NARROW,
    ),
    Scenario(
        "prepared_statements",
        "prepared statements used again while others take the server connections",
        {"one": [i + 1 for i in range(11)], "other": [f"x{i}" for i in range(8)]},
    ),
    Scenario("transactions", "commit, roll back, savepoints", {"rows": [1, 3]}),
    Scenario("copy_in", "COPY FROM STDIN", {"count": 1000, "sum": 500_500}),
    Scenario("copy_out", "COPY TO STDOUT", {"count": 1000, "last": "1000,row 1000"}),
    Scenario("listen", "LISTEN, and NOTIFY from elsewhere", {"heard": ["one", "two"]}),
    Scenario("cancel", "cancel a running query, and go on", {"code": "57014", "after": 1}),
    Scenario(
        "errors",
        "errors with their fields, and going on after them",
        {"unique": "23505", "syntax": "42601", "aborted": "25P02", "after": 1},
    ),
    Scenario(
        "refusal_while_full",
        "the refusal of a full class as the driver's own error: 53300, and a message that names the class",
        {"code": "53300"},
        at=FULL,
        told=names_the_class,
        is_direct_too=False,
    ),
    Scenario(
        "recovery",
        "the same pool or connection goes on after refusals",
        {"refused": True, "after": [0, 1, 2, 3, 4]},
        at=FULL,
        is_direct_too=False,
    ),
    Scenario(
        "refused_begin",
        "the same where it was a transaction that could not begin",
        {"refused": True, "after": [0, 1, 2, 3, 4]},
        at=FULL,
        is_direct_too=False,
    ),
)

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
