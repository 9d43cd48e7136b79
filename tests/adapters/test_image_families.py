"""Every model type with images: equal to the library, in every layout, with shared features."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import EVERY_IMAGE_TYPE, family_name, load_tiny, logp_model_of, make_image, row
from PIL import Image, ImageOps
from torch import Tensor

from unidpo_mm.data.collate import collate
from unidpo_mm.data.images import MemoryImage
from unidpo_mm.errors import DataError
from unidpo_mm.inference.decoding import Decoding
from unidpo_mm.inference.generation import generate_responses
from unidpo_mm.kernels.packing import enable_packing
from unidpo_mm.modeling.load import LoadedModel
from unidpo_mm.modeling.logp_model import compute_logps
from unidpo_mm.modeling.parts import count_parameters, freeze_parts
from unidpo_mm.modeling.vision import Features, MediaFeatures
from unidpo_mm.plugins import load_family
from unidpo_mm.records import PreferenceRow

Checkpoint = Callable[[str], Path]
Unchanged = Callable[[str], LoadedModel]

NEED_IMAGES = ("paligemma",)
"""Types whose processor refuses a row without images."""

FAST = ("internvl", "gemma3", "smolvlm", "paligemma", "kimi_k25", "minicpmv4_6", "ovis2", "glm4v")
"""Types that differ in what these tests compare; the tests of the others are slow."""

every_type = pytest.mark.parametrize(
    "model_type",
    [
        pytest.param(name, marks=() if name in FAST else pytest.mark.slow)
        for name in EVERY_IMAGE_TYPE
    ],
)


@pytest.fixture
def loaded(checkpoint: Checkpoint, model_type: str) -> LoadedModel:
    tiny = load_tiny(checkpoint(model_type))
    tiny.model.eval()
    return tiny


def rows_of(model_type: str) -> list[PreferenceRow]:
    """Return rows with one image, two of different sizes, a wide one and none."""
    rows = [
        row("one", "What is it?", ("A red square", "Blue"), images=[make_image(1)]),
        row(
            "two",
            "How many?",
            ("Two images here", "One", "There are 12"),
            (3.0, 1.0, 2.0),
            images=[make_image(2, (30, 56)), make_image(3, (70, 60))],
        ),
        row("wide", "Compute 3 + 4.", ("7", "The answer is 8."), images=[make_image(4, (120, 30))]),
        row("none", "Write one word.", ("Hello, world!", "Two circle")),
    ]
    return rows[:3] if model_type in NEED_IMAGES else rows


def logps_of(loaded: LoadedModel, rows: list[PreferenceRow], **options: Any) -> Tensor:
    media = options.pop("media", None)
    groups = [loaded.adapter.encode(example) for example in rows]
    batch = collate(groups, pad_token_id=loaded.adapter.pad_token_id, **options)
    with torch.no_grad():
        return compute_logps(logp_model_of(loaded), loaded.adapter, batch, media)


def library_inputs(processor: Any, example: PreferenceRow, response: str) -> dict[str, Any]:
    """Return the inputs of a complete conversation as the model's own processor returns them."""
    tokenizer, settings = processor.tokenizer, {}
    if template := processor.chat_template or tokenizer.chat_template:
        turns = [message.turn() for message in example.messages]
        turns.append({"role": "assistant", "content": [{"type": "text", "text": response}]})
        text = processor.apply_chat_template(turns, chat_template=template, tokenize=False)
        if not text.rstrip().endswith(tokenizer.eos_token):  # GLM's template does not end a turn
            text += tokenizer.eos_token
        starts = tokenizer.bos_token and text.startswith(tokenizer.bos_token)
        settings = {"text": [text], "add_special_tokens": not starts}
    else:  # PaliGemma
        (prompt,) = [part for part in example.messages[0].parts if isinstance(part, str)]
        settings = {"text": ["<image>" * len(example.images) + prompt], "suffix": [response]}
    if example.images:
        settings["images"] = [[image.open() for image in example.images]]
    inputs = processor(**settings, return_tensors="pt")
    return {name: value for name, value in inputs.items() if name != "labels"}


def library_logps(loaded: LoadedModel, example: PreferenceRow) -> Tensor:
    """Return the log-probs of the responses to a row, each by a forward pass of its own."""
    model: Any = loaded.model
    group = loaded.adapter.encode(example)
    start, logps = group.prompt_ids.numel(), []
    for response, ids in zip(example.responses, group.response_ids, strict=True):
        inputs = library_inputs(loaded.adapter.processor, example, response.text)
        expected = inputs["input_ids"][0].tolist()
        tokens = [*group.prompt_ids.tolist(), *ids.tolist()]
        assert expected[: len(tokens)] == tokens[: len(expected)]
        assert 0 <= len(expected) - len(tokens) <= 1  # a line break after the end of the turn
        with torch.no_grad():
            logits = model(**inputs).logits[0].log_softmax(-1)
        logps.append(logits[torch.arange(start - 1, start - 1 + len(ids)), ids])
    return torch.cat(logps)


