"""Compare the log-probs of a few rows in every layout, and choose the layout of a run.

In float32 and float64, layouts only add numbers in a different order, so every token has to agree.
In half precision, even the same rows differ between batches: logits are rounded to numbers that may
be 0.25 apart, and a rare token may move by more than that. So differences are compared by quantile,
per response, with what rounding explains: the difference that the plain rows themselves show in
another batching, and the distance between numbers of the size of the logits. A response that sees
another one changes most of its tokens, which a quantile reveals; a rare token does not change it.
"""

import gc
from collections.abc import Sequence

import numpy
import torch
from torch import Tensor, nn

from ..adapter import Adapter
from ..config.python import UniDPOConfig
from ..data.collate import collate
from ..data.row_table import columns_of
from ..distributed import gather_objects
from ..errors import ModelError, Problem
from ..kernels.packing import masks_built
from ..modeling.logp_model import compute_logps, evaluating
from ..records import EncodedGroup, Layout, PreferenceRow
from .run_parts import LayoutChoice, RunParts

__all__ = [
    "LayoutTrial",
    "choose_layout",
    "free_memory",
    "sample_rows",
    "token_count",
]

EXACT = {torch.float32: 1e-4, torch.float64: 1e-4}
"""Maximum difference between layouts in formats in which every token has to agree."""

NOISE_FACTOR = 3.0
"""How much larger than between two batchings of plain rows a difference may be."""

NOISE_QUANTILE = 0.95
"""The quantile of the differences between two batchings over all tokens."""

RESPONSE_QUANTILE = 0.75
"""The quantile of the differences between layouts over the tokens of a response."""

SAMPLE_ROWS = 3
"""Number of rows that are computed in every layout."""


def choose_layout(
    parts: RunParts,
    args: UniDPOConfig,
    model: nn.Module,
    device: torch.device | str,
    dtype: torch.dtype,
    *,
    rounding: float,
    together: bool = False,
) -> LayoutChoice:
    """Return the layout of a run.

    With ``auto``, groups are joined in one row only if attention is computed separately for each
    segment of a row. A mask over a joined row would cost more than the padding that it saves.

    Args:
        parts: The parts of the run.
        args: Its options.
        model: The policy, or what accelerate prepared of it.
        device: The device of the policy.
        dtype: The number format of its matrix products.
        rounding: See `rounding_of_logits`.
        together: Whether all processes compute together, because they share the weights.

    Raises:
        ModelError: If the requested layout is impossible, or a row does not fit in memory.
    """
    rows = parts.train_rows or parts.eval_rows
    requested, unpackable = args.layout, parts.unpackable
    if not args.disable_dropout:
        unpackable = unpackable or "dropout would differ between the layouts"
    if requested == "plain":
        return LayoutChoice("plain", "as configured")
    if not rows:
        return LayoutChoice("plain", "there are no rows")
    trial = None
    if not unpackable:
        trial = LayoutTrial(
            model, parts.adapter, rows, device, dtype=dtype, rounding=rounding, together=together
        )
    reason = unpackable if trial is None else trial.disagreement("packed")
    if trial is not None and (requested == "joined" or (requested == "auto" and trial.segmented)):
        joined_reason = reason or trial.disagreement("joined")
        if joined_reason is None:
            return LayoutChoice("joined")
        reason = joined_reason if requested == "joined" else reason
    if requested == "auto" and (columns_of(rows).responses < 2).all():
        return LayoutChoice("plain", "each prompt has one response")
    if reason is None:
        return LayoutChoice("packed")
    if requested != "auto":
        problem = f"rows cannot be {requested}: {reason}"
        raise ModelError(Problem("model.layout", problem, "Set it to auto"))
    return LayoutChoice("plain", reason)


