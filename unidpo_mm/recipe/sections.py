"""The sections of a recipe: each key with its type, default, range and meaning.

The text under a field is its only documentation: `docs/recipe.md` and error messages are generated
from it. `loss` and `train` accept further keys, which `unidpo_mm.training.recipe_checks` checks
against the configuration of the loss and against `transformers.TrainingArguments`.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from typing_extensions import TypedDict

__all__ = [
    "DataSection",
    "ImagesSection",
    "LoraSection",
    "LossSection",
    "ModelSection",
    "Recipe",
    "RunSection",
    "ScoresSection",
    "Section",
    "SourceLoss",
    "SourceSection",
    "TrainSection",
]


def _as_tuple(value: Any) -> Any:
    """Convert a list to a tuple: YAML has lists only, and records are immutable."""
    return tuple(value) if isinstance(value, list) else value


def _ascending(scale: tuple[float, float]) -> tuple[float, float]:
    if not scale[0] < scale[1]:
        raise ValueError(f"the lower end {scale[0]} of a scale must be below its upper end")
    if scale[1] - scale[0] == float("inf"):
        raise ValueError(f"the scale from {scale[0]} to {scale[1]} is too wide for numbers")
    return scale


Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]
Names = Annotated[tuple[Name, ...], BeforeValidator(_as_tuple)]
Scale = Annotated[tuple[Finite, Finite], BeforeValidator(_as_tuple), AfterValidator(_ascending)]


class Section(BaseModel):
    """The base class of all sections: frozen, strictly typed, without unknown keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )


class LoraSection(Section):
    """A LoRA adapter (peft), trained instead of the weights that it adapts."""

    r: int = Field(default=16, ge=1)
    """Rank of the update."""
    alpha: int = Field(default=32, ge=1)
    """Scale of the update, which is multiplied by alpha / r."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout probability on the input of the update, during training."""
    targets: Name | Names = "language_model"
    """Parts of the model whose linear layers are adapted, or names of modules; modules of frozen
    parts are skipped."""
    modules_to_save: Names = ()
    """Parts or modules that are trained in full, in addition to the low-rank update."""


class ModelSection(Section):
    """The model to train."""

    # pydantic reserves names that start with `model_` by default
    model_config = ConfigDict(protected_namespaces=())

    name_or_path: Name
    """A local directory of a model, or of a LoRA adapter to train further, or the name of a model
    on a hub."""
    base_name_or_path: Name | None = None
    """Base model of a LoRA adapter directory; null: the one that its `adapter_config.json`
    names."""
    adapter: Name | None = None
    """Model family (`unidpo-mm list models`), or the path of a Python file with a family; null:
    detected from the model type."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Precision of the weights; `auto` uses the checkpoint's."""
    layout: Literal["auto", "joined", "packed", "plain"] = "auto"
    """`plain` computes prompt and images once per response, `packed` once per group of responses,
    `joined` also puts all groups of a micro-batch into one row without padding; `auto` uses the
    most efficient of them that a check on the run's own rows allows."""
    freeze: Names | None = None
    """Parts that are not trained, neither in full nor by a LoRA adapter; null: the family's
    default, []: none."""
    lora: LoraSection | None = None
    """The LoRA adapter to train; null: all parts that are not frozen are trained in full."""
    attn_implementation: Name | None = None
    """Attention implementation, by its name in transformers; null: the default of transformers."""
    prompt_style: Literal["auto", "chat", "raw"] = "auto"
    """Whether plain string prompts are rendered by the chat template; `auto`: if there is one."""
    chat_template_kwargs: dict[str, Any] = {}
    """Variables for the chat template, such as `enable_thinking: false`, in training and wherever
    the run generates; a row's own column of this name overrides them."""
    image_min_pixels: int | None = Field(default=None, ge=1)
    """Minimum image size in pixels (dynamic-resolution models only); null: the processor's
    limit."""
    image_max_pixels: int | None = Field(default=None, ge=1)
    """Maximum image size in pixels (dynamic-resolution models only): larger images are scaled down,
    and the number of tokens follows the pixels; null: the processor's limit."""
    trust_remote_code: bool = False
    """Whether Python code that comes with the checkpoint may be executed."""
    init_kwargs: dict[str, Any] = {}
    """Further arguments of `from_pretrained`."""


