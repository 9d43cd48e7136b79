"""Says, with numbers, where the scores of a source cannot suit eta or tau_good.

Scores on another judge's scale do not fail: w_qual is then 0.5 or 1 for every pair, and the gate of
the calibrated NLL never opens or never shuts.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..losses.weights import quality_weight
from ..records import PreferenceRow
from .configured_loss import ConfiguredLoss

__all__ = ["score_warnings"]

FLAT = 0.6
"""w_qual of nearly all pairs below this, and above 0.4: the scores hardly count."""
FULL = 0.99
"""w_qual of nearly all pairs above this: how far they lie apart hardly counts."""
NEARLY_ALL = 0.9
USED = 0.2
"""Share of a declared scale that scores use at least, if it is theirs."""


def score_warnings(
    rows: Sequence[PreferenceRow],
    settings: ConfiguredLoss,
    declared: Mapping[str, tuple[float, float]] | None = None,
) -> list[str]:
    """Return a sentence for each thing about the scores of a source that cannot be meant.

    Args:
        rows: Training rows, scores in the unit of the run.
        settings: The loss, every `tau_good` a number.
        declared: Source -> its declared scale, in the unit of the run.
    """
    by_source: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        for pair in row.pairs:
            better, worse = row.responses[pair.chosen].score, row.responses[pair.rejected].score
            if better is not None and worse is not None:
                by_source[row.source].append((better, worse))
    found = []
    for source, scores in by_source.items():
        chosen, rejected = torch.tensor(scores, dtype=torch.float64).unbind(1)
        found += _about_eta(source, chosen, rejected, settings)
        found += _about_tau_good(source, chosen, settings)
        found += _about_scale(source, torch.cat([chosen, rejected]), (declared or {}).get(source))
    return found


def _parameter(settings: ConfiguredLoss, source: str, name: str) -> float | None:
    value = settings.by_source.get(source, {}).get(name, getattr(settings.config, name, None))
    return float(value) if isinstance(value, int | float) else None


def _about_eta(
    source: str, chosen: Tensor, rejected: Tensor, settings: ConfiguredLoss
) -> list[str]:
    eta = _parameter(settings, source, "eta")
    if eta is None or getattr(settings.config, "quality_weight", "score") != "score":
        return []
    weight = quality_weight(chosen, rejected, eta=eta)
    margin = float((chosen - rejected).median())
    numbers = f"eta is {eta:g} and the median margin of the scores {margin:.3g}"
    if eta > 0 and float(((weight - 0.5).abs() < FLAT - 0.5).double().mean()) >= NEARLY_ALL:
        return [
            f"source '{source}': w_qual is near 0.5 for nearly all pairs ({numbers}): declare the "
            "scale of the scores and data.score_scale, or raise eta"
        ]
    if float((weight > FULL).double().mean()) >= NEARLY_ALL:
        return [
            f"source '{source}': w_qual is 1 for nearly all pairs ({numbers}): declare the scale "
            "of the scores and data.score_scale, or lower eta"
        ]
    return []


def _about_tau_good(source: str, chosen: Tensor, settings: ConfiguredLoss) -> list[str]:
    tau_good = _parameter(settings, source, "tau_good")
    weight = _parameter(settings, source, "nll_lambda")
    if tau_good is None or not weight:
        return []
    numbers = (
        f"tau_good is {tau_good:g} and the chosen answers score {float(chosen.min()):.3g} to "
        f"{float(chosen.max()):.3g}"
    )
    if bool((chosen < tau_good).all()):
        return [
            f"source '{source}': no chosen answer is good enough for the calibrated NLL "
            f"({numbers}): set tau_good in the unit of the scores, or to median"
        ]
    if bool((chosen >= tau_good).all()) and float(chosen.min()) < float(chosen.max()):
        return [
            f"source '{source}': every chosen answer is good enough for the calibrated NLL "
            f"({numbers}): set tau_good in the unit of the scores, or to median"
        ]
    return []


def _about_scale(source: str, scores: Tensor, scale: tuple[float, float] | None) -> list[str]:
    if scale is None:
        return []
    low, high = float(scores.min()), float(scores.max())
    if (high - low) >= USED * (scale[1] - scale[0]) or low == high:
        return []
    return [
        f"source '{source}': the scores run from {low:.3g} to {high:.3g}, a small part of the "
        f"scale [{scale[0]:g}, {scale[1]:g}] that is declared for them: is it the judge's scale?"
    ]
