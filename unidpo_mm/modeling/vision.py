"""Image features, computed by the first pass over a batch and shared by all its passes.

The vision tower and the projector of a model turn the pixels of an image into features. Models of
transformers also accept the features in place of the pixels (`mm_encoder_outputs`). If nothing
between pixels and language model trains, features are computed without gradients, so that no
backward pass runs through the tower, and policy and reference share them.
"""

import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..cache.feature_store import FeatureStore
from ..distributed import true_everywhere

__all__ = [
    "ImageFeatures",
    "takes_features",
    "trains_vision",
    "vision_weights",
    "with_features",
]

PIXELS = "pixel_values"
"""The input that features replace."""

FEATURES = "mm_encoder_outputs"
"""The input for features."""

STACKED = "stacked."
"""Prefix of the names of stored features that the model takes as one tensor."""
MARKERS = "visual_indicator_features"
"""The name of stored features that belong to no image."""


@dataclass(frozen=True)
class Features:
    """The part of a tower's output that the language model uses.

    The names are those of the outputs of transformers.

    Attributes:
        pooler_output: [tokens, D] per entry (image, tile or row, see `Media.entries`), as a list
            or, if all entries have the same number of tokens, as one tensor. Models accept only the
            form that they return.
        deepstack_features: The same from inner layers of the tower, per layer; `None` for models
            that use none.
        visual_indicator_features: Features of marker tokens, which do not depend on the images;
            `None` for models without them.
    """

    pooler_output: Sequence[Tensor] | Tensor
    deepstack_features: Sequence[Sequence[Tensor]] | None = None
    visual_indicator_features: Tensor | None = None

    @classmethod
    def of_output(cls, output: Any) -> "Features":
        """Return the features in the output of `get_image_features`."""
        return cls(
            output.pooler_output,
            getattr(output, "deepstack_features", None),
            getattr(output, "visual_indicator_features", None),
        )

    def in_order(self, order: Sequence[int]) -> "Features":
        """Return the features of the images in the order of the rows, with repetitions."""
        layers = self.deepstack_features
        return Features(
            _select(self.pooler_output, order),
            None if layers is None else [_select(layer, order) for layer in layers],
            self.visual_indicator_features,
        )

    def tensors(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """Return the features of some images as named tensors, for storage."""
        stacked = isinstance(self.pooler_output, Tensor)
        rows = [self.pooler_output, *(self.deepstack_features or ())]
        tensors = {
            f"{STACKED if stacked else ''}{layer}.{n}": features[number].detach().cpu()
            for layer, features in enumerate(rows)
            for n, number in enumerate(numbers)
        }
        if self.visual_indicator_features is not None:
            tensors[MARKERS] = self.visual_indicator_features.detach().cpu()
        return tensors

    @classmethod
    def of_tensors(
        cls,
        groups: Sequence[Mapping[str, Tensor]],
        images: Sequence[int],
        device: torch.device,
    ) -> "Features":
        """Return the features of the images of some groups from their named tensors."""
        markers = groups[0].get(MARKERS)
        stacked = f"{STACKED}0.0" in groups[0]
        prefix = STACKED if stacked else ""
        layers = (len(groups[0]) - (markers is not None)) // images[0]
        rows = [
            [
                group[f"{prefix}{layer}.{n}"].to(device)
                for group, count in zip(groups, images, strict=True)
                for n in range(count)
            ]
            for layer in range(layers)
        ]
        return cls(
            torch.stack(rows[0]) if stacked else rows[0],
            rows[1:] or None,
            None if markers is None else markers.to(device),
        )


def _select(images: Sequence[Tensor] | Tensor, order: Sequence[int]) -> Any:
    if isinstance(images, Tensor):
        return images[list(order)]
    return [images[number] for number in order]


class ImageFeatures:
    """The features of the images of one batch, shared by all passes over it.

    It is not a dataclass: FSDP copies dataclasses that are passed to a forward, and a copy would
    not be shared.

    Args:
        store: Keeps features of a frozen tower between batches; `None` to compute them every time.
        keys: Key and number of images of each group with images, in their order.

    Attributes:
        output: The features; `None` until the first pass.
    """

    def __init__(
        self, store: FeatureStore | None = None, keys: Sequence[tuple[str, int]] = ()
    ) -> None:
        self.output: Features | None = None
        self.store = store
        self.keys = keys

    def load(self, device: torch.device) -> None:
        """Fill `output` from the store if it has the images of every group."""
        if self.store is None or self.output is not None or not self.keys:
            return
        entries = [self.store.get(key) for key, _ in self.keys]
        if not true_everywhere(None not in entries, device):  # all run the tower or none does
            return
        groups = [group for group in entries if group is not None]
        images = [count for _, count in self.keys]
        self.output = Features.of_tensors(groups, images, device)

    def keep(self, output: Features) -> None:
        """Set `output` and write it to the store."""
        self.output = output
        start = 0
        for key, count in self.keys if self.store is not None else ():
            assert self.store is not None
            self.store.put(key, output.tensors(range(start, start + count)))
            start += count


def takes_features(base: nn.Module) -> bool:
    """Return whether a base model accepts image features in place of pixels."""
    accepted = inspect.signature(base.forward).parameters
    return FEATURES in accepted and hasattr(base, "get_image_features")


def trains_vision(model: Any) -> bool:
    """Return whether anything between pixels and language model trains, see `vision_weights`.

    Every forward pass asks, so the usual answer, no, takes no look at the language model.
    """
    language_model = {id(model.get_decoder()), id(model.get_output_embeddings())}
    if not any(tensor.requires_grad for tensor in _parameters_without(model, language_model)):
        return False
    return any(tensor.requires_grad for _, tensor in vision_weights(model))


def _parameters_without(module: nn.Module, skipped: Collection[int]) -> Iterator[Tensor]:
    """Yield the parameters of a module and its children, except of children with these ids."""
    yield from module.parameters(recurse=False)
    for child in module.children():
        if id(child) not in skipped:
            yield from _parameters_without(child, skipped)


def with_features(
    base: Any,
    inputs: Mapping[str, Any],
    *,
    trains: bool,
    shared: ImageFeatures | None = None,
    order: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Return the inputs of a base model with features in place of pixels.

    Args:
        base: A model for which `takes_features` is true.
        inputs: Its keyword arguments.
        trains: Whether tower or projector need gradients; if not, features are computed without
            them and kept in `shared`.
        shared: The features of the batch, filled by the first pass over it.
        order: For each image in the rows, its index in the batch's images; `None` if the order is
            the same.
    """
    if PIXELS not in inputs:
        return dict(inputs)
    if shared is not None and not trains:
        shared.load(inputs[PIXELS].device)
    # gradients need features of this pass, not of an earlier one
    output = None if shared is None or trains else shared.output
    accepted = inspect.signature(base.get_image_features).parameters
    if output is None:
        arguments = {name: value for name, value in inputs.items() if name in accepted}
        with torch.set_grad_enabled(trains and torch.is_grad_enabled()):
            encoded = base.get_image_features(**arguments, return_dict=True)
        output = Features.of_output(encoded)
        if shared is not None and not trains:
            shared.keep(output)
    rest = {name: value for name, value in inputs.items() if name != PIXELS}
    if order is not None:
        images = len(output.pooler_output)
        rest |= {  # entries per image, such as grids
            name: value[list(order)]
            for name, value in rest.items()
            if name in accepted and isinstance(value, Tensor) and len(value) == images
        }
        output = output.in_order(order)
    return {**rest, FEATURES: {"image": output}}


def vision_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield name and tensor of the weights between pixels and language model, without PEFT."""
    decoder = {id(p) for p in model.get_decoder().parameters()}
    decoder |= {id(p) for p in model.get_output_embeddings().parameters()}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if id(tensor) not in decoder and "language_model" not in name:
            yield name, tensor
