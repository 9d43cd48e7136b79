"""Checks before training: does our scoring give what the model says, and in both layouts the same?

Scoring applies the output head to the hidden states of the base model. A model that does something
else in between (another layer, a scale of its own) would train on wrong numbers without a word, so
one short row is scored both ways first. A model that carries a state from token to token, or whose
attention does not ask for a mask, would mix the answers of a packed row: then rows stay plain.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from ..adapter import Adapter
from ..data.collate import collate
from ..errors import ModelError, Problem
from ..modeling.scoring import ScoringModel, score
from ..records import Layout, Message, Pair, PreferenceRow, Response
from .config import UniDPOConfig
from .setup import RunParts

__all__ = ["LayoutChoice", "check_scorer", "check_start", "choose_layout"]

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
"""Largest difference of a token's log-probability; other formats round the logits themselves."""
LOW_PRECISION_TOLERANCE = 0.2
PACKED_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
"""The same between the layouts, where only the order of sums differs."""


LAYOUTS: tuple[Layout, Layout] = ("plain", "packed")


@dataclass(frozen=True)
class LayoutChoice:
    """The layout of a run, and why it is not the packed one."""

    layout: Layout
    reason: str = ""


def check_start(parts: RunParts, args: UniDPOConfig, device: torch.device | str) -> LayoutChoice:
    """Refuses a model that would be scored wrongly, and returns the layout of a run.

    Args:
        parts: The parts of the run, not yet prepared.
        args: Its settings.
        device: Where the weights are.
    """
    check_scorer(parts.scorer, parts.adapter, device)
    unpackable = parts.unpackable
    if not args.disable_dropout:
        unpackable = unpackable or "dropout would not fall on the same places"
    return choose_layout(
        args.layout,
        parts.scorer,
        parts.adapter,
        parts.train_rows or parts.eval_rows,
        unpackable=unpackable,
        device=device,
    )


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


def choose_layout(
    wanted: Literal["auto", "packed", "plain"],
    scorer: ScoringModel,
    adapter: Adapter,
    rows: Sequence[PreferenceRow],
    *,
    unpackable: str | None,
    device: torch.device | str,
) -> LayoutChoice:
    """Returns the layout of a run.

    Args:
        wanted: What the user asks for.
        scorer: The policy, its weights on `device`.
        adapter: Encodes rows.
        rows: The run's rows; those with most answers and with a picture are scored both ways.
        unpackable: What is known to stand against packing.
        device: Where the weights are.

    Raises:
        ModelError: If packed rows are asked for and cannot be had.
    """
    if wanted == "plain":
        return LayoutChoice("plain", "as asked for")
    if wanted == "auto" and all(len(row.responses) < 2 for row in rows):
        return LayoutChoice("plain", "there is one answer to a prompt")
    reason = unpackable or _disagreement(scorer, adapter, rows, device)
    if reason is None:
        return LayoutChoice("packed")
    if wanted == "packed":
        raise ModelError(Problem("model.layout", f"rows cannot be packed: {reason}", "Set auto"))
    return LayoutChoice("plain", reason)


@torch.no_grad()
def _disagreement(
    scorer: ScoringModel,
    adapter: Adapter,
    rows: Sequence[PreferenceRow],
    device: torch.device | str,
) -> str | None:
    """Says by how much the layouts differ on real rows; None if by no more than rounding."""
    picked = [max(rows, key=lambda row: len(row.responses)), *(r for r in rows if r.images)][:2]
    groups = [adapter.encode(row) for row in picked]
    training = scorer.training
    scorer.eval()
    plain, packed = (
        score(
            scorer,
            adapter,
            collate(groups, pad_token_id=adapter.pad_token_id, layout=layout).to(device),
        )
        for layout in LAYOUTS
    )
    scorer.train(training)
    difference = float((plain - packed).abs().max())
    dtype = next(scorer.parameters()).dtype
    if difference <= PACKED_TOLERANCE.get(dtype, LOW_PRECISION_TOLERANCE):
        return None
    return f"packed log-probabilities differ from plain ones by {difference:.3g}"


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
