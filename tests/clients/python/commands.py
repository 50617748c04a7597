"""PostgreSQL's own programs as drivers: what a script that runs them does.

Owns: running one of them at a URL, and what it printed.
Does not know: scenarios.
"""

import contextlib
import os
import re
import signal
import subprocess
import time
from pathlib import Path

from proxy.demo.installation import embedded_installation

VERSION = 18
SECONDS = 30


def program(name: str) -> str:
    return embedded_installation(VERSION).program(name)


def version_of(name: str) -> dict[str, str]:
    said = subprocess.run([program(name), "--version"], capture_output=True, text=True, check=True).stdout
    return {"driver": said.split()[2]}


def run(name: str, *arguments: str, stdin: str = "", check: bool = True) -> "subprocess.CompletedProcess[str]":
    """To its end. Raises AssertionError with what it said where it fails and `check` is on."""
    done = subprocess.run(
        [program(name), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env=environment(),
    )
    assert not check or done.returncode == 0, f"{name}: {done.stderr}"
    return done


def environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C", "PSQLRC": os.devnull}


def psql(url: str, *lines: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """One session with these lines as its input; the SQLSTATE of each error is printed."""
    options = ("-XAtq", "-v", "VERBOSITY=verbose", "-v", "SHOW_CONTEXT=never", url)
    return run("psql", *options, stdin="\n".join(lines) + "\n", check=check)


def codes_in(text: str) -> list[str]:
    """The SQLSTATEs of errors that psql printed in its verbose way."""
    return re.findall(r"(?:ERROR|FATAL):  (\w{5}):", text)


class Session:
    """A psql that stays open and is told one thing after the other."""

    def __init__(self, url: str) -> None:
        pipe = subprocess.PIPE
        command = [program("psql"), "-XAtq", "-v", "VERBOSITY=verbose", url]
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True, bufsize=1, env=environment()
        )

    def ask(self, *lines: str) -> list[str]:
        """What it prints until it has carried these lines out."""
        return self.answer(self.tell(*lines))

    def tell(self, *lines: str) -> str:
        end = f"end of {time.monotonic_ns()}"
        assert self._process.stdin is not None, "made with pipes"
        with contextlib.suppress(BrokenPipeError):  # it has ended; what it said is there to be read
            self._process.stdin.write("\n".join([*lines, f"\\echo {end}"]) + "\n")
        return end

    def answer(self, end: str) -> list[str]:
        assert self._process.stdout is not None, "made with pipes"
        printed = []
        while (line := self._process.stdout.readline()) and line.strip() != end:
            printed.append(line.rstrip("\n"))
        return printed

    def interrupt_when_busy(self) -> None:
        """Ctrl-C, when it has had the time to send its query."""
        time.sleep(0.3)
        self._process.send_signal(signal.SIGINT)

    def has_ended(self) -> bool:
        """Whether it ends by itself now."""
        try:
            self._process.wait(0.3)
        except subprocess.TimeoutExpired:
            return False
        return True

    def close(self) -> None:
        self._process.communicate(timeout=SECONDS)  # the end of its input


def write(folder: str, name: str, text: str) -> str:
    path = Path(folder) / name
    path.write_text(text)
    return str(path)
