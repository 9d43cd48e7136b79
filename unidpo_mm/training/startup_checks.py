"""Check before training that log-probs are correct, and the same in every layout.

`LogpModel` applies the output head to the hidden states of the base model. A model that does
something else in between, such as another layer or a scale, would silently train on wrong numbers.
So the log-probs of one short row are first compared with the model's logits.

Packed rows contain several responses, which must not see each other. A model with a recurrent
state, or whose attention ignores the mask, would mix them. So a few rows of the run are computed in
each layout, and rows stay plain if the results differ.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ..adapter import Adapter
from ..config.python import UniDPOConfig
from ..data.collate import collate
from ..errors import DataError, ModelError, Problem
from ..kernels.packing import masks_built
from ..modeling.logp_model import LogpModel, compute_logps
from ..records import EncodedGroup, Layout, Message, Pair, PreferenceRow, Response
from .references import compute_dtype
from .run_parts import LayoutChoice, RunParts

__all__ = ["check_logp_model", "check_start", "choose_layout"]

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
"""Maximum difference of a token's log-prob from that of the model's logits."""

LOW_PRECISION_TOLERANCE = 0.2
"""The same in half precision, which rounds the logits themselves."""

PACKED_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
"""Maximum difference between the layouts, in which sums only have another order."""

SAMPLE_ROWS = 3
"""Number of rows that are computed in every layout."""


def check_start(parts: RunParts, args: UniDPOConfig, device: torch.device | str) -> LayoutChoice:
    """Check the log-probs of the model and return the layout of the run.

    Args:
        parts: The parts of the run; accelerate has not prepared the model yet.
        args: The settings of the run.
        device: The device of the weights.

    Raises:
        ModelError: If log-probs differ from the model's logits, or the chosen layout is impossible.
    """
    unpackable = parts.unpackable
    if not args.disable_dropout:
        unpackable = unpackable or "dropout would differ between the layouts"
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
    """Return the autocast context of training steps, which mixed number formats require.

    accelerate's context does not fit: weights that FSDP shards later are checked on the CPU.
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
    """Compare the log-probs of one short row with the logits of the model.

    Args:
        logp_model: The policy, its weights on `device`.
        adapter: Encodes the row.
        device: The device of the weights.
        rows: The rows of the run; the first one is used if the short one cannot be encoded.

    Raises:
        ModelError: If they differ by more than rounding errors.
    """
    try:
        group = adapter.encode(_short_row())
    except DataError:  # too long for max_length, or the chat template refuses it
        if not rows:
            raise
        group = adapter.encode(rows[0])
    batch = collate([group], pad_token_id=adapter.pad_token_id).to(device)
    training = logp_model.training
    logp_model.eval()
    logps = compute_logps(logp_model, adapter, batch).float()
    logits = logp_model.model(
        **logp_model.checked(adapter.forward_inputs(batch.inputs)), use_cache=False
    ).logits
    logp_model.train(training)
    targets = batch.targets
    expected = logits.float().log_softmax(-1)[targets.row, targets.position, targets.ids]
    difference = float((logps - expected).abs().max())
    if not difference <= TOLERANCE.get(logits.dtype, LOW_PRECISION_TOLERANCE):
        raise ModelError(
            Problem(
                type(logp_model.model).__name__,
                "the model changes hidden states or logits between decoder and LM head, so "
                f"log-probs computed from the hidden states differ by {difference:.3g}",
                "Choose another model, or report this one",
            )
        )


