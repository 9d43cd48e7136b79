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

from .errors import ModelError, Problem
from .records import EncodedGroup, GroupBatch, PreferenceRow

__all__ = [
    "Adapter",
    "AdapterFamily",
    "AdapterOptions",
    "LengthPolicy",
    "Part",
    "encode_checked",
    "template_kwargs_problems",
]

LengthPolicy = Literal["error", "drop", "truncate_response", "shrink_image"]
RESERVED_TEMPLATE_KWARGS = frozenset(
    {
        "add_generation_prompt",
        "chat_template",
        "continue_final_message",
        "conversation",
        "messages",
        "padding",
        "processor_kwargs",
        "return_assistant_tokens_mask",
        "return_dict",
        "return_tensors",
        "tokenize",
        "tools",
        "truncation",
    }
)
"""Arguments of `apply_chat_template` that rendering sets; they are never template variables."""
Part = str
"""Name of a part of a model: ``language_model``, and where they exist ``vision_tower``,
``projector``."""


@dataclass(frozen=True, kw_only=True)
class AdapterOptions:
    """What a user may say about how rows are rendered.

    Attributes:
        max_length: Most tokens of a plain row, image tokens included; None for no limit. Only
            responses are ever cut.
        length_policy: What happens to longer rows: ``error`` and ``drop`` refuse them, of which the
            second is left out and counted; ``truncate_response`` cuts answers; ``shrink_image``
            makes images smaller, for families whose tokens follow an image's size.
        prompt_style: ``chat`` renders every prompt by the chat template, ``raw`` none of the plain
            string prompts, ``auto`` uses the template where the processor has one.
        chat_template_kwargs: Variables for the chat template, such as ``enable_thinking``; a row's
            own variables override them.
        image_min_pixels, image_max_pixels: Limits that an image is scaled into, for families
            whose resolution follows the image; None for the processor's own. Others refuse them.
    """

    max_length: int | None = None
    length_policy: LengthPolicy = "truncate_response"
    prompt_style: Literal["auto", "chat", "raw"] = "auto"
    image_min_pixels: int | None = None
    image_max_pixels: int | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the variables of the chat template.

        Raises:
            ModelError: If one of them would replace what every row sets by itself.
        """
        problems = template_kwargs_problems(self.chat_template_kwargs, "model.chat_template_kwargs")
        if problems:
            raise ModelError(problems)


def encode_checked(adapter: "Adapter", row: PreferenceRow) -> EncodedGroup:
    """Encode a row and refuse it if the model cannot take it.

    Raises:
        DataError: As `Adapter.encode` and `Adapter.check_fit` do.
    """
    group = adapter.encode(row)
    check = getattr(adapter, "check_fit", None)  # adapters from outside may lack it
    if check is not None:
        check(row, group)
    return group


def template_kwargs_problems(variables: Any, where: str) -> list[Problem]:
    """Return what is wrong with variables for the chat template.

    Args:
        variables: What was passed for them.
        where: The recipe key, or the file, row and field.
    """
    if not isinstance(variables, Mapping) or not all(isinstance(name, str) for name in variables):
        kind = type(variables).__name__
        problem_text = f"it is {kind}, not a mapping of names to values"
        return [Problem(where, problem_text, "Write NAME: VALUE, such as enable_thinking: false")]
    return [
        Problem(
            f"{where}.{name}",
            f"'{name}' is set by unidpo-mm itself and cannot be a variable of the chat template",
            "Remove it",
        )
        for name in variables
        if name in RESERVED_TEMPLATE_KWARGS
    ]


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
        """Encode a row as token ids and tensors.

        The prompt ids are those of the generation prompt, the same as from `encode_prompt`. The
        response ids decode to the response's text and the end of its turn. Where no token spans
        the seam between the two, prompt and response together are what the family's own processor
        gives for the whole conversation.

        Raises:
            DataError: If the row cannot be rendered, would be changed by the chat template, or does
                not fit; names file, row and field.
        """
        ...

    def encode_prompt(self, row: PreferenceRow) -> EncodedGroup:
        """Encode the prompt alone, for generation: as `encode`, without a response."""
        ...

    def check_fit(self, row: PreferenceRow, group: EncodedGroup) -> None:
        """Refuse a row that the model cannot take.

        Args:
            row: The row, for messages.
            group: The same row, encoded.

        Raises:
            DataError: If a token has no row in the model's embedding, or the row is longer than
                the model's learned positions.
        """
        ...

    def filler(self) -> EncodedGroup:
        """Return a short group of weight 0 that touches every part of the model."""
        ...

    def forward_inputs(self, batch: GroupBatch) -> Mapping[str, Tensor]:
        """Return the keyword arguments of the base model's forward; a closed set of keys."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of generated ids, without special tokens."""
        ...


@dataclass(frozen=True, kw_only=True)
class AdapterFamily:
    """A model family: what it serves, and how to build its pieces.

    Attributes:
        name: Name of the module.
        model_types: `config.model_type` values served by name; empty for a family that is asked
            through `serves` alone.
        serves: Whether the family can take a configuration; families that list its model type
            come first, and a vision-language model never goes to a family without a vision tower.
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
