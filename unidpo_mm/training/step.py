"""One preference step, from a batch to the loss of every unit.

    batch -> log-probs per token -> sums per response -> pairs -> weights and loss

This module shows the complete computation and needs no trainer. `data/collate.py` builds the batch,
`modeling/logp_model.py` runs the model, `configured_loss.py` looks up the loss parameters of each
pair's data source, and `losses/<name>.py` contains the formula.
"""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..adapter import Adapter
from ..cache.feature_store import FeatureStore
from ..kernels.logprobs import sequence_logps
from ..modeling.logp_model import compute_logps
from ..modeling.references.kinds import Reference
from ..modeling.shared_layers import SharedLayers
from ..modeling.vision import MediaFeatures
from ..records import GroupBatch, LossOutput, PairLogps, SequenceLogps
from .configured_loss import ConfiguredLoss

__all__ = ["StepOutput", "pair_up", "preference_step"]


@dataclass(frozen=True)
class StepOutput:
    """The result of a preference step.

    Attributes:
        loss: The loss of each unit, with rewards and the terms of the loss.
        weight: [U] The weight of each unit; 0 for fillers, which only keep processes in step.
        policy: The log-probs of the N responses under the policy.
        pairs: The log-probs of the chosen and rejected responses under policy and reference.
    """

    loss: LossOutput
    weight: Tensor
    policy: SequenceLogps
    pairs: PairLogps

    @property
    def loss_sum(self) -> Tensor:
        """The weighted sum of the losses; divide it by `weight.sum()` for the mean."""
        counted = torch.where(self.weight > 0, self.loss.per_unit, 0.0)
        return (self.weight * counted).sum()


def preference_step(
    policy: nn.Module,
    batch: GroupBatch,
    *,
    adapter: Adapter,
    settings: ConfiguredLoss,
    reference: Reference | None,
    features: FeatureStore | None = None,
    shared_layers: SharedLayers | None = None,
) -> StepOutput:
    """Compute the log-probs of a batch under policy and reference, and the loss of each unit.

    Args:
        policy: The `LogpModel` of the policy, as accelerate prepared it.
        batch: Groups in any layout, on the policy's device.
        adapter: Turns the batch into the inputs of the model's `forward()`.
        settings: The loss and its parameters for each data source.
        reference: The reference; `None` if the loss uses none.
        features: Cache of media features across batches; `None` to compute them each time.
        shared_layers: The layers that run once for policy and reference; `None` if there are none.
    """
    reference_logps, media = None, MediaFeatures(features, batch.cache_keys.media)
    tokens = settings.loss.needs_tokens(settings.config)
    with shared_layers.once() if shared_layers else nullcontext():
        if reference is not None:
            token_logps = reference.token_logps(policy, batch, media)
            reference_logps = sequence_logps(token_logps, batch.targets, tokens=tokens)
        token_logps = compute_logps(policy, adapter, batch, media)
        policy_logps = sequence_logps(token_logps, batch.targets, tokens=tokens)
    pairs = pair_up(policy_logps, reference_logps, batch)
    output = settings.compute(policy_logps, pairs, batch)
    return StepOutput(output, batch.units(settings.loss.unit).weight, policy_logps, pairs)


def pair_up(policy: SequenceLogps, reference: SequenceLogps | None, batch: GroupBatch) -> PairLogps:
    """Return the pairs of a batch from the log-probs of its responses."""
    chosen, rejected, scores = batch.pairs.chosen, batch.pairs.rejected, batch.scores
    view = batch.pairs.view
    place = None if view is None else view.clamp(min=0)
    return PairLogps(
        policy_chosen=policy.select(chosen),
        policy_rejected=policy.select(rejected),
        reference_chosen=None if reference is None else reference.select(chosen),
        reference_rejected=None if reference is None else reference.select(rejected),
        score_chosen=scores[chosen],
        score_rejected=scores[rejected],
        weight=batch.pairs.weight,
        chosen_pairs=batch.pairs.same_first,
        good=batch.pairs.good,
        policy_view=None if place is None else policy.select(place),
        reference_view=None if place is None or reference is None else reference.select(place),
        has_view=None if view is None else view >= 0,
    )
