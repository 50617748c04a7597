"""The kinds of values a setting can have, each with the words for what it allows.

Owns: reading one value into its Python type, and the same rule as JSON schema for editors.
Does not know: which settings exist.

A number may be written as it is, as text (that is what `${ENV}` becomes), or as `{value: 40, reason: "..."}`.
"""

import ipaddress
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from proxy.service.config.errors import suggestion
from proxy.service.config.units import read_bytes, read_seconds, show_bytes, show_seconds, show_time_of_day
from proxy.service.config.upstream_url import UpstreamUrlError, parse_upstream_url
from proxy.wire.passwords import StoredPassword

# Error types that loading.py turns into sentences.
NOT_ALLOWED: Final = "setting_not_allowed"
SAID_IN_FULL: Final = "setting_said_in_full"

_ENV_REFERENCE: Final[JsonSchemaValue] = {"type": "string", "pattern": r"\$\{"}
_ADDRESS_GLOB = re.compile(r"(?=.*[*?])[0-9a-fA-F.:*?]+\Z")
_CLASS_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}\Z")


@dataclass(frozen=True, slots=True)
class Setting:
    """Pydantic metadata: `read` returns the value, or None where what was written is not `allowed`.

    `read` receives the written value and the directory that relative paths count from.
    """

    allowed: str
    schema: JsonSchemaValue
    read: Callable[[object, Path], object]
    optional: bool = False
    show: Callable[[Any], str] = str  # as it could be written; `Any` because `read` made it

    # `Any` because pydantic calls this with whatever type stands in front of the metadata.
    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(self._validated)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [self.schema, {"type": "null"}]} if self.optional else dict(self.schema)

    def _validated(self, value: object, info: ValidationInfo) -> object:
        if self.optional and (value is None or value == ""):
            return None
        context: Mapping[str, Path] = info.context or {}
        read = self.read(value, context.get("directory", Path()))
        if read is None:
            raise PydanticCustomError(NOT_ALLOWED, "allowed: {allowed}", {"allowed": self.allowed})
        return read


