"""The interface between the core and a model family.

The core handles rows, tensors and the flat list of targets. A family handles the processor, chat
template, placeholder tokens and part names of its models, independently of data sets and losses.
Each module in `model_adapters/` exports one family as `ADAPTER`, an `AdapterFamily`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from .encoding_choices import LengthPolicy, PromptStyle
from .errors import DataError, ModelError, Problem
from .model_types import ModelType
from .records import (
    MEDIA_KINDS,
    EncodedGroup,
    EncoderInputs,
    MediaKind,
    ModelInputs,
    PreferenceRow,
    Preferences,
    chosen_of,
)

__all__ = [
    "Adapter",
    "AdapterFamily",
    "AdapterOptions",
    "ImageSetting",
    "LengthPolicy",
    "Part",
    "check_processor",
    "encode_checked",
    "fillers",
    "generation_inputs",
    "image_settings",
    "place_of",
    "rounds_pixels",
    "template_kwargs_problems",
    "tower_inputs",
]

RESERVED_TEMPLATE_KWARGS = frozenset(
    "add_generation_prompt chat_template continue_final_message conversation messages padding "
    "processor_kwargs return_assistant_tokens_mask return_dict return_tensors tokenize tools "
    "truncation".split()
)
"""Arguments of `apply_chat_template` that rendering sets, so they are not template variables."""
Part = str
"""Name of a part of a model: ``language_model`` and, if they exist, ``vision_tower`` and
``projector``."""


@dataclass(frozen=True, kw_only=True)
class AdapterOptions:
    """The options of a run for encoding rows.

    Attributes:
        max_length: Maximum number of tokens of a plain row, including image tokens; `None` for no
            limit. Only responses are ever cut.
        length_policy: The handling of longer rows: ``error`` and ``drop`` refuse them (and with
            ``drop`` the run skips and counts them); ``truncate_response`` cuts responses;
            ``shrink_image`` uses fewer frames of videos and makes images smaller, for families with
            dynamic resolution.
        prompt_style: ``chat`` renders every prompt with the chat template; ``raw`` uses plain
            string prompts as they are; ``auto`` uses the template if the processor has one.
        image_min_size, image_max_size: Minimum and maximum size of an image: a number of the unit
            of the model type, or a number with its unit such as ``4 tiles``, see
            `parse_image_size`; `None` for the processor's limit.
        video_fps: Number of frames per second that are sampled from videos.
        video_max_frames: Maximum number of frames of a video.
        video_max_pixels: Maximum size of a frame in pixels, for families with dynamic resolution,
            others refuse it; `None` for the processor's limit.
        chat_template_kwargs: Variables for the chat template, such as ``enable_thinking``; the
            variables of a row override them.
    """

    max_length: int | None = None
    length_policy: LengthPolicy = "truncate_response"
    prompt_style: PromptStyle = "auto"
    image_min_size: int | str | None = None
    image_max_size: int | str | None = None
    video_fps: float = 2.0
    video_max_frames: int = 32
    video_max_pixels: int | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the variables of the chat template.

        Raises:
            ModelError: If one of them is reserved.
        """
        problems = template_kwargs_problems(self.chat_template_kwargs, "model.chat_template_kwargs")
        if problems:
            raise ModelError(problems)


@dataclass(frozen=True, kw_only=True)
class ImageSetting:
    """A setting of a processor that the number of image tokens depends on.

    Attributes:
        name: The setting, for example ``patch_size``.
        place: Where it is, for example ``processor_config.json``.
        value: Its value.
        model_name: The setting of the model that must have the same value, in the same form;
            empty if no single setting has it.
        model_value: The value of that setting; `None` if it is not set.
    """

    name: str
    place: str
    value: Any
    model_name: str = ""
    model_value: Any = None

    @property
    def differs(self) -> bool:
        """Whether processor and model have different values."""
        return self.model_value is not None and self.value != self.model_value


def check_processor(adapter: "Adapter") -> None:
    """Call `Adapter.check_processor`, which adapters of other packages may lack."""
    check = getattr(adapter, "check_processor", None)
    if check is not None:
        check()


