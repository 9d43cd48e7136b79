"""The scorers `verifier` and `agreement`: kinds of answers, missing answers, faults, refusals."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.response_candidates import candidates, score, values
from unidpo_mm_eval.response_scorers import verifier as module
from unidpo_mm_eval.response_scorers.agreement import Agreement
from unidpo_mm_eval.response_scorers.verifier import Verifier
from unidpo_mm_eval.scorers.math import pool

from unidpo_mm.errors import DataError
from unidpo_mm.pipelines.load import load_make_recipe
from unidpo_mm.pipelines.run import make
from unidpo_mm.pipelines.scorer import Fault, Score

OPTIONS = "Which animal is it?\nA. cat\nB. dog\nC. bird"


def answers(results: Any) -> list[Any]:
    return [item.evidence["answer"] for item in results]


def verified(folder: Path, *texts: str, gold: str, prompt: str = "?", **settings: Any) -> list[Any]:
    return score(Verifier(**settings), candidates(*texts, gold=gold, prompt=prompt), folder)


def test_math(tmp_path: Path) -> None:
    texts = (r"So \boxed{0.5}.", "The answer is 1/2.", r"\boxed{2}", "I do not know.")
    results = verified(tmp_path, *texts, gold=r"\frac{1}{2}")
    assert values(results) == [1, 1, 0, 0]
    assert answers(results)[3] is None  # no final answer
    assert answers(results)[2] == "2"
    reasoned = verified(tmp_path, r"<think>\boxed{3}</think>\boxed{4}", gold="3")
    assert values(reasoned) == [0]


@pytest.mark.parametrize("gold", ["Add both.\n#### 42", r"Thus \boxed{42}, which is even.", "42"])
def test_the_right_answer_may_be_a_solution(tmp_path: Path, gold: str) -> None:
    assert values(verified(tmp_path, "The answer is 42.", "It is 7.", gold=gold)) == [1, 0]


def test_options(tmp_path: Path) -> None:
    texts = ("B", "(b) dog", "The answer is B.", "It is a dog.", "A", "A or B", "No animal.")
    for gold in ("B", "(B)", "b.", "dog"):
        results = verified(tmp_path, *texts, gold=gold, prompt=OPTIONS, answer="option")
        assert values(results) == [1, 1, 1, 1, 0, 0, 0]
    assert answers(results)[-3:] == ["A", None, None]


def test_yes_no(tmp_path: Path) -> None:
    texts = ("Yes, there is.", "No.", "There is a dog.")
    results = verified(tmp_path, *texts, gold="yes", answer="yes_no")
    assert values(results) == [1, 0, 0]
    assert answers(results) == ["Yes", "No", None]


def test_numbers_have_a_tolerance_and_all_their_digits(tmp_path: Path) -> None:
    def numbers(*texts: str, gold: str, **settings: Any) -> list[Any]:
        return values(verified(tmp_path, *texts, gold=gold, answer="number", **settings))

    assert numbers("about 102", "106", "95", "none", gold="100", tolerance=0.05) == [1, 0, 1, 0]
    assert numbers("1234567", "1234568", "1,234,567", gold="1234567") == [1, 0, 1]
    assert numbers("It is 5-3.", "It is -3.", "It is \u22123.", gold="3") == [1, 0, 0]
    assert numbers("2.5e3", "2500.0", gold="2500") == [1, 1]
    assert numbers("9" * 400, "5", gold="5") == [0, 1]


def test_close_numbers_score_above_distant_ones(tmp_path: Path) -> None:
    texts = ("7", "7.1", "8", "16", "1000000", "none")
    scores = values(verified(tmp_path, *texts, gold="7", answer="number", graded=True))
    assert scores[0] == 1
    assert scores == sorted(scores, reverse=True)  # type: ignore[type-var] # there is no fault
    assert len(set(scores)) == len(scores)
    assert scores[2:4] == [0.25, 0.05]


def test_texts(tmp_path: Path) -> None:
    texts = ("New  york", "It is New York City.", "Boston")
    assert values(verified(tmp_path, *texts, gold="New York", answer="text")) == [1, 0, 0]
    results = verified(tmp_path, *texts, gold="New York", answer="text", contains=True)
    assert values(results) == [1, 1, 0]
    assert answers(verified(tmp_path, "<think>x</think>", gold="x", answer="text")) == [None]


@pytest.mark.parametrize(
    ("kind", "gold"), [("number", "many"), ("option", "a fish"), ("yes_no", "maybe"), ("math", " ")]
)
def test_a_right_answer_of_another_kind_is_a_fault(tmp_path: Path, kind: Any, gold: str) -> None:
    """It would make every response wrong."""
    results = verified(tmp_path, "A", "7, yes", gold=gold, prompt=OPTIONS, answer=kind)
    assert values(results) == ["right answer"] * 2
    assert f"not of the kind '{kind}'" in str(results[0])


def test_slow_answers_and_dead_processes_are_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = {"slow": pool.TIMEOUT, "dead": pool.DIED}

    def grade_all(profile: str, pairs: Any) -> list[Any]:
        return [pool.Grade(1.0, "1", note=notes.get(text, "")) for _, text in pairs]

    monkeypatch.setattr(module, "grade_all", grade_all)
    results = verified(tmp_path, "slow", "dead", "1", gold="1")
    assert values(results) == ["timeout", "timeout", 1]
    assert [item.temporary for item in results if isinstance(item, Fault)] == [False, True]


def test_settings_are_checked() -> None:
    for settings in (
        {"tolerance": -1.0, "answer": "number"},
        {"tolerance": 0.1},
        {"graded": True},
        {"contains": True},
    ):
        with pytest.raises(ValueError, match=next(iter(settings))):
            Verifier(**settings)  # type: ignore[arg-type] # values of several types


def test_agreement_is_the_share_of_equal_answers(tmp_path: Path) -> None:
    items = candidates("It is 7.", r"\boxed{7}", "8", "no idea", name="a")
    items += candidates("8", "8.0", name="b")
    results = score(Agreement("number"), items, tmp_path)
    assert values(results) == [0.5, 0.5, 0.25, 0.0, 1.0, 1.0]
    assert results[3] == Score(0.0, {"answer": None})
    texts = score(Agreement("text"), candidates("Red", " red. ", "blue"), tmp_path)
    assert values(texts) == pytest.approx([2 / 3, 2 / 3, 1 / 3])


def recipe_of(folder: Path, lines: list[dict[str, Any]], **sections: Any) -> Path:
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = {
        "output": str(folder / "made"),
        "prompts": {"sources": [{"path": "rows.jsonl"}]},
        "sample": {"responses": "given"},
        **sections,
    }
    path = folder / "make.yaml"
    path.write_text(json.dumps(recipe))
    return path


def test_prompts_without_a_right_answer_are_refused_before_anything_is_scored(
    tmp_path: Path,
) -> None:
    lines: list[dict[str, Any]] = [
        {"prompt": f"What is {n} + 1?", "chosen": f"{n + 1}", "rejected": f"{n + 3}"}
        for n in range(4)
    ]
    lines[1]["answer"], lines[2]["answer"] = 2, " "
    score_section = {
        "words": {"scorer": "rules", "max_words": 5},
        "right": {"scorer": "verifier", "answer": "number"},
    }
    making = load_make_recipe(recipe_of(tmp_path, lines, score=score_section))
    with pytest.raises(DataError) as caught:
        make(making)
    (problem,) = caught.value.problems
    assert problem.where == "score.right"
    assert "3 of 4 prompts have none, for example" in problem.message
    assert "rows.jsonl row 1" in problem.message
    assert not (tmp_path / "made" / "scores").exists()
    make(making, until="sample")  # needs no right answer

    for n, line in enumerate(lines):
        line["answer"] = n + 1
    made = make(load_make_recipe(recipe_of(tmp_path, lines, score=score_section)))
    assert [record["score"] for record in made.scores["right"].done.values()] == [1, 0] * 4


def test_responses_without_text_are_not_scored(tmp_path: Path) -> None:
    """Sampling may have failed; that is not a fault of a scorer."""
    from unidpo_mm.pipelines.scoring import missing_response

    assert missing_response({"id": "p#0", "response": "text"}) is None
    broken = missing_response({"id": "p#0", "response": "", "error": "out of memory"})
    assert broken == Fault("no response", "out of memory", temporary=True)
    assert missing_response({"id": "p#0", "response": " \n"}) == Fault(
        "no response", "the response is empty"
    )


@pytest.mark.parametrize(
    ("gold", "text", "right"),
    [
        ("24", "25", False),
        ("24", "24.", True),
        ("2,020", "2020", True),
        ("hand and flag", "Hand and  flag.", True),
        ("hand and flag", "hand", False),
    ],
)
def test_numbers_among_texts_are_exact(tmp_path: Path, gold: str, text: str, right: bool) -> None:
    results = verified(tmp_path, text, gold=gold, answer="text")
    assert values(results) == [float(right)]
