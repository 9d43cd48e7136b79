"""Check before training that log-probs are correct, and the same in every layout.

`LogpModel` applies the output head to the hidden states of the base model. A model that does
something else in between, such as another layer or a scale, would silently train on wrong numbers.
So the log-probs of one short row are first compared with the model's logits.

Packed rows contain several responses, which must not see each other. A model with a recurrent
state, or whose attention ignores the mask, would mix them. So a few rows of the run are computed in
each layout, and rows stay plain if the results differ.

Scores on a different scale than the loss expects cause no error. But then w_qual is 0.5 or 1 for
every pair, or the gate of the calibrated NLL is always closed or always open: `score_warnings`
detects that.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import torch
from torch import Tensor

from ..adapter import Adapter
from ..config.python import UniDPOConfig
from ..conformance import check_untested_type
from ..data.collate import collate
from ..data.row_table import columns_of
from ..errors import DataError, ModelError, Problem
from ..kernels.packing import masks_built
from ..losses.weights import quality_weight
from ..modeling.logp_model import LogpModel, compute_logps, evaluating
from ..modeling.parts import compute_dtype
from ..modeling.references.cached import CachedReference
from ..modeling.shared_layers import SharedLayers, shared_layers
from ..records import EncodedGroup, GroupBatch, Layout, Message, Pair, PreferenceRow, Response
from .configured_loss import ConfiguredLoss
from .run_parts import LayoutChoice, RunParts

logger = logging.getLogger(__name__)

__all__ = ["check_logp_model", "check_start", "layers_to_share", "score_warnings"]

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
"""Maximum difference between a token's log-prob and that computed from the model's logits."""

LOW_PRECISION_TOLERANCE = 0.2
"""The same in half precision, which rounds the logits themselves."""

PACKED_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
"""Maximum difference between layouts, which only add numbers in a different order."""

SEPARATE = "layers without trained weights run twice, for policy and reference: results differ"

SAMPLE_ROWS = 3
"""Number of rows that are computed in every layout."""

FLAT_WEIGHT = 0.6
"""If w_qual of nearly all pairs is below this and above 0.4, scores have hardly any effect."""
FULL_WEIGHT = 0.99
"""If w_qual of nearly all pairs is above this, score margins have hardly any effect."""
NEARLY_ALL = 0.9
"""Minimum share of pairs that counts as nearly all."""
MIN_USED_SHARE = 0.2
"""Minimum share of a declared scale that its scores are expected to cover."""


def check_start(parts: RunParts, args: UniDPOConfig, device: torch.device | str) -> LayoutChoice:
    """Check the log-probs of a model that accelerate has not prepared yet; choose the layout.

    Raises:
        ModelError: If log-probs differ from the model's logits, a model of an untested type differs
            from the library, or the chosen layout is impossible.
    """
    rows = parts.train_rows or parts.eval_rows
    kind, dtype = torch.device(device).type, compute_dtype(args, parts.logp_model)
    # without accelerate's autocast: weights that FSDP shards later are checked on the CPU
    with torch.autocast(kind, dtype=dtype, enabled=args.bf16 or args.fp16):
        check_logp_model(parts.logp_model, parts.adapter, device, rows)
        check_untested_type(parts.logp_model, parts.family, parts.adapter, device)
        return _choose_layout(parts, args, rows, device)


@torch.no_grad()
def layers_to_share(
    parts: RunParts, args: UniDPOConfig, layout: Layout, device: torch.device | str
) -> SharedLayers | None:
    """Return the layers that run once for policy and reference.

    Args:
        parts: The parts of the run, in the state in which training begins.
        args: Its options.
        layout: The layout of its batches.
        device: The device of the model.

    Returns:
        The layers; `None` if there are none, or the log-probs of a row change.
    """
    reference, rows = parts.reference, parts.train_rows or parts.eval_rows
    if isinstance(reference, CachedReference):
        reference = reference.source
    layers = shared_layers(parts.logp_model, reference) if args.disable_dropout else None
    if layers is None or reference is None or not rows:
        return None
    adapter, policy = parts.adapter, parts.logp_model
    groups = [adapter.encode(_sample(rows)[0])]
    batch = collate(groups, pad_token_id=adapter.pad_token_id, layout=layout).to(device)
    kind, dtype = torch.device(device).type, compute_dtype(args, policy)
    with torch.autocast(kind, dtype=dtype, enabled=args.bf16 or args.fp16), evaluating(policy):
        expected = compute_logps(policy, adapter, batch)
        with layers.once():
            reference.token_logps(policy, batch)
            try:
                shared = compute_logps(policy, adapter, batch)
            except Exception:  # an untested model may raise anything; separate passes worked
                logger.warning(SEPARATE, exc_info=True)
                return None
    if torch.equal(shared, expected):
        return layers
    logger.warning(SEPARATE)
    return None


@torch.no_grad()
def check_logp_model(
    logp_model: LogpModel,
    adapter: Adapter,
    device: torch.device | str,
    rows: Sequence[PreferenceRow] = (),
) -> None:
    """Compare the log-probs of a short row with the logits; if it is invalid, use `rows[0]`.

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
    with evaluating(logp_model):
        logps = compute_logps(logp_model, adapter, batch).float()
        logits = _logits(logp_model, adapter, batch)
    targets = batch.targets
    expected = logits.float().log_softmax(-1)[targets.row, targets.position, targets.ids]
    difference = float((logps - expected).abs().max())
    if not difference <= TOLERANCE.get(logits.dtype, LOW_PRECISION_TOLERANCE):
        raise ModelError(
            Problem(
                type(logp_model.model).__name__,
                "the model changes hidden states or logits between decoder and LM head, so "
                f"log-probs computed from the hidden states differ by {difference:.3g}",
                "Choose another model, or report the problem",
            )
        )


