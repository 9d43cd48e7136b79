"""The assembled model computes what its parts compute. The tests need the downloaded parts."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def parts():
    from unidpo_mm_quickstart.assets import fetch_assets

    return fetch_assets()


@pytest.fixture(scope="module")
def canvases(parts, tmp_path_factory):
    from unidpo_mm_quickstart.images import draw_canvases, load_emoji, split_emoji

    train = split_emoji(load_emoji(parts.emoji))["train"]
    return draw_canvases(train, tmp_path_factory.mktemp("images"), 64, name="train")


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def folder(parts, canvases, cache) -> Path:
    from unidpo_mm_quickstart.vlm import assemble_vlm

    return assemble_vlm(parts, canvases, cache=cache)


def test_text_logits_equal_those_of_the_language_model(parts, folder):
    import torch
    from transformers import AutoModelForImageTextToText
    from unidpo_mm_quickstart.vlm import load_language_model

    joined = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    alone, tokenizer = load_language_model(parts.language_model)
    ids = tokenizer("The quick brown fox jumps over the lazy", return_tensors="pt").input_ids
    with torch.no_grad():
        logits = joined(input_ids=ids).logits[..., : alone.config.vocab_size]
        torch.testing.assert_close(logits, alone(ids).logits, rtol=0, atol=0)


def test_text_logits_of_the_qwen_shape_equal_those_of_the_language_model(parts):
    import torch
    from transformers import AutoModelForImageTextToText
    from unidpo_mm_quickstart.qwen_shape import assemble_qwen_vl
    from unidpo_mm_quickstart.vlm import load_language_model

    folder = assemble_qwen_vl(parts)
    joined = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    alone, tokenizer = load_language_model(parts.language_model)
    ids = tokenizer("The quick brown fox jumps over the lazy", return_tensors="pt").input_ids
    with torch.no_grad():
        logits = joined(input_ids=ids).logits[..., : alone.config.vocab_size]
        torch.testing.assert_close(logits, alone(ids).logits, rtol=1e-4, atol=1e-4)


def test_the_processor_inserts_one_token_per_feature(folder, canvases):
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    parts = [{"type": "image"}, {"type": "text", "text": "What is shown?"}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": parts}], tokenize=False, add_generation_prompt=True
    )
    inputs = processor(text=[text], images=[Image.open(canvases[0].file)], return_tensors="pt")
    assert (inputs["input_ids"] == model.config.image_token_index).sum() == 9
    assert model.generate(**inputs, max_new_tokens=2, do_sample=False).shape[0] == 1


def test_a_second_call_returns_the_cached_directory(parts, canvases, cache, folder):
    from unidpo_mm_quickstart.vlm import assemble_vlm

    written = (folder / "config.json").stat().st_mtime_ns
    assert assemble_vlm(parts, canvases, cache=cache) == folder
    assert (folder / "config.json").stat().st_mtime_ns == written


def test_whitened_tokens_have_the_scale_of_word_embeddings(folder, canvases):
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from unidpo_mm_quickstart.projector import tower_features, whiten_projector

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    features = tower_features(model, processor, [canvas.file for canvas in canvases])
    whiten_projector(model, features)
    with torch.no_grad():
        size = float(model.model.multi_modal_projector(features).std())
    assert size == pytest.approx(float(model.get_input_embeddings().weight.std()), rel=0.1)
