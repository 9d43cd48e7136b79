"""The scorers `image_gain` and `implicit_reward`: log-probs, images, references, refusals."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import batch_of, load_tiny, make_image, tiny_checkpoint
from support.response_candidates import candidates, score, values
from unidpo_mm_eval.response_scorers.image_gain import ImageGain
from unidpo_mm_eval.response_scorers.implicit_reward import ImplicitReward

from unidpo_mm.errors import ModelError
from unidpo_mm.kernels.logprobs import sequence_logps
from unidpo_mm.modeling.logp_model import LogpModel, compute_logps
from unidpo_mm.pipelines.scorer import Candidate, Score
from unidpo_mm.records import Message, Response

TEXTS = ("A red square", "Blue", "<think>Two?</think>\n\nHow many?")


def sums(folder: Path, items: list[Candidate], *, blind: bool = False) -> tuple[Any, Any]:
    """Return sums of log-probs and numbers of tokens, computed with one row per batch."""
    loaded = load_tiny(folder)
    model = LogpModel(loaded.model).eval()
    logps, lengths = [], []
    for item in items:
        prompt = item.prompt
        if blind:
            messages = tuple(Message(turn.role, (turn.text,)) for turn in prompt.messages)
            prompt = dataclasses.replace(prompt, messages=messages, images=(), domain="text")
        row = dataclasses.replace(prompt, responses=(Response(item.text),), reasoning="keep")
        batch = batch_of(loaded, [row])
        with torch.no_grad():
            result = sequence_logps(compute_logps(model, loaded.adapter, batch), batch.targets)
        logps.append(result.sum.item())
        lengths.append(result.length.item())
    return torch.tensor(logps), torch.tensor(lengths)


@pytest.mark.parametrize("model_type", ["llava", "qwen2_vl"])
def test_the_gain_of_images(
    tmp_path: Path, checkpoint: Callable[[str], Path], model_type: str
) -> None:
    items = candidates(*TEXTS, images=[make_image(1)])
    folder = checkpoint(model_type)
    with_images, lengths = sums(folder, items)
    without, _ = sums(folder, items, blind=True)
    results = score(ImageGain(str(folder), dtype="float32"), items, tmp_path)
    assert values(results) == pytest.approx(((with_images - without) / lengths).tolist(), abs=1e-4)
    assert len({round(float(value), 4) for value in values(results)}) == 3
    assert isinstance(results[0], Score)
    assert results[0].evidence["with images"] == pytest.approx(
        (with_images / lengths)[0].item(), abs=1e-4
    )


def test_another_image_gives_another_gain(
    tmp_path: Path, checkpoint: Callable[[str], Path]
) -> None:
    items = [item for n in (1, 5) for item in candidates("A dog", images=[make_image(n, (56, 56))])]
    first, second = values(score(ImageGain(str(checkpoint("qwen2_vl"))), items, tmp_path))
    assert first != second


def test_without_an_image_or_a_text_there_is_no_gain(
    tmp_path: Path, checkpoint: Callable[[str], Path]
) -> None:
    items = [
        *candidates("A dog"),
        *candidates("A dog", prompt=" ", images=[make_image(1)]),
        *candidates("A dog", images=[make_image(1)]),
    ]
    results = values(score(ImageGain(str(checkpoint("qwen2_vl"))), items, tmp_path))
    assert results[:2] == ["no image", "no text"]
    assert isinstance(results[2], float)
    assert ImageGain("x").units(4, 1) == {"forward passes": 8}


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint with other weights."""
    torch.manual_seed(7)
    return tiny_checkpoint(tmp_path_factory.mktemp("other"), "llama")


@pytest.mark.parametrize("average", ["sum", "mean"])
def test_the_reward_against_another_checkpoint(
    tmp_path: Path, checkpoint: Callable[[str], Path], other: Path, average: Any
) -> None:
    items = candidates(*TEXTS)
    policy, lengths = sums(other, items)
    reference, _ = sums(checkpoint("llama"), items)
    expected = 0.5 * (policy - reference) / (lengths if average == "mean" else 1)
    scorer = ImplicitReward(
        str(other), str(checkpoint("llama")), beta=0.5, average=average, dtype="float32"
    )
    assert values(score(scorer, items, tmp_path)) == pytest.approx(expected.tolist(), abs=1e-3)
    swapped = ImplicitReward(str(checkpoint("llama")), str(other), beta=0.5, average=average)
    assert swapped.fingerprint() != scorer.fingerprint()


def test_the_reward_with_the_lora_adapter_disabled(
    tmp_path: Path, checkpoint: Callable[[str], Path]
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = checkpoint("llama")
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(target_modules=["q_proj", "v_proj"]),
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3)
    model.save_pretrained(tmp_path / "lora")
    scorer = ImplicitReward(str(tmp_path / "lora"), dtype="float32")
    items = candidates(*TEXTS)
    results = values(score(scorer, items, tmp_path))
    against = ImplicitReward(str(tmp_path / "lora"), str(base), dtype="float32")
    assert results == pytest.approx(values(score(against, items, tmp_path)), abs=1e-4)
    assert all(abs(float(value)) > 0.01 for value in results)


def test_a_model_without_a_lora_adapter_needs_a_reference(
    tmp_path: Path, checkpoint: Callable[[str], Path]
) -> None:
    with pytest.raises(ModelError, match=r"has no LoRA adapter to disable. Set reference"):
        score(ImplicitReward(str(checkpoint("llama"))), candidates("x"), tmp_path)
    with pytest.raises(ValueError, match="beta"):
        ImplicitReward("x", beta=0.0)
