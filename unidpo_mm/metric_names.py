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


def metric_names(loss: Any) -> list[str]:
    """Return the names of the metrics of an evaluation, without the prefix ``eval_``."""
    hidden = ("weight", "weight_squared")
    names = ["loss", *(name for name in PAIR_METRICS if name not in hidden)]
    names += ["effective_sample_size", *loss.terms]
    return [*names, *(f"{domain}/{name}" for domain in DOMAINS for name in names)]
