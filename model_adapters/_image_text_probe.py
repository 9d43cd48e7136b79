"""Traits of a model type without an entry, from what its processor returns for an image.

They are a guess, which the conformance check verifies before training.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unidpo_mm.errors import ModelError, Problem

from ._chat_template import template_of
from ._image_adapter import TOKEN_TENSORS
from ._image_sizing import Sizing
from ._image_text_traits import TypeTraits
from ._images import BlankImage, placeholder_token

__all__ = ["probed_traits"]

TYPE_NAMES = ("mm_token_type_ids", "token_type_ids")
PIXELS = "pixel_values"
AROUND = ("unidpo0before", "unidpo0after")
"""Texts before and after an image, which no template changes."""


def probed_traits(processor: Any, config: Any) -> TypeTraits:
    """Return the traits of a model type.

    Raises:
        ModelError: If the processor cannot encode an image, or the model does not take its tensors.
    """
    placeholder = _placeholder(processor)
    encoded = _encoded(processor, placeholder, 1)
    accepted, counts_positions = _model_inputs(config)
    image_keys = {
        name
        for name, value in encoded.items()
        if isinstance(value, Tensor) and name not in TOKEN_TENSORS
    }
    taken = image_keys & accepted
    if PIXELS not in taken:
        returned = ", ".join(sorted(image_keys)) or "nothing"
        raise _unusable(processor, f"it returns {returned} for an image, and no {PIXELS}")
    others = sorted(taken - {PIXELS})
    joined_last = _joined_last(processor, placeholder, {name: encoded[name] for name in taken})
    types = (name for name in TYPE_NAMES if name in encoded and name in accepted)
    return TypeTraits(
        image_keys=tuple(sorted(taken)),
        unit_key=others[0] if others else PIXELS,
        token_types=next(types, None),
        joined_last=joined_last,
        sends_positions=not counts_positions,
        sizing=Sizing("unknown"),
        placeholder=placeholder.replace(placeholder_token(processor), "{}"),
        dropped=frozenset(image_keys - taken),
        rounds_pixels=False,
    )


def _joined_last(processor: Any, placeholder: str, tensors: Mapping[str, Tensor]) -> frozenset[str]:
    """Return the tensors [1, ..., N] whose last dimension grows with the number of images.

    Args:
        processor: The processor.
        placeholder: The text of an image in a prompt.
        tensors: What it returns for a text with one image.
    """
    try:
        several = _encoded(processor, placeholder, 2)
    except ModelError:  # a row has at most one image, so nothing is joined
        return frozenset()
    return frozenset(
        name
        for name, tensor in tensors.items()
        if tensor.ndim > 1
        and tensor.shape[0] == several[name].shape[0] == 1
        and tensor.shape[-1] < several[name].shape[-1]
    )


def _encoded(processor: Any, placeholder: str, count: int) -> Any:
    """Return what a processor returns for a text with some images."""
    images = [[BlankImage().open()] * count]
    try:
        return processor(text=[f"{placeholder}a" * count], images=images, return_tensors="pt")
    except Exception as error:  # processors raise errors of any class
        text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise _unusable(processor, f"it refuses a text with an image: {text}") from error


def _placeholder(processor: Any) -> str:
    """Return the text of an image in a prompt: what the chat template writes, with its marks.

    If the template does not write it between the texts around the image, it is the image token.
    """
    image_token = placeholder_token(processor)
    if not image_token:
        raise _unusable(processor, "it has no image token")
    texts = [{"type": "text", "text": text} for text in AROUND]
    turn = {"role": "user", "content": [texts[0], {"type": "image"}, texts[1]]}
    try:
        template = template_of(processor, processor.tokenizer)
        prompt = processor.apply_chat_template([turn], chat_template=template, tokenize=False)
    except Exception:  # a template is a program: it may raise anything
        return image_token
    written = prompt.partition(AROUND[0])[2].partition(AROUND[1])[0].strip()
    return written if written.count(image_token) == 1 else image_token


def _model_inputs(config: Any) -> tuple[frozenset[str], bool]:
    """Return the inputs of the model, and whether it counts multi-dimensional positions."""
    from transformers import AutoModel, AutoModelForImageTextToText

    head: Any = AutoModelForImageTextToText._model_mapping[type(config)]
    try:
        base: Any = AutoModel._model_mapping[type(config)]
    except KeyError:
        base = head
    names = frozenset(inspect.signature(head.forward).parameters)
    return names, hasattr(base, "get_rope_index")


def _unusable(processor: Any, reason: str) -> ModelError:
    problem = f"{type(processor).__name__} is not understood: {reason}"
    remedy = "Choose another model, or add a family as described in docs/families.md"
    return ModelError(Problem("model.name_or_path", problem, remedy))
