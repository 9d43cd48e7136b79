"""The sections of a recipe: every key, its type, its default and what it means.

The text under a field is its only documentation; help and reference pages are made from it.
`loss` and `train` take further keys, which `unidpo_mm.training.recipe_checks` checks against the
loss's own config and against transformers.TrainingArguments.
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
    """YAML knows lists only; records hold tuples, which cannot change."""
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
    """Base of all sections: frozen, strictly typed, no unknown keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )


class LoraSection(Section):
    """Low-rank adapters in place of full fine-tuning (peft)."""

    r: int = Field(default=16, ge=1)
    """Rank of the update."""
    alpha: int = Field(default=32, ge=1)
    """Scale of the update; it is multiplied by alpha / r."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout before the update, while training."""
    targets: Name | Names = "language_model"
    """Parts of the model, whose linear layers are adapted, or the names of modules; modules of
    frozen parts are left out."""
    modules_to_save: Names = ()
    """Parts or modules trained in full beside the low-rank update."""


class ModelSection(Section):
    """What is trained."""

    # `model_` is a namespace that pydantic guards by default.
    model_config = ConfigDict(protected_namespaces=())

    name_or_path: Name
    """A local directory of a model or of a LoRA adapter, whose training continues, or the name of a
    model on a hub."""
    base_name_or_path: Name | None = None
    """Base model of a LoRA adapter directory; null: the one named by its `adapter_config.json`."""
    adapter: Name | None = None
    """Model family (`unidpo-mm list models`) or the path of a Python file; null: detected from the
    model type."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Precision of the weights; `auto` takes the checkpoint's."""
    layout: Literal["auto", "joined", "packed", "plain"] = "auto"
    """`plain` runs prompt and images once for each answer, `packed` once for all answers,
    `joined` puts all groups of a micro-batch in one such row, without padding; `auto` takes
    the leanest that a check on the run's own rows allows."""
    freeze: Names | None = None
    """Parts that are not trained, neither in full nor by a LoRA adapter; null takes the family's
    default, [] freezes nothing."""
    lora: LoraSection | None = None
    """Low-rank adapters; null trains all parts that are not frozen."""
    attn_implementation: Name | None = None
    """Attention kernel as transformers names it; null takes its default."""
    prompt_style: Literal["auto", "chat", "raw"] = "auto"
    """Whether prompts go through the chat template; `auto` uses it where there is one."""
    chat_template_kwargs: dict[str, Any] = {}
    """Variables for the chat template, such as `enable_thinking: false`, in training and wherever
    the run generates; a row's own column of this name overrides them."""
    image_min_pixels: int | None = Field(default=None, ge=1)
    """Least pixels of an image, for models whose resolution follows it; null is its own limit."""
    image_max_pixels: int | None = Field(default=None, ge=1)
    """Most pixels of an image, likewise: larger ones are scaled down, tokens follow pixels."""
    trust_remote_code: bool = False
    """Whether code that comes with the checkpoint may be run."""
    init_kwargs: dict[str, Any] = {}
    """Further arguments of `from_pretrained`."""


class ScoresSection(Section):
    """What the scores of a source mean, and what is done with them."""

    scale: Scale | None = None
    """Lowest and highest possible score; mapped to `data.score_scale`. Never guessed from data."""
    judge: Name | None = None
    """Who gave the scores, for reports."""
    missing: Literal["error"] | Annotated[float, Field(ge=0, le=1)] = "error"
    """`error`, or the quality weight of pairs without scores; their NLL gate stays shut."""
    misordered: Literal["keep", "swap", "drop"] = "keep"
    """What happens to a given pair whose rejected answer has the higher score."""
    ties: Literal["keep", "drop"] = "keep"
    """What happens to given pairs of equal scores; `drop` leaves out rows without a pair, too."""
    pairs: Literal["all", "best_vs_worst", "adjacent"] = "all"
    """Which of several scored answers make a pair: every two with different scores, the best and
    the worst, or neighbours in the order of their scores."""
    min_margin: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Pairs whose scores differ by less are dropped; in the unit of `data.score_scale`."""


class SourceLoss(TypedDict, total=False):
    """Loss parameters that may differ by source; the rest are those of `loss`."""

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
    """A file (JSON, JSONL, Parquet, Arrow), a folder of them or one that `datasets` saved,
    LLaMA-Factory's `dataset_info.json`, or the name of a data set on a hub."""
    format: Name | None = None
    """Format (`unidpo-mm list formats`) or the path of a Python file; null: recognized by the
    columns of each row."""
    columns: dict[str, Name] = {}
    """Column of the format -> its name in the file, where they differ."""
    images: Name | None = None
    """Folder that the image paths in the rows start from; null is the folder of the file."""
    images_outside: bool = False
    """Whether paths of images may leave that folder."""
    fetch_images: bool = False
    """Whether images may be fetched from addresses; each is fetched once and kept."""
    domain: Literal["text", "math", "multimodal"] | None = None
    """Domain of the rows in reports; null is multimodal for rows with images, else text."""
    name: Name | None = None
    """Name of the source in reports; null takes it from the path."""
    split: Name | None = None
    """Split of a data set on a hub, or of one that `datasets` saved."""
    subset: Name | None = None
    """Configuration of a data set on a hub, or an entry of `dataset_info.json`."""
    scores: ScoresSection | None = None
    """What the scores mean; null takes them as they are."""
    reasoning: Literal["keep", "strip"] | None = None
    """What happens to responses that the chat template would change, such as by removing their
    `<think>` blocks: `keep` scores each exactly as it is written, `strip` removes and counts the
    reasoning of all responses; null is an error. An opening tag that the generation prompt already
    ends with is never repeated, and blanks around a response are the template's to trim."""
    loss: SourceLoss = {}
    """Loss parameters of this source only."""


