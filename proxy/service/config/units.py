"""How lengths of time and amounts of bytes are written: "2s", "500ms", "256KiB".

Owns: the units and their reading.
Does not know: which setting is read.
"""

import re
from typing import Final

SECONDS_PER_UNIT: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
BYTES_PER_UNIT: Final = {
    "B": 1,
    "kB": 1000,
    "KiB": 1 << 10,
    "MB": 1000**2,
    "MiB": 1 << 20,
    "GB": 1000**3,
    "GiB": 1 << 30,
}
_AMOUNT = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)\s*(?P<unit>[A-Za-z]*)\Z")


def read_seconds(text: str) -> float | None:
    """Seconds of "2s", "1.5h" or "30" (a plain number is seconds); None where it is none of these."""
    match = _AMOUNT.match(text.strip())
    factor = SECONDS_PER_UNIT.get(match["unit"] or "s") if match else None
    return float(match["number"]) * factor if match and factor else None


def read_bytes(text: str) -> int | None:
    """Bytes of "256KiB" or "10000"; None where it is neither, or not a whole number of bytes."""
    match = _AMOUNT.match(text.strip())
    factor = BYTES_PER_UNIT.get(match["unit"] or "B") if match else None
    if match is None or factor is None:
        return None
    amount = float(match["number"]) * factor
    return int(amount) if amount.is_integer() else None


def show_seconds(seconds: float) -> str:
    """The shortest writing that reads back as the same number: 600.0 is "10m", 0.5 is "500ms"."""
    for unit, factor in (("h", 3600.0), ("m", 60.0), ("s", 1.0)):
        if seconds >= factor and (seconds / factor).is_integer():
            return f"{seconds / factor:.0f}{unit}"
    milliseconds = seconds * 1000
    return f"{milliseconds:g}ms" if 0 < seconds < 1 else f"{seconds:g}s"


def show_time_of_day(minutes: int) -> str:
    """540 as "9:00"."""
    return f"{minutes // 60}:{minutes % 60:02d}"


def show_bytes(amount: int) -> str:
    """262144 as "256KiB", 10000 as "10000"."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if amount >= factor and amount % factor == 0:
            return f"{amount // factor}{unit}"
    return str(amount)
