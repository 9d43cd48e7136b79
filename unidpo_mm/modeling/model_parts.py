"""The parts of a loaded model, read from its structure.

A family declares the prefixes of its parts for the models that it knows. Another model may have
modules under other names, which would then belong to no part and train by accident. Its parts
follow from what transformers models have in common: `get_decoder` and `get_output_embeddings`
return the language model, a tower is a model of its own next to the decoder, and everything else
is between the two.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

from torch import nn

from ..adapter import AdapterFamily, Part
from .families import VISION
from .logp_model import unwrap_peft
from .lora_targets import part_of

__all__ = ["with_model_parts"]

MERGERS = ("merger", "deepstack_merger_list")
"""Modules that belong to the projector although they are inside a tower."""


def with_model_parts(family: AdapterFamily, model: nn.Module) -> AdapterFamily:
    """Return a family whose parts cover all weights of a model.

    Args:
        family: The family that serves the model.
        model: The model, with or without PEFT.

    Returns:
        The same family if it knows the part of every weight; else one with the parts of the model.
    """
    inner = unwrap_peft(model)
    if VISION not in family.parts or all(
        part_of(name, family.parts) != "other" for name, _ in inner.named_parameters()
    ):
        return family
    prefixes: dict[Part, list[str]] = {"vision_tower": [], "projector": [], "language_model": []}
    for part, prefix in _parts_of(inner):
        prefixes[part].append(prefix)
    return dataclasses.replace(
        family,
        parts={name: tuple(prefixes.get(name, family.parts[name])) for name in family.parts},
    )


def _parts_of(model: Any) -> Iterator[tuple[Part, str]]:
    """Yield part and prefix of the modules and single parameters of a model."""
    names = {id(module): name for name, module in model.named_modules()}
    decoder = names[id(model.get_decoder())]
    yield "language_model", decoder
    yield "language_model", names[id(model.get_output_embeddings())]
    path = decoder.split(".")
    for depth in range(len(path)):  # the modules next to those that contain the decoder
        outer = ".".join(path[:depth])
        holder = model.get_submodule(outer)
        siblings = [name for name, _ in holder.named_parameters(recurse=False)]
        for name, module in holder.named_children():
            if name == path[depth] or module is model.get_output_embeddings():
                continue
            prefix = f"{outer}.{name}".removeprefix(".")
            if not _is_model(module):
                siblings.append(name)
                continue
            yield "vision_tower", prefix
            inner = (merger for merger in MERGERS if hasattr(module, merger))
            yield from (("projector", f"{prefix}.{merger}") for merger in inner)
        yield from (("projector", f"{outer}.{name}".removeprefix(".")) for name in siblings)


def _is_model(module: nn.Module) -> bool:
    from transformers import PreTrainedModel

    return isinstance(module, PreTrainedModel)
