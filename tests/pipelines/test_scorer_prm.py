"""The scorer `prm`: steps, marks, rewards of exactly 0, aggregates, lengths, refusals."""

from pathlib import Path
from typing import Any

import pytest
import torch
from builders import row
from support.response_candidates import candidates, score, values
from support.text_classifiers import MARK, step_model_in, without_tensors

from unidpo_mm.errors import ModelError
from unidpo_mm.pipelines.scorer import Candidate, Fault, Score
from unidpo_mm.pipelines.scorers.prm import SYSTEM, ProcessReward, steps_of
from unidpo_mm.records import Message

SOLUTIONS = [
    "First 3 + 4.\n\nThen 7 * 5.\n\n\n \nThe answer is 35.",
    "One word",
    "Two.\n\nred\nblue\n\nHow many?\n\n3\n\n4",
]


def expected_steps(backbone: Any, head: Any, tokenizer: Any, solution: str) -> list[float]:
    """Return the rewards of a single conversation, read at each mark one by one."""
    content = MARK.join(steps_of(solution)) + MARK
    text = (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\nWhat is it?<|im_end|>\n"
        f"<|im_start|>assistant\n{content}<|im_end|>\n"
    )
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        hidden = backbone(input_ids=ids).last_hidden_state[0]
        places = [n for n, token in enumerate(ids[0]) if tokenizer.decode([token]) == MARK]
        return [float(head(hidden[n]).softmax(-1)[1]) for n in places]


def steps(result: Any) -> list[float]:
    assert isinstance(result, Score)
    return [*result.evidence["steps"]]


@pytest.mark.parametrize("scale", [1.0, 1e5])
def test_every_step_has_its_reward_also_one_of_exactly_zero(tmp_path: Path, scale: float) -> None:
    from transformers import AutoTokenizer

    backbone, head = step_model_in(tmp_path, scale=scale)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    results = score(ProcessReward(str(tmp_path)), candidates(*SOLUTIONS), tmp_path)
    expected = [expected_steps(backbone, head, tokenizer, text) for text in SOLUTIONS]
    assert [len(steps(result)) for result in results] == [3, 1, 5]
    for result, rewards in zip(results, expected, strict=True):
        assert steps(result) == pytest.approx(rewards, abs=1e-5)
    everything = [reward for rewards in expected for reward in rewards]
    if scale > 1:
        assert 0.0 in everything
        assert max(everything) > 0
    else:
        assert len({round(reward, 4) for reward in everything}) > 4


def test_batches_do_not_matter(tmp_path: Path) -> None:
    step_model_in(tmp_path)
    scorer = ProcessReward(str(tmp_path))
    batched, single = (
        values(score(scorer, candidates(*SOLUTIONS), tmp_path, batch_size=size)) for size in (8, 1)
    )
    assert batched == pytest.approx(single, abs=1e-5)


@pytest.mark.parametrize(
    ("aggregate", "expected"), [("min", 0.2), ("mean", 0.5), ("product", 0.08), ("last", 0.5)]
)
def test_aggregates(aggregate: Any, expected: float) -> None:
    result = ProcessReward("x", aggregate=aggregate)._score([0.8, 0.2, 0.5])
    assert result.value == pytest.approx(expected)
    assert result.evidence == {"steps": [0.8, 0.2, 0.5], "lowest": 1}


def test_steps_are_separated_by_blank_lines() -> None:
    assert steps_of("\n\na\nb\n\n\n\n c \n\t\nd\n\n") == ["a\nb", "c", "d"]
    assert steps_of(" \n\n ") == []


def test_a_tokenizer_that_adds_a_first_token_finds_the_mark(tmp_path: Path) -> None:
    step_model_in(tmp_path, adds_bos=True)
    result = score(ProcessReward(str(tmp_path)), candidates(SOLUTIONS[0]), tmp_path)[0]
    assert len(steps(result)) == 3
    assert len(set(steps(result))) == 3


def test_the_system_message_is_that_of_the_scorer(tmp_path: Path) -> None:
    step_model_in(tmp_path)
    plain, other = (
        row("p", [*system, Message("user", ("What is it?",))], ("(none yet)",), (None,), pairs=())
        for system in ([], [Message("system", ("Be brief.",))])
    )
    items = [Candidate(id="p#0", prompt=prompt, text="red") for prompt in (plain, other)]
    scorer = ProcessReward(str(tmp_path))
    first, second = values(score(scorer, items, tmp_path))
    assert first == pytest.approx(second, abs=1e-6)
    (without,) = values(score(ProcessReward(str(tmp_path), system=""), items[:1], tmp_path))
    assert without != pytest.approx(first, abs=1e-4)


def test_what_cannot_be_scored_is_a_fault(tmp_path: Path) -> None:
    step_model_in(tmp_path)
    texts = ("red " * 200, f"red {MARK} blue", "<think>red", "red")
    results = score(ProcessReward(str(tmp_path), max_length=120), candidates(*texts), tmp_path)
    assert values(results)[:3] == ["too long", "step mark", "no answer"]
    assert isinstance(results[3], Score)
    assert not any(item.temporary for item in results if isinstance(item, Fault))


def test_another_model_is_refused(tmp_path: Path) -> None:
    step_model_in(tmp_path)
    with pytest.raises(ModelError, match=r"the step mark '<step>' is \d+ tokens"):
        score(ProcessReward(str(tmp_path), mark="<step>"), candidates("x"), tmp_path)
    without_tensors(tmp_path, "score.2")
    with pytest.raises(ModelError, match=r"its head has no score.2.weight, score.2.bias"):
        score(ProcessReward(str(tmp_path)), candidates("x"), tmp_path)
    without_tensors(tmp_path, "model.layers.1")
    with pytest.raises(ModelError, match=r"tensors are missing"):
        score(ProcessReward(str(tmp_path)), candidates("x"), tmp_path)


def test_settings_and_costs() -> None:
    assert ProcessReward("x").units(8, 2) == {"forward passes": 8}
    for settings in ({"mark": " "}, {"max_length": 0}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            ProcessReward("x", **settings)
