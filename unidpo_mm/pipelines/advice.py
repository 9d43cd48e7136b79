"""Advice on the loss from the scores of the pairs; nothing of it is applied."""

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

from .load import Making
from .pairs import MadeRow
from .run import Made

__all__ = ["ETA", "advised_eta", "loss_advice", "quality_weight", "source_entry"]

ETA = 0.7
"""The slope of the quality weight in the released settings."""
USEFUL = (0.55, 0.98)
"""Quality weights between which pairs differ noticeably."""
TARGET = 0.8
"""Quality weight that the advised slope gives to the median margin."""


def loss_advice(making: Making, made: Made) -> list[str]:
    """Return sentences about `eta` and `tau_good` of the loss uni_dpo, and about the scores."""
    margins = [margin for row in made.rows for margin in row.margins()]
    chosen = _chosen_scores(made.rows)
    if not margins or not chosen:
        return ["The pairs have no scores: use a loss without them, such as dpo, or add a scorer."]
    middle = median(margins)
    sentences = [
        f"Median score margin {middle:g}, median score of chosen responses {median(chosen):g}."
    ]
    if len(set(margins)) == 1:
        sentences.append(
            f"All margins are {middle:g}, so that w_qual is constant: combine the scorer with one "
            "that has more values."
        )
    elif middle > 0:
        eta = advised_eta(margins)
        outside = sum(not USEFUL[0] <= quality_weight(m, ETA) <= USEFUL[1] for m in margins)
        sentences.append(
            f"With eta {ETA:g}, w_qual of {outside / len(margins):.0%} of the pairs is outside of "
            f"{USEFUL[0]} to {USEFUL[1]}; eta {eta:.2g} gives {TARGET:g} to the median margin."
        )
    sentences.append("tau_good: median takes the median score of chosen responses.")
    scorer = making.scorers.get(making.recipe.pair_score or "")
    if scorer is not None and scorer.scale is None:
        sentences.append(
            "The score has no limits, so no scale is declared and nothing is mapped. If it is a "
            "logit of a Bradley-Terry model, eta 1 makes w_qual that model's probability."
        )
    return sentences


def source_entry(making: Making, made: Made) -> dict[str, Any]:
    """Return the entry of the rows for `data.sources` of a training recipe."""
    scores: dict[str, Any] = {}
    scorer = making.scorers.get(making.recipe.pair_score or "")
    if scorer is not None:
        if scorer.scale is not None:
            scores["scale"] = [float(bound) for bound in scorer.scale]
        scores["judge"] = making.recipe.score[str(making.recipe.pair_score)].scorer
    entry: dict[str, Any] = {"path": str(made.files.rows.absolute())}
    return entry | ({"scores": scores} if scores else {})


def advised_eta(margins: Sequence[float]) -> float | None:
    """Return the slope that gives `TARGET` to the median margin; `None` if there is none."""
    middle = median(margins) if margins else 0.0
    return math.log(TARGET / (1 - TARGET)) / middle if middle > 0 else None


def quality_weight(margin: float, eta: float) -> float:
    """Return the quality weight of a pair, the logistic function of `eta` times its margin."""
    return 0.5 * (1 + math.tanh(eta * margin / 2))  # does not overflow


def _chosen_scores(rows: Sequence[MadeRow]) -> list[float]:
    scores = [row.rated[chosen].score for row in rows for chosen, _ in row.pairs]
    return [score for score in scores if score is not None]