def shown_number(value: float) -> str:
    """40 and 2.5, never 40.0."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def unwrapped(value: object) -> object:
    """40 of `{value: 40, reason: "..."}`; anything else as it is."""
    if isinstance(value, Mapping) and "value" in value and set(value) <= {"value", "reason"}:
        return value["value"]
    return value


def _with_reason(schema: JsonSchemaValue) -> JsonSchemaValue:
    explained = {
        "type": "object",
        "properties": {"value": {"anyOf": [schema, _ENV_REFERENCE]}, "reason": {"type": "string"}},
        "required": ["value"],
        "additionalProperties": False,
    }
    return {"anyOf": [schema, _ENV_REFERENCE, explained]}


def _range_words(kind: str, minimum: float, maximum: float | None) -> str:
    return f"{kind} >= {minimum:g}" if maximum is None else f"{kind} from {minimum:g} to {maximum:g}"


# Above anything that is meant, and within every number of the compiled modules.
_LARGEST: Final = 2**31 - 1


def whole(minimum: int = 0, maximum: int | None = None, *, word: str | None = None, optional: bool = False) -> Setting:
    """A whole number, or the one `word` that may stand for it (`auto`)."""

    def read(value: object, _: Path) -> object:
        value = unwrapped(value)
        if word is not None and value == word:
            return word
        number = _as_whole(value)
        return number if number is not None and minimum <= number <= (maximum or _LARGEST) else None

    allowed = _range_words("a whole number", minimum, maximum)
    schema: JsonSchemaValue = {"type": "integer", "minimum": minimum}
    if maximum is not None:
        schema["maximum"] = maximum
    if word is not None:
        schema = {"anyOf": [{"const": word}, schema]}
    return Setting(f"{allowed} or {word}" if word else allowed, _with_reason(schema), read, optional)


def _as_whole(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"[-+]?[0-9]{1,18}", value.strip()):
        return int(value)
    return None


def positive_number(*, or_zero: bool = False) -> Setting:
    def read(value: object, _: Path) -> object:
        number = _as_number(unwrapped(value))
        is_allowed = number is not None and (0 < number < math.inf or (or_zero and number == 0))
        return number if is_allowed else None

    allowed = "a number > 0, or 0" if or_zero else "a number > 0"
    bound = "minimum" if or_zero else "exclusiveMinimum"
    return Setting(allowed, _with_reason({"type": "number", bound: 0}), read, show=shown_number)


def _as_number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def seconds(minimum: float = 0.001, *, optional: bool = False) -> Setting:
    """A length of time, kept in seconds."""

    def read(value: object, _: Path) -> object:
        value = unwrapped(value)
        length = read_seconds(value) if isinstance(value, str) else _as_number(value)
        return length if length is not None and minimum <= length < math.inf else None

    least = "0 or more" if minimum == 0 else "more than 0"
    schema = {
        "anyOf": [
            {"type": "string", "pattern": r"^\s*[0-9.]+\s*(us|ms|s|m|min|h|d)?\s*$"},
            {"type": "number", "minimum": 0},
        ]
    }
    return Setting(
        f'a length of time, {least}, as "2s", "500ms", "10m" or a number of seconds',
        _with_reason(schema),
        read,
        optional,
        show=show_seconds,
    )


def byte_count(minimum: int, maximum: int) -> Setting:
    """An amount of memory, kept in bytes."""

    def read(value: object, _: Path) -> object:
        value = unwrapped(value)
        amount = read_bytes(value) if isinstance(value, str) else _as_whole(value)
        return amount if amount is not None and minimum <= amount <= maximum else None

    schema = {
        "anyOf": [
            {"type": "string", "pattern": r"^\s*[0-9.]+\s*([kKMG]i?)?B?\s*$"},
            {"type": "integer", "minimum": minimum},
        ]
    }
    allowed = f'bytes from {minimum} to {maximum}, as "256KiB" or a whole number'
    return Setting(allowed, _with_reason(schema), read, show=show_bytes)


def choice(*words: str) -> Setting:
    def read(value: object, _: Path) -> object:
        return value if value in words else None

    return Setting(", ".join(words), {"anyOf": [{"enum": list(words)}, _ENV_REFERENCE]}, read)


def true_or_false() -> Setting:
    def read(value: object, _: Path) -> object:
        return value if isinstance(value, bool) else _WORDS_OF_BOOL.get(str(value).lower())

    schema: JsonSchemaValue = {"anyOf": [{"type": "boolean"}, _ENV_REFERENCE]}
    return Setting("true, false", schema, read, show=lambda value: str(value).lower())


_WORDS_OF_BOOL: Final = {"true": True, "false": False}


def text(what: str, *, optional: bool = False) -> Setting:
    """Some text; a plain number is taken as it was written where that is certain."""

    def read(value: object, _: Path) -> object:
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return value if isinstance(value, str) and value and "\0" not in value else None

    return Setting(what, {"type": "string"}, read, optional)


_WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def weekdays() -> Setting:
    """A day, or days from one to another, kept as numbers from 0 for Monday; `fri-mon` goes over the weekend."""

    def read(value: object, _: Path) -> object:
        first, _dash, last = str(value).lower().partition("-")
        if first not in _WEEKDAYS or (last or first) not in _WEEKDAYS:
            return None
        begin, end = _WEEKDAYS.index(first), _WEEKDAYS.index(last or first)
        return tuple(day % 7 for day in range(begin, (end if end >= begin else end + 7) + 1))

    schema: JsonSchemaValue = {"type": "string", "pattern": "^({0})(-({0}))?$".format("|".join(_WEEKDAYS))}
    return Setting("a day or days, as mon or mon-fri: " + ", ".join(_WEEKDAYS), schema, read)


_TIME_OF_DAY: Final = re.compile(r"([0-9]{1,2}):([0-9]{2})\Z")


def time_of_day() -> Setting:
    """Kept in minutes since midnight; 24:00 is the end of the day."""

    def read(value: object, _: Path) -> object:
        match = _TIME_OF_DAY.match(str(value))
        if match is None or int(match[2]) > 59:
            return None
        minutes = int(match[1]) * 60 + int(match[2])
        return minutes if minutes <= 24 * 60 else None

    schema: JsonSchemaValue = {"type": "string", "pattern": r"^[0-9]{1,2}:[0-9]{2}$"}
    return Setting('a time of day, as "9:00", "18:30" or "24:00"', schema, read, show=show_time_of_day)


@dataclass(frozen=True, slots=True)
class TimeZoneSetting:
    """The name of a time zone that this machine knows, kept as ZoneInfo."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._validated)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string"}

    def _validated(self, value: object) -> object:
        if isinstance(value, ZoneInfo):
            return value
        try:
            # A name with ".." or an absolute one is a ValueError, a directory of zones an OSError.
            return ZoneInfo(value if isinstance(value, str) else "")
        except (ZoneInfoNotFoundError, ValueError, OSError):
            known = sorted(available_timezones())
            sentence = f"read '{value}', which is no time zone, as Europe/Berlin or UTC"
            if not known:
                sentence += "; this machine knows none: install tzdata"
            raise PydanticCustomError(
                SAID_IN_FULL, "{sentence}", {"sentence": sentence + suggestion(str(value), known)}
            ) from None


