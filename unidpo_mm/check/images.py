"""Open every distinct image and video once: sizes, formats, problems and content hashes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..data.images import FileImage, distinct_images, identity, in_threads
from ..data.row_table import columns_of
from ..data.videos import video_identity
from ..errors import DataError, Problem
from ..records import FrameSampling, ImageRef, PreferenceRow
from .numbers import optional_summary
from .report import ImageReport, VideoReport
from .videos import VideoProbe, probe_videos, video_report

__all__ = ["MediaInspection", "inspect_media"]


@dataclass
class MediaInspection:
    """Results of opening the images and videos of rows.

    Attributes:
        images, videos: Counts and sizes.
        problems: A problem for each use of an image or a video that cannot be opened.
        keys: Identity of an image or a video -> hash of its content, or a unique key if it is
            broken.
        broken: Indices of the rows with broken images or videos.
    """

    images: ImageReport
    videos: VideoReport
    problems: list[Problem] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    broken: set[int] = field(default_factory=set)

    def keys_of(self, row: PreferenceRow) -> tuple[str, ...]:
        """Return the hashes of a row's images and videos."""
        return tuple(self.keys[name] for name in _names(row)[: len(row.media)])


@dataclass(frozen=True)
class _ImageProbe:
    key: str = ""
    size: tuple[int, int] = (0, 0)
    format: str = ""
    problems: tuple[Problem, ...] = ()


def inspect_media(rows: Sequence[PreferenceRow], sampling: FrameSampling) -> MediaInspection:
    """Open all images and videos of rows, each distinct one once.

    Args:
        rows: The rows.
        sampling: How a run samples frames of videos.
    """
    distinct = distinct_images(rows, identity)
    images = dict(zip(distinct, in_threads(_probe, distinct.values()), strict=True))
    videos = probe_videos(rows, sampling)
    probes: dict[str, _ImageProbe | VideoProbe] = {**videos, **images}
    keys = {name: probe.key or f"unreadable {name}" for name, probe in probes.items()}
    inspection = MediaInspection(_report(rows, images), video_report(rows, videos), keys=keys)
    for number, row in enumerate(rows):
        for media, name in zip(row.all_media, _names(row), strict=True):
            for problem in probes[name].problems:
                where = getattr(media, "where", problem.where)
                inspection.problems.append(Problem(where, problem.message, problem.remedy))
                inspection.broken.add(number)
    return inspection


def _names(row: PreferenceRow) -> list[str]:
    """Return the identities of all media of a row."""
    images, other = map(identity, row.images), map(identity, row.other_images)
    return [*images, *map(video_identity, row.videos), *other]


def _probe(image: ImageRef) -> _ImageProbe:
    try:
        opened = image.open()
    except DataError as error:
        return _ImageProbe(problems=error.problems)
    return _ImageProbe(key=image.key(), size=opened.size, format=_format(image))


def _format(image: ImageRef) -> str:
    from PIL import Image

    if not isinstance(image, FileImage):
        return "in memory"
    with Image.open(image.path) as opened:
        return opened.format or "unknown"


def _report(rows: Sequence[PreferenceRow], probes: dict[str, _ImageProbe]) -> ImageReport:
    intact = {probe.key: probe for probe in probes.values() if not probe.problems}
    sizes = [probe.size for probe in intact.values()]
    return ImageReport(
        per_row=dict(sorted(Counter(columns_of(rows).images.tolist()).items())),
        distinct=len(intact),
        width=optional_summary([width for width, _ in sizes]),
        height=optional_summary([height for _, height in sizes]),
        megapixels=optional_summary([width * height / 1e6 for width, height in sizes]),
        formats=dict(Counter(probe.format for probe in intact.values()).most_common()),
        broken=sum(bool(probe.problems) for probe in probes.values()),
    )
