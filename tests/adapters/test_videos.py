"""Model types with videos: equal to the library, in every layout, with shared features."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import load_tiny, logp_model_of, make_clip, make_image, row
from PIL import ImageOps
from torch import Tensor

from unidpo_mm.data.collate import collate
from unidpo_mm.data.images import MemoryImage
from unidpo_mm.data.videos import FramesVideo
from unidpo_mm.inference.decoding import Decoding
from unidpo_mm.inference.generation import generate_responses
from unidpo_mm.kernels.packing import enable_packing
from unidpo_mm.modeling.load import LoadedModel
from unidpo_mm.modeling.logp_model import compute_logps
from unidpo_mm.modeling.parts import freeze_parts
from unidpo_mm.modeling.vision import Features, MediaFeatures
from unidpo_mm.records import PreferenceRow

Checkpoint = Callable[[str], Path]

STATEFUL = ("qwen3_5", "qwen3_5_moe")
FAST = ("qwen2_5_vl", "qwen3_vl", "llava_onevision", "internvl", "smolvlm")
SLOW = ("qwen2_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")

every_type = pytest.mark.parametrize(
    "model_type", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
FRAMES = 5
"""Maximum number of frames, which the library gets too; LLaVA-OneVision takes no other number."""


@pytest.fixture
def loaded(checkpoint: Checkpoint, model_type: str) -> LoadedModel:
    tiny = load_tiny(checkpoint(model_type), video_max_frames=FRAMES)
    tiny.model.eval()
    return tiny


def rows_of(model_type: str) -> list[PreferenceRow]:
    """Return rows with a video, two videos, a video and an image, one image, and no media."""
    lengths = (5, 5) if model_type in ("llava_onevision", "internvl", "smolvlm") else (5, 2)
    clip = make_clip(1, FRAMES)
    rows = [
        row("video", "What happens?", ("A red square", "Blue"), videos=[clip]),
        row(
            "two",
            "How many?",
            ("Two videos here", "One", "There are 12"),
            (3.0, 1.0, 2.0),
            videos=[make_clip(20 + n, length, (40, 72)) for n, length in enumerate(lengths)],
        ),
        row("both", "Same?", ("No", "It is"), images=[make_image(7)], videos=[make_clip(9, 5)]),
        row("image", "What is it?", ("The answer is 8.", "7"), images=[make_image(4, (70, 60))]),
        row("none", "Write one word.", ("Hello, world!", "Two circle")),
    ]
    return [rows[0], rows[1], *rows[3:]] if model_type == "smolvlm" else rows


def frames_of(video: Any) -> list[Any]:
    return [frame.open() for frame in video.frames]


def library_inputs(processor: Any, example: PreferenceRow, response: str) -> dict[str, Tensor]:
    """Return what the processor returns for a conversation, with the frames at 2 per second."""
    parts = [{"type": "image"}] * len(example.images) + [{"type": "video"}] * len(example.videos)
    texts = [part for part in example.messages[0].parts if isinstance(part, str)]
    turns = [
        {"role": "user", "content": [*parts, {"type": "text", "text": texts[0]}]},
        {"role": "assistant", "content": [{"type": "text", "text": response}]},
    ]
    text = processor.apply_chat_template(
        turns, chat_template=processor.chat_template, tokenize=False
    )
    settings: dict[str, Any] = {"text": [text], "add_special_tokens": False}
    if example.images:
        settings["images"] = [[image.open() for image in example.images]]
    if example.videos:
        videos = [frames_of(video) for video in example.videos]
        settings["videos"] = videos
        settings["video_metadata"] = [
            {
                "total_num_frames": len(video),
                "fps": 2.0,
                "duration": len(video) / 2,
                "frames_indices": list(range(len(video))),
            }
            for video in videos
        ]
        settings["do_sample_frames"] = False
    return dict(processor(**settings, return_tensors="pt"))


def library_logps(loaded: LoadedModel, example: PreferenceRow) -> Tensor:
    """Return the log-probs of the responses to a row, each by a forward pass of its own."""
    model: Any = loaded.model
    group = loaded.adapter.encode(example)
    start, logps = group.prompt_ids.numel(), []
    for response, ids in zip(example.responses, group.response_ids, strict=True):
        inputs = library_inputs(loaded.adapter.processor, example, response.text)
        expected = inputs["input_ids"][0].tolist()
        tokens = [*group.prompt_ids.tolist(), *ids.tolist()]
        assert expected[: len(tokens)] == tokens
        with torch.no_grad():
            logits = model(**inputs).logits[0].log_softmax(-1)
        logps.append(logits[torch.arange(start - 1, start - 1 + len(ids)), ids])
    return torch.cat(logps)


def logps_of(loaded: LoadedModel, rows: list[PreferenceRow], **options: Any) -> Tensor:
    media = options.pop("media", None)
    groups = [loaded.adapter.encode(example) for example in rows]
    batch = collate(groups, pad_token_id=loaded.adapter.pad_token_id, **options)
    with torch.no_grad():
        return compute_logps(logp_model_of(loaded), loaded.adapter, batch, media)


def with_other_video(example: PreferenceRow, place: int) -> PreferenceRow:
    """Return a row in which the last frame of a video is inverted."""
    videos: list[Any] = list(example.videos)
    *frames, last = frames_of(videos[place])
    frames.append(ImageOps.invert(last))
    videos[place] = FramesVideo(tuple(MemoryImage(frame, "here") for frame in frames))
    return dataclasses.replace(example, videos=tuple(videos))


@every_type
def test_a_mixed_batch_equals_the_library_row_by_row(loaded: LoadedModel, model_type: str) -> None:
    rows = rows_of(model_type)
    expected = torch.cat([library_logps(loaded, example) for example in rows])
    torch.testing.assert_close(logps_of(loaded, rows), expected, rtol=0, atol=1e-5)
    for side in ("left", "right"):
        once = logps_of(loaded, rows, media_once=True, padding_side=side)
        torch.testing.assert_close(once, expected, rtol=0, atol=1e-5)
    if model_type not in STATEFUL:
        assert enable_packing(loaded.model) is None
        for layout in ("packed", "joined"):
            logps = logps_of(loaded, rows, layout=layout)
            torch.testing.assert_close(logps, expected, rtol=0, atol=1e-5)


@every_type
def test_another_frame_changes_the_log_probs(loaded: LoadedModel, model_type: str) -> None:
    for example in rows_of(model_type)[:3]:
        for place in range(len(example.videos)):
            other = with_other_video(example, place)
            difference = logps_of(loaded, [example]) - logps_of(loaded, [other])
            assert difference.abs().max() > 1e-3, (example.id, place)


@every_type
def test_stored_features_replace_images_and_videos(loaded: LoadedModel, model_type: str) -> None:
    freeze_parts(loaded.model, loaded.family, None)
    rows = rows_of(model_type)
    expected = logps_of(loaded, rows, media_once=True)
    shared, again = MediaFeatures(), MediaFeatures()
    logps = logps_of(loaded, rows, media_once=True, media=shared)
    torch.testing.assert_close(logps, expected, rtol=0, atol=1e-5)
    frames_are_images = model_type in ("internvl", "smolvlm")
    assert set(shared.outputs) == ({"image"} if frames_are_images else {"image", "video"})
    for kind, output in shared.outputs.items():
        groups = [loaded.adapter.encode(example) for example in rows]
        counts = [group.media[kind].entries for group in groups if group.media_inputs(kind)]
        starts = [sum(counts[:number]) for number in range(len(counts))]
        stored = [
            output.tensors(range(start, start + count))
            for start, count in zip(starts, counts, strict=True)
        ]
        again.outputs[kind] = Features.of_tensors(stored, counts, torch.device("cpu"))
    logps = logps_of(loaded, rows, media_once=True, media=again)
    torch.testing.assert_close(logps, expected, rtol=0, atol=1e-5)


@every_type
def test_responses_do_not_depend_on_the_batch(loaded: LoadedModel, model_type: str) -> None:
    adapter, decoding = loaded.adapter, Decoding(max_new_tokens=3)
    prompts = [adapter.encode_prompt(example) for example in rows_of(model_type)]
    together = generate_responses(loaded.model, adapter, prompts, decoding, device="cpu")
    for prompt, response in zip(prompts, together, strict=True):
        (alone,) = generate_responses(loaded.model, adapter, [prompt], decoding, device="cpu")
        assert alone == response
