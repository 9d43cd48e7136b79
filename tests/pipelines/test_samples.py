"""Sampled responses of tiny models of all families: shared prompts, batches, model settings."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import make_image
from support.small_benchmarks import varied_checkpoint

from unidpo_mm.adapter import AdapterOptions
from unidpo_mm.data.images import MemoryImage
from unidpo_mm.inference.checkpoint import LoadedCheckpoint, find_checkpoint, load_checkpoint
from unidpo_mm.inference.decoding import Decoding, Sampling
from unidpo_mm.inference.noise import noise_key
from unidpo_mm.inference.samples import Sampler
from unidpo_mm.records import (
    NO_RESPONSE,
    EncodedGroup,
    MediaSlot,
    Message,
    PreferenceRow,
    Response,
)

TYPES = ("llama", "llava", "qwen2_vl", "qwen3_vl")
SLOW_TYPES = ("qwen2_5_vl", "llava_next", "internvl", "gemma3", "smolvlm", "mistral3", "qwen3_5")


def loaded_tiny(folder: Path, model_type: str) -> LoadedCheckpoint:
    torch.manual_seed(3)
    path = varied_checkpoint(folder / model_type, model_type)
    return load_checkpoint(find_checkpoint(str(path)), dtype="float32", device="cpu")


def prompt_row(number: int, *, image: bool) -> PreferenceRow:
    parts: tuple[Any, ...] = (f"What is {'this ' * (number % 3)}{number}?",)
    images = (MemoryImage(make_image(number), "test"),) if image else ()
    return PreferenceRow(
        id=f"p{number}",
        domain="multimodal" if image else "text",
        source="test",
        where=f"row {number}",
        messages=(Message("user", ((MediaSlot("image"),) if image else ()) + parts),),
        images=images,
        responses=(Response(NO_RESPONSE),),
    )


def encoded(model: LoadedCheckpoint, count: int, *, image: bool) -> list[EncodedGroup]:
    adapter = model.adapter(AdapterOptions())
    return [adapter.encode_prompt(prompt_row(n, image=image)) for n in range(count)]


def sampler(model: LoadedCheckpoint, **options: Any) -> Sampler:
    decoding = Decoding(max_new_tokens=options.pop("max_new_tokens", 6))
    sampling = Sampling(temperature=0.7, **options)
    adapter = model.adapter(AdapterOptions())
    return Sampler(model.model, adapter, decoding, sampling=sampling, device="cpu")


def texts(
    sample: Sampler, prompts: list[EncodedGroup], count: int, batch: int | None = None
) -> list[list[str]]:
    keys = [[noise_key(0, f"p{n}", k) for k in range(count)] for n in range(len(prompts))]
    batch = batch or len(prompts)
    return [
        [response.text for response in responses]
        for start in range(0, len(prompts), batch)
        for responses in sample.generate(
            prompts[start : start + batch], keys[start : start + batch]
        )
    ]


@pytest.mark.parametrize(
    "model_type", [*TYPES, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_TYPES)]
)
def test_shared_prompts_give_the_responses_of_repeated_ones(
    model_type: str, tmp_path: Path
) -> None:
    model = loaded_tiny(tmp_path, model_type)
    image = model_type != "llama"
    prompts = encoded(model, 3, image=image) + (encoded(model, 1, image=False) if image else [])
    shared = sampler(model)
    responses = texts(shared, prompts, 4)
    repeated = sampler(model)
    repeated.shares = False
    assert responses == texts(repeated, prompts, 4)
    assert shared.shares is (model_type not in {"qwen3_5"})
    assert len({text for group in responses for text in group}) > 8


def test_a_response_does_not_depend_on_its_batch(tmp_path: Path) -> None:
    model = loaded_tiny(tmp_path, "llava")
    prompts = encoded(model, 6, image=True)
    expected = texts(sampler(model), prompts, 4)
    assert texts(sampler(model), prompts, 4, batch=1) == expected
    assert texts(sampler(model), prompts, 4, batch=4) == expected
    assert [group[:2] for group in expected] == texts(sampler(model), prompts, 2)


def test_the_models_own_settings_are_not_used(tmp_path: Path) -> None:
    model = loaded_tiny(tmp_path, "llama")
    prompts = encoded(model, 2, image=False)
    expected = texts(sampler(model), prompts, 8)
    settings = model.model.generation_config
    settings.update(top_k=1, repetition_penalty=1.05, temperature=0.1, no_repeat_ngram_size=2)
    assert texts(sampler(model), prompts, 8) == expected
    assert all(len(set(group)) > 4 for group in expected)
    assert model.model.generation_config is settings


def test_the_vision_tower_runs_once_per_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded_tiny(tmp_path, "llava")
    tower = model.model.model.vision_tower
    images = 0
    forward = tower.forward

    def counted_forward(pixel_values: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal images
        images += len(pixel_values)
        return forward(pixel_values, *args, **kwargs)

    monkeypatch.setattr(tower, "forward", counted_forward)
    sample = sampler(model)
    texts(sample, encoded(model, 1, image=True), 2)  # the check of the first batch
    images = 0
    texts(sample, encoded(model, 4, image=True), 8)
    assert images == 4


def test_greedy_responses_are_those_of_generate(checkpoint: Callable[[str], Path]) -> None:
    folder = checkpoint("llama")
    model = load_checkpoint(find_checkpoint(str(folder)), dtype="float32", device="cpu")
    prompts = encoded(model, 2, image=False)
    adapter = model.adapter(AdapterOptions())
    decoding = Decoding(max_new_tokens=6)
    greedy = Sampler(model.model, adapter, decoding, sampling=None, device="cpu")
    first = [group[0] for group in greedy.generate(prompts, [[0], [0]])]
    from unidpo_mm.inference.generation import generate_responses

    expected = generate_responses(model.model, adapter, prompts, decoding, device="cpu")
    assert [dataclasses.asdict(item) for item in first] == [*map(dataclasses.asdict, expected)]
