"""`${NAME}` and `${NAME:-default}` inside one text.

Owns: their syntax. `$${` stands for a literal `${`.
Does not know: files, YAML. It is applied to texts that are already parsed, so that a value cannot become structure.
"""

import re
from collections.abc import Mapping

_REFERENCE = re.compile(
    r"(?P<escaped>\$\$\{)|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<fallback>:-[^}]*)?\}|(?P<broken>\$\{)"
)


class ExpansionError(ValueError):
    """The sentence names the variable and never its value."""


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Replace every reference in `text`. As in a shell, `:-` also replaces a variable that is set but empty.

    Raises ExpansionError for a variable that is not set and has no default, and for a `${` that is no reference.
    """
    if "${" not in text:
        return text
    return _REFERENCE.sub(lambda match: _replacement(match, environ), text)


def _replacement(match: re.Match[str], environ: Mapping[str, str]) -> str:
    if match["escaped"]:
        return "${"
    if match["broken"]:
        raise ExpansionError(
            "${ without a variable name and a closing }; allowed: ${NAME}, ${NAME:-default}, $${ for a literal ${"
        )
    name, fallback = match["name"], match["fallback"]
    value = environ.get(name)
    if fallback is not None:
        return value or fallback.removeprefix(":-")
    if value is None:
        raise ExpansionError(f"the environment variable {name} is not set; set it, or write ${{{name}:-default}}")
    return value
