"""Model types with videos: equal to the library, in every layout, with shared features."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from builders import (
    gray_frames,
    load_tiny,
    logp_model_of,
    make_clip,
    make_image,
    preflight,
    row,
    write_video,
)
from PIL import ImageOps
from torch import Tensor

from unidpo_mm.adapter import fillers
from unidpo_mm.data.collate import GroupCollator, collate
from unidpo_mm.data.images import MemoryImage
from unidpo_mm.data.videos import FileVideo, FramesVideo
from unidpo_mm.errors import DataError, ModelError, RowTooLong
from unidpo_mm.inference.decoding import Decoding
from unidpo_mm.inference.generation import generate_responses
from unidpo_mm.kernels.packing import enable_packing
from unidpo_mm.modeling.load import LoadedModel
from unidpo_mm.modeling.logp_model import compute_logps
from unidpo_mm.modeling.parts import freeze_parts
from unidpo_mm.modeling.vision import Features, MediaFeatures
from unidpo_mm.records import PreferenceRow
from unidpo_mm.training.console import data_lines

Checkpoint = Callable[[str], Path]

STATEFUL = ("qwen3_5", "qwen3_5_moe")
FAST = ("qwen2_5_vl", "qwen3_vl", "llava_onevision", "internvl", "smolvlm")
SLOW = ("qwen2_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")


def types(*fast: str) -> pytest.MarkDecorator:
    """Return a test for every type, slow for all but some."""
    names = [pytest.param(name, marks=pytest.mark.slow) for name in FAST + SLOW if name not in fast]
    return pytest.mark.parametrize("model_type", [*fast, *names])


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


@types(*FAST)
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


@types("qwen2_5_vl", "smolvlm")
def test_another_frame_changes_the_log_probs(loaded: LoadedModel, model_type: str) -> None:
    for example in rows_of(model_type)[:3]:
        for place in range(len(example.videos)):
            other = with_other_video(example, place)
            difference = logps_of(loaded, [example]) - logps_of(loaded, [other])
            assert difference.abs().max() > 1e-3, (example.id, place)


@types("qwen3_vl", "llava_onevision")
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


@types("qwen2_5_vl", "internvl")
def test_responses_do_not_depend_on_the_batch(loaded: LoadedModel, model_type: str) -> None:
    adapter, decoding = loaded.adapter, Decoding(max_new_tokens=3)
    prompts = [adapter.encode_prompt(example) for example in rows_of(model_type)]
    together = generate_responses(loaded.model, adapter, prompts, decoding, device="cpu")
    for prompt, response in zip(prompts, together, strict=True):
        (alone,) = generate_responses(loaded.model, adapter, [prompt], decoding, device="cpu")
        assert alone == response


# ---- rows that are refused, limits and lengths ----


@pytest.mark.parametrize("model_type", ["glm4v", "llama"])
def test_models_without_videos_refuse_them(checkpoint: Checkpoint, model_type: str) -> None:
    adapter = load_tiny(checkpoint(model_type)).adapter
    with pytest.raises(DataError) as error:
        adapter.encode(row("r", "What?", ("a", "b"), videos=[make_clip(1, 4)]))
    (problem,) = error.value.problems
    assert problem.where == "data.jsonl row r, field 'videos'"
    reason = "has no vision tower" if model_type == "llama" else "are not supported with videos"
    assert reason in problem.message
    with pytest.raises(ModelError, match=r"model.video_max_pixels: it is 9 and "):
        load_tiny(checkpoint(model_type), video_max_pixels=9)


def test_smolvlm_refuses_a_row_with_an_image_and_a_video(checkpoint: Checkpoint) -> None:
    adapter = load_tiny(checkpoint("smolvlm")).adapter
    both = row("r", "What?", ("a", "b"), images=[make_image(1)], videos=[make_clip(1, 4)])
    with pytest.raises(DataError, match="images and videos, of which smolvlm models take one kind"):
        adapter.encode(both)


@pytest.mark.parametrize(
    ("model_type", "token"), [("qwen2_5_vl", "<|video_pad|>"), ("internvl", "<video>")]
)
def test_the_placeholder_of_a_video_is_no_text(
    checkpoint: Checkpoint, model_type: str, token: str
) -> None:
    adapter = load_tiny(checkpoint(model_type)).adapter
    with pytest.raises(DataError, match=r"stands for an image or a video|1 placeholders for 0 vid"):
        adapter.encode(row("r", f"What is {token}?", ("a", "b")))
    with pytest.raises(DataError, match="2 placeholders for 1 videos"):
        adapter.encode(row("r", f"What is {token}?", ("a", "b"), videos=[make_clip(1, 4)]))


def test_the_videos_of_a_row_get_equal_lengths_where_the_processor_needs_it(
    checkpoint: Checkpoint,
) -> None:
    two = row("r", "What?", ("a", "b"), videos=[make_clip(1, 6), make_clip(9, 3)])
    group = load_tiny(checkpoint("internvl")).adapter.encode(two)
    assert group.images.inputs["pixel_values"].shape[0] == group.images.entries == 3 + 3
    group = load_tiny(checkpoint("llava_onevision"), video_max_frames=4).adapter.encode(two)
    assert group.videos.inputs["pixel_values_videos"].shape[:2] == (2, 4)


def test_timestamps_follow_the_sampled_frames(checkpoint: Checkpoint, tmp_path: Path) -> None:
    clip = FileVideo(write_video(tmp_path / "clip.mp4", gray_frames(40)), "here")  # 4 seconds
    example = dataclasses.replace(
        row("r", "What?", ("a", "b"), videos=[make_clip(1, 4)]), videos=(clip,)
    )
    for fps, seconds in ((2.0, "<0.3 seconds>"), (1.0, "<0.7 seconds>")):
        adapter: Any = load_tiny(checkpoint("qwen3_vl"), video_fps=fps).adapter
        text = adapter.tokenizer.decode(adapter.encode(example).prompt_ids)
        assert seconds in text
        other: Any = load_tiny(checkpoint("qwen2_5_vl"), video_fps=fps).adapter
        group = other.encode(example)
        (step,) = group.videos.inputs["second_per_grid_ts"].tolist()
        assert step == pytest.approx(2 / fps)


def test_larger_frames_are_scaled_down(checkpoint: Checkpoint) -> None:
    example = row("r", "What?", ("a", "b"), videos=[make_clip(1, 4, (200, 120))])
    for model_type, patch in (("qwen2_vl", 14), ("qwen3_vl", 16)):
        adapter = load_tiny(checkpoint(model_type), video_max_pixels=5000).adapter
        grid = adapter.encode(example).videos.inputs["video_grid_thw"][0]
        assert 0 < int(grid[1] * grid[2]) * patch**2 <= 5000
        unlimited = load_tiny(checkpoint(model_type)).adapter.encode(example)
        assert unlimited.videos.tokens > adapter.encode(example).videos.tokens
    with pytest.raises(ModelError, match="frames of a fixed size"):
        load_tiny(checkpoint("internvl"), video_max_pixels=5000)


def longest(group: Any) -> int:
    return int(group.prompt_ids.numel() + max(ids.numel() for ids in group.response_ids))


def test_a_long_row_gets_fewer_frames_and_then_smaller_ones(checkpoint: Checkpoint) -> None:
    folder = checkpoint("qwen2_5_vl")
    example = row(
        "r",
        "What happens?",
        ("A red square", "Blue"),
        images=[make_image(1, (80, 80))],
        videos=[make_clip(1, 12, (80, 80))],
    )
    unlimited = load_tiny(folder).adapter.encode(example)
    frames = int(unlimited.videos.inputs["video_grid_thw"][0, 0])
    assert (frames, unlimited.videos.shrunk, unlimited.images.shrunk) == (6, 0, 0)
    per_frame = unlimited.videos.tokens // frames

    def encoded(limit: int, policy: str = "shrink_image") -> Any:
        return load_tiny(folder, max_length=limit, length_policy=policy).adapter.encode(example)

    fewer = encoded(longest(unlimited) - 1)
    assert longest(fewer) < longest(unlimited)
    assert int(fewer.videos.inputs["video_grid_thw"][0, 0]) == frames - 1
    assert (fewer.videos.shrunk, fewer.images.shrunk) == (1, 0)
    assert fewer.images.tokens == unlimited.images.tokens
    times = fewer.videos.inputs["second_per_grid_ts"]
    assert times > unlimited.videos.inputs["second_per_grid_ts"]  # the clip is as long as before
    smaller = encoded(longest(unlimited) - per_frame * (frames - 2) - 3)
    assert int(smaller.videos.inputs["video_grid_thw"][0, 0]) == 2  # at least four frames
    assert (smaller.videos.shrunk, smaller.images.shrunk) == (1, 1)
    assert smaller.images.tokens + smaller.videos.tokens < unlimited.images.tokens + 2 * per_frame
    with pytest.raises(RowTooLong) as error:
        encoded(longest(unlimited) - 1, "error")
    (problem,) = error.value.problems
    assert f"{unlimited.videos.tokens} of them video tokens" in problem.message
    assert "lower data.video_max_frames" in problem.remedy
    with pytest.raises(RowTooLong):
        encoded(longest(unlimited) - unlimited.videos.tokens - unlimited.images.tokens)


def test_shortened_videos_are_counted_and_reported(checkpoint: Checkpoint) -> None:
    example = row("r", "What?", ("a", "b"), videos=[make_clip(1, 12, (80, 80))])
    unlimited = load_tiny(checkpoint("qwen2_5_vl")).adapter.encode(example)
    limit = longest(unlimited) - 1
    adapter = load_tiny(
        checkpoint("qwen2_5_vl"), max_length=limit, length_policy="shrink_image"
    ).adapter
    counts = preflight([example], adapter)
    assert (counts.videos, counts.shortened_videos) == (1, 1)
    parts: Any = SimpleNamespace(preflight=counts, eval_rows=(), stream=None)
    args: Any = SimpleNamespace(max_length=limit)
    lines = data_lines(parts, args)
    note = f"1 of 1 video is given fewer or smaller frames to fit max_length {limit}"
    assert any(note in line for line in lines)
    assert "1 video, " in lines[0]
    again = preflight([example], adapter)  # from the index of rows
    assert again.shortened_videos == 1


def test_a_run_with_videos_has_a_filler_for_each_kind_of_features(checkpoint: Checkpoint) -> None:
    expected = {
        "qwen2_5_vl": {"image", "video"},
        "internvl": {"image"},
        "llava": {"image"},
        "llama": set(),
    }
    for model_type, kinds in expected.items():
        adapter = load_tiny(checkpoint(model_type)).adapter
        assert set(fillers(adapter, videos=True)) == kinds, model_type
        assert set(fillers(adapter, videos=False)) == kinds - {"video"}
    loaded = load_tiny(checkpoint("qwen2_5_vl"))
    collator = GroupCollator(
        pad_token_id=loaded.adapter.pad_token_id, fillers=fillers(loaded.adapter, videos=True)
    )
    rows = rows_of("qwen2_5_vl")
    for example, added in ((rows[0], 1), (rows[2], 0), (rows[3], 1), (rows[4], 2)):
        batch = collator([loaded.adapter.encode(example)])["batch"]
        assert batch.pairs.weight.tolist() == [1.0] + [0.0] * added
        assert set(batch.inputs.media) == {"image", "video"}
