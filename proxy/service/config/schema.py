"""The JSON schema of the configuration, for editors: `python -m proxy.service.config.schema > config/schema.json`.

Owns: its frame. All of its content follows from the model.
Does not know: rules between settings, which only `pgheadroom check` knows.
"""

import json

from pydantic.json_schema import JsonSchemaValue

from proxy.service.config.model import Config


def json_schema() -> JsonSchemaValue:
    """Draft 2020-12, with every section closed to unknown names."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Config.model_json_schema(by_alias=True),
        "anyOf": [{"required": ["upstream", "default_class"]}, {"required": ["upstreams"]}],
        "title": "pgheadroom configuration",
        "description": "Settings of the pgheadroom proxy; config/README.md explains each.",
    }


def as_text() -> str:
    return json.dumps(json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    print(as_text(), end="")
