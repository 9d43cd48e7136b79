"""Math: correct answers of each data set, three graders, answers that hang or kill a grader."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.eval_commands import run, text_of
from unidpo_mm_eval.benchmarks import load_benchmark
from unidpo_mm_eval.data.samples import Grade
from unidpo_mm_eval.scorers.boxed import find_boxes
from unidpo_mm_eval.scorers.math.normalize import normalize_answer
from unidpo_mm_eval.scorers.math.pool import DIED, TIMEOUT, grade_all
from unidpo_mm_eval.scorers.math.simplerl import extract_answer

GOLD = {
    "gsm8k": ({"question": "?", "answer": "5 + 5 = <<5+5=10>>10\n#### 1,010"}, "1,010"),
    "math500": (
        {"problem": "?", "solution": r"first \boxed{1}, so \boxed{\frac{1}{2}}"},
        r"\frac{1}{2}",
    ),
    "minerva": ({"problem": "?", "solution": r"\boxed{4.5e33}"}, "4.5e33"),
    "olympiadbench": ({"question": "?", "final_answer": ["$2$", "3"]}, "2"),
    "aime24": ({"problem": "?", "answer": "204"}, "204"),
    "amc23": ({"problem": "?", "answer": 27.0}, "27.0"),
    "gaokao2023en": ({"question": "?", "answer": "$[1,2)$"}, "[1,2)"),
    "collegemath": ({"question": "?", "answer": "$x=2$"}, "x=2"),
}
"""Benchmark -> a row of its file, and the correct answer."""


@pytest.mark.parametrize("name", GOLD)
def test_gold_answers_are_read_from_the_fields_of_each_data_set(name: str, tmp_path: Path) -> None:
    row, gold = GOLD[name]
    (tmp_path / "test.jsonl").write_text(f"{json.dumps(row)}\n{json.dumps(row | {'id': 'x'})}\n")
    first, second = load_benchmark(name).read(tmp_path, False).samples
    assert (first.id, second.id) == ("0", "x")
    assert first.answers == second.answers == (gold,)
    assert first.question == "?"


@pytest.mark.parametrize(
    ("name", "row", "actual"),
    [
        ("math500", {"problem": "?", "solution": "no box"}, r"there is no \boxed"),
        ("olympiadbench", {"question": "?", "final_answer": []}, "field 'final_answer': got []"),
        ("aime24", {"problem": "?"}, "field 'answer': missing"),
        ("gsm8k", {"question": "?", "answer": "####"}, "field 'answer': the answer is empty"),
    ],
)
def test_rows_without_correct_answer_are_reported(
    name: str, row: dict[str, Any], actual: str, tmp_path: Path
) -> None:
    data, responses = tmp_path / "test.jsonl", tmp_path / "mine.jsonl"
    data.write_text(json.dumps(row) + "\n")
    responses.write_text('{"id": 0, "response": "1"}\n')
    output = text_of(run("score", "-b", name, "--data", data, "--predictions", responses))
    assert "test.jsonl row 1" in output
    assert actual in output


CASES = [
    # gold, response, math-verify, strip_wrapping, the paper's grader
    (r"\frac{1}{2}", r"so \boxed{0.5}", 1, 1, 1),
    ("12", "first 5, then the answer is $12$.", 1, 1, 1),
    ("2\\sqrt{3}", r"\boxed{\sqrt{12}}", 1, 1, 1),
    ("x+1", r"\boxed{1+x}", 1, 1, 1),
    ("4", r"\boxed{5}", 0, 0, 0),
    ("10000", r"\boxed{10\,000}", 0, 1, 0),  # a thin space
    ("even", r"\boxed{neve}", 1, 0, 1),  # an anagram: the same product of symbols
    (r"\text{even}", r"\boxed{\text{Even}}", 1, 1, 1),
    ("50", r"\boxed{0.5}", 0, 0, 1),  # a hundredth
    ("(1,2)", r"\boxed{[1,2]}", 0, 0, 1),  # an open and a closed interval
    ("1,2", r"\boxed{2,1}", 1, 1, 0),  # a list in another order
    ("7", "", 0, 0, 0),
    ("3", r"\boxed{3", 0, 0, 1),  # a box that is not closed
]


@pytest.mark.parametrize(
    ("profile", "column"), [("math-verify", 2), ("math-verify-clean", 3), ("official-simplerl", 4)]
)
def test_math_profiles_grade_as_documented(profile: str, column: int) -> None:
    actual = grade_all(profile, [(case[0], case[1]) for case in CASES], workers=1)
    assert [item.score for item in actual] == [case[column] for case in CASES]


AUTHORS = json.loads((Path(__file__).parent / "golden" / "paper_math.json").read_text("utf-8"))
"""Scores of the paper's released code on difficult answers."""


