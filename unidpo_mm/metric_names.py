"""Names of the metrics of an evaluation, which options such as `metric_for_best_model` refer to."""

from typing import Any

from .records import DOMAINS

__all__ = ["PAIR_METRICS", "metric_names"]

PAIR_METRICS = (
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
    "unweighted_loss",
    "logps/chosen",
    "logps/rejected",
    "logps/accuracies",
    "logps/chosen_change",
    "weight",
    "weight_squared",
)
"""Metrics of pairs that do not depend on the loss; `Loss.terms` are added to them."""


OF_PAIRS_ONLY = ("unweighted_loss", "logps/accuracies")
"""Metrics of pairs that labeled responses do not have."""

IMAGE_TERMS = ("image_loss", "image_margin")
"""Terms of the image preference, see `losses/image_preference.py`."""


def metric_names(loss: Any, *, image_preference: bool = False) -> list[str]:
    """Return the names of the metrics of an evaluation, without the prefix ``eval_``."""
    hidden = ("weight", "weight_squared", *(OF_PAIRS_ONLY if loss.needs_labels else ()))
    names = ["loss", *(name for name in PAIR_METRICS if name not in hidden)]
    names += [] if loss.needs_labels else ["effective_sample_size"]
    names += [*loss.terms, *(IMAGE_TERMS if image_preference else ())]
    return [*names, *(f"{domain}/{name}" for domain in DOMAINS for name in names)]
