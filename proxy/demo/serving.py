"""Starts `pgheadroom serve` as a process of its own and waits until it is ready.

Owns: the configuration file, the process, its log, and ending it.
Does not know: what the configuration means.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.error import URLError
from urllib.request import urlopen

from proxy.demo.errors import StartError
from proxy.demo.guarded import GuardedFolder
from proxy.demo.postgres import PostgresServer, free_port

# The interpreter and the code that run now, installed or not.
PGHEADROOM = (sys.executable, "-c", "from proxy.cli.main import main; main()")


class ServedProcess:
    """A server process with a folder for its files and a log; a context manager that ends it and removes both.

    `ready` is asked again and again until it says yes. Ends with SIGTERM and, where that is ignored, with SIGKILL.
    """

    name = "server"

    def __init__(self) -> None:
        self._guarded = GuardedFolder(f"pgheadroom-{self.name}")
        self.folder = self._guarded.path
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log_path(self) -> Path:
        return self.folder / "log.txt"

    def log_text(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} does not run"
        return self._process.pid

    def command(self) -> Sequence[str]:
        raise NotImplementedError

    def ready(self) -> bool:
        raise NotImplementedError

    def identity(self) -> Mapping[str, Any]:
        """Keyword arguments for subprocess: whom to run as (Any: they differ in type)."""
        return {}

    def start(self, *, timeout_seconds: float = 15.0) -> None:
        assert self._process is None, f"start() of a {self.name} that already runs"
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - a program of ours, arguments of ours
                list(self.command()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in the terminal is handled by whoever started us
                **self.identity(),
            )
        (self.folder / "pid").write_text(f"{self.pid}\n")  # for the guard of the folder
        wait_until(lambda: self.exit_code() is not None or self.ready(), timeout_seconds)
        if self.exit_code() is not None or not self.ready():
            self.kill()
            raise StartError(f"{self.name} did not become ready; the end of its log:\n{self.log_text()[-3000:]}")

    def exit_code(self) -> int | None:
        """None while the process runs."""
        return None if self._process is None else self._process.poll()

    def send_signal(self, number: signal.Signals) -> None:
        assert self._process is not None, f"{self.name} does not run"
        self._process.send_signal(number)

    def wait(self, timeout_seconds: float = 15.0) -> int:
        """The exit code. Raises subprocess.TimeoutExpired where the process does not end by then."""
        assert self._process is not None, f"{self.name} does not run"
        return self._process.wait(timeout_seconds)

    def stop(self, *, timeout_seconds: float = 10.0) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._forget()

    def kill(self) -> None:
        """kill -9: connections end without a word."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._forget()

    def _forget(self) -> None:
        self._process = None
        (self.folder / "pid").unlink(missing_ok=True)

    def close(self) -> None:
        """Stop the process and remove its folder. May be called twice."""
        self.stop()
        self._guarded.close()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class ProxyProcess(ServedProcess):
    """`pgheadroom serve` with the configuration `config` (the shape of the YAML file).

    `listen.port` and `http.port` must be set. `files` are written beside the configuration file, for example the
    users file.
    """

    name = "proxy"

    def __init__(self, config: Mapping[str, Any], files: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.config = dict(config)
        self.host: str = config["listen"]["host"]
        self.port: int = config["listen"]["port"]
        self.http_url = f"http://{config['http']['host']}:{config['http']['port']}"
        for name, text in (files or {}).items():
            (self.folder / name).write_text(text)
            (self.folder / name).chmod(0o600)
        self.write_config(self.config)

    @property
    def config_path(self) -> Path:
        return self.folder / "pgheadroom.yaml"

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Replace the configuration file; a reload (SIGHUP) reads it. JSON is YAML."""
        self.config = dict(config)
        self.config_path.write_text(json.dumps(self.config, indent=2))
        self.config_path.chmod(0o600)

    def command(self) -> Sequence[str]:
        return [*PGHEADROOM, "serve", "-c", str(self.config_path)]

    def ready(self) -> bool:
        return http_status(f"{self.http_url}/readyz") == 200

    def url(self, user: str, password: str, database: str) -> str:
        """A libpq URI through the proxy."""
        return f"postgresql://{user}:{password}@{self.host}:{self.port}/{database}"


def in_front_of(
    postgres: PostgresServer,
    *,
    budget: Mapping[str, Any],
    classes: Mapping[str, Any],
    default_class: str,
    users: str,
    auth_method: str = "scram",
    tls: Mapping[str, str] | None = None,
) -> ProxyProcess:
    """pgheadroom before `postgres`, on free ports. `budget` and `classes` are sections of the configuration, `users`
    the text of the users file, `tls` the section listen.tls; the proxy's own work logs in as the role app."""
    config = {
        "listen": {"host": postgres.host, "port": free_port(), "tls": dict(tls or {})},
        "http": {"host": postgres.host, "port": free_port()},
        "upstream": {"url": postgres.url("app")},
        "auth": {"method": auth_method, "users_file": "users.txt"},
        "budget": dict(budget),
        "default_class": default_class,
        "classes": dict(classes),
    }
    return ProxyProcess(config, files={"users.txt": users})


def wait_until(check: Callable[[], bool], timeout_seconds: float) -> bool:
    """Ask every 20 ms until `check` says yes; False when it never did."""
    deadline = time.monotonic() + timeout_seconds
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def http_status(url: str) -> int:
    """The status of a GET, 0 where nobody answers."""
    try:
        with urlopen(url, timeout=2) as reply:  # noqa: S310 - our own http:// address
            return int(reply.status)
    except URLError as error:
        return int(getattr(error, "code", 0))
    except OSError:
        return 0
