"""Check before training that log-probs are correct, and the same in every layout.

The log-probs of one short row are first compared with the logits of the model, see
`conformance/log_probs.py`.

Packed rows contain several responses, which must not see each other. A model with a recurrent
state, or whose attention ignores the mask, would mix them. So a few rows of the run are computed in
each layout, and rows stay plain if the results differ (`layout_trial.py`).

A model whose weights are divided among processes is checked through the module that accelerate
prepared, on the devices that train it. All processes compute the same rows.

Scores on a different scale than the loss expects cause no error. But then w_qual is 0.5 or 1 for
every pair, or the gate of the calibrated NLL is always closed or always open: `score_warnings`
detects that.
"""

import contextlib
import logging
from collections.abc import Mapping, Sequence

import numpy
import torch
from torch import Tensor, nn

from ..config.python import UniDPOConfig
from ..conformance import check_log_probs, check_untested_type, rounding_of_logits
from ..data.collate import collate
from ..data.row_table import columns_of
from ..inference.image_tokens import check_image_tokens
from ..losses.weights import quality_weight
from ..modeling.logp_model import compute_logps, evaluating
from ..modeling.parts import compute_dtype
from ..modeling.references.cached import CachedReference
from ..modeling.shared_layers import SharedLayers, shared_layers
from ..records import Layout, PreferenceRow
from .configured_loss import ConfiguredLoss
from .layout_trial import choose_layout, sample_rows
from .run_parts import LayoutChoice, RunParts

logger = logging.getLogger(__name__)

__all__ = ["check_start", "layers_to_share", "score_warnings"]

SEPARATE = "layers without trained weights run twice, for policy and reference: results differ"

FLAT_WEIGHT = 0.6
"""If w_qual of nearly all pairs is below this and above 0.4, scores have hardly any effect."""
FULL_WEIGHT = 0.99
"""If w_qual of nearly all pairs is above this, score margins have hardly any effect."""
NEARLY_ALL = 0.9
"""Minimum share of pairs that counts as nearly all."""
MIN_USED_SHARE = 0.2
"""Minimum share of a declared scale that its scores are expected to cover."""


def check_start(
    parts: RunParts,
    args: UniDPOConfig,
    device: torch.device | str,
    *,
    prepared: nn.Module | None = None,
) -> LayoutChoice:
    """Check the log-probs of a model and choose the layout.

    Args:
        parts: The parts of the run.
        args: Its options.
        device: The device of the model.
        prepared: What accelerate prepared of the model, if its weights are divided; every process
            calls this function then, in the accelerator's autocast. Otherwise the model is checked
            before it is prepared.

    Raises:
        ModelError: If the processor disagrees with the model, log-probs differ from the model's
            logits, a model of an untested type differs from the library, or the chosen layout is
            impossible.
    """
    rows = parts.train_rows or parts.eval_rows
    kind, dtype = torch.device(device).type, compute_dtype(args, parts.logp_model)
    with contextlib.ExitStack() as stack:
        if prepared is None and (args.bf16 or args.fp16):
            stack.enter_context(torch.autocast(kind, dtype=dtype))
        model = parts.logp_model if prepared is None else prepared
        if prepared is None:
            samples = sample_rows(rows) if rows else ()
            check_image_tokens(parts.logp_model.model, parts.adapter, device, samples)
        largest = check_log_probs(model, parts.adapter, device, rows)
        if prepared is None:
            check_untested_type(parts.logp_model, parts.family, parts.adapter, device)
        return choose_layout(
            *(parts, args, model, device, dtype),
            rounding=rounding_of_logits(largest, dtype),
            together=prepared is not None,
        )


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
    groups = [adapter.encode(sample_rows(rows)[0])]
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
