"""Opens every different image once: sizes, kinds, what is broken, and what is in it as a hash."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

from ..data.images import FileImage, identity, unreadable_key
from ..errors import DataError, Problem
from ..records import ImageRef, PreferenceRow
from .numbers import summary
from .report import ImageReport

__all__ = ["Seen", "look_at_images"]

AHEAD = 256
"""Images that are under way at once: memory stays flat over any number of rows."""


@dataclass
class Seen:
    """What is known of the images of rows.

    Attributes:
        report: Counts and sizes.
        problems: A problem for each use of an image that cannot be opened.
        keys: Name of an image -> hash of its content; of a broken one what only it has.
        broken: Numbers of the rows with such an image.
    """

    report: ImageReport
    problems: list[Problem] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    broken: set[int] = field(default_factory=set)

    def keys_of(self, row: PreferenceRow) -> tuple[str, ...]:
        """Return the hashes of a row's images."""
        return tuple(self.keys[identity(image)] for image in row.images)


@dataclass(frozen=True)
class _Look:
    key: str = ""
    size: tuple[int, int] = (0, 0)
    kind: str = ""
    problems: tuple[Problem, ...] = ()


def look_at_images(rows: Sequence[PreferenceRow]) -> Seen:
    """Return what is to be known of all images of rows, each different one opened once."""
    different: dict[str, ImageRef] = {}
    for row in rows:
        for image in row.images:
            different.setdefault(identity(image), image)
    looks = dict(zip(different, _in_threads(different.values()), strict=True))
    keys = {name: look.key or unreadable_key(name) for name, look in looks.items()}
    seen = Seen(_report(rows, looks), keys=keys)
    for number, row in enumerate(rows):
        for image in row.images:
            for problem in looks[identity(image)].problems:
                where = getattr(image, "where", row.where)
                seen.problems.append(Problem(where, problem.message, problem.remedy))
                seen.broken.add(number)
    return seen


def _in_threads(images: Iterable[ImageRef]) -> Iterator[_Look]:
    """Yield looks in order; Pillow decodes outside of Python's lock."""
    waiting = iter(images)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        while batch := list(islice(waiting, AHEAD)):
            yield from pool.map(_look, batch)


def _look(image: ImageRef) -> _Look:
    try:
        opened = image.open()
    except DataError as error:
        return _Look(problems=error.problems)
    return _Look(key=image.key(), size=opened.size, kind=_kind(image))


def _kind(image: ImageRef) -> str:
    from PIL import Image

    if not isinstance(image, FileImage):
        return "in memory"
    with Image.open(image.path) as opened:
        return opened.format or "unknown"


def _report(rows: Sequence[PreferenceRow], looks: dict[str, _Look]) -> ImageReport:
    whole = {look.key: look for look in looks.values() if not look.problems}
    sizes = [look.size for look in whole.values()]
    return ImageReport(
        per_row=dict(sorted(Counter(len(row.images) for row in rows).items())),
        distinct=len(whole),
        width=summary([width for width, _ in sizes]),
        height=summary([height for _, height in sizes]),
        megapixels=summary([width * height / 1e6 for width, height in sizes]),
        kinds=dict(Counter(look.kind for look in whole.values()).most_common()),
        broken=sum(bool(look.problems) for look in looks.values()),
    )
