"""YAML becomes JSON types and line numbers, and nothing else."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline.config import yaml_nodes
from pipeline.errors import UsageError

PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
)
KEYS = st.text("abcdefgh_", min_size=1, max_size=8)
VALUES = (
    PLAIN
    | st.text(max_size=9)
    | st.sampled_from(["1e-3", "no", "007", ".5", "null", "~", "- a", "a: b # c"])
)
DATA = st.dictionaries(
    KEYS,
    VALUES | st.lists(VALUES, max_size=3) | st.dictionaries(KEYS, VALUES, max_size=3),
    max_size=4,
)
few = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        ("+.5", 0.5),
        ("5.", 5.0),
        ("007", 7),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("True", True),
        ("false", False),
        ("~", None),
        ("", None),
        ("2024-01-01", "2024-01-01"),
        ("-.inf", -math.inf),
        ("99999999999999999999999", 1e23),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    parsed = yaml_nodes.parse(f"key: {text}\n", "c.yaml")[0]["key"]
    assert parsed == value
    assert type(parsed) is type(value)


def test_quoted_scalars_are_text() -> None:
    assert yaml_nodes.parse("a: '1'\nb: \"true\"\nc: |\n  5\n", "c.yaml")[0] == {
        "a": "1",
        "b": "true",
        "c": "5\n",
    }


@few
@given(DATA)
@example({"a": "x\x85y\u2028z\n"})
def test_what_is_written_is_read_back(data: dict) -> None:
    assert yaml_nodes.parse(yaml_nodes.dump(data), "c.yaml")[0] == data


@few
@given(st.text(max_size=60))
def test_any_text_is_data_or_refused(text: str) -> None:
    try:
        data, _ = yaml_nodes.parse(text, "c.yaml")
    except UsageError as error:
        assert error.message.startswith("c.yaml")  # noqa: PT017 - most texts are refused, some are not
    else:
        json.dumps(data)


def test_every_key_has_its_line() -> None:
    _, lines = yaml_nodes.parse("# about\na:\n  b: 1\n\n  c:\n    - x: 2\n", "c.yaml")
    assert lines == {("a",): 2, ("a", "b"): 3, ("a", "c"): 5, ("a", "c", "0", "x"): 6}


def test_empty_document_is_an_empty_config() -> None:
    assert yaml_nodes.parse("# nothing\n", "c.yaml") == ({}, {})


BOMB = "k0: &a0 [x, x]\n" + "".join(f"k{i + 1}: &a{i + 1} [*a{i}, *a{i}]\n" for i in range(30))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "c.yaml:3: a: duplicate key, first given on line 1"),
        ("s:\n  x: 1\n  x: 1\n", "c.yaml:3: s.x: duplicate key, first given on line 2"),
        ("a: !!python/object/apply:os.system ['true']\n", "c.yaml:1: the tag"),
        ("a:\n- !custom 1\n", "c.yaml:2: the tag !custom is not allowed"),
        ("!!python/name:os.system x: 1\n", "c.yaml:1: the tag"),
        ("a: !!binary aGk=\n", "c.yaml:1: the tag"),
        ("a: !!set {x, y}\n", "c.yaml:1: the tag"),
        ("a: !!str 5\n", "c.yaml:1: the tag"),
        (BOMB, "c.yaml:2: aliases (*a0) are not allowed"),
        ("a: &a [*a]\n", "c.yaml:1: aliases (*a) are not allowed"),
        ("[" * 100_000, "c.yaml:1: nested too deeply"),
        ("a: " + "{b: " * 50 + "1" + "}" * 50, "c.yaml:1: nested too deeply"),
        ("? [1, 2]\n: 3\n", "c.yaml:1: a key must be a word"),
        ("- 1\n- 2\n", "c.yaml: expected `key: value` lines at the top"),
        ("just words\n", "c.yaml: expected `key: value` lines at the top"),
        ("a: [1\nb: 2\n", "c.yaml:2: "),
        ("a: 1\n---\nb: 2\n", "c.yaml:2: but found another document"),
        ("a: \x00\n", "c.yaml: not readable as YAML"),
        ("a: 'x\n", "c.yaml:2: found unexpected end of stream"),
        ("\ta: 1\n", "c.yaml:1: "),
        ("a: %1\n", "c.yaml:1: "),
        ("x" * (yaml_nodes.MAX_BYTES + 1), "c.yaml: a config of"),
    ],
)
def test_what_is_refused_is_named_with_its_line(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        yaml_nodes.parse(text, "c.yaml")
    assert caught.value.message.startswith(said)
    assert caught.value.hint


def test_several_problems_are_reported_together() -> None:
    with pytest.raises(UsageError) as caught:
        yaml_nodes.parse("a: 1\na: 2\n? [x]\n: 3\nc: 1\nc: 2\n", "c.yaml")
    assert len([caught.value.message, *caught.value.details]) == 3