def choose_layout(
    requested: Literal["auto", "joined", "packed", "plain"],
    logp_model: LogpModel,
    adapter: Adapter,
    rows: Sequence[PreferenceRow],
    *,
    unpackable: str | None,
    device: torch.device | str,
) -> LayoutChoice:
    """Return the layout of a run.

    With ``auto``, groups are joined in one row only if attention is computed separately for each
    segment of a row. A mask over a joined row would cost more than the padding that it saves.

    Args:
        requested: The layout in the settings.
        logp_model: The policy, its weights on `device`.
        adapter: Encodes rows.
        rows: The rows of the run; some of them are computed in every layout.
        unpackable: Why rows cannot be packed; `None` if no reason is known in advance.
        device: The device of the weights.

    Raises:
        ModelError: If the requested layout is impossible.
    """
    if requested == "plain":
        return LayoutChoice("plain", "as configured")
    if not rows:
        return LayoutChoice("plain", "there are no rows")
    trial = None if unpackable else _Trial(logp_model, adapter, rows, device)
    reason = unpackable if trial is None else trial.disagreement("packed")
    if trial is not None and (requested == "joined" or (requested == "auto" and trial.in_pieces)):
        joined_reason = reason or trial.disagreement("joined")
        if joined_reason is None:
            return LayoutChoice("joined")
        reason = joined_reason if requested == "joined" else reason
    if requested == "auto" and all(len(row.responses) < 2 for row in rows):
        return LayoutChoice("plain", "each prompt has one response")
    if reason is None:
        return LayoutChoice("packed")
    if requested != "auto":
        problem = f"rows cannot be {requested}: {reason}"
        raise ModelError(Problem("model.layout", problem, "Set it to auto"))
    return LayoutChoice("plain", reason)


class _Trial:
    """The log-probs of a few rows of the run, to compare layouts.

    Attributes:
        in_pieces: Whether attention was computed separately for each segment of a row so far, so
            that no mask over a complete row was built.
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
        self.plain = self._logps("plain", self.groups)
        self.tolerance = PACKED_TOLERANCE.get(self.dtype) or self._rounding()

    def disagreement(self, layout: Layout) -> str | None:
        """Return how a layout differs from the plain one; `None` if only by rounding errors."""
        before = masks_built()
        try:
            difference = float((self.plain - self._logps(layout, self.groups)).abs().max())
        except Exception as error:  # an untested model may raise anything; plain rows did work
            return f"{layout} rows fail with {type(error).__name__}: {error}"
        self.in_pieces = self.in_pieces and masks_built() == before
        if difference <= self.tolerance:
            return None
        return f"{layout} log-probs differ from plain ones by {difference:.3g}"

    @torch.no_grad()
    def _rounding(self) -> float:
        """Return the tolerance in half precision: up to twice the spacing of its numbers.

        The spacing grows with the logits: bfloat16 numbers from 64 to 128 are 0.5 apart, and
        another order of sums may round a logit to its neighbor.
        """
        batch = collate(self.groups[:1], pad_token_id=self.adapter.pad_token_id).to(self.device)
        inputs = self.logp_model.checked(self.adapter.forward_inputs(batch.inputs))
        model: Any = self.logp_model.model
        training = model.training
        targets = batch.targets
        logits = model.eval()(**inputs, use_cache=False).logits[targets.row, targets.position]
        model.train(training)
        steps = torch.finfo(self.dtype).eps * float(logits.abs().max())
        return max(LOW_PRECISION_TOLERANCE, steps)

    @torch.no_grad()
    def _logps(self, layout: Layout, groups: Sequence[EncodedGroup]) -> Tensor:
        pad = self.adapter.pad_token_id
        batch = collate(groups, pad_token_id=pad, layout=layout).to(self.device)
        training = self.logp_model.training
        self.logp_model.eval()
        try:
            return compute_logps(self.logp_model, self.adapter, batch)
        finally:
            self.logp_model.train(training)


def _sample(rows: Sequence[PreferenceRow]) -> list[PreferenceRow]:
    """Return the row with the largest number of responses, rows with images, and the last rows.

    A row may occur twice.
    """
    largest = max(rows, key=lambda row: len(row.responses))
    return [largest, *(row for row in rows if row.images), *reversed(rows)][:SAMPLE_ROWS]


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
