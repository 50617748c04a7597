"""The clock of the session layer and of the admission core: seconds, never backwards.

Owns: which clock that is. The compiled modules read the same one without making a number object of it.
Does not know: timers. Those of the event loop count in its own milliseconds.
"""

from time import monotonic as now

__all__ = ["now"]