def with_other_images(example: PreferenceRow, *, first: bool) -> PreferenceRow:
    """Return a row whose first or last image is inverted."""
    place = 0 if first else len(example.images) - 1
    images: list[Any] = list(example.images)
    opened: Image.Image = images[place].open()
    images[place] = MemoryImage(ImageOps.invert(opened), "inverted")
    return dataclasses.replace(example, images=tuple(images))


@every_type
def test_a_mixed_batch_equals_the_library_row_by_row(unchanged: Unchanged, model_type: str) -> None:
    loaded = unchanged(model_type)
    rows = rows_of(model_type)
    logps = logps_of(loaded, rows)
    expected = torch.cat([library_logps(loaded, example) for example in rows])
    torch.testing.assert_close(logps, expected, rtol=0, atol=1e-5)
    for side in ("left", "right"):
        once = logps_of(loaded, rows, media_once=True, padding_side=side)
        torch.testing.assert_close(once, expected, rtol=0, atol=1e-5)


@every_type
def test_another_image_changes_the_log_probs(unchanged: Unchanged, model_type: str) -> None:
    loaded = unchanged(model_type)
    for example in rows_of(model_type)[:3]:
        for first in (True, False):
            other = with_other_images(example, first=first)
            difference = logps_of(loaded, [example]) - logps_of(loaded, [other])
            assert difference.abs().max() > 1e-3, (example.id, first)


@every_type
def test_packed_and_joined_rows_equal_plain_ones(loaded: LoadedModel, model_type: str) -> None:
    rows = rows_of(model_type)
    reason = enable_packing(loaded.model)
    if not load_family(family_name(model_type)).describe(model_type).packs:
        assert reason is not None
        assert "past any mask" in reason
        return
    assert reason is None
    expected = logps_of(loaded, rows)
    for layout in ("packed", "joined"):
        logps = logps_of(loaded, rows, layout=layout)
        torch.testing.assert_close(logps, expected, rtol=0, atol=1e-5)


@every_type
def test_stored_features_replace_the_images(loaded: LoadedModel, model_type: str) -> None:
    freeze_parts(loaded.model, loaded.family, None)
    rows = rows_of(model_type)
    expected = logps_of(loaded, rows, media_once=True)
    shared = MediaFeatures()
    torch.testing.assert_close(
        logps_of(loaded, rows, media_once=True, media=shared), expected, rtol=0, atol=1e-5
    )
    counts = [loaded.adapter.encode(example).images.entries for example in rows if example.images]
    stored, start = [], 0
    for count in counts:
        stored.append(shared.outputs["image"].tensors(range(start, start + count)))
        start += count
    again = MediaFeatures()
    again.outputs["image"] = Features.of_tensors(stored, counts, torch.device("cpu"))
    logps = logps_of(loaded, rows, media_once=True, media=again)
    torch.testing.assert_close(logps, expected, rtol=0, atol=1e-5)


@every_type
def test_responses_do_not_depend_on_the_batch(unchanged: Unchanged, model_type: str) -> None:
    loaded = unchanged(model_type)
    adapter, decoding = loaded.adapter, Decoding(max_new_tokens=4)
    prompts = [adapter.encode_prompt(example) for example in rows_of(model_type)]
    together = generate_responses(loaded.model, adapter, prompts, decoding, device="cpu")
    for prompt, response in zip(prompts, together, strict=True):
        (alone,) = generate_responses(loaded.model, adapter, [prompt], decoding, device="cpu")
        assert alone == response


@every_type
def test_every_weight_has_a_part_and_only_the_language_model_trains(
    loaded: LoadedModel, model_type: str
) -> None:
    freeze_parts(loaded.model, loaded.family, None)
    counts = {count.part: count for count in count_parameters(loaded.model, loaded.family)}
    assert set(counts) == {"vision_tower", "projector", "language_model"}
    model: Any = loaded.model
    decoder = sum(p.numel() for p in model.get_decoder().parameters())
    head = model.get_output_embeddings().weight
    tied = head is model.get_input_embeddings().weight
    assert counts["language_model"].trainable == decoder + (0 if tied else head.numel())
    assert counts["vision_tower"].trainable == counts["projector"].trainable == 0


@pytest.mark.parametrize(
    ("model_type", "token"),
    [("ovis2", "<IMG_ATOM>"), ("gemma3", "<image_soft_token>"), ("qwen2_vl", "<|video_pad|>")],
)
def test_a_text_with_the_token_of_features_is_refused(
    loaded: LoadedModel, model_type: str, token: str
) -> None:
    """The model would look for features of an image that does not exist."""
    for prompt, response in ((f"What is {token}?", "A square"), ("What is it?", f"It is {token}")):
        field = "prompt" if token in prompt else "chosen"
        for images in ((), [make_image(1)]):
            example = row("a", prompt, (response, "Blue"), images=images)
            with pytest.raises(DataError) as error:
                loaded.adapter.encode(example)
            assert f"field '{field}': the text contains '{token}'" in str(error.value)
