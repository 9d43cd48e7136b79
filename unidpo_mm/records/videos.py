"""Videos of prompts: references to them, and their sampled frames."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["FrameSampling", "SampledVideo", "VideoRef"]

FEWEST_SAMPLED = 4
"""Number of frames of clips for which `fps` gives fewer."""
FEWEST = 2
"""Number of frames of any video: models with temporal patches take two frames at a time."""


@dataclass(frozen=True)
class FrameSampling:
    """How many frames of a video are used, spread evenly over the whole clip.

    Attributes:
        fps: Frames per second.
        max_frames: Maximum number of frames; longer clips get fewer frames per second.
        exact: Whether every video has exactly `max_frames` frames, for models that accept videos of
            one length only; shorter clips repeat frames.
    """

    fps: float = 2.0
    max_frames: int = 32
    exact: bool = False

    def indices(self, total: int, fps: float) -> tuple[int, ...]:
        """Return the indices of the sampled frames.

        Args:
            total: Number of frames of the clip.
            fps: Frames per second of the clip.
        """
        count = min(max(int(total / fps * self.fps), FEWEST_SAMPLED), self.max_frames, total)
        return _spread(total, self.max_frames if self.exact else max(count, FEWEST))


def _spread(total: int, count: int) -> tuple[int, ...]:
    """Return `count` indices from the first to the last of `total` frames."""
    import numpy

    indices: list[int] = numpy.linspace(0, total - 1, count).round().astype(int).tolist()
    return tuple(indices)


@dataclass(frozen=True)
class SampledVideo:
    """Sampled frames of a video.

    Attributes:
        frames: The frames, each a `PIL.Image.Image` in RGB.
        indices: The index of each frame in the clip.
        total: Number of frames of the clip.
        fps: Frames per second of the clip.
    """

    frames: tuple[Any, ...]
    indices: tuple[int, ...]
    total: int
    fps: float

    def thinned(self, count: int) -> "SampledVideo":
        """Return the video with `count` of its frames, spread evenly."""
        kept = _spread(len(self.frames), count)
        return dataclasses.replace(
            self,
            frames=tuple(self.frames[number] for number in kept),
            indices=tuple(self.indices[number] for number in kept),
        )

    def with_frames(self, frames: Sequence[Any]) -> "SampledVideo":
        """Return the video with other images at the same times."""
        return dataclasses.replace(self, frames=tuple(frames))

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata from which processors compute timestamps."""
        return {
            "total_num_frames": self.total,
            "fps": self.fps,
            "duration": self.total / self.fps,
            "frames_indices": list(self.indices),  # some processors change the list
        }


class VideoRef(Protocol):
    """A video that is decoded when it is used, so that rows stay small."""

    def sample(self, sampling: FrameSampling) -> SampledVideo:
        """Return sampled frames; raise `DataError` if the video cannot be read."""
        ...

    def describe(self) -> str:
        """Return a name of the video for messages."""
        ...

    def key(self) -> str:
        """Return a string that is equal for equal videos."""
        ...
