"""Reasoning in responses: each protocol removes what its toolkit removes, and results record it."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.adversarial_responses import image_cell
from support.eval_commands import run, text_of
from unidpo_mm_eval.judge.judges import ask_all
from unidpo_mm_eval.results.result import read_result
from unidpo_mm_eval.scorers.reasoning import scored_text, split_think, strip_lmms_tags

from unidpo_mm.inference.endpoint import ChatFailure

RESPONSES = (
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
        (RESPONSES[0], "Yes"),
        (RESPONSES[1], "Yes"),
        (RESPONSES[2], "Yes"),
        (RESPONSES[3], RESPONSES[3]),
        (RESPONSES[4], RESPONSES[4]),
        (" Yes ", " Yes "),
        ("<analysis>a</analysis> Yes", "Yes"),
        ("<think>a</think>b<think>c</think>d", "bd"),
        ("<THINK>a</THINK>Yes", "<THINK>a</THINK>Yes"),
        ("a</think>b</think>Yes", "Yes"),
        ("</think>a<think>b", "</think>a<think>b"),
        ("<think>a<think>b</think>c</think>Yes", "Yes"),
    ],
)
def test_text_scored_by_lmms_eval(response: str, text: str) -> None:
    assert strip_lmms_tags(response) == text


@pytest.mark.toolkits
def test_it_equals_the_toolkits_function_on_random_texts() -> None:
    import random

    from support.reference_toolkits import import_toolkits

    import_toolkits()
    from lmms_eval.api.reasoning import strip_reasoning_tags

    rng = random.Random(5)
    pieces = ("<think>", "</think>", "<analysis>", "</analysis>", "Yes", " no ", "\n")
    tags = [["<think>", "</think>"], ["<analysis>", "</analysis>"]]
    for _ in range(5000):
        text = "".join(rng.choices(pieces, k=rng.randint(0, 8)))
        assert strip_lmms_tags(text).strip() == strip_reasoning_tags(text, tags), text


def test_text_scored_by_vlmevalkit_with_split_think() -> None:
    assert split_think(RESPONSES[0]) == split_think(RESPONSES[2]) == "Yes"
    assert split_think(RESPONSES[3]) == RESPONSES[3]
    assert split_think(RESPONSES[4]) == RESPONSES[4]


def test_a_prompt_that_opens_a_block() -> None:
    assert scored_text("is it A? or B", "clean", opened=True) == ""
    assert scored_text("is it A? or B", "lmms", opened=True) == "is it A? or B"


def pope(folder: Path, responses: Any = RESPONSES, **manifest: Any) -> tuple[Path, Path]:
    data, response_file = folder / "POPE.tsv", folder / "mine.jsonl"
    rows = [f"{n}\tIs there a cat?\tYes\trandom\t{image_cell(n)}" for n in range(len(responses))]
    data.write_text("\n".join(["index\tquestion\tanswer\tcategory\timage", *rows]) + "\n")
    lines: list[Any] = [{"manifest": manifest}] if manifest else []
    lines += [{"id": str(n), "response": item} for n, item in enumerate(responses)]
    response_file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return data, response_file


@pytest.mark.parametrize(
    ("protocol", "accuracy", "rule", "removed", "warning"),
    [
        ("lmms", 400 / 6, "lmms", 3, "an unclosed block is scored as the answer"),
        ("clean", 500 / 6, "clean", 5, "their reasoning is not an answer"),
        ("vlmevalkit-split-think", 400 / 6, "split_think", 3, "an unclosed block is scored"),
        (
            "vlmevalkit",
            300 / 6,
            "none",
            0,
            "scores the complete responses",
        ),
    ],
)
def test_results_record_removed_reasoning(
    protocol: str, accuracy: float, rule: str, removed: int, warning: str, tmp_path: Path
) -> None:
    data, response_file = pope(tmp_path)
    out = tmp_path / "result.json"
    words = ("-b", "pope", "--data", data, "--predictions", response_file, "--protocol", protocol)
    done = run("score", *words, "--output", out)
    assert done.exit_code == 0, text_of(done)
    result = read_result(out)
    assert result.metrics["accuracy"] == pytest.approx(accuracy)
    actual = result.reasoning
    assert (actual.rule, actual.responses, actual.removed, actual.unclosed) == (rule, 4, removed, 1)
    assert any(warning in item for item in result.warnings), result.warnings
    assert "reasoning: in 4 responses, unclosed in 1" in done.output
    assert result.per_sample[0].response == RESPONSES[0]
    assert result.per_sample[0].scored == (None if rule == "none" else "Yes")


def test_the_warning_names_protocols_that_remove_reasoning(tmp_path: Path) -> None:
    data, response_file = pope(tmp_path)
    done = run("score", "-b", "pope", "--data", data, "--predictions", response_file)
    assert "use clean or lmms or vlmevalkit-split-think" in done.output


def test_an_unclosed_block_that_the_prompt_opened_is_no_answer(tmp_path: Path) -> None:
    data, response_file = pope(
        tmp_path, ("is it a cat? yes", "yes</think>No"), prompt_opens_reasoning=True
    )
    out = tmp_path / "result.json"
    words = ("-b", "pope", "--data", data, "--predictions", response_file, "--protocol", "clean")
    run("score", *words, "--output", out)
    result = read_result(out)
    assert [item.answer for item in result.per_sample] == [None, "No"]
    assert (result.reasoning.responses, result.reasoning.unclosed) == (2, 1)


class Thinker:
    """A judge whose replies contain reasoning."""

    name, concurrency = "thinker", 1

    def __init__(self, *replies: str) -> None:
        self.replies = iter(replies)

    def ask(self, messages: Any) -> str:
        return next(self.replies)


def test_verdicts_are_not_read_from_the_reasoning_of_a_judge() -> None:
    from functools import partial

    from unidpo_mm_eval.judge.verdicts import first_line_numbers, rating

    two = partial(first_line_numbers, count=2, low=1, high=10)
    item = partial(rating, name="rating", low=0, high=6)
    requests = [(two, list), (item, list), (item, list)]
    response_file = ask_all(
        Thinker(
            "<think>8 or 9</think>\n8 9\nsince",
            "<think>rating: 6? no",
            "[THINK]rating: 6[/THINK]rating: 2",
        ),
        requests,
    )
    assert response_file[0] == [8, 9]
    assert isinstance(response_file[1], ChatFailure)
    assert response_file[2] == 2
