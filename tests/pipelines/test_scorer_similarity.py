"""The scorer `similarity`: sentences against images, long sentences, refusals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import make_image
from support.response_candidates import candidates, score, values
from unidpo_mm_eval.response_scorers.similarity import Similarity

from model_adapters._tiny import save_tokenizer
from unidpo_mm.errors import ModelError
from unidpo_mm.pipelines.scorer import Score

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
LENGTH = 40


def embedder_in(folder: Path, kind: str) -> None:
    """Write a tiny CLIP or SigLIP."""
    import transformers as t

    roles = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    tokenizer = save_tokenizer(folder, special=tuple(roles.values()), template=None, **roles)
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    text: dict[str, Any] = {
        **SIZES, **ids, "vocab_size": len(tokenizer), "max_position_embeddings": LENGTH,
    }  # fmt: skip
    vision: dict[str, Any] = {**SIZES, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    if kind == "clip":
        model: Any = t.CLIPModel(
            t.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
        )
        size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
        processor: Any = t.CLIPProcessor(t.CLIPImageProcessor(**size), tokenizer)
    else:
        text["projection_size"] = 32
        model = t.SiglipModel(t.SiglipConfig(text_config=text, vision_config=vision))
        size = {"size": {"height": 32, "width": 32}}
        processor = t.SiglipProcessor(t.SiglipImageProcessor(**size), tokenizer)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def expected(folder: Path, text: str, shade: int) -> float:
    """Return the similarity that transformers computes for a text and an image."""
    from transformers import AutoModel, AutoProcessor

    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    inputs = processor(
        text=[text], images=[make_image(shade)], padding="max_length", max_length=LENGTH,
        return_tensors="pt",
    )  # fmt: skip
    with torch.no_grad():
        output = model.eval()(**inputs)
    return torch.cosine_similarity(output.text_embeds, output.image_embeds).item()


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_sentences_are_compared_with_images(tmp_path: Path, kind: str) -> None:
    embedder_in(tmp_path, kind)
    items = candidates("A red square. Two blue.", "Hello!", images=[make_image(1)])
    red, blue, hello = (
        expected(tmp_path, text, 1) for text in ("A red square.", "Two blue.", "Hello!")
    )
    assert len({round(value, 4) for value in (red, blue, hello)}) == 3
    scorer = Similarity(str(tmp_path), dtype="float32")
    assert values(score(scorer, items, tmp_path)) == pytest.approx(
        [(red + blue) / 2, hello], abs=1e-5
    )
    lowest = score(Similarity(str(tmp_path), "min", dtype="float32"), items, tmp_path, batch_size=1)
    assert values(lowest) == pytest.approx([min(red, blue), hello], abs=1e-5)
    assert isinstance(lowest[0], Score)
    assert [text for text, _ in lowest[0].evidence["sentences"]] == ["A red square.", "Two blue."]


def test_the_most_similar_image_counts(tmp_path: Path) -> None:
    embedder_in(tmp_path, "clip")
    both = candidates("Red.", images=[make_image(1), make_image(5)], name="a")
    single = candidates("Red.", images=[make_image(5)], name="b")
    scorer = Similarity(str(tmp_path), dtype="float32")
    first, second = values(score(scorer, [*both, *single], tmp_path))
    alone = [expected(tmp_path, "Red.", shade) for shade in (1, 5)]
    assert first == pytest.approx(max(alone), abs=1e-5)
    assert second == pytest.approx(alone[1], abs=1e-5)


def test_what_cannot_be_compared_is_a_fault(tmp_path: Path) -> None:
    embedder_in(tmp_path, "siglip")
    items = [
        *candidates("red " * 50 + ".", "Why?", "Red.", images=[make_image(1)]),
        *candidates("Red.", name="text"),
    ]
    results = values(score(Similarity(str(tmp_path)), items, tmp_path))
    assert results[:2] == ["too long", "no statement"]
    assert isinstance(results[2], float)
    assert results[3] == "no image"


def test_other_models_are_refused(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    for model_type in ("llama", "qwen2_vl"):
        with pytest.raises(ModelError, match=r"not embed .*Use a model such as CLIP"):
            score(Similarity(str(checkpoint(model_type))), candidates("x"), tmp_path)
    assert Similarity("x").units(8, 2) == {"forward passes": 8}
