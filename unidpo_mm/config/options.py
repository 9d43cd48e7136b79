"""Every option of a run, declared once: its type, default, range and meaning.

A class of this module is both a section of a recipe (`recipe.py`) and a part of `UniDPOConfig`
(`python.py`), which inherit its fields. Validation, `docs/recipe.md` with its column for Python,
and the conversion of a recipe to a `UniDPOConfig` follow from the declaration. To add an option,
declare it here, use it, and test it.

This module imports neither torch nor transformers, so that a recipe is read in milliseconds.
"""

import ast
import inspect
import itertools
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from ..encoding_choices import LengthPolicy, PromptStyle
from .image_preference import ImagePreference
from .values import (
    ActivationMemory,
    Count,
    Fraction,
    FrameCount,
    FramesPerSecond,
    Gigabytes,
    ImageSize,
    LearningRate,
    Name,
    Names,
    NonNegative,
    PositiveShare,
    Scale,
    Seconds,
    Teraflops,
)

__all__ = [
    "DataOptions",
    "ImageOptions",
    "ModelOptions",
    "OnResume",
    "Options",
    "PythonOptions",
    "RunOptions",
    "TrainOptions",
    "documentation",
    "option_keys",
    "option_names",
    "option_types",
    "options_with",
]


class OnResume(Enum):
    """The effect of a changed value on a run that resumes; without a mark, it is refused."""

    HARMLESS = "it has no effect on the trained weights, or only through rows that are compared"
    HONORED = "the new value is used from the next step on"


HARMLESS, HONORED = OnResume.HARMLESS, OnResume.HONORED


@dataclass(init=False, repr=False, eq=False)
class ModelOptions:
    """Options of the section `model`."""

    base_name_or_path: Annotated[Name | None, HARMLESS] = None
    """Base model of a LoRA adapter directory; null: the one that its `adapter_config.json`
    names."""
    adapter: Name | None = None
    """Model family (`unidpo-mm list models`), or the path of a Python file with a family; null:
    detected from the model type."""
    layout: Annotated[Literal["auto", "joined", "packed", "plain"], HONORED] = "auto"
    """`plain` computes prompt and images once per response, `packed` once per group of responses,
    `joined` also puts all groups of a micro-batch into one row without padding; `auto` uses the
    most efficient of them that a check on the run's own rows allows."""
    freeze: Names | None = None
    """Parts that are not trained, neither in full nor by a LoRA adapter; null: the family's
    default, []: none."""
    prompt_style: PromptStyle = "auto"
    """Whether plain string prompts are rendered by the chat template; `auto`: if there is one."""
    chat_template_kwargs: dict[str, Any] | None = None
    """Variables for the chat template, such as `enable_thinking: false`, in training and wherever
    the run generates; a row's own column of this name overrides them."""
    image_min_size: ImageSize | None = None
    """Minimum image size, for model types whose unit is pixels: smaller images are enlarged; null:
    the processor's limit. The former name `model.image_min_pixels` is deprecated."""
    image_max_size: ImageSize | None = None
    """Maximum image size: a number of the unit of the model type (docs/models.md), which may follow
    it, such as `4 tiles`; null: the processor's limit. The former name `model.image_max_pixels` is
    deprecated."""
    video_max_pixels: Count | None = None
    """Maximum size of a video frame in pixels (dynamic-resolution models only): larger frames are
    scaled down; null: the processor's limit."""


@dataclass(init=False, repr=False, eq=False)
class DataOptions:
    """Options of the section `data`."""

    eval_fraction: Annotated[Fraction, HARMLESS] = 0.0
    """Fraction of the training rows that is held out for evaluation, split by prompt and image, if
    there are no other evaluation data."""
    score_scale: Annotated[Scale | None, HARMLESS] = None
    """The unit of all scores, [lowest, highest], and so of `loss.eta` and `loss.tau_good`; scores
    of a source that declares its own scale are mapped to it."""
    max_length: Count | None = None
    """Maximum number of tokens of a prompt with one response, image tokens included; null: no
    limit."""
    length_policy: LengthPolicy = "truncate_response"
    """What happens to longer rows: an error, skipped and counted, their responses truncated, or
    (`shrink_image`) fewer frames of their videos and then smaller images and frames. Tokens of a
    prompt, an image or a video are never cut."""
    video_fps: FramesPerSecond = 2.0
    """Number of frames per second that are sampled from videos, at least 4 frames in total; a video
    that the data have as a list of frames is taken to have this frame rate."""
    video_max_frames: FrameCount = 32
    """Maximum number of frames of a video, spread evenly over all of it; models that take videos of
    one length (docs/models.md) get exactly this number."""
    feature_cache_gb: Annotated[Gigabytes, HARMLESS] = 0.0
    """Maximum number of gigabytes on disk for the features of images and videos, if the vision
    tower is frozen; 0: no cache."""
    group_by_prompt: bool = False
    """Whether rows that share prompt and media are joined, up to a micro-batch of pairs, so that
    both are computed once; pairs of one prompt are then part of the same step."""
    pair_weighting: Literal["pair", "group"] = "pair"
    """`group` weights every prompt equally, however many pairs its responses make."""
    preflight: Annotated[bool, HARMLESS] = True
    """Whether every row, image and video is checked before training starts."""
    stream_block: Count = 1000
    """Number of records of a streamed source that are shuffled together."""
    worker_timeout: Annotated[Seconds, HARMLESS] = 600.0
    """Maximum number of seconds that a data worker may take for a batch; 0: no limit."""


