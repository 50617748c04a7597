"""What several parts of the start-up check ask: can a file be read, by whom else, and who reaches an address.

Owns: these questions and the findings about files.
Does not know: settings.
"""

import ipaddress
import stat
from pathlib import Path

from proxy.service.config.errors import Path as KeyPath
from proxy.service.findings import Reporter


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def report_file(report: Reporter, where: KeyPath, path: Path, *, secret: bool) -> bool:
    """Whether the file can be read; findings say why not, and who else can read a secret."""
    try:
        with path.open("rb"):
            mode = path.stat().st_mode
    except OSError as error:
        report.error(
            where, f"{path} cannot be read: {error.strerror}", "correct the path, or give the proxy's user access"
        )
        return False
    if secret and mode & stat.S_IROTH:
        report.warning(where, f"every user of this machine can read {path}", f"chmod 600 {path}")
    return True