def image_settings(adapter: "Adapter") -> Sequence[ImageSetting]:
    """Return `Adapter.image_settings`; nothing for adapters of other packages that lack it."""
    settings: Sequence[ImageSetting] = getattr(adapter, "image_settings", ())
    return settings


def place_of(processor: Any) -> str:
    """Return the directory or the name on the hub of a processor, for messages."""
    tokenizer = getattr(processor, "tokenizer", processor)
    return str(getattr(tokenizer, "name_or_path", "") or type(processor).__name__)


def encode_checked(adapter: "Adapter", row: PreferenceRow) -> EncodedGroup:
    """Encode a row, also with its other images, and refuse it if the model cannot take it.

    Raises:
        DataError: As in `Adapter.encode` and `Adapter.check_fit`.
    """
    group = adapter.encode(row)
    check = getattr(adapter, "check_fit", None)  # adapters of other packages may lack it
    if check is not None:
        check(row, group)
    if not (row.other_images and row.pairs):
        return group
    view = encode_checked(adapter, row.with_other_images())
    chosen = [group.response_ids[number] for number in chosen_of(row.pairs)]
    if any(len(a) != len(b) for a, b in zip(chosen, view.response_ids, strict=True)):
        text = "a chosen response is truncated to another length with the other image of the row"
        remedy = "Raise data.max_length, or use images of similar sizes"
        raise DataError(Problem(f"{row.where}, field 'images'", text, remedy))
    without_units = Preferences(scores=view.preferences.scores)
    return dataclasses.replace(group, view=dataclasses.replace(view, preferences=without_units))


def generation_inputs(adapter: "Adapter", inputs: ModelInputs) -> Mapping[str, Tensor]:
    """Return the keyword arguments for `generate`, see `Adapter.generation_inputs`."""
    convert = getattr(adapter, "generation_inputs", None)  # adapters of other packages may lack it
    return inputs.tensors if convert is None else convert(inputs)


def fillers(adapter: "Adapter", *, videos: bool) -> dict[MediaKind, EncodedGroup]:
    """Return a filler for each kind of media that a run computes features of.

    Args:
        adapter: The adapter of the run.
        videos: Whether the run has rows with videos.
    """
    create = getattr(adapter, "video_filler", None)  # adapters of other packages may lack it
    groups = {"image": adapter.filler(), "video": create() if videos and create else None}
    return {
        kind: group
        for kind in MEDIA_KINDS
        if (group := groups[kind]) is not None and group.media_inputs(kind)
    }


def rounds_pixels(adapter: "Adapter") -> bool:
    """Return `Adapter.rounds_pixels`; False for adapters of other packages that lack it."""
    return bool(getattr(adapter, "rounds_pixels", False))


def tower_inputs(
    adapter: "Adapter",
) -> Callable[[MediaKind, Mapping[str, Tensor]], EncoderInputs] | None:
    """Return `Adapter.tower_inputs`; `None` for adapters of other packages that lack it."""
    compute: Callable[[MediaKind, Mapping[str, Tensor]], EncoderInputs] | None
    compute = getattr(adapter, "tower_inputs", None)
    return compute


