"""What is done with the scores of a source: their scale, missing and mis-ordered ones, and pairs.

Scores sit on answers, where judges put them. Pairs that a file gives stand as they are unless the
user says otherwise; pairs of several scored answers are made here.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Literal

from ..errors import Problem, counted
from ..records import Pair, PreferenceRow, Response

__all__ = ["PairCounts", "ScoreOptions", "settle", "without_weight"]

Pairing = Literal["all", "best_vs_worst", "adjacent"]


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """What the scores of a source mean, and what to do with them.

    Attributes:
        scale: Declared bounds; None if they are not declared. Observed ranges are never taken.
        judge: Who gave the scores, for the record.
        missing: ``error``, or the quality weight of pairs that lack a score; the gate of the
            calibrated NLL stays shut for them.
        misordered: What to do with a given pair whose rejected answer has the higher score.
        ties: What to do with a given pair of equal scores.
        pairs: Which of several scored answers make a pair: every two with different scores, the
            best and the worst, or neighbours in the order of their scores.
        min_margin: Least difference of the scores of a pair, in the unit of the run.
    """

    scale: tuple[float, float] | None = None
    judge: str | None = None
    missing: Literal["error"] | float = "error"
    misordered: Literal["keep", "swap", "drop"] = "keep"
    ties: Literal["keep", "drop"] = "keep"
    pairs: Pairing = "all"
    min_margin: float = 0.0

    def to_scale(self, run: tuple[float, float] | None) -> Callable[[float], float]:
        """Return the map from the declared scale to that of the run.

        The map raises ValueError for a score outside the declared scale.
        """
        if self.scale is None:
            return lambda score: score
        low, high = self.scale
        to_low, to_high = run or self.scale

        def mapped(score: float) -> float:
            if not low <= score <= high:
                problem = f"the score {score} lies outside the declared scale [{low}, {high}]"
                raise ValueError(problem)
            if (to_low, to_high) == (low, high):
                return score  # to the last digit: tau_good may lie on it
            return to_low + (score - low) * (to_high - to_low) / (high - low)

        return mapped

    def pairing(self, responses: Sequence[Response]) -> list[tuple[int, int]]:
        """Return the pairs (chosen, rejected) of the scored answers of a row.

        Two answers of one text make none, whatever their scores.
        """
        scored = [(r.score, n) for n, r in enumerate(responses) if r.score is not None]
        falling = sorted(scored, key=lambda one: -one[0])  # stable: equal scores keep their order
        if self.pairs == "best_vs_worst":
            found = [(falling[0], falling[-1])] if falling else []
        elif self.pairs == "adjacent":
            found = list(pairwise(falling))
        else:
            found = list(combinations(falling, 2))
        return [
            (n, m)
            for (one, n), (other, m) in found
            if one != other and responses[n].text != responses[m].text
        ]


@dataclass
class PairCounts:
    """What became of the pairs of a source.

    Attributes:
        misordered: Given pairs whose rejected answer has the higher score.
        swapped, dropped: What was done with some of them.
        ties, dropped_ties: Pairs of equal scores, and how many of them were dropped.
        below_margin: Pairs dropped since their scores lie too close.
        unscored: Pairs that lack a score.
        unrated: Answers without a score beside others that have one, and so in no pair.
        repeated: Times that two answers of a row are one text with two scores.
        rows_dropped: Rows that lost their last pair.
    """

    misordered: int = 0
    swapped: int = 0
    dropped: int = 0
    ties: int = 0
    dropped_ties: int = 0
    below_margin: int = 0
    unscored: int = 0
    unrated: int = 0
    repeated: int = 0
    rows_dropped: int = 0

    def sentences(self, policy: ScoreOptions) -> list[str]:
        """Return what the user should know, one sentence a finding."""
        found = []
        if self.misordered:
            done = {"keep": "kept as they are", "swap": "swapped", "drop": "dropped"}
            found.append(
                f"{counted(self.misordered, 'pair has', 'pairs have')} the higher score on the "
                f"rejected answer: {done[policy.misordered]} (scores.misordered)"
            )
        if self.ties:
            done = {"keep": "kept with a quality weight of 0.5", "drop": "dropped"}
            found.append(
                f"{counted(self.ties, 'pair has', 'pairs have')} equal scores: {done[policy.ties]} "
                "(scores.ties)"
            )
        if self.below_margin:
            found.append(
                f"{counted(self.below_margin, 'pair')} dropped: the scores differ by less than "
                f"{policy.min_margin:g} (scores.min_margin)"
            )
        if self.unscored and policy.missing != "error":
            found.append(
                f"{counted(self.unscored, 'pair has', 'pairs have')} no score: quality weight "
                f"{policy.missing:g}, no calibrated NLL (scores.missing)"
            )
        if self.unrated:
            text = counted(self.unrated, "answer has", "answers have")
            ending = "makes" if self.unrated == 1 else "make"
            found.append(f"{text} no score beside others, and {ending} no pair")
        if self.repeated:
            found.append(
                f"{counted(self.repeated, 'time')} two answers of a row are one text with two "
                "scores: they make no pair"
            )
        if self.rows_dropped:
            text = counted(self.rows_dropped, "row")
            found.append(f"{text} left out: without a pair, or none is left")
        return found


def settle(row: PreferenceRow, policy: ScoreOptions, counts: PairCounts) -> PreferenceRow | None:
    """Return a row with the pairs that its source keeps; None where none of them is left.

    Args:
        row: As its format read it, scores in the unit of the run.
        policy: What to do.
        counts: What was done is added to it.
    """
    _count_unpaired(row, counts)
    kept = [pair for pair in (_settled(row, p, policy, counts) for p in row.pairs) if pair]
    if row.pairs and not kept:
        counts.rows_dropped += 1
        return None
    if not row.pairs and policy.ties == "drop":
        counts.rows_dropped += 1  # one answer, or all of them with one score
        return None
    return row if tuple(kept) == row.pairs else dataclasses.replace(row, pairs=tuple(kept))


def without_weight(rows: Sequence[PreferenceRow]) -> list[Problem]:
    """Return the problem of rows whose pairs all have weight 0: nothing would be learned."""
    weights = [pair.weight for row in rows for pair in row.pairs]
    if not weights or any(weights):
        return []
    whose = (
        "the weight of the only pair is"
        if len(weights) == 1
        else (f"the weights of all {len(weights):,} pairs are")
    )
    problem = f"{whose} 0, so that nothing is learned"
    return [Problem("sources, field 'weight'", problem, "Give pairs that count a weight above 0")]


def _count_unpaired(row: PreferenceRow, counts: PairCounts) -> None:
    scored = [one for one in row.responses if one.score is not None]
    paired = {n for pair in row.pairs for n in (pair.chosen, pair.rejected)}
    if scored:
        counts.unrated += sum(
            one.score is None and n not in paired for n, one in enumerate(row.responses)
        )
    counts.repeated += sum(
        one.text == other.text and one.score != other.score
        for one, other in combinations(scored, 2)
    )


def _settled(
    row: PreferenceRow, pair: Pair, policy: ScoreOptions, counts: PairCounts
) -> Pair | None:
    better, worse = row.responses[pair.chosen].score, row.responses[pair.rejected].score
    if better is None or worse is None:
        counts.unscored += 1
        return pair
    margin = better - worse
    # scores are decimal numbers: 0.3 - 0.1 is no less than 0.2
    if abs(margin) < policy.min_margin and not math.isclose(abs(margin), policy.min_margin):
        counts.below_margin += 1
        return None
    if margin < 0:
        counts.misordered += 1
        if policy.misordered == "drop":
            counts.dropped += 1
            return None
        if policy.misordered == "swap":
            counts.swapped += 1
            return Pair(pair.rejected, pair.chosen, pair.weight)
    elif margin == 0:
        counts.ties += 1
        if policy.ties == "drop":
            counts.dropped_ties += 1
            return None
    return pair
