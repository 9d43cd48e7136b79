"""The rate of the expected format, which detects wrong chat templates and changes no score."""

from pathlib import Path

import pytest
from support.eval_commands import TABLE, run, score, text_of
from unidpo_mm_eval.benchmarks import load_benchmark
from unidpo_mm_eval.data.samples import Sample
from unidpo_mm_eval.results.result import read_result
from unidpo_mm_eval.scorers.formats import BOX, LETTER, SHORT, YES_NO, ResponseFormat

QUESTIONS = Sample(id="1", where="row 1", options={"A": "cat", "B": "dog"})
OPEN = Sample(id="1", where="row 1")


@pytest.mark.parametrize(
    ("form", "sample", "right", "wrong"),
    [
        (YES_NO, OPEN, ("Yes", "no.", "**Yes**, there is", "No, it isn't"), ("", "Well, yes", "!")),
        (
            LETTER,
            QUESTIONS,
            ("A", "(B)", "B. dog", "A) cat", "**A**"),
            ("", "C", "A cat", "It is A"),
        ),
        (SHORT, OPEN, ("7", "New York", "one of these"), ("", "a\nb", "word " * 11)),
        (SHORT, QUESTIONS, ("A", "B."), ("cat", "one of these")),
        (BOX, OPEN, (r"so \boxed{7}",), ("7", r"\boxed{7")),
    ],
)
def test_response_formats_match(
    form: ResponseFormat, sample: Sample, right: tuple[str, ...], wrong: tuple[str, ...]
) -> None:
    assert [form.matches(sample, text) for text in (*right, *wrong)] == [True] * len(right) + [
        False
    ] * len(wrong)


def test_responses_without_the_expected_format_cause_a_warning_and_do_not_change_the_score(
    tmp_path: Path,
) -> None:
    rates = {}
    for name, responses in (("plain", "A"), ("talks", "I see a cat, hence my choice is A")):
        (tmp_path / name).mkdir()
        done = score(tmp_path / name, TABLE, {"1": responses, "2": responses})
        assert done.exit_code == 0, text_of(done)
        result = read_result(tmp_path / name / "result.json")
        rates[name] = (result.metrics["accuracy"], result.metrics["expected_format_rate"])
        assert any("chat template may be wrong" in item for item in result.warnings) == (
            name == "talks"
        )
    assert rates == {"plain": (50.0, 100.0), "talks": (50.0, 0.0)}


def test_tables_show_the_rate_of_the_expected_format(tmp_path: Path) -> None:
    score(tmp_path, TABLE, {"1": "A", "2": "it is B, surely"})
    paths = [tmp_path / "result.json"] * 2
    assert "in the expected format 50.0 %" in run("compare", *paths).output
    assert "in the expected format 50.0 %" in run("report", paths[0]).output


def test_every_rule_based_benchmark_except_captions_has_a_response_format() -> None:
    from unidpo_mm_eval.benchmarks import benchmark_names

    expected = [load_benchmark(name) for name in benchmark_names()]
    by_rules = [item for item in expected if not {"judge", "implicit-reward"} & set(item.scorers)]
    assert [item.name for item in by_rules if item.response_format is None] == ["chair"]
