"""From a file to a validated configuration, or to the list of everything wrong with it.

Owns: the order of the steps, the reasons given with numbers.
Does not know: whether the numbers can hold (proxy/service/check.py), or what the server allows.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from proxy.service.config.errors import ConfigError, ConfigFinding
from proxy.service.config.errors import Path as KeyPath
from proxy.service.config.model import Config, Source
from proxy.service.config.references import findings_of_form, findings_of_names
from proxy.service.config.validation import validated
from proxy.service.config.yaml_reader import Value, read_yaml


def load_config(path: Path | str, environ: Mapping[str, str] | None = None) -> Config:
    """Read and validate a configuration file; `environ` is the process's own where it is not given.

    Raises ConfigError with every finding, also where the file cannot be read.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError([ConfigFinding(str(path), 0, "", f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError:
        raise ConfigError([ConfigFinding(str(path), 0, "", "cannot be read: it is not UTF-8")]) from None
    return load_config_text(text, environ, file=str(path), directory=path.absolute().parent)


def load_config_text(
    text: str, environ: Mapping[str, str] | None = None, *, file: str = "<text>", directory: Path | None = None
) -> Config:
    """As load_config, of a text; relative paths in it count from `directory`."""
    environ = os.environ if environ is None else environ
    document = read_yaml(text, file, environ)
    context = {"directory": directory or Path.cwd(), "environ": environ}
    config = validated(Config, document, context, findings_of_form(document))
    findings = [*document.findings, *findings_of_names(config, document)]
    if findings:
        raise ConfigError(findings)
    config._source = Source(file, document.lines, _reasons(document.data, ()))
    return config


def config_hash(config: Config) -> str:
    """Twelve digits that change when a setting changes. No password is part of it."""
    settings = config.model_dump(
        mode="python", by_alias=True, exclude={"upstream": True, "auth": {"users"}, "http": {"switch_token"}}
    )
    if config.upstream is not None:
        settings["upstream"] = config.upstream.url.shown()
    for name, one in config.upstreams.items():
        settings["upstreams"][name]["url"] = one.url.shown()
    settings["users"] = sorted(config.auth.users or ())
    text = json.dumps(settings, default=str, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


# Reasons


def _reasons(value: Value, path: KeyPath) -> dict[KeyPath, str]:
    """The reasons of all numbers written as `{value: ..., reason: ...}`."""
    if isinstance(value, list):
        parts: list[tuple[str | int, Value]] = list(enumerate(value))
    elif isinstance(value, dict):
        reason = value.get("reason")
        if isinstance(reason, str) and "value" in value and not isinstance(value["value"], dict | list):
            return {path: reason}
        parts = list(value.items())
    else:
        return {}
    return {where: reason for part, inner in parts for where, reason in _reasons(inner, (*path, part)).items()}
