"""Builders of small rows, images, models and batches for tests."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from unidpo_mm.adapter import AdapterOptions
from unidpo_mm.data.collate import collate
from unidpo_mm.data.images import MemoryImage
from unidpo_mm.data.preflight import Preflight, survey
from unidpo_mm.data.videos import FramesVideo
from unidpo_mm.errors import DataError
from unidpo_mm.modeling.load import LoadedModel, ModelSource, load_model
from unidpo_mm.modeling.logp_model import LogpModel
from unidpo_mm.modeling.references.kinds import make_reference, resolve_kind
from unidpo_mm.plugins import load_family
from unidpo_mm.records import (
    EncodedGroup,
    GroupBatch,
    MediaSlot,
    Message,
    Pair,
    PairLogps,
    PreferenceRow,
    Response,
    SequenceLogps,
)

TEXT_TYPES = ("llama", "qwen3")
LLAVA_TYPES = ("llava", "llava_next", "llava_onevision")
QWEN_TYPES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
IMAGE_TYPES = LLAVA_TYPES + QWEN_TYPES
"""Types that every test of images runs with; `EVERY_IMAGE_TYPE` has the others, too."""
MODEL_TYPES = TEXT_TYPES + IMAGE_TYPES
EVERY_IMAGE_TYPE = tuple(
    name
    for family in ("llava", "qwen_vl", "image_text")
    for name in load_family(family).model_types
)


def family_name(model_type: str) -> str:
    for name in ("llava", "qwen_vl", "image_text"):
        if model_type in load_family(name).model_types:
            return name
    return "text"


def tiny_checkpoint(folder: Path, model_type: str) -> Path:
    """Write a tiny checkpoint with weights that are large enough to reveal mistakes."""
    import transformers

    family = load_family(family_name(model_type))
    family.tiny(folder, model_type=model_type)
    if family.name == "image_text":  # its weights are scaled already
        return folder
    model = getattr(transformers, family.auto_class).from_pretrained(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(5)
    model.save_pretrained(folder)
    return folder


def load_tiny(folder: Path, *, dtype: str = "float32", **options: Any) -> LoadedModel:
    return load_model(ModelSource(name_or_path=str(folder), dtype=dtype), AdapterOptions(**options))


def logp_model_of(loaded: LoadedModel, *, chunk_size: int = 512) -> LogpModel:
    return LogpModel(loaded.model, chunk_size=chunk_size).eval()


def build_reference(kind: Any, logp_model: LogpModel, adapter: Any) -> Any:
    return make_reference(resolve_kind(kind, logp_model), logp_model, adapter)


def make_image(shade: int = 0, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """Return an image with a gradient, so that shades and places differ."""
    image = Image.new("RGB", size)
    image.putdata(
        [
            ((40 * shade + 5 * x) % 256, (90 * shade + 7 * y) % 256, (x * y + shade) % 256)
            for y in range(size[1])
            for x in range(size[0])
        ]
    )
    return image


def make_clip(shade: int = 0, frames: int = 6, size: tuple[int, int] = (60, 44)) -> list[Any]:
    """Return the frames of a video, which all differ."""
    return [make_image(shade + number, size) for number in range(frames)]


def write_video(
    path: Path, frames: Sequence[Image.Image], *, fps: int = 10, codec: str = "libx264"
) -> Path:
    """Write a video file with a key frame every six frames; return its path."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options={"crf": "4"})
        stream.width, stream.height = frames[0].size
        stream.pix_fmt, stream.gop_size = "yuv420p", 6
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())
    return path


def gray_frames(count: int, size: tuple[int, int] = (64, 48)) -> list[Image.Image]:
    """Return frames whose brightness is 4 times their index, so that they can be recognized."""
    return [Image.new("RGB", size, (4 * number,) * 3) for number in range(count)]