class ImagesSection(Section):
    """Which images may be opened, and what becomes of rows whose image cannot be."""

    max_pixels: int = Field(default=89_478_485, ge=1, le=178_956_970)
    """Most pixels of an image before it is scaled; a larger one is never decoded."""
    max_skipped_fraction: float = Field(default=0.0, ge=0, lt=1)
    """Share of rows that may be left out, and counted, since an image is missing or broken."""
    fetch_private_addresses: bool = False
    """Whether `fetch_images` may download from this machine and the local network."""


class DataSection(Section):
    """What is learned from."""

    sources: Annotated[tuple[SourceSection, ...], BeforeValidator(_as_tuple), Field(min_length=1)]
    """Data sets to train on; their rows are mixed."""
    eval_sources: Annotated[tuple[SourceSection, ...], BeforeValidator(_as_tuple)] = ()
    """Data sets to evaluate on."""
    eval_fraction: float = Field(default=0.0, ge=0, lt=1)
    """Share of `sources` held out for evaluation, split by prompt and image."""
    score_scale: Scale | None = None
    """The unit of all scores and so of `loss.eta` and `loss.tau_good`."""
    max_length: int | None = Field(default=None, ge=1)
    """Most tokens of a prompt with one answer, image tokens included; null is no limit."""
    length_policy: Literal["error", "drop", "truncate_response", "shrink_image"] = (
        "truncate_response"
    )
    """What happens to rows longer than that: an error, left out and counted, their answers cut, or
    their images made smaller. No token of a prompt or image is ever cut."""
    images: ImagesSection = ImagesSection()
    """Which images may be opened."""
    seed: int = Field(default=42, ge=0, lt=2**32)
    """Seed of the split and of the order of rows."""
    feature_cache_gb: float = Field(default=0.0, ge=0)
    """Most gigabytes on disk for features of images, where the tower is frozen; 0 for none."""
    group_by_prompt: bool = False
    """Whether rows that share prompt and images are joined, up to a micro-batch of pairs, so that
    both are run once; pairs of one prompt then stand in the same step."""
    pair_weighting: Literal["pair", "group"] = "pair"
    """`group` lets every prompt count alike, however many pairs its answers make."""
    preflight: bool = True
    """Whether every row is checked before training starts."""
    worker_timeout: float = Field(default=600.0, ge=0, allow_inf_nan=False)
    """Maximum number of seconds that a data worker may take for a batch; 0 for no limit."""


class LossSection(Section):
    """The loss and its parameters, see `unidpo-mm list losses`."""

    model_config = ConfigDict(extra="allow")

    name: Name = "uni_dpo"
    """A loss, or the path of a Python file; all further keys are parameters of that loss."""

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters that are stated; the rest are the loss's defaults."""
        return dict(self.model_extra or {})


class TrainSection(Section):
    """How it is trained."""

    model_config = ConfigDict(extra="allow")

    output_dir: Name = "out"
    """Folder of checkpoints and reports."""
    reference: Literal["auto", "frozen_copy", "lora_off", "cached", "none"] = "auto"
    """Where reference log-probabilities come from; `cached` computes each once, on disk."""
    reference_build: Literal["before", "first_epoch"] = "before"
    """When a cached reference is computed: in a pass before training, or as batches come."""
    memory: Literal["auto"] | Positive | None = None
    """`auto`, or gigabytes for the activations of a micro-batch: just as many layers as needed are
    checkpointed. Null leaves it to `activation_checkpointing`: all of them, or none."""
    learning_rates: dict[str, Positive] = {}
    """Learning rates of single parts of the model; the rest have `learning_rate`."""
    eval_generations: int = Field(default=4, ge=0)
    """Held-out prompts answered and logged at each evaluation."""
    eval_max_new_tokens: int = Field(default=64, ge=1)
    """Most tokens of such an answer."""

    @property
    def arguments(self) -> dict[str, Any]:
        """The keys that are arguments of transformers.TrainingArguments, without `output_dir`."""
        return dict(self.model_extra or {})


class RunSection(Section):
    """How the run starts."""

    resume: Name = "auto"
    """`auto` goes on from the last checkpoint in `output_dir`, of the same model, data and loss;
    `never` starts anew, else a path."""
    allow_changes: Names = ()
    """Differences from a checkpoint that a resumed run may have: recipe keys, `data`, `model`,
    `processes`, or `all`. Changes that have no effect on training are always allowed."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """What happens when a loss or gradient is NaN or infinite: `stop` ends the run before any
    weight is changed, `skip` skips and counts that optimizer step."""
    callbacks: dict[str, dict[str, Any]] = {}
    """Callbacks of installed packages, or paths of Python files, each with its settings;
    `benchmarks` evaluates a subset of benchmarks every N steps."""


class Recipe(Section):
    """Everything that defines a run."""

    model_config = ConfigDict(protected_namespaces=())

    model: ModelSection
    """What is trained."""
    data: DataSection
    """What is learned from."""
    loss: LossSection = LossSection()
    """The loss and its parameters."""
    train: TrainSection = TrainSection()
    """How it is trained."""
    run: RunSection = RunSection()
    """How the run starts."""
