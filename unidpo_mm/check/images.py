"""Open every distinct image once: sizes, formats, problems and content hashes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..data.images import FileImage, distinct_images, identity, in_threads
from ..errors import DataError, Problem
from ..records import ImageRef, PreferenceRow
from .numbers import optional_summary
from .report import ImageReport

__all__ = ["ImageInspection", "inspect_images"]


@dataclass
class ImageInspection:
    """Results of opening the images of rows.

    Attributes:
        report: Counts and sizes.
        problems: A problem for each use of an image that cannot be opened.
        keys: Identity of an image -> hash of its content, or a unique key if it is broken.
        broken: Indices of the rows with broken images.
    """

    report: ImageReport
    problems: list[Problem] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    broken: set[int] = field(default_factory=set)

    def keys_of(self, row: PreferenceRow) -> tuple[str, ...]:
        """Return the hashes of a row's images."""
        return tuple(self.keys[identity(image)] for image in row.images)


@dataclass(frozen=True)
class _ImageProbe:
    key: str = ""
    size: tuple[int, int] = (0, 0)
    format: str = ""
    problems: tuple[Problem, ...] = ()


def inspect_images(rows: Sequence[PreferenceRow]) -> ImageInspection:
    """Open all images of rows, each distinct one once."""
    distinct = distinct_images(rows, identity)
    probes = dict(zip(distinct, in_threads(_probe, distinct.values()), strict=True))
    keys = {name: probe.key or f"unreadable {name}" for name, probe in probes.items()}
    inspection = ImageInspection(_report(rows, probes), keys=keys)
    for number, row in enumerate(rows):
        for image in row.images:
            for problem in probes[identity(image)].problems:
                where = getattr(image, "where", row.where)
                inspection.problems.append(Problem(where, problem.message, problem.remedy))
                inspection.broken.add(number)
    return inspection


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
        per_row=dict(sorted(Counter(len(row.images) for row in rows).items())),
        distinct=len(intact),
        width=optional_summary([width for width, _ in sizes]),
        height=optional_summary([height for _, height in sizes]),
        megapixels=optional_summary([width * height / 1e6 for width, height in sizes]),
        formats=dict(Counter(probe.format for probe in intact.values()).most_common()),
        broken=sum(bool(probe.problems) for probe in probes.values()),
    )
