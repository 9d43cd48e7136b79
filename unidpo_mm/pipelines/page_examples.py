"""Examples for the page of a run: random pairs, and responses about which scores disagree."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from ..check.examples import THUMBNAIL_SIDE
from ..data.excerpts import prompt_text, thumbnails
from .load import Making
from .prompt_set import MadePrompt
from .response_table import Numbers, ResponseTable
from .run import Made

__all__ = ["Example", "ExampleText", "disagreements", "excerpt", "random_pairs"]

NUMBER = 20
"""Number of examples of each kind."""
MIN_DIFFERENCE = 0.4
"""Smallest difference of ranks by two scores that is a disagreement."""
MAX_IMAGES = 4
"""Maximum number of images of an example."""
MAX_CHARACTERS = 1500
"""Maximum number of characters of a text."""


@dataclass(frozen=True)
class ExampleText:
    """A response of an example.

    Attributes:
        role: ``chosen``, ``rejected`` or ``response``.
        text: The response.
        scores: Name and text of each score.
    """

    role: str
    text: str
    scores: Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Example:
    """An example.

    Attributes:
        id: Id of the prompt or of the response.
        prompt: Text of the prompt.
        images: JPEG files.
        hidden_images: Number of further images.
        gold: The right answer; `None` if there is none.
        note: What is special about it.
        texts: The responses.
    """

    id: str
    prompt: str
    images: Sequence[bytes]
    hidden_images: int
    gold: str | None
    note: str
    texts: Sequence[ExampleText]


def random_pairs(made: Made) -> list[Example]:
    """Return random pairs, at most one per prompt."""
    rows = random.Random(0).sample([*made.rows], min(NUMBER, len(made.rows)))
    examples = []
    for row in rows:
        chosen, rejected = row.pairs[0]
        better, worse = row.rated[chosen].score, row.rated[rejected].score
        scored = better is not None and worse is not None
        examples.append(
            _example(
                row.prompt,
                row.prompt.id,
                f"margin {better - worse:.3g}" if scored else "without scores",  # type: ignore[operator] # both are numbers
                [
                    ExampleText(role, excerpt(row.rated[n].text), _listed(row.scores[n]))
                    for role, n in (("chosen", chosen), ("rejected", rejected))
                ],
            )
        )
    return examples


def disagreements(making: Making, made: Made, table: ResponseTable) -> list[Example]:
    """Return the responses whose ranks by the scores differ most, at most one per prompt.

    Scores that combine others are not compared, nor those that are the same for all responses.
    """
    ranks = {
        name: _ranks(scores)
        for name, scores in table.scores.items()
        if making.scorers[name].upstream() is None and _varies(scores)
    }
    if len(ranks) < 2:
        return []
    stacked = numpy.stack([*ranks.values()])
    differences = stacked.max(axis=0) - stacked.min(axis=0)  # NaN if a score is missing
    order = numpy.argsort(-numpy.nan_to_num(differences, nan=0.0), kind="stable")
    examples: dict[int, Example] = {}
    for place in order.tolist():
        if len(examples) == NUMBER or not differences[place] > MIN_DIFFERENCE:
            break
        index = int(table.prompts[place])
        if index not in examples:
            examples[index] = _disagreement(made, table, place, ranks)
    return [*examples.values()]


def _disagreement(
    made: Made, table: ResponseTable, place: int, ranks: Mapping[str, Numbers]
) -> Example:
    name = table.ids[place]
    values = {score: float(column[place]) for score, column in table.scores.items()}
    positions = ", ".join(f"{score}: rank {column[place]:.0%}" for score, column in ranks.items())
    text = ExampleText("response", excerpt(made.responses[name]["response"]), _listed(values))
    return _example(made.prompts.items[int(table.prompts[place])], name, positions, [text])


def _example(prompt: MadePrompt, name: str, note: str, texts: Sequence[ExampleText]) -> Example:
    media = len(prompt.row.media)
    images = thumbnails(prompt.question, side=THUMBNAIL_SIDE)[:MAX_IMAGES]
    return Example(
        id=name,
        prompt=excerpt(prompt_text(prompt.row)),
        images=images,
        hidden_images=max(media - MAX_IMAGES, 0),
        gold=None if prompt.gold is None else excerpt(prompt.gold),
        note=note,
        texts=texts,
    )


def excerpt(value: Any) -> str:
    """Return a value as text, shortened to `MAX_CHARACTERS`."""
    text = str(value)
    if len(text) <= MAX_CHARACTERS:
        return text
    return f"{text[:MAX_CHARACTERS]} … ({len(text):,} characters)"


def _listed(scores: Mapping[str, float | None]) -> list[tuple[str, str]]:
    return [
        (name, "none" if score is None or score != score else f"{score:.3g}")
        for name, score in scores.items()
    ]


def _varies(scores: Numbers) -> bool:
    return len(numpy.unique(scores[~numpy.isnan(scores)])) > 1


def _ranks(scores: Numbers) -> Numbers:
    """Return the rank of each score from 0 to 1, the mean one for equal scores; NaN for missing."""
    valid = ~numpy.isnan(scores)
    ordered = numpy.sort(scores[valid])
    ranks = numpy.full(len(scores), numpy.nan)
    below, up_to = (numpy.searchsorted(ordered, scores[valid], side) for side in ("left", "right"))
    ranks[valid] = (below + up_to) / (2 * len(ordered))
    return ranks
