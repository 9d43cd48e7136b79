"""Open every distinct video once: lengths, sizes, problems and content hashes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..data.images import in_threads
from ..data.row_table import columns_of
from ..data.videos import video_identity
from ..errors import DataError, Problem
from ..records import FrameSampling, PreferenceRow, VideoRef
from .numbers import optional_summary
from .report import VideoReport

__all__ = ["VideoProbe", "probe_videos", "video_report"]


@dataclass(frozen=True)
class VideoProbe:
    """A video that was opened.

    Attributes:
        key: Hash of its content; empty if it is broken.
        seconds: Its length.
        frames: The number of frames that a run samples.
        size: Width and height of a frame.
        problems: Why it cannot be opened.
    """

    key: str = ""
    seconds: float = 0.0
    frames: int = 0
    size: tuple[int, int] = (0, 0)
    problems: tuple[Problem, ...] = ()


def probe_videos(rows: Sequence[PreferenceRow], sampling: FrameSampling) -> dict[str, VideoProbe]:
    """Return a probe of each distinct video of rows by its identity; only two frames are decoded.

    Args:
        rows: The rows.
        sampling: How a run samples frames.
    """
    distinct = {video_identity(video): video for row in rows for video in row.videos}
    few = FrameSampling(sampling.fps, max_frames=2)

    def probe(video: VideoRef) -> VideoProbe:
        try:
            sampled = video.sample(few)
        except DataError as error:
            return VideoProbe(problems=error.problems)
        return VideoProbe(
            key=video.key(),
            seconds=sampled.total / sampled.fps,
            frames=len(sampling.indices(sampled.total, sampled.fps)),
            size=sampled.frames[0].size,
        )

    return dict(zip(distinct, in_threads(probe, distinct.values()), strict=True))


def video_report(rows: Sequence[PreferenceRow], probes: dict[str, VideoProbe]) -> VideoReport:
    """Return the report of the videos of rows."""
    intact = {probe.key: probe for probe in probes.values() if not probe.problems}
    return VideoReport(
        per_row=dict(sorted(Counter(columns_of(rows).videos.tolist()).items())),
        distinct=len(intact),
        seconds=optional_summary([probe.seconds for probe in intact.values()]),
        frames=optional_summary([probe.frames for probe in intact.values()]),
        megapixels=optional_summary(
            [width * height / 1e6 for width, height in (probe.size for probe in intact.values())]
        ),
        broken=sum(bool(probe.problems) for probe in probes.values()),
    )
