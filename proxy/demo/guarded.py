"""Temporary folders that go, with the process that works in them, also when we are killed.

Owns: one folder, and a guard process that outlives us by a second.
Does not know: what is in the folder, except for two files that may name a process: `pid`, and PostgreSQL's own.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

# The guard waits for the end of its pipe. It comes when we close the folder (then nothing is left to do) or when we are
# gone without a farewell: kill -9, a test runner's time limit, a closed terminal.
GUARD = """
cat >/dev/null
for named in data/postmaster.pid pid; do
    if read -r pid < "$1/$named"; then kill -QUIT "$pid"; sleep 1; fi
done 2>/dev/null
rm -rf "$1"
"""


class GuardedFolder:
    """A new temporary folder. `close()` removes it; so does our death."""

    def __init__(self, prefix: str) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=f"{prefix}-"))
        self._guard = subprocess.Popen(  # noqa: S603 - a fixed script over our own folder
            ["/bin/sh", "-c", GUARD, "guard", str(self.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in the terminal must not end the guard before us
        )

    def close(self) -> None:
        """Remove the folder; whatever ran in it has ended. May be called twice."""
        shutil.rmtree(self.path, ignore_errors=True)
        assert self._guard.stdin is not None, "the guard was started with a pipe"
        self._guard.stdin.close()
        self._guard.wait()