def _logits(logp_model: LogpModel, adapter: Adapter, batch: GroupBatch) -> Tensor:
    """Return all logits of the model itself, [B, T, V]."""
    inputs = logp_model.checked(adapter.forward_inputs(batch.inputs))
    model: Any = logp_model.model
    logits: Tensor = model(**inputs, use_cache=False).logits
    return logits


def _choose_layout(
    parts: RunParts,
    args: UniDPOConfig,
    rows: Sequence[PreferenceRow],
    device: torch.device | str,
) -> LayoutChoice:
    """Return the layout of a run.

    With ``auto``, groups are joined in one row only if attention is computed separately for each
    segment of a row. A mask over a joined row would cost more than the padding that it saves.

    Raises:
        ModelError: If the requested layout is impossible.
    """
    requested, unpackable = args.layout, parts.unpackable
    if not args.disable_dropout:
        unpackable = unpackable or "dropout would differ between the layouts"
    if requested == "plain":
        return LayoutChoice("plain", "as configured")
    if not rows:
        return LayoutChoice("plain", "there are no rows")
    trial = None if unpackable else _Trial(parts.logp_model, parts.adapter, rows, device)
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


class _Trial:
    """The log-probs of a few rows of the run, to compare layouts.

    Attributes:
        segmented: Whether attention has been computed separately for each segment of a row so far,
            so that no mask over a complete row was built.
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
        self.segmented = True
        self.plain = self._logps("plain", self.groups)
        self.tolerance = PACKED_TOLERANCE.get(self.dtype) or self._rounding()

    def disagreement(self, layout: Layout) -> str | None:
        """Return how a layout differs from the plain one; `None` if only by rounding errors."""
        before = masks_built()
        try:
            difference = float((self.plain - self._logps(layout, self.groups)).abs().max())
        except Exception as error:  # an untested model may raise anything; plain rows worked
            return f"{layout} rows fail with {type(error).__name__}: {error}"
        self.segmented = self.segmented and masks_built() == before
        if difference <= self.tolerance:
            return None
        return f"{layout} log-probs differ from plain ones by {difference:.3g}"

    @torch.no_grad()
    def _rounding(self) -> float:
        """Return the tolerance in half precision: up to twice the spacing of its numbers.

        The spacing grows with the logits: bfloat16 numbers from 64 to 128 are 0.5 apart, and
        a different order of summation may round a logit to its neighbor.
        """
        batch = collate(self.groups[:1], pad_token_id=self.adapter.pad_token_id).to(self.device)
        targets = batch.targets
        with evaluating(self.logp_model):
            logits = _logits(self.logp_model, self.adapter, batch)[targets.row, targets.position]
        steps = torch.finfo(self.dtype).eps * float(logits.abs().max())
        return max(LOW_PRECISION_TOLERANCE, steps)

    @torch.no_grad()
    def _logps(self, layout: Layout, groups: Sequence[EncodedGroup]) -> Tensor:
        pad = self.adapter.pad_token_id
        batch = collate(groups, pad_token_id=pad, layout=layout).to(self.device)
        with evaluating(self.logp_model):
            return compute_logps(self.logp_model, self.adapter, batch)


def _sample(rows: Sequence[PreferenceRow]) -> list[PreferenceRow]:
    """Return the row with the largest number of responses, rows with media, and the last rows.

    A row may occur twice.
    """
    columns = columns_of(rows)
    with_media = numpy.flatnonzero(columns.images + columns.videos)[:SAMPLE_ROWS].tolist()
    last = range(len(rows) - 1, -1, -1)[:SAMPLE_ROWS]
    numbers = [int(columns.responses.argmax()), *with_media, *last]
    return [rows[number] for number in numbers[:SAMPLE_ROWS]]


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


def score_warnings(
    rows: Sequence[PreferenceRow],
    settings: ConfiguredLoss,
    declared: Mapping[str, Sequence[float]] | None = None,
) -> list[str]:
    """Return a warning for each way in which the scores of a source do not fit the loss.

    Args:
        rows: Training rows, with scores on the scale of the run.
        settings: The loss; every `tau_good` is a number.
        declared: Source -> its declared scale, mapped to the scale of the run.
    """
    columns = columns_of(rows)
    warnings = []
    for source in columns.sources:
        scores = (columns.chosen, columns.rejected)
        pairs = numpy.stack([columns.of_source(source, values) for values in scores])
        chosen, rejected = torch.from_numpy(pairs[:, ~numpy.isnan(pairs).any(axis=0)])
        if not len(chosen):
            continue
        texts = (
            _eta_warning(source, chosen, rejected, settings),
            _tau_good_warning(source, chosen, settings),
            _scale_warning(torch.cat([chosen, rejected]), (declared or {}).get(source)),
        )
        warnings += [f"source '{source}': {text}" for text in texts if text]
    return warnings


def _parameter(settings: ConfiguredLoss, source: str, name: str) -> float | None:
    value = settings.by_source.get(source, {}).get(name, getattr(settings.config, name, None))
    return float(value) if isinstance(value, int | float) else None


def _eta_warning(
    source: str, chosen: Tensor, rejected: Tensor, settings: ConfiguredLoss
) -> str | None:
    eta = _parameter(settings, source, "eta")
    if eta is None or getattr(settings.config, "quality_weight", "score") != "score":
        return None
    weight = quality_weight(chosen, rejected, eta=eta)
    flat = float(((weight - 0.5).abs() < FLAT_WEIGHT - 0.5).double().mean())
    if eta > 0 and flat >= NEARLY_ALL:
        level, change = "near 0.5", "raise eta"
    elif float((weight > FULL_WEIGHT).double().mean()) >= NEARLY_ALL:
        level, change = "1", "lower eta"
    else:
        return None
    margin = float((chosen - rejected).median())
    return (
        f"w_qual is {level} for nearly all pairs (eta is {eta:g} and the median margin of the "
        f"scores {margin:.3g}): declare the scale of the scores and data.score_scale, or {change}"
    )


def _tau_good_warning(source: str, chosen: Tensor, settings: ConfiguredLoss) -> str | None:
    tau_good = _parameter(settings, source, "tau_good")
    if tau_good is None or not _parameter(settings, source, "nll_lambda"):
        return None
    low, high = float(chosen.min()), float(chosen.max())
    if high < tau_good:
        subject = "no chosen response is"
    elif tau_good <= low < high:
        subject = "every chosen response is"
    else:
        return None
    return (
        f"{subject} good enough for the calibrated NLL (tau_good is {tau_good:g} and the scores of "
        f"chosen responses range from {low:.3g} to {high:.3g}): set tau_good on the scale of the "
        "scores, or to median"
    )


def _scale_warning(scores: Tensor, scale: Sequence[float] | None) -> str | None:
    if scale is None:
        return None
    low, high = float(scores.min()), float(scores.max())
    if (high - low) >= MIN_USED_SHARE * (scale[1] - scale[0]) or low == high:
        return None
    return (
        f"the scores range from {low:.3g} to {high:.3g}, a small part of the declared scale "
        f"[{scale[0]:g}, {scale[1]:g}]: check that it is the scale of the scores"
    )