class ScoresSection(Section):
    """The meaning of a source's scores, and how pairs are made from them."""

    scale: Scale | None = None
    """Lowest and highest possible score; scores are mapped from it to `data.score_scale`. It is
    never estimated from the data."""
    judge: Name | None = None
    """The model or person that assigned the scores, for reports."""
    missing: Literal["error"] | Annotated[float, Field(ge=0, le=1)] = "error"
    """`error`, or the quality weight of pairs without scores; their NLL gate stays closed."""
    misordered: Literal["keep", "swap", "drop"] = "keep"
    """What happens to a chosen/rejected pair whose rejected response has the higher score."""
    ties: Literal["keep", "drop"] = "keep"
    """What happens to chosen/rejected pairs with equal scores; `drop` also removes rows that have
    no pair left."""
    pairs: Literal["all", "best_vs_worst", "adjacent"] = "all"
    """Which pairs are made of several scored responses: every two with different scores, the best
    and the worst, or neighbors in the order of scores."""
    min_margin: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Minimum difference of scores; pairs that differ by less are dropped. In the unit of
    `data.score_scale`."""


class SourceLoss(TypedDict, total=False):
    """Loss parameters that may differ by source; all others are those of `loss`."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[misc]

    beta: float
    eta: float
    gamma: float
    tau_ref: float
    nll_lambda: float
    tau_good: float | Literal["median"]


class SourceSection(Section):
    """One data set."""

    path: Name
    """A file (JSON, JSONL, Parquet, Arrow), a directory of files, a directory that `datasets`
    saved, LLaMA-Factory's `dataset_info.json`, or the name of a data set on a hub."""
    format: Name | None = None
    """Format (`unidpo-mm list formats`), or the path of a Python file with a format; null:
    detected from the columns of each row."""
    columns: dict[str, Name] = {}
    """Column of the format -> its name in the file, if they differ."""
    images: Name | None = None
    """Directory that relative image paths in the rows start from; null: the directory of the
    file."""
    images_outside: bool = False
    """Whether image paths may lead out of that directory."""
    fetch_images: bool = False
    """Whether images may be downloaded from URLs; each is downloaded once and kept."""
    domain: Literal["text", "math", "multimodal"] | None = None
    """Domain of the rows in reports; null: multimodal for rows with images, otherwise text."""
    name: Name | None = None
    """Name of the source in reports; null: derived from the path."""
    split: Name | None = None
    """Split of a data set on a hub, or of one that `datasets` saved."""
    subset: Name | None = None
    """Configuration of a data set on a hub, or an entry of `dataset_info.json`."""
    scores: ScoresSection | None = None
    """The meaning of the scores; null: they are used as they are."""
    reasoning: Literal["keep", "strip"] | None = None
    """What happens to responses that the chat template would change, for example by removing their
    `<think>` blocks: `keep` trains on each response exactly as it is written, `strip` removes the
    reasoning from all responses and counts it; null: an error. An opening tag that already ends the
    generation prompt is never repeated, and the template may trim blanks around a response."""
    loss: SourceLoss = {}
    """Loss parameters that differ for this source."""


class ImagesSection(Section):
    """Limits on images, and the handling of rows whose image cannot be used."""

    max_pixels: int = Field(default=89_478_485, ge=1, le=178_956_970)
    """Maximum number of pixels of an image before it is scaled; larger images are never decoded."""
    max_skipped_fraction: float = Field(default=0.0, ge=0, lt=1)
    """Fraction of the rows that may be skipped, and are counted, because an image is missing or
    damaged."""
    fetch_private_addresses: bool = False
    """Whether `fetch_images` may download from this machine and the local network."""


