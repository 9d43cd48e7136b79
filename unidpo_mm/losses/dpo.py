"""DPO, Direct Preference Optimization: a classifier on pairs, with the model itself as its logits.

The implicit reward of a response is beta times the log-ratio of policy and reference. The loss is
the logistic loss of the margin between the rewards of chosen and rejected response, so it raises
the former against the latter and needs no reward model.

Source: arXiv 2305.18290, eq. 7. Label smoothing assumes that a fraction of the labels is flipped,
as in "A note on DPO with noisy preferences" (cDPO).
"""

from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F

from ..records import LossOutput, PairLogps
from .base import Loss, LossConfig, Positive, Value, fraction, implicit_rewards, loss_output

__all__ = ["LOSS", "DPOLossConfig"]


@dataclass(frozen=True, kw_only=True)
class DPOLossConfig(LossConfig):
    """Parameters of DPO."""

    beta: Positive = 0.1
    """Reward scale, > 0; about 0.1 for summed log-probs, 1 to 10 for means per token."""
    label_smoothing: Annotated[Value, fraction(0.5)] = 0.0
    """Assumed fraction of flipped preferences, in [0, 0.5)."""
    length_norm: bool = False
    """Whether log-probs are means per token."""


def _compute(pairs: PairLogps, config: DPOLossConfig) -> LossOutput:
    chosen, rejected = implicit_rewards(pairs, beta=config.beta, length_norm=config.length_norm)
    margin = chosen - rejected
    flipped = config.label_smoothing
    # eq. 7, smoothed
    loss = -(1 - flipped) * F.logsigmoid(margin) - flipped * F.logsigmoid(-margin)
    return loss_output(loss, chosen, rejected)


LOSS = Loss(name="dpo", config=DPOLossConfig, compute=_compute)