def class_name(*, optional: bool = False) -> Setting:
    def read(value: object, _: Path) -> object:
        return value if isinstance(value, str) and _CLASS_NAME.match(value) else None

    return Setting("the name of a class: letters, digits, _ and -, at most 63", {"type": "string"}, read, optional)


def upstream_name(*, optional: bool = False) -> Setting:
    def read(value: object, _: Path) -> object:
        return value if isinstance(value, str) and _CLASS_NAME.match(value) else None

    return Setting("the name of an upstream: letters, digits, _ and -, at most 63", {"type": "string"}, read, optional)


def client_address() -> Setting:
    """Where a client comes from: a network, one address, a glob over its text, or `local` for the unix socket."""

    def read(value: object, _: Path) -> object:
        if not isinstance(value, str) or value == "local" or _ADDRESS_GLOB.match(value):
            return value if isinstance(value, str) else None
        try:
            network = ipaddress.ip_network(value, strict=False)
        except ValueError:
            return None
        # Clients of IPv4 are compared as IPv4, whatever socket they came through.
        mapped = isinstance(network, ipaddress.IPv6Network) and network.network_address.ipv4_mapped is not None
        return None if mapped else str(network)

    allowed = "an address, a block or a glob of them, as 10.0.0.7, 10.1.0.0/16, 10.1.*, or local for the unix socket"
    return Setting(allowed, {"type": "string"}, read, optional=True)


def file_path() -> Setting:
    """A path; a relative one counts from the directory of the configuration file."""

    def read(value: object, directory: Path) -> object:
        return directory / Path(value).expanduser() if isinstance(value, str) and "\0" not in value else None

    return Setting("the path of a file, relative to this configuration", {"type": "string"}, read, optional=True)


# pg_hba.conf knows "scram" by this name.
_METHOD_ALIASES: Final = {"scram-sha-256": "scram"}


def auth_method(*words: str) -> Setting:
    """A method of authentication, by its name here or in pg_hba.conf."""

    def read(value: object, _: Path) -> object:
        word = _METHOD_ALIASES.get(value, value) if isinstance(value, str) else None
        return word if word in words else None

    spellings = [*words, *_METHOD_ALIASES]
    return Setting(", ".join(words), {"anyOf": [{"enum": spellings}, _ENV_REFERENCE]}, read)


