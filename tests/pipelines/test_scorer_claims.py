"""The scorer `claims`: sentences, questions with images, probabilities, aggregates."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import make_image
from support.response_candidates import candidates, score, values
from unidpo_mm_eval.response_scorers._logps import load_logp_model
from unidpo_mm_eval.response_scorers._sentences import sentences, statements
from unidpo_mm_eval.response_scorers.claims import NO, YES, Claims, claim_rows

from unidpo_mm.adapter import generation_inputs
from unidpo_mm.data.collate import collate_prompts
from unidpo_mm.pipelines.scorer import Score


def test_sentences() -> None:
    text = (
        "Dr. Smith paid $3.50 for 1.5 kg of figs (e.g. dried ones). He left at 5 p.m. yesterday! "
        'Why? "I see." J. R. R. Tolkien wrote it... and left. No. 5 is red\n'
        "Details:\n- A dog.\n2) A cat, i.e. a pet.\n\n**Bold claim.** Next claim.\n---\n"
        "\u5b83\u662f\u7ea2\u8272\u7684\u3002\u4ed6\u8d70\u4e86\u3002"
    )
    assert list(sentences(text)) == [
        "Dr. Smith paid $3.50 for 1.5 kg of figs (e.g. dried ones).",
        "He left at 5 p.m. yesterday!",
        "Why?",
        '"I see."',
        "J. R. R. Tolkien wrote it... and left.",
        "No. 5 is red",
        "Details:",
        "A dog.",
        "A cat, i.e. a pet.",
        "**Bold claim.**",
        "Next claim.",
        "---",
        "\u5b83\u662f\u7ea2\u8272\u7684\u3002",
        "\u4ed6\u8d70\u4e86\u3002",
    ]
    assert statements("**Details:**\nIs it red?\n--\n\u597d\u5417\uff1f\nIt is.") == ["It is."]
    assert statements(" \n") == []
    assert statements("I say no. It is red.") == ["I say no.", "It is red."]


def test_a_long_response_has_its_last_sentence_checked(
    tmp_path: Path, checkpoint: Callable[[str], Path]
) -> None:
    filler = " ".join(f"There are {n} red circles in the image." for n in range(62))
    texts = [f"{filler} The last is {colour}." for colour in ("blue", "two")]
    assert len(texts[0].split()) >= 500
    scorer = Claims(str(checkpoint("qwen2_vl")), dtype="float32")
    results = score(scorer, candidates(*texts, images=[make_image(1)]), tmp_path)
    last = []
    for result, colour in zip(results, ("blue", "two"), strict=True):
        assert isinstance(result, Score)
        checked = result.evidence["statements"]
        assert len(checked) == 63
        assert checked[-1][0] == f"The last is {colour}."
        last.append(checked[-1][1])
    assert last[0] != last[1]


@pytest.mark.parametrize("model_type", ["qwen2_vl", "llava", "llama"])
def test_the_probability_is_that_of_yes_against_no(
    tmp_path: Path, checkpoint: Callable[[str], Path], model_type: str
) -> None:
    """Computed again from next-token distributions alone, one token at a time."""
    images = [] if model_type == "llama" else [make_image(1)]
    (item,) = candidates("A red square.", images=images)
    place = str(checkpoint(model_type))
    (result,) = score(Claims(place, aggregate="mean", dtype="float32"), [item], tmp_path)
    assert isinstance(result, Score)
    model = load_logp_model(place, dtype="float32", variables={})
    (row,) = claim_rows(item, ["A red square."])
    sums = {"yes": 0.0, "no": 0.0}
    for answers, name in ((YES, "yes"), (NO, "no")):
        for answer in answers:
            sums[name] += chance_of(model, row, answer)
    assert 0 < result.value < 1
    assert result.value == pytest.approx(sums["yes"] / (sums["yes"] + sums["no"]), abs=1e-4)


def chance_of(model: Any, row: Any, answer: str) -> float:
    """Return the probability that a response begins with an answer."""
    adapter = model.adapter
    prompt = adapter.encode_prompt(row)
    base = model.model.model
    ids = adapter.tokenizer(answer, add_special_tokens=False)["input_ids"]
    chance = 1.0
    inputs = dict(
        generation_inputs(adapter, collate_prompts([prompt], pad_token_id=adapter.pad_token_id))
    )
    for token in ids:
        with torch.no_grad():
            logits = base(**inputs).logits[0, -1]
        chance *= float(logits.softmax(-1)[token])
        inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([[token]])], 1)
        for name in ("attention_mask", "mm_token_type_ids"):
            if name in inputs:
                value = 1 if name == "attention_mask" else 0
                inputs[name] = torch.cat([inputs[name], inputs[name].new_tensor([[value]])], 1)
    return chance


def test_images_change_the_probability(tmp_path: Path, checkpoint: Callable[[str], Path]) -> None:
    scorer = Claims(str(checkpoint("qwen2_vl")), "mean", dtype="float32")
    items = [
        item for n in (1, 5) for item in candidates("A dog.", images=[make_image(n, (56, 56))])
    ]
    first, second = values(score(scorer, items, tmp_path))
    assert first != second
    assert scorer.sees_images


@pytest.mark.parametrize(
    ("aggregate", "expected"), [("false_count", -2), ("true_share", 1 / 3), ("mean", 0.4)]
)
def test_aggregates(
    tmp_path: Path,
    checkpoint: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    aggregate: Any,
    expected: float,
) -> None:
    from unidpo_mm_eval.response_scorers import claims

    chances = iter([0.9, 0.1, 0.2, 0.5])
    monkeypatch.setattr(claims, "probability", lambda model, result: next(chances))
    scorer = Claims(str(checkpoint("llama")), aggregate, dtype="float32")
    results = score(scorer, candidates("A dog. A cat. A bird.", "Red?"), tmp_path)
    assert values(results) == [pytest.approx(expected), "no statement"]
    assert isinstance(results[0], Score)
    assert results[0].evidence["false"] == 2
    low, high = scorer.scale
    assert low <= results[0].value <= high


def test_many_false_statements_count_as_the_cap(
    tmp_path: Path, checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from unidpo_mm_eval.response_scorers import claims

    monkeypatch.setattr(claims, "probability", lambda model, result: 0.1)
    scorer = Claims(str(checkpoint("llama")), cap=3, dtype="float32")
    assert scorer.scale == (-3, 0)
    (result,) = score(scorer, candidates("A dog. A cat. A bird. Red. Blue."), tmp_path)
    assert isinstance(result, Score)
    assert (result.value, result.evidence["false"]) == (-3, 5)


def test_a_model_without_images_cannot_check_them(
    tmp_path: Path, checkpoint: Callable[[str], Path]
) -> None:
    scorer = Claims(str(checkpoint("llama")), dtype="float32")
    results = score(scorer, candidates("A dog.", images=[make_image(1)]), tmp_path)
    assert values(results) == ["prompt"]
    assert "no vision tower" in str(results[0])


def test_settings_and_costs() -> None:
    assert [*Claims("x").units(10, 2).values()] == [50]
    assert Claims("x", "mean").scale == (0, 1)
    for settings in ({"threshold": 0.0}, {"threshold": 1.0}, {"cap": 0}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            Claims("x", **settings)  # type: ignore[arg-type] # values of several types
