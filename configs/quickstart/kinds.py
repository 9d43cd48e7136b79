"""Score captions by the kinds of objects that they name: an example of a scorer in one file."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from unidpo_mm.authoring import Candidate, Scorer

KINDS = ("face", "flag", "hand")


@dataclass(frozen=True)
class Kinds(Scorer):
    """Ten times the F1 score of the named kinds, repetitions included, and those of the image.

    Attributes:
        control: ``permuted`` gives the scores of a prompt in random order, ``other_image`` those
            for the image of another prompt.
    """

    control: Literal["none", "permuted", "other_image"] = "none"

    unit = "group"  # the controls need all responses to a prompt
    needs = frozenset({"gold"})
    scale = (0.0, 10.0)
    sees_images = True  # the right caption is that of the image

    def score(self, candidates: Sequence[Candidate]) -> list[float]:
        """Return the scores, which are 0 for captions without one of the kinds."""
        groups = [[*group] for _, group in groupby(candidates, lambda item: item.prompt.id)]
        golds = [str(group[0].gold) for group in groups]
        if self.control == "other_image":
            golds = golds[1:] + golds[:1]
        scores = []
        for group, gold in zip(groups, golds, strict=True):
            values = [f1(item.text, gold) for item in group]
            if self.control == "permuted":
                random.Random(group[0].prompt.id).shuffle(values)
            scores += values
        return scores


def f1(caption: str, right: str) -> float:
    """Return ten times the F1 score of the kinds in a caption."""
    named, expected = caption.split(" and "), right.split(" and ")
    both = sum(min(named.count(kind), expected.count(kind)) for kind in KINDS)
    return 20 * both / (len(named) + len(expected))


SCORER = Kinds
