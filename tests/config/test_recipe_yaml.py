"""Strict YAML: what PyYAML's defaults misread is read correctly, or is an error with its line."""

from typing import Any

import pytest

from unidpo_mm.config.yaml_loader import parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-6", 1e-6),
        ("-2.5E3", -2500.0),
        ("1.", 1.0),
        (".5", 0.5),
        (".inf", float("inf")),
        ("12", 12),
        ("0x1f", 31),
        ("0o17", 15),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("Yes", "Yes"),
        ("on", "on"),
        ("off", "off"),
        ("2024-01-01", "2024-01-01"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("none", "none"),
        ("'1e-6'", "1e-6"),
        ("'None'", "None"),
        ("!!str 5", "5"),
        ("!!bool true", True),
        ("[1, [2]]", [1, [2]]),
        ("{a: {b: c}}", {"a": {"b": "c"}}),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: Any):
    document = parse_yaml(text, "r.yaml")
    assert not document.problems
    assert document.data == value
    assert type(document.data) is type(value)


def test_a_duplicate_key_is_refused_with_both_lines():
    document = parse_yaml("a:\n  b: 1\n  c: 2\n  b: 3\n", "r.yaml")
    assert document.data == {"a": {"b": 1, "c": 2}}
    assert str(document.problems[0]) == (
        "r.yaml line 4, key 'a.b': duplicate key 'b', first on line 2. Remove one of the two."
    )


def test_all_problems_are_collected():
    document = parse_yaml("a: None\n1: x\nb: !!python/name:os.system x\nc: !!int no\n", "r.yaml")
    lines = [str(problem).split(":")[0] for problem in document.problems]
    assert lines == [
        "r.yaml line 1, key 'a'",
        "r.yaml line 2",
        "r.yaml line 3, key 'b'",
        "r.yaml line 4, key 'c'",
    ]
    assert "Use null for no value" in document.problems[0].remedy


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "\ta: 1", "a: 'x", "--- 1\n--- 2\n", "@"])
def test_broken_yaml_names_the_line(text: str):
    (problem,) = parse_yaml(text, "r.yaml").problems
    assert problem.where.startswith("r.yaml line ")
    assert problem.message.startswith("not valid YAML: ")


def test_an_alias_is_a_copy_and_never_a_loop():
    assert parse_yaml("a: &x [1]\nb: *x\n", "r").data == {"a": [1], "b": [1]}
    (problem,) = parse_yaml("a: &x [*x]\n", "r.yaml").problems
    assert "alias" in problem.message


def test_keys_and_items_have_lines():
    document = parse_yaml("a:\n  - x: 1\n  - y: 2\n", "r.yaml")
    assert document.where(("a", 1, "y")) == "r.yaml line 3, key 'a.1.y'"
    assert document.where(("a", 1, "z")) == "r.yaml line 3, key 'a.1.z'"
    assert document.where(("b",)) == "r.yaml, key 'b'"
