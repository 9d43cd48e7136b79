"""Recipes that would take minutes or gigabytes to read are refused with a message."""

import time

import pytest

from unidpo_mm.config.yaml_loader import MAX_VALUES, parse_yaml
from unidpo_mm.errors import RecipeError

BILLION = "a0: &a0 [" + ", ".join("x" * 9) + "]\n"
BILLION += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))
DEEP = "b0: &b0 [1]\n" + "".join(f"b{n}: &b{n} [*b{n - 1}]\n" for n in range(1, 500))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BILLION, "more than 100,000 values once its aliases are expanded"),
        (DEEP, "nested too deeply"),
        ("[" * 600, "nested too deeply"),
        ("a: " + "b" * 1_000_000, "has 1,000,003 characters and the limit is 1,000,000"),
        ("a: " + "9" * 5000, "(5,000 characters)' is not a value of !!int"),
        ("a: 0x" + "f" * 50_000, "(50,002 characters)' is not a value of !!int"),
        ("? " + "9" * 50_000 + "\n: 1", "is not text"),
    ],
    ids=["aliases", "aliases in aliases", "brackets", "text", "digits", "hex", "key"],
)
def test_a_document_beyond_the_limits_is_refused_quickly(text: str, message: str) -> None:
    start = time.process_time()
    (problem,) = parse_yaml(text, "r.yaml").problems
    assert message in problem.message
    assert len(str(RecipeError(problem))) < 5000
    assert time.process_time() - start < 60  # without the limits, minutes to years


def test_aliases_within_the_limit_are_expanded() -> None:
    document = parse_yaml("a: &a [1, 2]\nb: [*a, *a]\n", "r.yaml")
    assert document.data == {"a": [1, 2], "b": [[1, 2], [1, 2]]}
    large = parse_yaml(f"[{', '.join(['1'] * (MAX_VALUES // 50))}]", "r.yaml")
    assert not large.problems