class DataSection(Section):
    """The training data."""

    sources: Annotated[tuple[SourceSection, ...], BeforeValidator(_as_tuple), Field(min_length=1)]
    """Data sets to train on; their rows are mixed."""
    eval_sources: Annotated[tuple[SourceSection, ...], BeforeValidator(_as_tuple)] = ()
    """Data sets to evaluate on during training."""
    eval_fraction: float = Field(default=0.0, ge=0, lt=1)
    """Fraction of the rows of `sources` that is held out for evaluation, split by prompt and
    image."""
    score_scale: Scale | None = None
    """The unit of all scores, [lowest, highest], and so of `loss.eta` and `loss.tau_good`; scores
    of a source that declares its own scale are mapped to it."""
    max_length: int | None = Field(default=None, ge=1)
    """Maximum number of tokens of a prompt with one response, image tokens included; null: no
    limit."""
    length_policy: Literal["error", "drop", "truncate_response", "shrink_image"] = (
        "truncate_response"
    )
    """What happens to longer rows: an error, skipped and counted, their responses truncated, or
    their images scaled down. Tokens of a prompt or an image are never cut."""
    images: ImagesSection = ImagesSection()
    """Limits on images. The former name `data.pictures` is accepted until the next release."""
    seed: int = Field(default=42, ge=0, lt=2**32)
    """Seed of the split and of the order of rows."""
    feature_cache_gb: float = Field(default=0.0, ge=0)
    """Maximum number of gigabytes on disk for the features of images, if the vision tower is
    frozen; 0: no cache."""
    group_by_prompt: bool = False
    """Whether rows that share prompt and images are joined, up to a micro-batch of pairs, so that
    both are computed once; pairs of one prompt are then part of the same step."""
    pair_weighting: Literal["pair", "group"] = "pair"
    """`group` weights every prompt equally, however many pairs its responses make."""
    preflight: bool = True
    """Whether every row and image is checked before training starts."""
    worker_timeout: float = Field(default=600.0, ge=0, allow_inf_nan=False)
    """Maximum number of seconds that a data worker may take for a batch; 0: no limit."""


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


class TrainSection(Section):
    """Training options."""

    model_config = ConfigDict(extra="allow")

    output_dir: Name = "out"
    """Directory for checkpoints, the final model and reports."""
    reference: Literal["auto", "frozen_copy", "lora_off", "cached", "none"] = "auto"
    """Where reference log-probs come from. `auto` is the model before training: with its LoRA
    adapter disabled while the adapter is zero, with a frozen copy of a LoRA adapter that is not,
    otherwise a frozen copy of the model; `cached` computes each once and keeps it on disk."""
    reference_build: Literal["before", "first_epoch"] = "before"
    """When a cached reference is computed: before training, or with the batches of the first
    epoch, which keeps a frozen copy of the model if more than a LoRA adapter is trained."""
    memory: Literal["auto"] | Positive | None = None
    """`auto`, or gigabytes for the activations of a micro-batch: exactly as many layers as
    necessary are checkpointed. Null: `activation_checkpointing` decides, all of them or none."""
    learning_rates: dict[str, Positive] = {}
    """Part of the model -> its learning rate; all others use `learning_rate`."""
    eval_generations: int = Field(default=4, ge=0)
    """Number of held-out prompts for which a response is generated and logged at each
    evaluation."""
    eval_max_new_tokens: int = Field(default=64, ge=1)
    """Maximum number of tokens of such a response."""

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of `transformers.TrainingArguments`, without `output_dir`."""
        return dict(self.model_extra or {})


class RunSection(Section):
    """How a run starts, resumes and stops, and its callbacks."""

    resume: Name = "auto"
    """`auto` resumes from the newest complete checkpoint in `output_dir`, if there is one; `never`
    starts from the beginning; otherwise the path of a checkpoint."""
    allow_changes: Names = ()
    """Differences from a checkpoint that a resumed run may have: recipe keys, `data`, `model`,
    `processes`, or `all`. Changes that have no effect on training are always allowed."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """What happens when a loss or gradient is NaN or infinite: `stop` ends the run before any
    weight is changed, `skip` skips and counts that optimizer step."""
    callbacks: dict[str, dict[str, Any]] = {}
    """Name of a callback of an installed package, or path of a Python file with one -> its
    settings; `benchmarks` evaluates a subset of benchmarks every N steps."""


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
