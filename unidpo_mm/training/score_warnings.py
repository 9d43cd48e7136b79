"""Warn if the scores of a source do not fit eta or tau_good.

Scores on another scale do not cause an error. But then w_qual is 0.5 or 1 for every pair, and the
gate of the calibrated NLL is always closed or always open.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..losses.weights import quality_weight
from ..records import PreferenceRow
from .configured_loss import ConfiguredLoss

__all__ = ["score_warnings"]

FLAT_WEIGHT = 0.6
"""If w_qual of nearly all pairs is below this and above 0.4, scores have hardly any effect."""
FULL_WEIGHT = 0.99
"""If w_qual of nearly all pairs is above this, score margins have hardly any effect."""
NEARLY_ALL = 0.9
MIN_USED_SHARE = 0.2
"""Minimum share of a declared scale that its scores are expected to cover."""


def score_warnings(
    rows: Sequence[PreferenceRow],
    settings: ConfiguredLoss,
    declared: Mapping[str, Sequence[float]] | None = None,
) -> list[str]:
    """Return a warning for each way in which the scores of a source do not fit the loss.

    Args:
        rows: Training rows, with scores on the scale of the run.
        settings: The loss; every `tau_good` is a number.
        declared: Source -> its declared scale, mapped to the scale of the run.
    """
    by_source: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        for pair in row.pairs:
            better, worse = row.responses[pair.chosen].score, row.responses[pair.rejected].score
            if better is not None and worse is not None:
                by_source[row.source].append((better, worse))
    warnings = []
    for source, scores in by_source.items():
        chosen, rejected = torch.tensor(scores, dtype=torch.float64).unbind(1)
        warnings += _eta_warnings(source, chosen, rejected, settings)
        warnings += _tau_good_warnings(source, chosen, settings)
        warnings += _scale_warnings(
            source, torch.cat([chosen, rejected]), (declared or {}).get(source)
        )
    return warnings


def _parameter(settings: ConfiguredLoss, source: str, name: str) -> float | None:
    value = settings.by_source.get(source, {}).get(name, getattr(settings.config, name, None))
    return float(value) if isinstance(value, int | float) else None


def _eta_warnings(
    source: str, chosen: Tensor, rejected: Tensor, settings: ConfiguredLoss
) -> list[str]:
    eta = _parameter(settings, source, "eta")
    if eta is None or getattr(settings.config, "quality_weight", "score") != "score":
        return []
    weight = quality_weight(chosen, rejected, eta=eta)
    margin = float((chosen - rejected).median())
    numbers = f"eta is {eta:g} and the median margin of the scores {margin:.3g}"
    if eta > 0 and float(((weight - 0.5).abs() < FLAT_WEIGHT - 0.5).double().mean()) >= NEARLY_ALL:
        return [
            f"source '{source}': w_qual is near 0.5 for nearly all pairs ({numbers}): declare the "
            "scale of the scores and data.score_scale, or raise eta"
        ]
    if float((weight > FULL_WEIGHT).double().mean()) >= NEARLY_ALL:
        return [
            f"source '{source}': w_qual is 1 for nearly all pairs ({numbers}): declare the scale "
            "of the scores and data.score_scale, or lower eta"
        ]
    return []


def _tau_good_warnings(source: str, chosen: Tensor, settings: ConfiguredLoss) -> list[str]:
    tau_good = _parameter(settings, source, "tau_good")
    weight = _parameter(settings, source, "nll_lambda")
    if tau_good is None or not weight:
        return []
    numbers = (
        f"tau_good is {tau_good:g} and the scores of chosen responses range from "
        f"{float(chosen.min()):.3g} to {float(chosen.max()):.3g}"
    )
    if bool((chosen < tau_good).all()):
        return [
            f"source '{source}': no chosen response is good enough for the calibrated NLL "
            f"({numbers}): set tau_good on the scale of the scores, or to median"
        ]
    if bool((chosen >= tau_good).all()) and float(chosen.min()) < float(chosen.max()):
        return [
            f"source '{source}': every chosen response is good enough for the calibrated NLL "
            f"({numbers}): set tau_good on the scale of the scores, or to median"
        ]
    return []


def _scale_warnings(source: str, scores: Tensor, scale: Sequence[float] | None) -> list[str]:
    if scale is None:
        return []
    low, high = float(scores.min()), float(scores.max())
    if (high - low) >= MIN_USED_SHARE * (scale[1] - scale[0]) or low == high:
        return []
    return [
        f"source '{source}': the scores range from {low:.3g} to {high:.3g}, a small part of the "
        f"declared scale [{scale[0]:g}, {scale[1]:g}]: check that it is the scale of the scores"
    ]
