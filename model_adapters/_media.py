"""The opened images and videos of a row, and how they are made smaller to fit `max_length`."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unidpo_mm.adapter import AdapterOptions
from unidpo_mm.records import PreferenceRow, SampledVideo

from ._videos import VideoTraits, fewer_frames, sampled_videos, scaled

__all__ = ["OpenedMedia"]


@dataclass(frozen=True)
class OpenedMedia:
    """The opened images and videos of a row.

    Attributes:
        images: The images, each a `PIL.Image.Image`.
        videos: The sampled videos.
        shrunk_images: The number of images that were made smaller.
        shrunk_videos: The number of videos that have fewer or smaller frames.
        scaled_tokens: The number of media tokens before the sizes were last changed.
    """

    images: Sequence[Any] = ()
    videos: Sequence[SampledVideo] = ()
    shrunk_images: int = 0
    shrunk_videos: int = 0
    scaled_tokens: int = 0

    @classmethod
    def of(
        cls, row: PreferenceRow, traits: VideoTraits | None, options: AdapterOptions
    ) -> "OpenedMedia":
        """Open the images and sample the videos of a row."""
        images = [image.open() for image in row.images]
        videos = sampled_videos(row, traits, options) if traits is not None and row.videos else []
        return cls(images, videos)

    def smaller(self, image_tokens: int, video_tokens: int, excess: int) -> "OpenedMedia | None":
        """Return media with fewer tokens; `None` if they cannot have so few.

        Args:
            image_tokens: The number of tokens of the images.
            video_tokens: The number of tokens of the videos.
            excess: The number of tokens to remove.
        """
        current = image_tokens + video_tokens
        target = current - excess
        if target < len(self.images) + len(self.videos):
            return None
        if self.videos and video_tokens:
            fewer = fewer_frames(self.videos, max(video_tokens - excess, 0) / video_tokens)
            if fewer is not None:
                return dataclasses.replace(self, videos=fewer, shrunk_videos=len(fewer))
        factor = math.sqrt(target / current)
        if current == self.scaled_tokens:
            # an image above the processor's own limit has as many tokens as one at that limit
            factor = min(factor, 0.5)
        return OpenedMedia(
            images=[_resized(image, factor) for image in self.images],
            videos=[scaled(video, factor) for video in self.videos],
            shrunk_images=len(self.images),
            shrunk_videos=len(self.videos),
            scaled_tokens=current,
        )


def _resized(image: Any, factor: float) -> Any:
    width, height = image.size
    return image.resize((max(round(width * factor), 1), max(round(height * factor), 1)))
