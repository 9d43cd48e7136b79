"""Scores of a source: their scale, and the selection of pairs by their scores.

Pairs in the data are kept unless the options of the source say otherwise. Pairs of several scored
responses are formed here.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy

from ..config import ScoreOptions
from ..errors import Problem, counted
from ..records import Pair, PreferenceRow, Response
from . import pairing
from .pairing import Rated
from .row_table import columns_of

__all__ = [
    "PairCounts",
    "form_pairs",
    "mapping_to",
    "scale_problems",
    "select_pairs",
    "zero_weight_problems",
]

Pairing = Literal["all", "best_vs_worst", "adjacent"]


def mapping_to(run: Sequence[float] | None, options: ScoreOptions) -> Callable[[float], float]:
    """Return a function that maps scores of a source to the scale of the run.

    It raises `ValueError` for a score outside of the declared scale.
    """
    if options.scale is None:
        return _unchanged
    return functools.partial(_mapped, scale=options.scale, to=run or options.scale)


def _unchanged(score: float) -> float:
    return score


def _mapped(score: float, *, scale: Sequence[float], to: Sequence[float]) -> float:
    (low, high), (to_low, to_high) = scale, to
    if not low <= score <= high:
        problem = f"the score {score} is outside of the declared scale [{low}, {high}]"
        raise ValueError(problem)
    if (to_low, to_high) == (low, high):
        return score  # exactly, because it may equal tau_good
    return to_low + (score - low) * (to_high - to_low) / (high - low)


def form_pairs(responses: Sequence[Response], rule: Pairing) -> list[tuple[int, int]]:
    """Return the pairs (chosen, rejected) of the scored responses of a row, see `pairing`."""
    rated = [Rated(text=response.text, score=response.score) for response in responses]
    return pairing.form_pairs(rated, rule)


@dataclass
class PairCounts:
    """Counts of selecting the pairs of a source.

    Attributes:
        misordered: Pairs whose rejected response has a higher score.
        ties: Pairs with equal scores.
        below_margin: Pairs dropped because of `min_margin`.
        unscored: Pairs without a score.
        unrated: Responses without a score in rows with scores, which are therefore in no pair.
        repeated: Pairs of responses of a row with the same text and different scores.
        rows_dropped: Rows without a remaining pair.
    """

    misordered: int = 0
    ties: int = 0
    below_margin: int = 0
    unscored: int = 0
    unrated: int = 0
    repeated: int = 0
    rows_dropped: int = 0

    def sentences(self, options: ScoreOptions) -> list[str]:
        """Return what the user should know, as one sentence per count."""
        sentences = []
        if self.misordered:
            actions = {"keep": "kept unchanged", "swap": "swapped", "drop": "dropped"}
            sentences.append(
                f"{counted(self.misordered, 'pair has', 'pairs have')} a higher score on the "
                f"rejected response: {actions[options.misordered]} (scores.misordered)"
            )
        if self.ties:
            actions = {"keep": "kept with a quality weight of 0.5", "drop": "dropped"}
            sentences.append(
                f"{counted(self.ties, 'pair has', 'pairs have')} equal scores: "
                f"{actions[options.ties]} (scores.ties)"
            )
        if self.below_margin:
            sentences.append(
                f"{counted(self.below_margin, 'pair')} dropped: the scores differ by less than "
                f"{options.min_margin:g} (scores.min_margin)"
            )
        if self.unscored and options.missing != "error":
            sentences.append(
                f"{counted(self.unscored, 'pair has', 'pairs have')} no score: quality weight "
                f"{options.missing:g}, no calibrated NLL (scores.missing)"
            )
        if self.unrated:
            verb = "is" if self.unrated == 1 else "are"
            sentences.append(
                f"{counted(self.unrated, 'response has', 'responses have')} no score, unlike "
                f"others of the row, and {verb} in no pair"
            )
        if self.repeated:
            sentences.append(
                f"{counted(self.repeated, 'time')}, a row has the same response with two scores, "
                "which form no pair"
            )
        if self.rows_dropped:
            text = counted(self.rows_dropped, "row")
            sentences.append(f"{text} skipped: no pair remains")
        return sentences


def select_pairs(
    row: PreferenceRow, options: ScoreOptions, counts: PairCounts
) -> PreferenceRow | None:
    """Return a row with the pairs that are kept; `None` if the row has no remaining pair.

    Args:
        row: The row, with scores on the scale of the run.
        options: The options of its source.
        counts: Counts to which those of the row are added.
    """
    _count_unpaired(row, counts)
    kept = [pair for pair in (_selected(row, p, options, counts) for p in row.pairs) if pair]
    # without pairs and labels, scores may be equal
    if not kept and (row.pairs or (options.ties == "drop" and not row.labels)):
        counts.rows_dropped += 1
        return None
    return row if tuple(kept) == row.pairs else dataclasses.replace(row, pairs=tuple(kept))


def scale_problems(
    rows: Sequence[PreferenceRow], score_scale: Sequence[float] | None, key: str
) -> list[Problem]:
    """Return a problem for each source whose scores are all outside the scale of the run."""
    if score_scale is None:
        return []
    low, high = score_scale
    columns = columns_of(rows)
    problems = []
    for source in columns.sources:
        scores = columns.of_source(source, columns.scores)
        scores = scores[~numpy.isnan(scores)]
        if len(scores) and not ((low <= scores) & (scores <= high)).any():
            text = (
                f"no score of source '{source}' is in [{low:g}, {high:g}]: they range from "
                f"{scores.min():g} to {scores.max():g}"
            )
            remedy = "Correct it, or set scores.scale of that source so that its scores are mapped"
            problems.append(Problem(key, text, remedy))
    return problems


def zero_weight_problems(rows: Sequence[PreferenceRow]) -> list[Problem]:
    """Return a problem if all pairs have weight 0, so that the model would not be trained."""
    columns = columns_of(rows)
    weights = numpy.concatenate([columns.weights.values, columns.labels.values])
    if not len(weights) or weights.any():
        return []
    noun = "label" if len(columns.labels.values) else "pair"
    all_units = f"the weights of all {len(weights):,} {noun}s are"
    whose = f"the weight of the only {noun} is" if len(weights) == 1 else all_units
    problem = f"{whose} 0, so that nothing would be trained"
    remedy = f"Set the weight of at least one {noun} above 0"
    return [Problem("sources, field 'weight'", problem, remedy)]


def _count_unpaired(row: PreferenceRow, counts: PairCounts) -> None:
    scored = [response for response in row.responses if response.score is not None]
    paired = {n for pair in row.pairs for n in (pair.chosen, pair.rejected)}
    if scored:
        counts.unrated += sum(
            response.score is None and n not in paired for n, response in enumerate(row.responses)
        )
    counts.repeated += sum(
        first.text == second.text and first.score != second.score
        for first, second in combinations(scored, 2)
    )


def _selected(
    row: PreferenceRow, pair: Pair, options: ScoreOptions, counts: PairCounts
) -> Pair | None:
    better, worse = row.responses[pair.chosen].score, row.responses[pair.rejected].score
    if better is None or worse is None:
        counts.unscored += 1
        return pair
    margin = better - worse
    # isclose: 0.3 - 0.1 is less than 0.2 in floating point
    if abs(margin) < options.min_margin and not math.isclose(abs(margin), options.min_margin):
        counts.below_margin += 1
        return None
    action = "keep" if margin > 0 else options.ties if margin == 0 else options.misordered
    counts.ties += margin == 0
    counts.misordered += margin < 0
    if action == "swap":
        return dataclasses.replace(pair, chosen=pair.rejected, rejected=pair.chosen)
    return None if action == "drop" else pair