class LayoutTrial:
    """The log-probs of a few rows of the run, to compare layouts.

    Args:
        model: A `LogpModel`, or what accelerate prepared of it.
        adapter: Encodes the rows.
        rows: The rows of the run.
        device: The device of the model.
        dtype: The number format of matrix products.
        rounding: The least tolerance in half precision, see `rounding_of_logits`.
        together: Whether all processes compute together, because they share the weights.

    Attributes:
        segmented: Whether attention has been computed separately for each segment of a row so far,
            so that no mask over a complete row was built.
        tolerance: Maximum difference of log-probs between layouts.
    """

    def __init__(
        self,
        model: nn.Module,
        adapter: Adapter,
        rows: Sequence[PreferenceRow],
        device: torch.device | str,
        *,
        dtype: torch.dtype,
        rounding: float,
        together: bool = False,
    ) -> None:
        self.model, self.adapter, self.device = model, adapter, device
        self.together = together
        self.groups = [adapter.encode(row) for row in sample_rows(rows)]
        self.segmented = True
        self.plain = self._logps("plain")
        self.exact = dtype in EXACT
        self.tolerance = EXACT[dtype] if self.exact else max(rounding, self._noise())

    def disagreement(self, layout: Layout) -> str | None:
        """Return how a layout differs from the plain one; `None` if only by rounding errors.

        Processes that compute together get the same answer.

        Raises:
            ModelError: If a row does not fit in memory.
        """
        reason = self._disagreement(layout)
        if not self.together:
            return reason
        reasons = gather_objects(reason)
        return next((reason for reason in reasons if reason is not None), None)

    def _disagreement(self, layout: Layout) -> str | None:
        before = masks_built()
        try:
            difference = self._difference(self._logps(layout))
        except ModelError:
            raise
        except Exception as error:  # an untested model may raise anything; plain rows worked
            return f"{layout} rows fail with {type(error).__name__}: {error}"
        self.segmented = self.segmented and masks_built() == before
        if difference <= self.tolerance:
            return None
        return f"{layout} log-probs differ from plain ones by {difference:.3g}"

    def _difference(self, logps: Tensor) -> float:
        """Return the difference from plain rows: of the worst token, or of the worst response."""
        differences = (self.plain - logps).abs().float()
        if self.exact or not bool(torch.isfinite(differences).all()):
            return float(differences.max())
        lengths = [len(ids) for group in self.groups for ids in group.response_ids]
        return max(
            float(tokens.quantile(RESPONSE_QUANTILE))
            for tokens in differences.split(lengths)
            if len(tokens)
        )

    def _noise(self) -> float:
        """Return the tolerance that follows from the difference between two batchings."""
        alone = torch.cat([self._computed("plain", [group]) for group in self.groups])
        return NOISE_FACTOR * float((self.plain - alone).abs().float().quantile(NOISE_QUANTILE))

    def _logps(self, layout: Layout) -> Tensor:
        """Return the log-probs of all rows; if memory is short, compute them one by one.

        Processes that compute together cannot try again: the others are in the middle of a pass.
        """
        try:
            return self._computed(layout, self.groups)
        except torch.OutOfMemoryError as error:
            if self.together:
                raise _too_large(error) from error
        free_memory()  # outside of the handler, which keeps the tensors alive
        try:
            return torch.cat([self._computed(layout, [group]) for group in self.groups])
        except torch.OutOfMemoryError as error:
            raise _too_large(error) from error

    @torch.no_grad()
    def _computed(self, layout: Layout, groups: Sequence[EncodedGroup]) -> Tensor:
        pad = self.adapter.pad_token_id
        batch = collate(groups, pad_token_id=pad, layout=layout).to(self.device)
        with evaluating(self.model):
            return compute_logps(self.model, self.adapter, batch)


def _too_large(error: torch.OutOfMemoryError) -> ModelError:
    problem = f"a row of the run does not fit in memory when layouts are compared ({error})"
    remedy = "Lower data.max_length or the image size, shard the model, or free memory"
    return ModelError(Problem("model.layout", problem, remedy))


def token_count(group: EncodedGroup) -> int:
    """Return the number of tokens of a group, with the prompt repeated for every response."""
    responses = group.response_ids
    return len(group.prompt_ids) * len(responses) + sum(map(len, responses))


def sample_rows(rows: Sequence[PreferenceRow]) -> list[PreferenceRow]:
    """Return the row with the largest number of responses, rows with media, and the last rows.

    A row may occur twice.
    """
    columns = columns_of(rows)
    with_media = numpy.flatnonzero(columns.images + columns.videos)[:SAMPLE_ROWS].tolist()
    last = range(len(rows) - 1, -1, -1)[:SAMPLE_ROWS]
    numbers = [int(columns.responses.argmax()), *with_media, *last]
    return [rows[number] for number in numbers[:SAMPLE_ROWS]]


def free_memory() -> None:
    """Return unused memory to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
