"""Checks before training: does our scoring give what the model says, and in both layouts the same?

Scoring applies the output head to the hidden states of the base model. A model that does something
else in between (another layer, a scale of its own) would train on wrong numbers without a word, so
one short row is scored both ways first. A model that carries a state from token to token, or whose
attention does not ask for a mask, would mix the answers of a packed row: then rows stay plain.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ..adapter import Adapter
from ..data.collate import collate
from ..errors import DataError, ModelError, Problem
from ..kernels.packing import masks_built
from ..modeling.logp_model import LogpModel, compute_logps
from ..records import EncodedGroup, Layout, Message, Pair, PreferenceRow, Response
from .config import UniDPOConfig
from .references import compute_dtype
from .run_parts import LayoutChoice, RunParts

__all__ = ["check_logp_model", "check_start", "choose_layout"]

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
"""Largest difference of a token's log-probability; other formats round the logits themselves."""
LOW_PRECISION_TOLERANCE = 0.2
PACKED_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
"""The same between the layouts, where only the order of sums differs."""


SAMPLE = 3
"""Rows that are scored in every layout."""


def check_start(parts: RunParts, args: UniDPOConfig, device: torch.device | str) -> LayoutChoice:
    """Refuse a model that would be scored wrongly, and returns the layout of a run.

    Args:
        parts: The parts of the run, not yet prepared.
        args: Its settings.
        device: Where the weights are.
    """
    unpackable = parts.unpackable
    if not args.disable_dropout:
        unpackable = unpackable or "dropout would not fall on the same places"
    with _precision_of_steps(args, parts.logp_model, device):
        check_logp_model(
            parts.logp_model, parts.adapter, device, parts.train_rows or parts.eval_rows
        )
        return choose_layout(
            args.layout,
            parts.logp_model,
            parts.adapter,
            parts.train_rows or parts.eval_rows,
            unpackable=unpackable,
            device=device,
        )


def _precision_of_steps(
    args: UniDPOConfig, logp_model: LogpModel, device: torch.device | str
) -> torch.autocast:
    """Return the autocast of the steps, without which weights of two formats would not meet.

    It is not accelerate's: weights that FSDP shards later are checked on the CPU.
    """
    dtype = compute_dtype(args, logp_model)
    return torch.autocast(torch.device(device).type, dtype=dtype, enabled=args.bf16 or args.fp16)


@torch.no_grad()
def check_logp_model(
    logp_model: LogpModel,
    adapter: Adapter,
    device: torch.device | str,
    rows: Sequence[PreferenceRow] = (),
) -> None:
    """Compare scored log-probabilities with the model's own logits on one short row.

    Args:
        logp_model: The policy, its weights on `device`.
        adapter: Encodes the row.
        device: Where the weights are.
        rows: The run's rows; the first is taken if the short one cannot be encoded.

    Raises:
        ModelError: If they differ by more than rounding.
    """
    try:
        group = adapter.encode(_short_row())
    except DataError:  # too long for the run, or refused by its chat template
        if not rows:
            raise
        group = adapter.encode(rows[0])
    batch = collate([group], pad_token_id=adapter.pad_token_id).to(device)
    training = logp_model.training
    logp_model.eval()
    ours = compute_logps(logp_model, adapter, batch).float()
    logits = logp_model.model(
        **logp_model.checked(adapter.forward_inputs(batch)), use_cache=False
    ).logits
    logp_model.train(training)
    own = logits.float().log_softmax(-1)[batch.row, batch.position, batch.target_ids]
    difference = float((ours - own).abs().max())
    if not difference <= TOLERANCE.get(logits.dtype, LOW_PRECISION_TOLERANCE):
        raise ModelError(
            Problem(
                type(logp_model.model).__name__,
                "its output head is not applied to the hidden states of its base model alone: "
                f"scored log-probabilities differ from its own by {difference:.3g}",
                "Choose another model, or report this one",
            )
        )


