"""Features of images and videos, computed by the first pass over a batch and shared by all passes.

The vision tower and the projector of a model turn the pixels of an image or a video into features.
Models of transformers also accept the features in place of the pixels (`mm_encoder_outputs`). If
nothing between pixels and language model trains, features are computed without gradients, so that
no backward pass runs through the tower, and policy and reference share them.
"""

import dataclasses
import inspect
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from ..cache.feature_store import FeatureStore
from ..distributed import true_everywhere
from ..records import EncoderInputs, MediaKind

__all__ = [
    "ENCODERS",
    "PIXELS",
    "MediaFeatures",
    "takes_features",
    "trains_vision",
    "vision_weights",
    "with_features",
]

PIXELS: Mapping[MediaKind, str] = {"image": "pixel_values", "video": "pixel_values_videos"}
"""The input that the features of a kind of media replace."""
ENCODERS: Mapping[MediaKind, str] = {"image": "get_image_features", "video": "get_video_features"}
"""The method of a base model that computes the features of a kind of media."""
TIMES = "second_per_grid_ts"
"""An input with one entry per video that positions depend on, and features do not."""

FEATURES = "mm_encoder_outputs"
"""The input for features."""

STACKED = "stacked."
"""Prefix of the names of stored features that the model takes as one tensor."""
MARKERS = "visual_indicator_features"
"""The name of stored features that belong to no image or video."""
LAYERS = "layers"
"""The name of the stored layers that features enter, and of whether these are the only ones."""


@dataclass(frozen=True)
class Features:
    """The part of a tower's output that the language model uses.

    The names are those of the outputs of transformers.

    Attributes:
        pooler_output: [tokens, D] per entry (see `Media.entries`), as a list
            or, if all entries have the same number of tokens, as one tensor. Models accept only the
            form that they return. `None` for models that return only `deepstack_features`.
        deepstack_features: The same from inner layers of the tower, per layer; `None` for models
            that use none.
        visual_indicator_features: Features of marker tokens, which do not depend on the images;
            `None` for models without them.
        layers: For each entry of `deepstack_features`, the layer of the language model that it
            enters; `None` for models that enter them in their order.
    """

    pooler_output: Sequence[Tensor] | Tensor | None
    deepstack_features: Sequence[Sequence[Tensor]] | None = None
    visual_indicator_features: Tensor | None = None
    layers: Sequence[int] | None = None

    @classmethod
    def of_output(cls, output: Any) -> "Features":
        """Return the features in the output of `get_image_features` or `get_video_features`."""
        deepstack, layers = getattr(output, "deepstack_features", None), None
        if deepstack and isinstance(deepstack[0], tuple) and isinstance(deepstack[0][0], int):
            layers, deepstack = zip(*deepstack, strict=True)
        markers = getattr(output, "visual_indicator_features", None)
        return cls(output.pooler_output, deepstack, markers, layers)

    def of_entries(self) -> Sequence[Tensor] | Tensor:
        """Return the features by entry, of one layer if there are several."""
        if self.pooler_output is not None:
            return self.pooler_output
        return () if self.deepstack_features is None else self.deepstack_features[0]

    def for_model(self) -> Any:
        """Return the features in the form in which the model returned them."""
        if self.layers is None or self.deepstack_features is None:
            return self
        pairs = list(zip(self.layers, self.deepstack_features, strict=True))
        return SimpleNamespace(pooler_output=self.pooler_output, deepstack_features=pairs)

    def in_order(self, order: Sequence[int]) -> "Features":
        """Return the features in the order of the rows, with repetitions."""
        layers, output = self.deepstack_features, self.pooler_output
        return dataclasses.replace(
            self,
            pooler_output=None if output is None else _select(output, order),
            deepstack_features=None if layers is None else [_select(f, order) for f in layers],
        )

    def tensors(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """Return the features of some entries as named tensors, for storage."""
        stacked = isinstance(self.pooler_output, Tensor)
        pooled = [] if self.pooler_output is None else [self.pooler_output]
        rows = [*pooled, *(self.deepstack_features or ())]
        tensors = {
            f"{STACKED if stacked else ''}{layer}.{n}": features[number].detach().cpu()
            for layer, features in enumerate(rows)
            for n, number in enumerate(numbers)
        }
        if self.visual_indicator_features is not None:
            tensors[MARKERS] = self.visual_indicator_features.detach().cpu()
        if self.layers is not None:
            tensors[LAYERS] = torch.tensor([*self.layers, int(not pooled)])
        return tensors

    @classmethod
    def of_tensors(
        cls,
        groups: Sequence[Mapping[str, Tensor]],
        counts: Sequence[int],
        device: torch.device,
    ) -> "Features":
        """Return the features of some groups from their named tensors and numbers of entries."""
        markers, numbers = groups[0].get(MARKERS), groups[0].get(LAYERS)
        stacked = f"{STACKED}0.0" in groups[0]
        prefix = STACKED if stacked else ""
        others = (markers is not None) + (numbers is not None)
        layers = (len(groups[0]) - others) // counts[0]
        rows = [
            [
                group[f"{prefix}{layer}.{n}"].to(device)
                for group, count in zip(groups, counts, strict=True)
                for n in range(count)
            ]
            for layer in range(layers)
        ]
        *entered, unpooled = (0,) if numbers is None else numbers.tolist()
        pooled: Any = None if unpooled else rows.pop(0)
        return cls(
            torch.stack(pooled) if stacked else pooled,
            rows or None,
            None if markers is None else markers.to(device),
            entered or None,
        )


def _select(entries: Sequence[Tensor] | Tensor, order: Sequence[int]) -> Any:
    if isinstance(entries, Tensor):
        return entries[list(order)]
    return [entries[number] for number in order]


class MediaFeatures:
    """The features of the images and videos of one batch, shared by all passes over it.

    It is not a dataclass: FSDP copies dataclasses that are passed to a forward, and a copy would
    not be shared.

    Args:
        store: Keeps features of a frozen tower between batches; `None` to compute them every time.
        keys: Kind -> key and number of entries of each group with such media, in their order.

    Attributes:
        outputs: Kind -> the features; empty until the first pass.
    """

    def __init__(
        self,
        store: FeatureStore | None = None,
        keys: Mapping[MediaKind, Sequence[tuple[str, int]]] | None = None,
    ) -> None:
        self.outputs: dict[MediaKind, Features] = {}
        self.store = store
        self.keys = {kind: entries for kind, entries in (keys or {}).items() if entries}

    def load(self, device: torch.device) -> None:
        """Fill `outputs` from the store if it has the media of every group."""
        if self.store is None or self.outputs or not self.keys:
            return
        stored = {
            kind: [self.store.get(key) for key, _ in entries] for kind, entries in self.keys.items()
        }
        complete = all(None not in groups for groups in stored.values())
        if not true_everywhere(complete):  # all run the tower or none does
            return
        for kind, groups in stored.items():
            present = [group for group in groups if group is not None]
            counts = [count for _, count in self.keys[kind]]
            self.outputs[kind] = Features.of_tensors(present, counts, device)

    def keep(self, kind: MediaKind, output: Features) -> None:
        """Add the features of a kind of media and write them to the store."""
        self.outputs[kind] = output
        start = 0
        for key, count in self.keys.get(kind, ()) if self.store is not None else ():
            assert self.store is not None
            self.store.put(key, output.tensors(range(start, start + count)))
            start += count


def takes_features(base: nn.Module) -> bool:
    """Return whether a base model accepts features in place of pixels."""
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
    shared: MediaFeatures | None = None,
    orders: Mapping[MediaKind, Sequence[int]] | None = None,
    encoders: Mapping[MediaKind, EncoderInputs] | None = None,
) -> dict[str, Any]:
    """Return the inputs of a base model with features in place of pixels.

    Args:
        base: A model for which `takes_features` is true.
        inputs: Its keyword arguments.
        trains: Whether tower or projector need gradients; if not, features are computed without
            them and kept in `shared`.
        shared: The features of the batch, filled by the first pass over it.
        orders: Kind -> for each image (or video) in the rows, its index in those of the batch; a
            kind whose order is the same is missing.
        encoders: Kind -> what the tower would compute from sizes, see `Adapter.tower_inputs`.
    """
    kinds = [kind for kind, pixels in PIXELS.items() if pixels in inputs]
    if not kinds:
        return dict(inputs)
    if shared is not None and not trains:
        shared.load(inputs[PIXELS[kinds[0]]].device)
    arguments = dict(inputs)
    features = {}
    for kind in kinds:
        encode = getattr(base, ENCODERS[kind])
        accepted = inspect.signature(encode).parameters
        # gradients need features of this pass, not of an earlier one
        output = None if shared is None or trains else shared.outputs.get(kind)
        if output is None:
            with torch.set_grad_enabled(trains and torch.is_grad_enabled()):
                taken = {name: value for name, value in inputs.items() if name in accepted}
                computed = _computed_before(base, (encoders or {}).get(kind), inputs[PIXELS[kind]])
                encoded = encode(**{**taken, **computed}, return_dict=True)
            output = Features.of_output(encoded)
            if shared is not None and not trains:
                shared.keep(kind, output)
        del arguments[PIXELS[kind]]
        if orders is not None and kind in orders:
            count = len(output.of_entries())
            arguments |= _in_order(arguments, kind, accepted, count, orders)
            output = output.in_order(orders[kind])
        features[kind] = output.for_model()
    return {**arguments, FEATURES: features}