def row(
    name: str = "r1",
    prompt: str | Sequence[Message] = "What is 3 + 4?",
    responses: Sequence[str] = ("The answer is 7.", "Eight"),
    scores: Sequence[float | None] = (4.0, 1.0),
    *,
    images: Sequence[Image.Image] = (),
    videos: Sequence[Sequence[Image.Image]] = (),
    pairs: Sequence[Pair] = (Pair(0, 1),),
    domain: Any = None,
    **fields: Any,
) -> PreferenceRow:
    """Return a row; media come before a plain prompt, a conversation has its own slots.

    Videos are lists of frames.
    """
    if isinstance(prompt, str):
        slots = (MediaSlot("image"),) * len(images) + (MediaSlot("video"),) * len(videos)
        messages: tuple[Message, ...] = (Message("user", (*slots, prompt)),)
    else:
        messages = tuple(prompt)
    settings: dict[str, Any] = {
        "source": "data",
        "where": f"data.jsonl row {name}",
        "raw": isinstance(prompt, str),
        **fields,
    }
    return PreferenceRow(
        id=name,
        domain=domain or ("multimodal" if images or videos else "text"),
        messages=messages,
        images=tuple(MemoryImage(image, "here") for image in images),
        videos=tuple(
            FramesVideo(tuple(MemoryImage(frame, "here") for frame in frames)) for frames in videos
        ),
        responses=tuple(
            Response(text, score) for text, score in zip(responses, scores, strict=True)
        ),
        pairs=tuple(pairs),
        **settings,
    )


def mixed_rows(*, images: bool) -> list[PreferenceRow]:
    """Return text, math and optional image rows, with two and three responses."""
    rows = [
        row("text", "Write one word.", ("Hello, world!", "Two circle"), (4.0, 2.5)),
        row(
            "math",
            "Compute 3 + 4 * 5.",
            ("The answer is 23.", "35", "There are 12, how many?"),
            (5.0, 1.0, 3.0),
            pairs=(Pair(0, 1), Pair(0, 2), Pair(2, 1, 0.5)),
            domain="math",
        ),
        row("long", "Hello " * 20, ("world " * 12 + "!", "?"), (2.0, 2.0)),
    ]
    if images:
        rows += [
            row("one", "What is it?", ("A red square", "Blue"), (4.5, 2.0), images=[make_image(1)]),
            row(
                "two",
                "How many?",
                ("Two images here", "One"),
                (3.0, 1.0),
                images=[make_image(2, (30, 56)), make_image(3)],
            ),
        ]
    return rows


def encoded(loaded: LoadedModel, rows: Sequence[PreferenceRow]) -> list[EncodedGroup]:
    return [loaded.adapter.encode(row_) for row_ in rows]


def batch_of(
    loaded: LoadedModel, rows: Sequence[PreferenceRow], *, padding_side: Any = "right"
) -> GroupBatch:
    return collate(
        encoded(loaded, rows),
        pad_token_id=loaded.adapter.pad_token_id,
        padding_side=padding_side,
    )


def with_inputs(batch: GroupBatch, **changed: Any) -> GroupBatch:
    """Return a batch with other model inputs."""
    return dataclasses.replace(batch, inputs=dataclasses.replace(batch.inputs, **changed))


def side(means: Any, lengths: Any | None = None) -> SequenceLogps:
    """Return differentiable log-probs of responses, of which all tokens have the same."""
    values = torch.as_tensor(means, dtype=torch.float64)
    length = torch.ones_like(values) if lengths is None else torch.as_tensor(lengths).double()
    place = torch.arange(int(length.max()) if len(length) else 0)
    tokens = torch.where(place < length.detach().unsqueeze(-1), values.unsqueeze(-1), 0.0)
    return SequenceLogps(values * length, length.detach(), tokens=tokens)


def pairs_of(
    policy_chosen: Any,
    policy_rejected: Any,
    reference_chosen: Any,
    reference_rejected: Any,
    score_chosen: Any,
    score_rejected: Any,
    *,
    lengths: tuple[Any, Any] | None = None,
    weight: Any = None,
) -> PairLogps:
    chosen, rejected = lengths if lengths is not None else (None, None)
    scores = torch.as_tensor(score_chosen, dtype=torch.float64)
    return PairLogps(
        policy_chosen=side(policy_chosen, chosen),
        policy_rejected=side(policy_rejected, rejected),
        reference_chosen=side(reference_chosen, chosen),
        reference_rejected=side(reference_rejected, rejected),
        score_chosen=scores,
        score_rejected=torch.as_tensor(score_rejected, dtype=torch.float64),
        weight=torch.ones_like(scores) if weight is None else torch.as_tensor(weight).double(),
    )


def relative_difference(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    """Return the relative L2 difference of two sets of gradients."""
    assert left.keys() == right.keys()
    difference = sum(float((left[n] - right[n]).double().square().sum()) for n in left)
    return (difference / sum(float(g.double().square().sum()) for g in left.values())) ** 0.5


def preflight(rows: Sequence[PreferenceRow], adapter: Any, **options: Any) -> Preflight:
    """Return the counts of encoding rows once; raise their problems."""
    counts, problems = survey(rows, adapter, **options)
    if problems:
        raise DataError(problems)
    return counts
