"""How the file is read before anything is validated: YAML 1.2 scalars, duplicate keys, variables, lines."""

import pytest

from proxy.service.config.errors import ConfigError
from proxy.service.config.expansion import ExpansionError, expand
from proxy.service.config.units import read_bytes, read_seconds, show_bytes, show_seconds
from proxy.service.config.yaml_reader import read_yaml


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("off", "off"),
        ("yes", "yes"),
        ("8:30", "8:30"),
        ("2024-05-01", "2024-05-01"),
        ("true", True),
        ("~", None),
        ("", None),
        ("0o17", 15),
        ("0x1F", 31),
        ("010", 10),
        ("1_000", "1_000"),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("'40'", "40"),
        ("<<", "<<"),
    ],
)
def test_scalars_are_those_of_the_yaml_1_2_core_schema(written, read):
    assert read_yaml(f"key: {written}", "f", {}).data == {"key": read}


def test_keys_are_always_text():
    assert read_yaml("off: 1\n1: 2\nnull: 3", "f", {}).data == {"off": 1, "1": 2, "null": 3}


def test_every_value_knows_its_line():
    document = read_yaml("a:\n  b: 1\n  c:\n    - x\n    - y\n", "f", {})
    assert document.lines[("a", "b")] == 2
    assert document.lines[("a", "c", 1)] == 5
    assert document.line_of(("a", "c", 7)) == 4


def test_a_key_written_twice_is_a_mistake_that_names_both_lines():
    document = read_yaml("a: 1\nb: 2\na: 3\n", "f.yaml", {})
    assert [str(finding) for finding in document.findings] == ["f.yaml:3: a: written twice, first on line 1; keep one"]


def test_what_is_no_yaml_is_told_with_its_line():
    with pytest.raises(ConfigError) as caught:
        read_yaml("a: 1\nb: [1, 2\nc: 3\n", "f.yaml", {})
    assert str(caught.value).startswith("f.yaml:3: not YAML: ")


@pytest.mark.parametrize("text", ["a: &x [*x]", "a: &x {b: *x}"])
def test_an_alias_that_contains_itself_ends(text):
    with pytest.raises(ConfigError, match="alias that contains itself"):
        read_yaml(text, "f", {})


def test_aliases_that_multiply_end():
    levels = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 10))
    with pytest.raises(ConfigError, match="aliases that multiply"):
        read_yaml(f"l0: &l0 [1, 2]\n{levels}", "f", {})


def test_tags_are_refused_and_never_executed():
    document = read_yaml("a: !!python/object/apply:os.getcwd []\nb: !secret x", "f", {})
    assert "allowed: plain values without tags" in str(document.findings[-1])
    assert document.data == {"a": [], "b": "x"}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("${A}", "one"),
        ("x${A}y${B}z", "xoneytwoz"),
        ("${NONE:-fallback}", "fallback"),
        ("${EMPTY:-fallback}", "fallback"),
        ("${EMPTY}", ""),
        ("${NONE:-}", ""),
        ("$${A}", "${A}"),
        ("$A $", "$A $"),
    ],
)
def test_variables_expand(text, expanded):
    assert expand(text, {"A": "one", "B": "two", "EMPTY": ""}) == expanded


@pytest.mark.parametrize("text", ["${NONE}", "${1x}", "${", "${A:=x}"])
def test_what_cannot_be_expanded_is_an_error(text):
    with pytest.raises(ExpansionError):
        expand(text, {"A": "one"})


def test_a_variable_cannot_become_structure():
    evil = "x\nclasses: {bulk: {limit: 9999}}\n# ${OTHER} [1, 2]"
    document = read_yaml('a: "${EVIL}"\nb: ${EVIL}', "f", {"EVIL": evil, "OTHER": "no"})
    assert document.data == {"a": evil, "b": evil}


def test_a_missing_variable_is_named_with_file_line_and_key():
    document = read_yaml("a: 1\nb:\n  c: ${NOPE}\n", "f.yaml", {})
    assert str(document.findings[0]).startswith("f.yaml:3: b.c: the environment variable NOPE is not set")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2s", 2.0), ("500ms", 0.5), ("10m", 600.0), ("1.5 h", 5400.0), ("30", 30.0), ("2 parsecs", None), ("-1s", None)],
)
def test_lengths_of_time(text, seconds):
    assert read_seconds(text) == seconds


@pytest.mark.parametrize(
    ("text", "amount"), [("256KiB", 262144), ("10 kB", 10000), ("7", 7), ("0.5B", None), ("1x", None)]
)
def test_amounts_of_memory(text, amount):
    assert read_bytes(text) == amount


@pytest.mark.parametrize("value", [0.0, 0.25, 0.5, 2.0, 90.0, 600.0, 3600.0, 5400.0])
def test_a_length_that_is_shown_reads_back(value):
    assert read_seconds(show_seconds(value)) == value


@pytest.mark.parametrize("value", [1, 10000, 262144, 1 << 30])
def test_an_amount_that_is_shown_reads_back(value):
    assert read_bytes(show_bytes(value)) == value
