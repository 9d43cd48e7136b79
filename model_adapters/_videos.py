"""Videos of rows: their sampled frames, in the sizes and numbers that a model type takes."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unidpo_mm.adapter import AdapterOptions
from unidpo_mm.errors import DataError, ModelError, Problem
from unidpo_mm.records import FrameSampling, PreferenceRow, SampledVideo

__all__ = [
    "BlankVideo",
    "VideoTraits",
    "check_video_options",
    "fewer_frames",
    "frame_sampling",
    "refuse_videos",
    "sampled_videos",
    "scaled",
    "video_arguments",
    "with_small_frames",
]

FEWEST_FRAMES = 4
"""Minimum number of frames of a video that is made shorter to fit `max_length`."""


@dataclass(frozen=True, kw_only=True)
class VideoTraits:
    """Properties of the processor and the models of a type that takes videos.

    Attributes:
        keys: Tensors that the processor returns for videos; empty if it returns frames as images.
        placeholder: The text for a video in a prompt without a chat template.
        step: The number of pixels that the sides of a frame are rounded to; `None` if frames have a
            fixed size.
        exact: Whether all videos must have the same number of frames.
        equal_in_row: Whether the videos of a row must have the same number of frames.
        with_images: Whether a row may contain both images and videos.
    """

    keys: frozenset[str] = frozenset()
    placeholder: str
    step: int | None = None
    exact: bool = False
    equal_in_row: bool = False
    with_images: bool = True


class BlankVideo:
    """Two small gray frames, created when they are sampled."""

    size = (32, 32)

    def sample(self, sampling: FrameSampling) -> SampledVideo:
        """Return the frames."""
        from PIL import Image

        indices = sampling.indices(2, sampling.fps)
        frame = Image.new("RGB", self.size, (128, 128, 128))
        return SampledVideo((frame,) * len(indices), indices, 2, sampling.fps)

    def describe(self) -> str:
        """Return a description for messages."""
        return "a blank filler video"

    def key(self) -> str:
        """Return the same string for every blank video."""
        return "blank"


def check_video_options(traits: VideoTraits | None, options: AdapterOptions, what: str) -> None:
    """Refuse a limit of frame sizes that has no meaning for a model type.

    Raises:
        ModelError: If it is set and frames are not resized, or videos not supported.
    """
    limit = options.video_max_pixels
    if limit is not None and (traits is None or traits.step is None):
        reason = "has no support for videos" if traits is None else "has frames of a fixed size"
        problem = f"it is {limit} and a {what} model {reason}"
        raise ModelError(Problem("model.video_max_pixels", problem, "Remove it"))


def refuse_videos(row: PreferenceRow, traits: VideoTraits | None, what: str) -> None:
    """Refuse a row with videos if its model type does not take it.

    Raises:
        DataError: If videos are not supported, or not together with images.
    """
    if not row.videos:
        return
    where = f"{row.where}, field 'videos'"
    if traits is None:
        problem = f"the row has {len(row.videos)} video(s), and {what} models are not supported "
        problem += "with videos"
        remedy = "Choose a model of a type with videos (unidpo-mm list models), or remove the row"
        raise DataError(Problem(where, problem, remedy))
    if row.images and not traits.with_images:
        problem = f"the row has images and videos, of which {what} models take one kind at a time"
        remedy = "Use images or videos only, or choose another model"
        raise DataError(Problem(where, problem, remedy))


def frame_sampling(traits: VideoTraits | None, options: AdapterOptions) -> FrameSampling:
    """Return how frames are sampled."""
    exact = traits is not None and traits.exact
    return FrameSampling(options.video_fps, options.video_max_frames, exact)


def sampled_videos(
    row: PreferenceRow, traits: VideoTraits, options: AdapterOptions
) -> list[SampledVideo]:
    """Return the sampled frames of a row's videos.

    Raises:
        DataError: If videos cannot be read; with the problems of all of them.
    """
    sampling = frame_sampling(traits, options)
    videos: list[SampledVideo] = []
    problems: list[Problem] = []
    kind: type[DataError] = DataError
    for video in row.videos:
        try:
            videos.append(_limited(video.sample(sampling), traits, options.video_max_pixels))
        except DataError as error:
            problems += error.problems
            kind = type(error)
    if problems:
        raise kind(problems)
    if traits.equal_in_row:
        fewest = min(len(video.frames) for video in videos)
        videos = [
            video if len(video.frames) == fewest else video.thinned(fewest) for video in videos
        ]
    return videos


def _limited(video: SampledVideo, traits: VideoTraits, max_pixels: int | None) -> SampledVideo:
    """Return a video whose frames have at most a number of pixels."""
    width, height = video.frames[0].size
    if max_pixels is None or traits.step is None or width * height <= max_pixels:
        return video
    factor = math.sqrt(max_pixels / (width * height))
    size = [max(int(side * factor) // traits.step, 1) * traits.step for side in (width, height)]
    return video.with_frames([frame.resize(size) for frame in video.frames])


def fewer_frames(videos: Sequence[SampledVideo], share: float) -> list[SampledVideo] | None:
    """Return videos with a share of their frames; `None` if none can have fewer.

    Args:
        videos: The videos.
        share: The share of their tokens that fits.
    """
    counts = [len(video.frames) for video in videos]
    fewer = [min(count, max(int(count * share), FEWEST_FRAMES)) for count in counts]
    if fewer == counts:
        fewer = [max(count - 1, min(count, FEWEST_FRAMES)) for count in counts]
    if fewer == counts:
        return None
    return [video.thinned(count) for video, count in zip(videos, fewer, strict=True)]


def scaled(video: SampledVideo, factor: float) -> SampledVideo:
    """Return a video with frames whose sides are multiplied by a factor."""
    width, height = video.frames[0].size
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    return video.with_frames([frame.resize(size) for frame in video.frames])


def video_arguments(videos: Sequence[SampledVideo]) -> dict[str, Any]:
    """Return the arguments of a processor for videos; frames are sampled already."""
    if not videos:
        return {}
    return {
        "videos": [list(video.frames) for video in videos],
        "video_metadata": [video.metadata for video in videos],
        "do_sample_frames": False,
    }


def with_small_frames(processor: Any, max_pixels: int | None) -> Any:
    """Return a processor that does not enlarge frames beyond a number of pixels."""
    size = dict(processor.video_processor.size) if max_pixels is not None else {}
    if max_pixels is None or (size.get("shortest_edge") or 0) <= max_pixels:
        return processor
    limited = copy.copy(processor)
    limited.video_processor = copy.deepcopy(processor.video_processor)
    limited.video_processor.size = {**size, "shortest_edge": max_pixels}
    return limited