def choose_layout(
    wanted: Literal["auto", "joined", "packed", "plain"],
    logp_model: LogpModel,
    adapter: Adapter,
    rows: Sequence[PreferenceRow],
    *,
    unpackable: str | None,
    device: torch.device | str,
) -> LayoutChoice:
    """Return the layout of a run.

    Groups are joined in one row where attention runs piece by piece, so that they cost nothing
    beside each other; a mask of all of them would cost more than padding does.

    Args:
        wanted: What the user asks for.
        logp_model: The policy, its weights on `device`.
        adapter: Encodes rows.
        rows: The run's rows; some of them are scored in every layout.
        unpackable: What is known to stand against packing.
        device: Where the weights are.

    Raises:
        ModelError: If the layout asked for cannot be had.
    """
    if wanted == "plain":
        return LayoutChoice("plain", "as asked for")
    if not rows:
        return LayoutChoice("plain", "there is no row")
    trial = None if unpackable else _Trial(logp_model, adapter, rows, device)
    reason = unpackable if trial is None else trial.disagreement("packed")
    if trial is not None and (wanted == "joined" or (wanted == "auto" and trial.in_pieces)):
        apart = reason or trial.disagreement("joined")
        if apart is None:
            return LayoutChoice("joined")
        reason = apart if wanted == "joined" else reason
    if wanted == "auto" and all(len(row.responses) < 2 for row in rows):
        return LayoutChoice("plain", "there is one answer to a prompt")
    if reason is None:
        return LayoutChoice("packed")
    if wanted != "auto":
        raise ModelError(Problem("model.layout", f"rows cannot be {wanted}: {reason}", "Set auto"))
    return LayoutChoice("plain", reason)


class _Trial:
    """Scores a few real rows in one layout and the other.

    Attributes:
        in_pieces: Whether no mask of a whole row was needed so far.
    """

    def __init__(
        self,
        logp_model: LogpModel,
        adapter: Adapter,
        rows: Sequence[PreferenceRow],
        device: torch.device | str,
    ) -> None:
        self.logp_model, self.adapter, self.device = logp_model, adapter, device
        kind = torch.device(device).type
        weights = next(logp_model.parameters()).dtype
        self.dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weights
        self.groups = [adapter.encode(row) for row in _sample(rows)]
        self.in_pieces = True
        self.plain = self._scored("plain", self.groups)
        self.tolerance = PACKED_TOLERANCE.get(self.dtype) or self._rounding()

    def disagreement(self, layout: Layout) -> str | None:
        """Says by how much a layout differs from the plain one; None if by rounding alone."""
        before = masks_built()
        try:
            difference = float((self.plain - self._scored(layout, self.groups)).abs().max())
        except Exception as error:  # of a model that nobody tried yet; plain rows ran
            return f"{layout} rows fail with {type(error).__name__}: {error}"
        self.in_pieces = self.in_pieces and masks_built() == before
        if difference <= self.tolerance:
            return None
        return f"{layout} log-probabilities differ from plain ones by {difference:.3g}"

    @torch.no_grad()
    def _rounding(self) -> float:
        """Return what is let pass in half precision: about two steps of its numbers.

        The steps grow with the logits: from 64 to 128 those of bfloat16 are 0.5 wide, and another
        order of sums may round a logit to the next.
        """
        batch = collate(self.groups[:1], pad_token_id=self.adapter.pad_token_id).to(self.device)
        inputs = self.logp_model.checked(self.adapter.forward_inputs(batch))
        model: Any = self.logp_model.model
        training = model.training
        logits = model.eval()(**inputs, use_cache=False).logits[batch.row, batch.position]
        model.train(training)
        steps = torch.finfo(self.dtype).eps * float(logits.abs().max())
        return max(LOW_PRECISION_TOLERANCE, steps)

    @torch.no_grad()
    def _scored(self, layout: Layout, groups: Sequence[EncodedGroup]) -> Tensor:
        pad = self.adapter.pad_token_id
        batch = collate(groups, pad_token_id=pad, layout=layout).to(self.device)
        training = self.logp_model.training
        self.logp_model.eval()
        try:
            return compute_logps(self.logp_model, self.adapter, batch)
        finally:
            self.logp_model.train(training)


def _sample(rows: Sequence[PreferenceRow]) -> list[PreferenceRow]:
    """Return the row with most answers, one with an image, and the last one: some rows twice."""
    most = max(rows, key=lambda row: len(row.responses))
    return [most, *(row for row in rows if row.images), *reversed(rows)][:SAMPLE]


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
