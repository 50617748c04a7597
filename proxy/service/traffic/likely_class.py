"""To which class a name that matches none might belong.

Owns: this guess, by the words of names and patterns.
Does not know: clients, demand.
"""

import re
from collections.abc import Iterable, Mapping

_WORD = re.compile(r"[a-z]+", re.IGNORECASE)
_SHORTEST_BEGINNING = 3


def likely_class(name: str, patterns: Mapping[str, Iterable[str]]) -> tuple[str, str] | None:
    """The class whose name or application_name patterns look most like `name`, and why; None where none does.

    Whole words in common count most, then how much of the beginning is the same.
    """
    best: tuple[tuple[int, int], str, str] | None = None
    for class_name, globs in patterns.items():
        for known in (class_name, *globs):
            score = _likeness(name, known)
            if score > (0, 0) and (best is None or score > best[0]):
                best = (score, class_name, known)
    if best is None:
        return None
    _, class_name, known = best
    return class_name, "its name is alike" if known == class_name else f'it is like its pattern "{known}"'


def _likeness(name: str, known: str) -> tuple[int, int]:
    common = _words(name) & _words(known)
    beginning = _common_beginning(name.lower(), re.split(r"[*?\[]", known.lower())[0])
    return sum(map(len, common)), beginning if beginning >= _SHORTEST_BEGINNING else 0


def _words(text: str) -> frozenset[str]:
    """Singular and plural are one word: reports-v2 is like report*."""
    words = (word.lower() for word in _WORD.findall(text))
    return frozenset(word.removesuffix("s") for word in words if len(word) >= _SHORTEST_BEGINNING)


def _common_beginning(one: str, other: str) -> int:
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count