def names_by_name(what: str) -> Setting:
    """Names with another name each."""

    def read(value: object, _: Path) -> object:
        is_mapping = isinstance(value, Mapping) and all(isinstance(one, str) and one for one in value.values())
        return dict(value) if isinstance(value, Mapping) and is_mapping else None

    schema: JsonSchemaValue = {"type": "object", "additionalProperties": {"type": "string"}}
    return Setting(f"names with {what} each", schema, read, optional=True)


_PARAMETER_NAME: Final = re.compile(r"[a-z_][a-z0-9_$]*(\.[a-z_][a-z0-9_$]*)*\Z")
# Who a client is does not hang on its class, and how it writes its texts is its own affair.
_NOT_OF_A_CLASS: Final = frozenset(
    {
        "application_name",
        "client_encoding",
        "database",
        "options",
        "replication",
        "role",
        "session_authorization",
        "user",
    }
)


def session_parameters() -> Setting:
    """Parameters of PostgreSQL with a value each. What the server thinks of a value shows when a client logs in."""

    def read(value: object, _: Path) -> object:
        if not isinstance(value, Mapping):
            return None
        found = {name: str(one) for name, one in value.items() if isinstance(one, str | int) and one is not True}
        is_usable = all(_PARAMETER_NAME.match(name) and name not in _NOT_OF_A_CLASS for name in found)
        return found if is_usable and len(found) == len(value) else None

    schema: JsonSchemaValue = {"type": "object", "additionalProperties": {"type": ["string", "integer"]}}
    what = "session parameters of PostgreSQL in lower case with a value each, none of those that say who a client is"
    return Setting(what, schema, read, optional=True)


@dataclass(frozen=True, slots=True)
class SecretText:
    """A secret in printable ASCII, as a header can carry it. Findings never show what was read."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._validated)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string"}, {"type": "null"}]}

    def _validated(self, value: object) -> object:
        if value is None or value == "":
            return None
        if isinstance(value, str) and re.fullmatch(r"[!-~]+", value):
            return value
        raise PydanticCustomError(SAID_IN_FULL, "{sentence}", {"sentence": "allowed: ASCII text without spaces"})


def secret_text() -> SecretText:
    return SecretText()


@dataclass(frozen=True, slots=True)
class Secrets:
    """Users with their secrets. Findings name the user and never show what was read."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._validated)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"type": "object", "additionalProperties": {"type": "string"}}, {"type": "null"}]}

    def _validated(self, value: object) -> object:
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self._mistake("not a section; allowed: names of users with a secret each")
        return {str(user): StoredPassword.parse(self._secret(str(user), text)) for user, text in value.items()}

    def _secret(self, user: str, secret: object) -> str:
        if not user:
            raise self._mistake("a user without a name")
        if not isinstance(secret, str):
            raise self._mistake(f'the secret of user "{user}" is no text; write it in quotes')
        if not secret or "\0" in secret:
            # An empty secret would be a password that anybody can guess.
            raise self._mistake(f'the secret of user "{user}" is empty; leave the user out to shut it out')
        return secret

    @staticmethod
    def _mistake(sentence: str) -> PydanticCustomError:
        return PydanticCustomError(SAID_IN_FULL, "{sentence}", {"sentence": sentence})


@dataclass(frozen=True, slots=True)
class UrlSetting:
    """The upstream URL. Its findings never show what was read: it holds a password."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(self._validated)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "pattern": r"^(postgres(ql)?://|\$\{)"}

    def _validated(self, value: object, info: ValidationInfo) -> object:
        context: Mapping[str, Mapping[str, str]] = info.context or {}
        try:
            if not isinstance(value, str):
                raise UpstreamUrlError("not text; allowed: postgresql://user:password@host:5432/database")
            return parse_upstream_url(value, context.get("environ"))
        except UpstreamUrlError as error:
            raise PydanticCustomError(SAID_IN_FULL, "{sentence}", {"sentence": str(error)}) from None
