"""The contract between the core and a model family.

The core knows rows, tensors and the flat list of targets. A family knows its processor, its chat
template, its placeholder tokens, the names of its parts and nothing about data sets or losses. One
module per family in `model_adapters/` exports `ADAPTER`, an `AdapterFamily`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import Tensor

from .records import EncodedGroup, GroupBatch, PreferenceRow

__all__ = ["Adapter", "AdapterFamily", "AdapterOptions", "LengthPolicy", "Part"]

LengthPolicy = Literal["error", "drop", "truncate_response", "shrink_image"]
Part = str
"""Name of a part of a model: ``language_model``, and where they exist ``vision_tower``,
``projector``."""


@dataclass(frozen=True, kw_only=True)
class AdapterOptions:
    """What a user may say about how rows are rendered.

    Attributes:
        max_length: Most tokens of a plain row, picture tokens included; None for no limit. Only
            responses are ever cut.
        length_policy: What happens to longer rows: ``error`` and ``drop`` refuse them, of which the
            second is left out and counted; ``truncate_response`` cuts answers; ``shrink_image``
            makes pictures smaller, for families whose tokens follow a picture's size.
        prompt_style: ``chat`` renders every prompt by the chat template, ``raw`` none of the plain
            string prompts, ``auto`` uses the template where the processor has one.
        chat_template_kwargs: Variables for the chat template, such as ``enable_thinking``; a row's
            own variables override them.
        image_min_pixels, image_max_pixels: Limits that a picture is scaled into, for families
            whose resolution follows the picture; None for the processor's own. Others refuse them.
    """

    max_length: int | None = None
    length_policy: LengthPolicy = "truncate_response"
    prompt_style: Literal["auto", "chat", "raw"] = "auto"
    image_min_pixels: int | None = None
    image_max_pixels: int | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)


class Adapter(Protocol):
    """One loaded processor of one family."""

    @property
    def processor(self) -> Any:
        """The processor or tokenizer, saved beside every checkpoint."""
        ...

    @property
    def pad_token_id(self) -> int:
        """The id that fills rows."""
        ...

    def encode(self, row: PreferenceRow) -> EncodedGroup:
        """Returns a row as token ids and tensors.

        The ids of prompt and response, one after the other, are what the family's own processor
        and chat template give for the whole conversation.

        Raises:
            DataError: If the row does not fit; names file, row and field.
        """
        ...

    def encode_prompt(self, row: PreferenceRow) -> EncodedGroup:
        """Returns the prompt alone, for generation: as `encode`, with no response."""
        ...

    def filler(self) -> EncodedGroup:
        """Returns a short group of weight 0 that touches every part of the model."""
        ...

    def forward_inputs(self, batch: GroupBatch) -> Mapping[str, Tensor]:
        """Returns the keyword arguments of the base model's forward; a closed set of keys."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of generated ids, without special tokens."""
        ...


@dataclass(frozen=True, kw_only=True)
class AdapterFamily:
    """A model family: what it serves, and how to build its pieces.

    Attributes:
        name: Name of the module.
        model_types: `config.model_type` values served by name; empty for a family that is asked
            through `serves` alone.
        serves: Whether the family can take a configuration; families that list its model type
            are asked first.
        auto_class: Name of the transformers class that loads the weights.
        needs_processor: Whether the family needs `AutoProcessor` (else a tokenizer is enough).
        parts: Part -> prefixes of module names inside the loaded model; the longest prefix wins,
            and the empty prefix takes everything else.
        default_freeze: Parts that are frozen unless the user says otherwise.
        create: Builds an adapter from (processor, model config, options).
        tiny: Writes a tiny random checkpoint with its processor into a folder, offline, for
            tests and dry runs; returns the folder.
    """

    name: str
    model_types: tuple[str, ...]
    serves: Callable[[Any], bool]
    auto_class: str
    needs_processor: bool
    parts: Mapping[Part, tuple[str, ...]]
    default_freeze: tuple[Part, ...]
    create: Callable[[Any, Any, AdapterOptions], Adapter]
    tiny: Callable[..., Path]