def _computed_before(
    base: Any, encoder: EncoderInputs | None, pixels: Tensor
) -> dict[str, Tensor | int]:
    """Return the arguments of a tower that were computed before the forward pass.

    Sizes and the ends of sequences are on the CPU, where the tower reads them; only the kernels of
    flash attention take the ends on the device, and their maximum as a number.
    """
    from transformers.utils.generic import is_flash_attention_requested

    if encoder is None or not encoder.grids:
        return {}
    flash = is_flash_attention_requested(base.config.vision_config)
    arguments: dict[str, Tensor | int] = dict(encoder.tensors)
    for name, grid in encoder.grids.items():
        arguments[name] = torch.tensor(grid)
    for name, ends in encoder.ends.items():
        tensor = torch.tensor(ends, dtype=torch.int32)
        if flash:
            arguments[name.replace("cu_", "max_").replace("seqlens", "seqlen")] = int(
                tensor.diff().max()
            )
            tensor = tensor.to(pixels.device, non_blocking=True)
        arguments[name] = tensor
    return arguments


def _in_order(
    arguments: Mapping[str, Any],
    kind: MediaKind,
    accepted: Container[str],
    count: int,
    orders: Mapping[MediaKind, Sequence[int]],
) -> dict[str, Tensor]:
    """Return the inputs with an entry per image (or video), such as grids, in the order of rows."""
    return {
        name: value[list(orders[kind])]
        for name, value in arguments.items()
        if (name in accepted or (name == TIMES and kind == "video"))
        and isinstance(value, Tensor)
        and len(value) == count
    }


def vision_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield name and tensor of the weights between pixels and language model, without PEFT."""
    decoder = {id(p) for p in model.get_decoder().parameters()}
    decoder |= {id(p) for p in model.get_output_embeddings().parameters()}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if id(tensor) not in decoder and "language_model" not in name:
            yield name, tensor