def template_kwargs_problems(variables: Any, where: str) -> list[Problem]:
    """Return the problems of variables for the chat template.

    Args:
        variables: The value that was passed.
        where: The recipe key, or the file, row and field.
    """
    if not isinstance(variables, Mapping) or not all(isinstance(name, str) for name in variables):
        kind = type(variables).__name__
        problem_text = f"it is {kind}, not a mapping of names to values"
        return [Problem(where, problem_text, "Use NAME: VALUE, such as enable_thinking: false")]
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
    """A processor of a model, with the encoding that its family defines."""

    @property
    def processor(self) -> Any:
        """The processor or tokenizer, which is saved with every checkpoint."""
        ...

    @property
    def pad_token_id(self) -> int:
        """The id of padding."""
        ...

    @property
    def rounds_pixels(self) -> bool:
        """Whether batches may contain pixels in the number format of the computation.

        That is the case if the vision tower rounds them to it before anything else. In 16 bits,
        batches are half as large.
        """
        ...

    @property
    def image_settings(self) -> Sequence[ImageSetting]:
        """The settings of the processor that the number of image tokens depends on."""
        ...

    def check_processor(self) -> None:
        """Refuse a processor that cannot encode any image.

        Raises:
            ProcessorError: If the chat template writes no placeholder for an image, the processor
                fails, or it writes other image tokens than the model expects.
        """
        ...

    def encode(self, row: PreferenceRow) -> EncodedGroup:
        """Encode a row as token ids and tensors.

        The prompt ids are those of the generation prompt, the same as from `encode_prompt`. The
        response ids decode to the text of the response and the end of its turn. Prompt and response
        together equal what the processor returns for the complete conversation, unless there a
        token spans both.

        Raises:
            DataError: If the row cannot be rendered, is changed by the chat template, or does not
                fit; with file, row and field.
        """
        ...

    def encode_prompt(self, row: PreferenceRow) -> EncodedGroup:
        """Encode the prompt without responses, for generation."""
        ...

    def check_fit(self, row: PreferenceRow, group: EncodedGroup) -> None:
        """Refuse a row that the model cannot take.

        Args:
            row: The row, for messages.
            group: The encoded row.

        Raises:
            DataError: If a token has no embedding, or the row is longer than the learned positions
                of the model.
        """
        ...

    def filler(self) -> EncodedGroup:
        """Return a short group of weight 0 that runs every part of the model."""
        ...

    def video_filler(self) -> EncodedGroup | None:
        """Return a filler with a video instead of an image.

        It is `None` if the model computes no features of videos: it has no videos, or their frames
        are images.
        """
        ...

    def forward_inputs(self, inputs: ModelInputs) -> Mapping[str, Tensor]:
        """Return the keyword arguments for the forward pass of the base model."""
        ...

    def tower_inputs(self, kind: MediaKind, inputs: Mapping[str, Tensor]) -> EncoderInputs:
        """Return what the vision tower would compute from the sizes of the media of a batch.

        A tower that derives positions or sequence lengths from sizes copies them from the GPU to
        the host, which waits for the GPU. Computed here, they move with the batch.

        Args:
            kind: The kind of media.
            inputs: Their tensors, on the CPU.

        Returns:
            Arguments by the names with which transformers accepts them; empty if the tower needs
            none, or is not known.
        """
        ...

    def generation_inputs(self, inputs: ModelInputs) -> Mapping[str, Tensor]:
        """Return the keyword arguments for `generate` from left-padded prompts.

        They contain no positions, which `generate` counts itself.
        """
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of generated ids, without special tokens."""
        ...


@dataclass(frozen=True, kw_only=True)
class AdapterFamily:
    """A model family: the models it serves and how to encode rows for them.

    Attributes:
        name: The name of its module.
        model_types: Values of `config.model_type` that the family serves; may be empty.
        serves: Whether the family serves a configuration. Families that list its model type come
            first; a vision-language model is never served by a family without a vision tower.
        refuses: Why the family does not serve a configuration, for messages; `None` if it serves it
            or does not know.
        auto_class: Name of the transformers class that loads the weights.
        needs_processor: Whether the family needs an `AutoProcessor`, not only a tokenizer.
        parts: Prefixes of module names in the loaded model for each part; the longest prefix wins,
            and the empty prefix matches everything else. If some weights of a model with a vision
            tower have no part, the prefixes are read from the model.
        default_freeze: Parts that are frozen by default.
        create: (processor, model config, options) -> adapter.
        describe: The properties of one of `model_types`, or of all types that it does not list if
            the name is empty, for `unidpo-mm list models`; `None` for a list without them.
        tiny: Writes a tiny random checkpoint with its processor to a directory, offline, for tests
            and dry runs; returns the directory.
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
    refuses: Callable[[Any], str | None] = lambda config: None
    describe: Callable[[str], ModelType] | None = None
