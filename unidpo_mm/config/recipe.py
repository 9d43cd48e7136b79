"""Recipes: the options of `options.py` in sections, and the keys that only recipes have.

`loss` and `train` accept further keys, which `unidpo_mm.config.checks.recipe` checks against the
configuration of the loss and against `transformers.TrainingArguments`.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from .options import DataOptions, ImageOptions, ModelOptions, RunOptions, TrainOptions, option_keys
from .sections import LoraOptions, QuantizationOptions, Section, SourceOptions
from .values import Name, Seed, as_tuple

__all__ = [
    "DataSection",
    "ImagesSection",
    "LossSection",
    "ModelSection",
    "Recipe",
    "RunSection",
    "TrainSection",
    "keys_of",
]


class ModelSection(ModelOptions, Section):
    """The model to train."""

    # pydantic reserves names that start with `model_` by default
    model_config = ConfigDict(protected_namespaces=())

    name_or_path: Name
    """A local directory of a model, or of a LoRA adapter to train further, or the name of a model
    on a hub."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Precision of the weights; `auto` uses the checkpoint's."""
    lora: LoraOptions | None = None
    """The LoRA adapter to train; null: all parts that are not frozen are trained in full."""
    quantization: QuantizationOptions | None = None
    """Quantized weights of the base model, for a LoRA adapter on a small GPU (QLoRA); null:
    none."""
    attn_implementation: Name | None = None
    """Attention implementation, by its name in transformers; null: the default of transformers."""
    trust_remote_code: bool = False
    """Whether Python code that comes with the checkpoint may be executed."""
    init_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of `from_pretrained`."""


class ImagesSection(ImageOptions, Section):
    """Limits on images and videos, and the handling of rows whose media cannot be used."""

    max_pixels: int = Field(default=89_478_485, ge=1, le=178_956_970)
    """Maximum number of pixels of an image or a frame before it is scaled; larger ones are never
    decoded."""
    fetch_private_addresses: bool = False
    """Whether `fetch_images` may download from this machine and the local network."""


class DataSection(DataOptions, Section):
    """The training data."""

    sources: Annotated[tuple[SourceOptions, ...], BeforeValidator(as_tuple), Field(min_length=1)]
    """Data sets to train on; their rows are mixed."""
    eval_sources: Annotated[tuple[SourceOptions, ...], BeforeValidator(as_tuple)] = ()
    """Data sets to evaluate on during training."""
    images: ImagesSection = ImagesSection()
    """Limits on images and videos. The former name `data.pictures` is accepted until the next
    release."""
    seed: Seed = 42
    """Seed of the split and of the order of rows."""


class LossSection(Section):
    """The loss and its parameters (`unidpo-mm list losses`)."""

    model_config = ConfigDict(extra="allow")

    name: Name = "uni_dpo"
    """Name of a loss, or the path of a Python file with a loss; all further keys are parameters of
    that loss."""

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters that are set; all others have the defaults of the loss."""
        return dict(self.model_extra or {})


class TrainSection(TrainOptions, Section):
    """Training options."""

    model_config = ConfigDict(extra="allow")

    output_dir: Name = "out"
    """Directory for checkpoints, the final model and reports."""

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of `transformers.TrainingArguments`, without `output_dir`."""
        return dict(self.model_extra or {})


class RunSection(RunOptions, Section):
    """The section `run`: how a run starts, resumes and stops, and its callbacks and observers."""

    resume: Name = "auto"
    """`auto` resumes from the newest complete checkpoint in `output_dir`, if there is one; `never`
    starts from the beginning; otherwise the path of a checkpoint."""
    callbacks: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Name of a callback of an installed package, or path of a Python file with one -> its
    settings; `benchmarks` evaluates a subset of benchmarks every N steps."""
    observers: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Name of an observer of an installed package, or path of a Python file with one -> its
    settings; it sees every micro-batch with its log-probs, weights and loss."""


class Recipe(Section):
    """The definition of a run."""

    model_config = ConfigDict(protected_namespaces=())

    model: ModelSection
    """The model to train."""
    data: DataSection
    """The training data."""
    loss: LossSection = LossSection()
    """The loss and its parameters."""
    train: TrainSection = TrainSection()
    """Training options."""
    run: RunSection = RunSection()
    """How the run starts, resumes and stops."""

    def options(self) -> dict[str, Any]:
        """Return the value of each option of `options.py` by its name in Python."""
        return {name: self.value(key) for name, key in option_keys().items()}

    def value(self, key: str) -> Any:
        """Return the value of a key such as ``data.images.max_pixels``."""
        value: Any = self
        for part in key.split("."):
            value = getattr(value, part)
        return value


def keys_of(section: type[Section]) -> list[str]:
    """Return the keys of a section, first those that only recipes have."""
    recipe_only = [name for name in section.__annotations__ if name in section.model_fields]
    return list(dict.fromkeys([*recipe_only, *section.model_fields]))
