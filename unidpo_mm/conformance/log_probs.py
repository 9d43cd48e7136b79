"""The check that log-probs from hidden states are those of the model, and that it is causal.

`LogpModel` applies the output head to the hidden states of the base model. A model that does
something else in between, such as another layer or a scale, would silently give wrong numbers. So
would a model whose tokens also attend to later ones: it would predict tokens that it has seen. Both
show in the log-probs of two short responses with the same beginning.
"""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..adapter import Adapter
from ..data.collate import collate
from ..errors import DataError, ModelError, Problem
from ..modeling.logp_model import compute_logps, compute_own_logps, evaluating
from ..records import EncodedGroup, Message, Pair, PreferenceRow, Response

__all__ = [
    "RESTORE",
    "ROUNDING_FLOOR",
    "check_log_probs",
    "rounding_of_logits",
    "weights_not_finite",
]

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
"""Maximum difference between a token's log-prob and that computed from the model's logits."""

ROUNDED_QUANTILE = 0.75
"""The quantile of the differences in half precision, which rounds the logits themselves."""

ROUNDING_FLOOR = 0.02
"""Minimum tolerance in half precision, for logits that are nearly zero."""

MAX_NAMED = 3
"""Maximum number of tensors in a message."""

RESTORE = "Restore the checkpoint; if it was trained in float16, its weights may be lost"
"""The remedy for weights that are not finite."""


@torch.no_grad()
def check_log_probs(
    model: nn.Module,
    adapter: Adapter,
    device: torch.device | str,
    rows: Sequence[PreferenceRow] = (),
) -> Tensor:
    """Check the log-probs of a short row; if it cannot be encoded, those of `rows[0]`.

    Args:
        model: A `LogpModel`, or what accelerate prepared of it.
        adapter: Encodes the row.
        device: The device of the model.
        rows: The rows of the run.

    Returns:
        The largest absolute logit at each position.

    Raises:
        ModelError: If they are not finite, differ from those of the model's own logits by more than
            rounding errors, or depend on later tokens.
        DataError: If neither row can be encoded.
    """
    group = _encoded(adapter, rows)
    batch = collate([group], pad_token_id=adapter.pad_token_id).to(device)
    with evaluating(model):
        logps = compute_logps(model, adapter, batch).float()
        expected, largest = compute_own_logps(model, adapter, batch)
    if not (logps.isfinite().all() and expected.isfinite().all()):
        raise _problem(model, *_not_finite(model))
    difference = _difference(logps, expected, largest)
    if difference > _tolerance(largest):
        text = "the model changes hidden states or logits between decoder and LM head, so log-probs"
        text += f" computed from the hidden states differ by {difference:.3g}"
        raise _problem(model, text, "Choose another model, or report the problem")
    first, second = logps.split([len(ids) for ids in group.response_ids])
    shared = _shared_beginning(group)
    difference = _difference(first[:shared], second[:shared], largest) if shared else 0.0
    if difference > _tolerance(largest):
        text = "its tokens also attend to later ones, so that it would be trained to predict what "
        text += f"it sees: a later token changes the log-prob of an earlier one by {difference:.3g}"
        raise _problem(model, text, "Choose a causal model, or correct its config.json")
    return largest


def rounding_of_logits(largest: Tensor, dtype: torch.dtype) -> float:
    """Return by how much rounding of the logits may change a log-prob in half precision.

    The spacing of numbers grows with them: bfloat16 numbers from 64 to 128 are 0.5 apart, and a
    different order of summation may round a logit to its neighbor.

    Args:
        largest: The largest absolute logit at each position.
        dtype: The number format of the logits.
    """
    return max(ROUNDING_FLOOR, torch.finfo(dtype).eps * float(largest.float().median()))


def _encoded(adapter: Adapter, rows: Sequence[PreferenceRow]) -> EncodedGroup:
    """Return a row with two responses that have the same beginning."""
    try:
        return adapter.encode(_short_row())
    except DataError:  # too long for max_length, or the chat template refuses it
        if not rows:
            raise
    first = dataclasses.replace(rows[0].responses[0], score=None)
    second = dataclasses.replace(first, text=f"{first.text} No.")
    row = dataclasses.replace(
        rows[0], responses=(first, second), pairs=(Pair(0, 1),), labels=(), other_images=()
    )
    try:
        return adapter.encode(row)
    except DataError:  # the longer response is too long
        return adapter.encode(dataclasses.replace(row, responses=(first, first), pairs=()))


def _short_row() -> PreferenceRow:
    return PreferenceRow(
        id="check",
        domain="text",
        source="check",
        where="check",
        messages=(Message("user", ("How are you?",)),),
        responses=(Response("Fine, thank you.", 1.0), Response("Fine, thank you. No.", 0.0)),
        pairs=(Pair(0, 1),),
        raw=True,
    )


def _shared_beginning(group: EncodedGroup) -> int:
    """Return the number of tokens with which both responses begin, before they differ."""
    first, second = (ids.tolist() for ids in group.response_ids)
    pairs = zip(first, second, strict=False)
    return next((n for n, (token, other) in enumerate(pairs) if token != other), 0)


def _difference(logps: Tensor, expected: Tensor, largest: Tensor) -> float:
    differences = (logps - expected).abs().float()
    exact = largest.dtype in TOLERANCE
    return float(differences.max() if exact else differences.quantile(ROUNDED_QUANTILE))


def _tolerance(largest: Tensor) -> float:
    return TOLERANCE.get(largest.dtype) or 2 * rounding_of_logits(largest, largest.dtype)


def weights_not_finite(model: nn.Module) -> str:
    """Return which weights are infinite or NaN, as a problem; empty if none is."""
    names = [
        name.removeprefix("module.").removeprefix("model.")
        for name, tensor in model.named_parameters()
        if tensor.numel() and not bool(torch.isfinite(tensor).all())
    ]
    listed = ", ".join(names[:MAX_NAMED])
    listed += f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return f"weights are infinite or NaN: {listed}" if names else ""


def _not_finite(model: nn.Module) -> tuple[str, str]:
    """Return why log-probs are not finite, and what to do."""
    text = weights_not_finite(model)
    if text:
        return text, RESTORE
    text = "the log-probs of a short text are not finite, although all weights are"
    return text, "Compute in bfloat16 or float32, whose largest numbers are larger"


def _problem(model: nn.Module, text: str, remedy: str) -> ModelError:
    name = type(getattr(model, "module", model).model).__name__
    return ModelError(Problem(name, text, remedy))
