"""SamPO: DPO on equally many tokens of both responses, drawn at random.

DPO's reward is a sum over tokens, whose size grows with the length of a response. SamPO draws as
many tokens of the longer response as the shorter one has, other ones in every step, and uses the
same tokens under policy and reference.

Source: arXiv 2406.10957. Evaluations draw nothing: they use the expectation, the mean reward of a
token times the smaller number of tokens.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..records import LossOutput, PairLogps
from .base import Loss, LossConfig, Positive, always, loss_output, token_rewards

__all__ = ["LOSS", "SamPOLossConfig"]


@dataclass(frozen=True, kw_only=True)
class SamPOLossConfig(LossConfig):
    """Parameters of SamPO."""

    beta: Positive = 0.1
    """Reward scale, > 0."""


def _sum_of_some(rewards: Tensor, length: Tensor, number: Tensor) -> Tensor:
    """Return the sum of `number` [P] random ones of the first `length` [P] rewards [P, T]."""
    if not rewards.requires_grad:
        return rewards.sum(1) * number / length
    place = torch.arange(rewards.shape[1], device=rewards.device)
    # drawn on the CPU, whose generator a replay of the step restores
    noise = torch.rand(rewards.shape, device="cpu").to(rewards.device)
    noise = noise.masked_fill(place >= length.unsqueeze(-1), torch.inf)
    rank = noise.argsort(1).argsort(1)
    return torch.where(rank < number.unsqueeze(-1), rewards, 0.0).sum(1)


def _compute(pairs: PairLogps, config: SamPOLossConfig) -> LossOutput:
    lengths = pairs.policy_chosen.length, pairs.policy_rejected.length
    number = torch.minimum(*lengths)
    chosen, rejected = (
        _sum_of_some(rewards, length, number)
        for rewards, length in zip(token_rewards(pairs, beta=config.beta), lengths, strict=True)
    )
    return loss_output(-F.logsigmoid(chosen - rejected), chosen, rejected)


LOSS = Loss(name="sampo", config=SamPOLossConfig, compute=_compute, needs_tokens=always)
