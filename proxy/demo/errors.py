"""What can go wrong around the demo, in sentences for the person at the terminal.

Owns: the exceptions of this layer.
Does not know: who prints them.
"""


class DemoError(Exception):
    """The demo cannot go on. The text is meant for a person."""


class MissingExtraError(DemoError):
    """A library of the extra `demo` is not installed."""

    def __init__(self, what: str) -> None:
        super().__init__(f"not installed here: {what}; pip install 'pgheadroom[demo]'")


class StartError(DemoError):
    """A process that we started ended, or did not become ready in time; the text carries the end of its log."""