@pytest.mark.parametrize("units", [False, True])
def test_the_papers_grader_equals_the_authors_functions(units: bool) -> None:
    cases = [case for case in AUTHORS["cases"] if case[2] is units]
    answers = [(case[0], case[1]) for case in cases]
    actual = grade_all("official-simplerl", answers, units=units, workers=1)
    theirs = [(score, answer or None) for _, _, _, score, answer in cases]
    assert [(item.score, item.answer) for item in actual] == theirs
    assert 0.2 < sum(score for score, _ in theirs) / len(theirs) < 0.8


def test_the_plain_profile_is_the_library_called_by_hand() -> None:
    from math_verify import parse, verify

    answers = [(case[0], case[1]) for case in (*CASES, *AUTHORS["cases"][:100])]
    theirs = [
        float(verify(parse(rf"\boxed{{{gold}}}"), parse(responses))) for gold, responses in answers
    ]
    assert [item.score for item in grade_all("math-verify", answers, workers=1)] == theirs


def test_an_answer_that_hangs_is_killed_and_the_others_are_graded() -> None:
    hang = ("3", r"\boxed{9^{9^{9^{9}}}}")
    fine = ("2", r"\boxed{2}")
    actual = grade_all("math-verify", [fine, hang, fine, hang, fine], seconds=3.0, workers=2)
    assert [item.score for item in actual] == [1, 0, 1, 0, 1]
    assert [item.note for item in actual] == ["", TIMEOUT, "", TIMEOUT, ""]


@pytest.mark.parametrize(("answers", "processes"), [(0, 1), (20, 1), (21, 2), (500, 4)])
def test_few_answers_are_graded_by_few_processes(
    answers: int, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unidpo_mm_eval.scorers.math import pool

    entered = []

    class Worker(pool._Worker):
        def __enter__(self) -> "Worker":
            entered.append(self)
            return self

        def grade(self, gold: str, response: str, seconds: float) -> Grade:
            return Grade(float(gold == response), None)

    monkeypatch.setattr(pool, "_Worker", Worker)
    monkeypatch.setattr(pool.os, "cpu_count", lambda: 4)
    assert [item.score for item in grade_all("math-verify", [("2", "2")] * answers)] == (
        [1.0] * answers
    )
    assert len(entered) == processes


def test_a_grader_that_dies_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from unidpo_mm_eval.scorers.math import pool

    real, observed = pool._line, []

    def once(process: Any, seconds: float) -> str | None:
        observed.append(seconds)
        if len(observed) == 2:  # the first is the process's word that it is ready
            process.kill()
            process.wait()
        return real(process, seconds)

    monkeypatch.setattr(pool, "_line", once)
    actual = grade_all("math-verify", [("2", r"\boxed{2}")] * 3, workers=1)
    assert [item.score for item in actual] == [0, 1, 1]
    assert actual[0].note == DIED


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        (r"\boxed{1} and \boxed{\frac{1}{2}}", ["1", r"\frac{1}{2}"]),
        (r"\boxed {a}\fboxed{b}", ["a", "b"]),
        (r"\boxed{open", []),
        ("boxed{1}", []),
    ],
)
def test_boxes_are_extracted_with_nested_braces(text: str, boxes: list[str]) -> None:
    assert find_boxes(text) == boxes


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("final answer is $7$. I hope it is correct.", "7"),
        (r"\boxed{1} no, \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"so \boxed 5$ it is", "5"),
        ("The answer is: 8.", " 8"),
        ("答案是 9\n\nbecause", "9"),
        ("we get 1,234 then -5.5 in all", "-5.5"),
        ("nothing", ""),
    ],
)
def test_answers_are_searched_in_order(response: str, answer: str) -> None:
    assert extract_answer(response) == answer


@pytest.mark.parametrize(
    ("text", "alike"),
    [
        (r"\dfrac12", r"\frac{1}{2}"),
        ("3/4", r"\frac{3}{4}"),
        (r"90^\circ", "90"),
        (r"\$5.00", "5"),
        ("12 square feet", "12"),
        (r"12 \text{ cm}", "12"),
        ("x = 5", "5"),
        (r"\left( 1, 2 \right)", "(1,2)"),
        (r"\sqrt2", r"\sqrt{2}"),
        ("twelve", "12"),
        (".5", "0.5"),
        ("(7)", "(7)"),
        ("50\\%", "50"),
    ],
)
def test_answers_are_normalized(text: str, alike: str) -> None:
    assert normalize_answer(text) == alike
