"""Data directories that are quick to come by.

Owns: one initdb per installation and process, and copies of its result.
Does not know: settings, roles, servers.

initdb takes 0.6 s, a copy 0.1 - 0.2 s: a test run that starts ten servers notices.
"""

import atexit
import shutil
import subprocess
from functools import cache
from pathlib import Path

from proxy.demo.errors import StartError
from proxy.demo.guarded import GuardedFolder
from proxy.demo.installation import Installation

# No sync: the server is thrown away. Small WAL segments: less to copy. C locale: the same order of rows everywhere.
INITDB_OPTIONS = ("-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "-N", "--wal-segsize=1")


SETTINGS_FILE = "throw_away.conf"  # read last: what stands here wins


def fill_data_directory(installation: Installation, data_directory: Path) -> None:
    """Put a fresh cluster into `data_directory`, which must not exist, owned by the user the server runs as."""
    shutil.copytree(_template(installation), data_directory)
    data_directory.chmod(0o700)
    (data_directory / SETTINGS_FILE).touch()
    with (data_directory / "postgresql.conf").open("a") as conf:
        conf.write(f"include = '{SETTINGS_FILE}'\n")
    installation.give(data_directory, *data_directory.rglob("*"))


@cache
def _template(installation: Installation) -> Path:
    folder = GuardedFolder("pgheadroom-initdb")
    atexit.register(folder.close)
    root = folder.path
    installation.give(root)
    made = subprocess.run(  # noqa: S603 - the program of our own installation
        [installation.program("initdb"), *INITDB_OPTIONS, "-D", str(root / "data")],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        **installation.identity(),
    )
    if made.returncode != 0:
        raise StartError(f"initdb failed:\n{made.stderr[-2000:]}")
    return root / "data"
