"""Reasoning in responses: each protocol removes what its toolkit removes, and results record it."""

import json
from pathlib import Path
from typing import Any

import pytest
from nasty import picture
from scores import run, told
from unidpo_mm_eval.judge.judges import ask_all
from unidpo_mm_eval.models.chat import Failure
from unidpo_mm_eval.results.result import read_result
from unidpo_mm_eval.scorers.reasoning import scored_text, split_think, without_lmms_tags

SAID = (
    "<think>ok, is there a cat? no</think>Yes",
    "<think>\n\n</think>\n\nYes",
    "it is one, so </think> Yes",
    "<reasoning>no?</reasoning>Yes",
    "<think>no, wait",
    "Yes",
)


@pytest.mark.parametrize(
    ("response", "text"),
    [
        (SAID[0], "Yes"),
        (SAID[1], "Yes"),
        (SAID[2], "Yes"),
        (SAID[3], SAID[3]),
        (SAID[4], SAID[4]),
        (" Yes ", " Yes "),
        ("<analysis>a</analysis> Yes", "Yes"),
        ("<think>a</think>b<think>c</think>d", "bd"),
        ("<THINK>a</THINK>Yes", "<THINK>a</THINK>Yes"),
        ("a</think>b</think>Yes", "Yes"),
        ("</think>a<think>b", "</think>a<think>b"),
        ("<think>a<think>b</think>c</think>Yes", "Yes"),
    ],
)
def test_what_lmms_eval_scores(response: str, text: str) -> None:
    assert without_lmms_tags(response) == text


@pytest.mark.kits
def test_it_is_the_toolkits_own_function_on_random_texts() -> None:
    import random

    from kits import import_kits

    import_kits()
    from lmms_eval.api.reasoning import strip_reasoning_tags

    rng = random.Random(5)
    pieces = ("<think>", "</think>", "<analysis>", "</analysis>", "Yes", " no ", "\n")
    tags = [["<think>", "</think>"], ["<analysis>", "</analysis>"]]
    for _ in range(5000):
        text = "".join(rng.choices(pieces, k=rng.randint(0, 8)))
        assert without_lmms_tags(text).strip() == strip_reasoning_tags(text, tags), text


def test_what_vlmevalkit_scores_with_split_think() -> None:
    assert split_think(SAID[0]) == split_think(SAID[2]) == "Yes"
    assert split_think(SAID[3]) == SAID[3]
    assert split_think(SAID[4]) == SAID[4]


def test_a_prompt_that_opens_a_block() -> None:
    assert scored_text("is it A? or B", "clean", opened=True) == ""
    assert scored_text("is it A? or B", "lmms", opened=True) == "is it A? or B"


def pope(folder: Path, responses: Any = SAID, **manifest: Any) -> tuple[Path, Path]:
    data, said = folder / "POPE.tsv", folder / "said.jsonl"
    rows = [f"{n}\tIs there a cat?\tYes\trandom\t{picture(n)}" for n in range(len(responses))]
    data.write_text("\n".join(["index\tquestion\tanswer\tcategory\timage", *rows]) + "\n")
    lines: list[Any] = [{"manifest": manifest}] if manifest else []
    lines += [{"id": str(n), "response": one} for n, one in enumerate(responses)]
    said.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return data, said


@pytest.mark.parametrize(
    ("protocol", "accuracy", "rule", "removed", "warning"),
    [
        ("lmms", 400 / 6, "lmms", 3, "an unclosed block is scored as the answer"),
        ("clean", 500 / 6, "clean", 5, "their reasoning is no answer"),
        ("vlmevalkit-split-think", 400 / 6, "split_think", 3, "an unclosed block is scored"),
        ("vlmevalkit", 300 / 6, "none", 0, "scores them whole, as its rules do by default"),
    ],
)
def test_results_record_what_was_removed(
    protocol: str, accuracy: float, rule: str, removed: int, warning: str, tmp_path: Path
) -> None:
    data, said = pope(tmp_path)
    out = tmp_path / "result.json"
    words = ("-b", "pope", "--data", data, "--predictions", said, "--protocol", protocol)
    done = run("score", *words, "--output", out)
    assert done.exit_code == 0, told(done)
    result = read_result(out)
    assert result.metrics["accuracy"] == pytest.approx(accuracy)
    found = result.reasoning
    assert (found.rule, found.responses, found.removed, found.unclosed) == (rule, 4, removed, 1)
    assert any(warning in one for one in result.warnings), result.warnings
    assert "reasoning: in 4 responses, unclosed in 1" in done.output
    assert result.per_sample[0].response == SAID[0]
    assert result.per_sample[0].scored == (None if rule == "none" else "Yes")


def test_the_warning_names_protocols_that_remove_reasoning(tmp_path: Path) -> None:
    data, said = pope(tmp_path)
    done = run("score", "-b", "pope", "--data", data, "--predictions", said)
    assert "use clean or lmms or vlmevalkit-split-think" in done.output


def test_an_unclosed_block_that_the_prompt_opened_is_no_answer(tmp_path: Path) -> None:
    data, said = pope(tmp_path, ("is it a cat? yes", "yes</think>No"), prompt_opens_reasoning=True)
    out = tmp_path / "result.json"
    words = ("-b", "pope", "--data", data, "--predictions", said, "--protocol", "clean")
    run("score", *words, "--output", out)
    result = read_result(out)
    assert [one.answer for one in result.per_sample] == [None, "No"]
    assert (result.reasoning.responses, result.reasoning.unclosed) == (2, 1)


class Thinker:
    """A judge that thinks before it speaks."""

    name, concurrent = "thinker", 1

    def __init__(self, *replies: str) -> None:
        self.replies = iter(replies)

    def ask(self, messages: Any) -> str:
        return next(self.replies)


def test_a_judges_reasoning_is_no_verdict() -> None:
    from functools import partial

    from unidpo_mm_eval.judge.verdicts import first_line_numbers, rating

    two = partial(first_line_numbers, count=2, low=1, high=10)
    one = partial(rating, name="rating", low=0, high=6)
    requests = [(two, list), (one, list), (one, list)]
    said = ask_all(
        Thinker(
            "<think>8 or 9</think>\n8 9\nsince",
            "<think>rating: 6? no",
            "[THINK]rating: 6[/THINK]rating: 2",
        ),
        requests,
    )
    assert said[0] == [8, 9]
    assert isinstance(said[1], Failure)
    assert said[2] == 2
