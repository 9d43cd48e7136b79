"""LD-DPO, Length-Desensitized DPO: tokens that only the longer response has count less.

DPO sums over tokens, so a longer response moves the margin more, and models learn to write at
length. LD-DPO multiplies the log-probs of the tokens beyond the length of the shorter response by
alpha, under policy and reference.

Source: arXiv 2409.06411. With alpha = 1 it is DPO, with 0 both responses have the same length.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F

from ..records import LossOutput, PairLogps
from .base import Loss, LossConfig, Positive, Rule, Value, always, loss_output, token_rewards

__all__ = ["LOSS", "LDDPOLossConfig"]

SHARE = Rule(lambda value: (value >= 0) & (value <= 1), "in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class LDDPOLossConfig(LossConfig):
    """Parameters of LD-DPO."""

    beta: Positive = 0.1
    """Reward scale, > 0."""
    ld_alpha: Annotated[Value, SHARE] = 0.5
    """Weight of the tokens beyond the shorter response, the paper's alpha, in [0, 1]."""


def _compute(pairs: PairLogps, config: LDDPOLossConfig) -> LossOutput:
    shorter = torch.minimum(pairs.policy_chosen.length, pairs.policy_rejected.length)
    alpha = torch.as_tensor(config.ld_alpha, dtype=shorter.dtype, device=shorter.device)
    rewards = []
    for tokens in token_rewards(pairs, beta=config.beta):
        place = torch.arange(tokens.shape[1], device=tokens.device)
        weight = torch.where(place < shorter.unsqueeze(-1), 1.0, alpha.reshape(-1, 1))
        rewards.append((weight * tokens).sum(1))
    chosen, rejected = rewards
    return loss_output(-F.logsigmoid(chosen - rejected), chosen, rejected)


LOSS = Loss(name="ld_dpo", config=LDDPOLossConfig, compute=_compute, needs_tokens=always)
