"""A check before training: does our scoring give what the model itself says?

Scoring applies the output head to the hidden states of the base model. A model that does something
else in between (another layer, a scale of its own) would train on wrong numbers without a word, so
one short row is scored both ways first.
"""

import torch

from ..adapter import Adapter
from ..data.collate import collate
from ..errors import ModelError, Problem
from ..modeling.scoring import ScoringModel, score
from ..records import Message, Pair, PreferenceRow, Response

__all__ = ["check_scorer"]

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
"""Largest difference of a token's log-probability; other formats round the logits themselves."""
LOW_PRECISION_TOLERANCE = 0.2


@torch.no_grad()
def check_scorer(scorer: ScoringModel, adapter: Adapter, device: torch.device | str) -> None:
    """Compares scored log-probabilities with the model's own logits on one short row.

    Args:
        scorer: The policy, its weights on `device`.
        adapter: Encodes the row.
        device: Where the weights are.

    Raises:
        ModelError: If they differ by more than rounding.
    """
    batch = collate([adapter.encode(_short_row())], pad_token_id=adapter.pad_token_id).to(device)
    training = scorer.training
    scorer.eval()
    ours = score(scorer, adapter, batch).float()
    logits = scorer.model(**scorer.checked(adapter.forward_inputs(batch)), use_cache=False).logits
    scorer.train(training)
    own = logits.float().log_softmax(-1)[batch.row, batch.position, batch.target_ids]
    difference = float((ours - own).abs().max())
    if not difference <= TOLERANCE.get(logits.dtype, LOW_PRECISION_TOLERANCE):
        raise ModelError(
            Problem(
                type(scorer.model).__name__,
                "its output head is not applied to the hidden states of its base model alone: "
                f"scored log-probabilities differ from its own by {difference:.3g}",
                "Choose another model, or report this one",
            )
        )


def _short_row() -> PreferenceRow:
    return PreferenceRow(
        id="check",
        domain="text",
        source="check",
        where="check",
        messages=(Message("user", ("How are you?",)),),
        responses=(Response("Fine, thank you.", 1.0), Response("No.", 0.0)),
        pairs=(Pair(0, 1),),
        raw=True,
    )