@dataclass(init=False, repr=False, eq=False)
class ImageOptions:
    """Options of the section `data.images`."""

    max_skipped_fraction: Annotated[Fraction, HARMLESS] = 0.0
    """Maximum fraction of the rows that are skipped and counted because an image or a video is
    missing or damaged."""


@dataclass(init=False, repr=False, eq=False)
class TrainOptions:
    """Options of the section `train`, in addition to transformers' `TrainingArguments`."""

    reference: Annotated[Literal["auto", "frozen_copy", "lora_off", "cached", "none"], HONORED] = (
        "auto"
    )
    """Where reference log-probs come from. `auto` is the model before training: with its LoRA
    adapter disabled while the adapter is zero, with a frozen copy of a LoRA adapter that is not,
    otherwise a frozen copy of the model; `cached` computes each once and keeps it on disk."""
    reference_build: Annotated[Literal["before", "first_epoch"], HARMLESS] = "before"
    """When a cached reference is computed: before training, or with the batches of the first
    epoch, which keeps a frozen copy of the model if more than a LoRA adapter is trained."""
    reference_sync_steps: Count | None = None
    """Number of optimizer steps after which the reference moves towards the policy (TR-DPO); null:
    it remains the model before training. Only for runs that train nothing but a LoRA adapter."""
    reference_sync_alpha: Annotated[PositiveShare, HONORED] = 0.6
    """Share of the policy in the moved reference: 1 replaces it, smaller values average the weights
    of the two LoRA adapters."""
    memory: Annotated[ActivationMemory | None, HONORED] = None
    """`auto`, or gigabytes for the activations of a micro-batch: exactly as many layers as
    necessary are checkpointed. Null: `activation_checkpointing` decides, all of them or none."""
    tokens_per_micro_batch: Count | None = None
    """Maximum number of tokens of a micro-batch per device, padding included, instead of
    `per_device_train_batch_size`: as many groups as fit, those of similar lengths together if rows
    are padded. A longer group is a micro-batch of its own. Needs `data.preflight`. Null: no
    limit."""
    learning_rates: Annotated[dict[str, LearningRate] | None, HONORED] = None
    """Part of the model -> its learning rate; all others use `learning_rate`."""
    image_preference: ImagePreference | None = None
    """A term that any loss of pairs can have: the chosen response is preferred with its image over
    the same response with another image, as in mDPO. `weight` (1.0) is its weight. `view` is the
    other image: a part of the image (`crop`, the default), the image with gray patches (`mask`) or
    with noise (`noise`), the image of another row (`shuffle`), or that in the column
    `rejected_images` (`column`). `kept` (0.2) is the share of the image that remains: of its area
    in `crop` and `mask`, of its variance in `noise`. `anchor` (0) is the weight of mDPO's anchor,
    which keeps the chosen response as likely as under the reference. Null: no such term."""
    device_peak_tflops: Annotated[Teraflops | None, HARMLESS] = None
    """Peak of one device in teraFLOPS, used for `mfu` in the log; null: looked up for common GPUs
    in bf16 or fp16, without it there is no `mfu`."""
    disable_dropout: bool = True
    """Whether every dropout of the policy is set to 0, as in TRL."""
    logps_chunk_size: Annotated[Count | None, HONORED] = None
    """Number of response positions whose logits exist at a time; null: as many as have a gigabyte
    of logits on a GPU, 512 on a CPU."""
    ledger: Annotated[bool, HARMLESS] = True
    """Whether every visit of a pair is recorded in the directory `ledger` of the output directory,
    with its log-probs, weights and loss (docs/ledger.md)."""
    eval_generations: Annotated[NonNegative, HARMLESS] = 4
    """Number of held-out prompts for which a response is generated and logged at each
    evaluation."""
    eval_max_new_tokens: Annotated[Count, HARMLESS] = 64
    """Maximum number of tokens of such a response."""


