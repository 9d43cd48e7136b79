"""The lenient rules: text around an answer is ignored, and nothing is guessed."""

import pytest
from unidpo_mm_eval.scorers.clean import clean_match, clean_option, clean_yes_no, strip_wrapping


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("The answer is 42.", "42"),
        ("**42**", "42"),
        (r"so \boxed{42}", "42"),
        ("Final answer: 'red'", "red"),
        ("The value is: $5.", "5"),
        ("red", "red"),
        ("", ""),
    ],
)
def test_answers_are_unwrapped(response: str, answer: str) -> None:
    assert strip_wrapping(response) == answer


@pytest.mark.parametrize(
    ("response", "responses"),
    [
        ("**Yes**", "Yes"),
        ("yes:", "Yes"),
        ("it's a 'no'", "No"),
        ("no。", "No"),
        ("Yes, there is no dog.", "Yes"),
        ("There is no cat, so the answer is yes.", "Yes"),
        ("I see no cat but yes a dog", None),
        ("nope, yesterday", None),
        ("", None),
    ],
)
def test_yes_and_no_are_extracted_from_any_context(response: str, responses: str | None) -> None:
    assert clean_yes_no(response) == responses


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("'B'", "B"),
        (r"\boxed{B}", "B"),
        ("The best choice is B because it shows a dog and some more of it", "B"),
        ("a dog", "B"),
        ("no idea", None),
    ],
)
def test_options_are_extracted(response: str, letter: str | None) -> None:
    options = {"A": "cat", "B": "dog", "C": "bird"}
    assert clean_option(response, options).letter == letter


@pytest.mark.parametrize(
    ("response", "answer", "right"),
    [
        ("$1,234.50", "1234.5", True),
        ("The answer is 12 million people.", "12 million people", True),
        ("about 12", "12", False),
        ("50%", "50", True),
        ("50", "50%", True),
        ("12 kg", "12", True),
        ("1 234", "1234", True),
        ("13", "12", False),
        ("12 red cars", "12", False),
        ("Red.", "red", True),
    ],
)
def test_numbers_are_compared_without_units(response: str, answer: str, right: bool) -> None:
    assert clean_match(response, [answer]) is right
