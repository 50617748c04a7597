"""How many connections PostgreSQL allows at providers, where nobody has asked the server itself.

Owns: the presets of `pgheadroom plan --preset`, each with what an ordinary user cannot have of it.
Does not know: the server. What it says about itself is better than any table.

Sources: PostgreSQL manual, "Connections and Authentication"; Supabase, "Compute and Disk"; Neon, "Connection pooling";
Amazon RDS User Guide, "Quotas and constraints"; PlanetScale leaves the number to the cluster's parameters.
"""

from dataclasses import dataclass
from typing import Final

from proxy.service.config.errors import suggestion
from proxy.service.config.units import read_bytes
from proxy.service.server_facts import ServerFacts

_SUPABASE: Final = {
    "nano": 60,
    "micro": 60,
    "small": 90,
    "medium": 120,
    "large": 160,
    "xl": 240,
    "2xl": 380,
    "4xl": 480,
    "8xl": 490,
    "12xl": 500,
    "16xl": 500,
}
_NEON: Final = {0.25: 104, 0.5: 209, 1: 419, 2: 839, 3: 1258, 4: 1678, 5: 2098, 6: 2517, 7: 2937, 8: 3357, 9: 4000}
_NEON_SUPERUSER: Final = 7
_RDS_BYTES_PER_CONNECTION: Final = 9_531_392
_RDS_MOST: Final = 5000


class UnknownPreset(ValueError):  # noqa: N818 - says what is, not what went wrong
    """The sentence names what is allowed."""


@dataclass(frozen=True, slots=True)
class Preset:
    """`argument` is what may follow the colon; `example` is a whole preset that works."""

    argument: str
    example: str


PRESETS: Final = {
    "postgresql": Preset("max_connections, 100 where it is left out", "postgresql"),
    "supabase": Preset(f"the compute size: {', '.join(_SUPABASE)}", "supabase:small"),
    "neon": Preset("the compute units, 0.25 to 56", "neon:1"),
    "rds": Preset("the instance's memory", "rds:4GiB"),
    "planetscale": Preset("max_connections as configured", "planetscale:200"),
}


def preset_facts(text: str) -> ServerFacts:
    """The facts of `name` or `name:size`. Raises UnknownPreset."""
    name, _, argument = text.strip().partition(":")
    name, argument = name.lower(), argument.strip()
    if name not in PRESETS:
        examples = ", ".join(preset.example for preset in PRESETS.values())
        raise UnknownPreset(f'"{text}" is no preset{suggestion(name, list(PRESETS))}; allowed: {examples}')
    connections = _READERS[name](argument)
    if connections is None:
        preset = PRESETS[name]
        raise UnknownPreset(f"preset {name} takes {preset.argument}; for example {preset.example}")
    return ServerFacts(connections, _NEON_SUPERUSER if name == "neon" else 3)


def _count(argument: str) -> int | None:
    return int(argument) if argument.isdecimal() and int(argument) > 0 else None


def _postgresql(argument: str) -> int | None:
    return _count(argument or "100")


def _supabase(argument: str) -> int | None:
    return _SUPABASE.get(argument.lower())


def _neon(argument: str) -> int | None:
    try:
        units = float(argument.lower().removesuffix("cu"))
    except ValueError:
        return None
    return _NEON.get(min(units, 9)) if units <= 56 else None


def _rds(argument: str) -> int | None:
    memory = read_bytes(argument)
    connections = min(memory // _RDS_BYTES_PER_CONNECTION, _RDS_MOST) if memory else 0
    return connections or None


_READERS: Final = {
    "postgresql": _postgresql,
    "supabase": _supabase,
    "neon": _neon,
    "rds": _rds,
    "planetscale": _count,
}