@dataclass(init=False, repr=False, eq=False)
class RunOptions:
    """Options of the section `run`."""

    allow_changes: Annotated[Names | None, HARMLESS] = None
    """Differences from a checkpoint that a resumed run may have: recipe keys, `data`, `model`,
    `processes`, or `all`. Changes that have no effect on training are always allowed."""
    on_nonfinite: Annotated[Literal["stop", "skip"], HARMLESS] = "stop"
    """What happens when a loss or gradient is NaN or infinite: `stop` ends the run before any
    weight is changed, `skip` skips and counts that optimizer step."""


@dataclass(init=False, repr=False, eq=False)
class PythonOptions:
    """Options that a recipe does not have, or has elsewhere, such as in its sources."""

    loss: Any | str | None = None
    """The loss: a name (`unidpo-mm list losses`), a mapping such as ``{"name": "uni_dpo", "beta":
    1.0}``, the configuration of a loss, a `Loss`, or the path of a Python file with one; `None` for
    uni_dpo."""
    loss_by_source: dict[str, dict[str, Any]] | None = None
    """Source -> parameters of the loss that differ there."""
    model_init_kwargs: Annotated[dict[str, Any] | None, HARMLESS] = None
    """Arguments of `from_pretrained` for a model that is passed by name."""
    model_adapter_name: Name | None = None
    """As in older TRL: the adapter of a PEFT model that is trained; `None` for the active one."""
    ref_adapter_name: Name | None = None
    """As in older TRL: the adapter of a PEFT model that is the reference; `None` for a frozen copy
    of the adapter that is trained."""
    images: Annotated[Path | str | None, HARMLESS] = None
    """Directory to which image paths of data sets in memory are relative; `None` for the current
    directory. If it is set, absolute paths must be inside it as well."""
    scores: Annotated[dict[str, Any] | None, HARMLESS] = None
    """The meaning of the scores of data sets in memory: the keys of `data.sources.scores` in a
    recipe, such as ``{"scale": (0, 5), "misordered": "drop"}``."""
    reasoning: Literal["keep", "strip"] | None = None
    """As `data.sources.reasoning` in a recipe, for data sets in memory whose rows do not set it."""
    padding_side: Annotated[Literal["left", "right"], HONORED] = "right"
    """The side on which batch rows are padded."""


SECTIONS: Mapping[str, type[Any]] = {
    "model": ModelOptions,
    "data": DataOptions,
    "data.images": ImageOptions,
    "train": TrainOptions,
    "run": RunOptions,
}
"""Section of a recipe -> the class of its options."""


@dataclass(init=False, repr=False, eq=False)
class Options(PythonOptions, RunOptions, TrainOptions, ImageOptions, DataOptions, ModelOptions):
    """All options."""


@cache
def option_keys() -> Mapping[str, str]:
    """Return the recipe key of each option that a recipe has."""
    return {
        field.name: f"{section}.{field.name}"
        for section, options in SECTIONS.items()
        for field in fields(options)
    }


RESUME_NAMES = {
    "resume": "run.resume",
    "start_anew": "run.resume=never",
    "data_seed": "data.seed",
    "loss": "loss",
    "data": "data",
    "eval_data": "eval_data",
    "model": "model",
    "processes": "processes",
    "versions": "versions",
}
"""Names, in messages about resuming, that do not correspond to one field of `UniDPOConfig`."""


def option_names(fields: Iterable[str]) -> dict[str, str]:
    """Return the recipe key of each field of `UniDPOConfig`, for messages.

    Args:
        fields: Names of the fields; a field without a key of its own is a key of `train`.
    """
    keys = {**option_keys(), "loss_by_source": "data.sources.loss"}
    return {name: keys.get(name, f"train.{name}") for name in fields} | RESUME_NAMES


@cache
def option_types() -> Mapping[str, Any]:
    """Return the type of each option, with its range, for pydantic."""
    return get_type_hints(Options, include_extras=True)


@cache
def options_with(mark: OnResume) -> frozenset[str]:
    """Return the names of the options with a mark."""
    return frozenset(
        name for name, kind in option_types().items() if mark in getattr(kind, "__metadata__", ())
    )


@cache
def documentation(declaration: type) -> Mapping[str, str]:
    """Return the text under each field of a class and of its bases, on one line."""
    texts = {}
    for base in reversed(inspect.getmro(declaration)):
        if base.__module__.partition(".")[0] in ("builtins", "pydantic"):
            continue
        (source,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        for pair in itertools.pairwise(getattr(source, "body", [])):
            match pair:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    texts[name] = " ".join(text.split())
    return texts
