"""Pictures once: their features are computed by the first pass over a batch and shared by all.

A model of transformers takes features of pictures in place of their pixels (`mm_encoder_outputs`).
Where nothing between pixels and language model trains, features are computed without gradients, so
that no backward pass can reach the tower, and policy and reference share them.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["PictureFeatures", "takes_features", "trains_vision", "with_features"]

PIXELS = "pixel_values"
"""The input that features take the place of."""

FEATURES = "mm_encoder_outputs"
"""The input that takes them."""

KEPT = ("pooler_output", "deepstack_features")
"""What a language model reads of a tower's output; the rest would only fill memory."""


class PictureFeatures:
    """The features of one batch's pictures, shared by the passes over it.

    Not a dataclass: FSDP copies those on their way into a forward, and a copy shares nothing.

    Attributes:
        output: What the tower returned; None until the first pass.
    """

    def __init__(self) -> None:
        self.output: Any = None


def takes_features(base: nn.Module) -> bool:
    """Whether a base model takes the features of pictures in place of their pixels."""
    accepted = inspect.signature(base.forward).parameters
    return FEATURES in accepted and hasattr(base, "get_image_features")


def trains_vision(model: Any) -> bool:
    """Whether anything between pixels and language model trains.

    Args:
        model: A transformers model with an output head, without PEFT around it.
    """
    decoder = model.get_decoder()
    inside = {id(parameter) for parameter in decoder.parameters()}
    inside |= {id(parameter) for parameter in model.get_output_embeddings().parameters()}
    return any(p.requires_grad and id(p) not in inside for p in model.parameters())


def with_features(
    base: Any,
    inputs: Mapping[str, Any],
    *,
    trains: bool,
    shared: PictureFeatures | None = None,
    order: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Returns the inputs of a base model with features in place of pixels.

    Args:
        base: A model for which `takes_features` is true.
        inputs: Its keyword arguments.
        trains: Whether gradients have to reach the tower or the projector; if not, features are
            computed without them and kept in `shared`.
        shared: Features of the same batch from an earlier pass, or a place for them.
        order: For every picture of the rows, which of the batch's pictures it is; None where each
            is there once.
    """
    if PIXELS not in inputs:
        return dict(inputs)
    output = None if shared is None else shared.output
    if output is None:
        with torch.set_grad_enabled(trains and torch.is_grad_enabled()):
            output = _encode(base.get_image_features, inputs)
        if shared is not None and not trains:
            shared.output = output
    rest = {name: value for name, value in inputs.items() if name != PIXELS}
    if order is not None:
        rest |= _in_order(base.get_image_features, rest, len(output.pooler_output), order)
        output = _ordered(output, order)
    return {**rest, FEATURES: {"image": output}}


def _in_order(
    get_image_features: Callable[..., Any],
    inputs: Mapping[str, Any],
    pictures: int,
    order: Sequence[int],
) -> dict[str, Any]:
    """Returns what else is known of each picture, as the rows need it: positions follow grids."""
    known = inspect.signature(get_image_features).parameters
    return {
        name: value[list(order)]
        for name, value in inputs.items()
        if name in known and isinstance(value, Tensor) and len(value) == pictures
    }


def _encode(get_image_features: Callable[..., Any], inputs: Mapping[str, Any]) -> Any:
    accepted = inspect.signature(get_image_features).parameters
    output = get_image_features(
        **{name: value for name, value in inputs.items() if name in accepted}, return_dict=True
    )
    return type(output)(**{name: output[name] for name in KEPT if output.get(name) is not None})


def _ordered(output: Any, order: Sequence[int]) -> Any:
    """Returns the output with its pictures repeated as the rows need them."""
    pictures: Sequence[Tensor] = output.pooler_output
    ordered: dict[str, Any] = {"pooler_output": [pictures[number] for number in order]}
    if output.get("deepstack_features") is not None:  # one list of pictures for each layer
        layers = output.deepstack_features
        ordered["deepstack_features"] = [[layer[n] for n in order] for layer in layers]
    return type(output)(**ordered)
