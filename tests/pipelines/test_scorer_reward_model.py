"""The scorer `reward_model`: batches, the first token, lengths, refusals."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.response_candidates import candidates, score, values
from support.text_classifiers import BOS, reward_model_in, without_tensors

from model_adapters._tiny import CHATML
from unidpo_mm.errors import ModelError, UniDPOError
from unidpo_mm.pipelines.load import load_make_recipe
from unidpo_mm.pipelines.run import make
from unidpo_mm.pipelines.scorer import Fault
from unidpo_mm.pipelines.scorers._models import load_text_model, rendered
from unidpo_mm.pipelines.scorers.reward_model import RewardModel

TEXTS = [" ".join(["red", "blue", "two", "?"][: n % 4 + 1] * (n + 1)) for n in range(8)]


def rewards(model: Any, tokenizer: Any, texts: list[str]) -> list[float]:
    """Return the rewards that transformers computes one by one."""
    results = []
    for text in texts:
        turns = [("user", "What is it?"), ("assistant", text)]
        ids = tokenizer.apply_chat_template(
            [{"role": role, "content": content} for role, content in turns],
            return_tensors="pt",
            return_dict=True,
        )["input_ids"]
        with torch.no_grad():
            results.append(model(input_ids=ids).logits.item())
    return results


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("pad", [True, False])
def test_a_batch_equals_one_by_one(tmp_path: Path, padding_side: str, pad: bool) -> None:
    """Without a padding token in its configuration, transformers pools the last token."""
    from transformers import AutoTokenizer

    model = reward_model_in(tmp_path, padding_side=padding_side, pad=pad)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.padding_side == padding_side
    expected = rewards(model, tokenizer, TEXTS)
    assert len({round(value, 3) for value in expected}) == 8
    scorer = RewardModel(str(tmp_path), dtype="float32")
    for batch_size in (8, 3, 1):
        results = values(score(scorer, candidates(*TEXTS), tmp_path, batch_size=batch_size))
        assert results == pytest.approx(expected, abs=1e-5)


def test_reasoning_and_the_prompt_matter_as_they_should(tmp_path: Path) -> None:
    reward_model_in(tmp_path)
    scorer = RewardModel(str(tmp_path), dtype="float32")
    items = [
        *candidates("red", "<think>blue?</think>red"),
        *candidates("red", prompt="Two?"),
        *candidates("<think>red"),
    ]
    plain, reasoned, other, unfinished = values(score(scorer, items, tmp_path))
    assert plain == pytest.approx(reasoned, abs=1e-6)
    assert plain != pytest.approx(other, abs=1e-3)
    assert unfinished == "no answer"


@pytest.mark.parametrize(
    ("template", "adds_bos", "expected"),
    [
        (BOS + CHATML, True, 1),
        (BOS + CHATML, False, 1),
        (CHATML, True, 1),  # the tokenizer's own habit counts
        (CHATML, False, 0),
    ],
)
def test_there_is_exactly_one_first_token(
    tmp_path: Path, template: str, adds_bos: bool, expected: int
) -> None:
    reward_model_in(tmp_path, template=template, adds_bos=adds_bos)
    model = load_text_model(str(tmp_path), "AutoModelForSequenceClassification", dtype="float32")
    turns = [{"role": "user", "content": "Red?"}, {"role": "assistant", "content": "Blue."}]
    text = model.tokenizer.apply_chat_template(turns, tokenize=False)
    doubled = model.tokenizer(text)["input_ids"].count(model.tokenizer.bos_token_id)
    assert doubled == (template != CHATML) + adds_bos
    ids = rendered(model, turns)
    assert ids.count(model.tokenizer.bos_token_id) == expected
    assert ids.index(model.tokenizer.bos_token_id) == 0 if expected else True
    assert isinstance(
        values(score(RewardModel(str(tmp_path)), candidates("x"), tmp_path))[0], float
    )


def test_a_template_with_two_first_tokens_is_refused(tmp_path: Path) -> None:
    reward_model_in(tmp_path, template=BOS + BOS + CHATML)
    with pytest.raises(ModelError, match="begins with two tokens '<s>'"):
        score(RewardModel(str(tmp_path)), candidates("x"), tmp_path)


def test_a_tokenizer_without_a_template_is_refused(tmp_path: Path) -> None:
    reward_model_in(tmp_path, template=None)
    with pytest.raises(ModelError, match="has no chat template"):
        score(RewardModel(str(tmp_path)), candidates("x"), tmp_path)


def test_a_conversation_that_the_template_refuses_is_a_fault(tmp_path: Path) -> None:
    refusing = "{{ raise_exception('no roles') if messages[1]['content'] == 'bad' }}"
    reward_model_in(tmp_path, template=refusing + CHATML)
    results = score(RewardModel(str(tmp_path)), candidates("bad", "red"), tmp_path)
    assert results[0] == Fault("template", "the chat template refuses the conversation: no roles")
    assert isinstance(values(results)[1], float)


def test_a_long_conversation_is_a_fault_and_never_cut(tmp_path: Path) -> None:
    reward_model_in(tmp_path)
    scorer = RewardModel(str(tmp_path), max_length=60)
    results = score(scorer, candidates("red", "red blue " * 60), tmp_path)
    assert isinstance(results[1], Fault)
    assert (results[1].kind, results[1].temporary) == ("too long", False)
    assert "the model takes 60" in results[1].message
    assert not isinstance(results[0], Fault)
    limited = values(score(RewardModel(str(tmp_path)), candidates("red blue " * 2000), tmp_path))
    assert limited == ["too long"]  # the limit of the model


def test_missing_weights_of_the_head_are_refused(tmp_path: Path) -> None:
    reward_model_in(tmp_path)
    without_tensors(tmp_path, "score.")
    with pytest.raises(ModelError, match=r"1 tensor is missing, such as score.weight"):
        score(RewardModel(str(tmp_path)), candidates("x"), tmp_path)


def test_several_labels_are_refused(tmp_path: Path) -> None:
    reward_model_in(tmp_path, labels=3)
    with pytest.raises(ModelError, match="the model has 3 labels"):
        score(RewardModel(str(tmp_path)), candidates("x"), tmp_path)
    with pytest.raises(ModelError, match="its output 'score' is missing"):
        score(RewardModel(str(tmp_path), read="score"), candidates("x"), tmp_path)


def test_another_output_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import LlamaForSequenceClassification

    reward_model_in(tmp_path, labels=3)
    forward = LlamaForSequenceClassification.forward

    def with_score(self: Any, **inputs: Any) -> Any:
        output = forward(self, **inputs)
        output.score = output.logits.sum(1)
        return output

    monkeypatch.setattr(LlamaForSequenceClassification, "forward", with_score)
    results = score(RewardModel(str(tmp_path), read="score"), candidates("x", "y"), tmp_path)
    assert all(isinstance(value, float) for value in values(results))


def test_a_model_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        score(RewardModel(str(tmp_path / "none")), candidates("x"), tmp_path)
    assert caught.value.problems[0].where == "model"


def recipe_of(folder: Path, model: Path) -> Path:
    lines = [
        {"prompt": f"What is {n}?", "chosen": f"red {n}", "rejected": f"blue {n}"} for n in range(3)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = {
        "output": str(folder / "made"),
        "prompts": {"sources": [{"path": "rows.jsonl"}]},
        "sample": {"responses": "given"},
        "score": {"reward": {"scorer": "reward_model", "model": str(model), "dtype": "float32"}},
    }
    path = folder / "make.yaml"
    path.write_text(json.dumps(recipe))
    return path


def test_a_recipe_uses_it_and_numbers_that_are_not_finite_end_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    model = reward_model_in(folder)
    made = make(load_make_recipe(recipe_of(tmp_path, folder)))
    assert len(made.rows) == 3
    with torch.no_grad():
        model.score.weight.fill_(float("nan"))
    model.save_pretrained(folder)
    (tmp_path / "second").mkdir()
    with pytest.raises(UniDPOError, match=r"score.reward, response '.*': the score is nan"):
        make(load_make_recipe(recipe_of(tmp_path / "second", folder)))


def test_problems_name_the_score(tmp_path: Path) -> None:
    reward_model_in(tmp_path / "model", labels=2)
    for model, text in (
        ("model", "score.reward, .*model: the model has 2 labels"),
        ("no", "score.reward, "),
    ):
        with pytest.raises(ModelError, match=text):
            make(load_make_recipe(recipe_of(tmp_path, tmp_path / model)))


def test_a_relative_path_starts_at_the_recipe(tmp_path: Path) -> None:
    reward_model_in(tmp_path / "model")
    path = recipe_of(tmp_path, Path("model"))
    making = load_make_recipe(path)
    assert making.scorers["reward"].fingerprint()["model"]
    assert making.recipe.score["reward"].parameters["model"] == str(tmp_path / "model")
    judge = {"scorer": "judge", "judge": "local:model"}
    web = {"scorer": "judge", "judge": "http://host:8000/v1", "model": "model"}
    recipe = json.loads(path.read_text()) | {"score": {"a": judge, "b": web}}
    path.write_text(json.dumps(recipe))
    sections = load_make_recipe(path).recipe.score
    assert sections["a"].parameters["judge"] == f"local:{tmp_path / 'model'}"
    assert sections["b"].parameters == {"judge": web["judge"], "model": "model"}


def test_settings_and_the_fingerprint(tmp_path: Path) -> None:
    reward_model_in(tmp_path / "a")
    reward_model_in(tmp_path / "b")
    first, second = (RewardModel(str(tmp_path / name)).fingerprint() for name in "ab")
    assert first == second  # the same weights in another place
    assert RewardModel("x", scale=(0.0, 1.0)).scale == (0.0, 1.0)
    assert RewardModel("x").units(12, 3) == {"forward passes": 12}
    for settings in ({"scale": (1.0, 1.0)}, {"max_length": 0}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            RewardModel("x", **settings)  # type: ignore[arg-type] # values of several types
