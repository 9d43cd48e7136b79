"""`UniDPOConfig`: transformers' `TrainingArguments` and the settings of preference tuning.

Fields that TRL's `DPOConfig` also has have the same names. Batch sizes count pairs.
"""

import copy
from dataclasses import dataclass, field
from typing import Any, Literal

from transformers import TrainingArguments

from ..recipe.secrets import is_secret_key, mask_secrets
from .aliases import resolve_aliases
from .config_checks import check_arguments, check_processes, use_cpu_without_gpus
from .configured_loss import ConfiguredLoss, configure_loss, weights_missing_scores
from .data_options import check_data_options, score_options

__all__ = ["LOSS_FIELDS", "UniDPOConfig"]

LOSS_FIELDS = (
    "beta",
    "eta",
    "gamma",
    "tau_ref",
    "nll_lambda",
    "tau_good",
    "sft_weight",
    "detach_weights",
    "length_norm",
    "label_smoothing",
    "simpo_gamma",
)
"""Fields that are parameters of the loss; `None` is the default of the chosen loss."""


@dataclass
class UniDPOConfig(TrainingArguments):
    """Settings of `UniDPOTrainer`: all fields of `TrainingArguments`, and those below.

    A loss parameter that is `None` has the default of the chosen loss; setting a parameter that the
    loss does not have is an error.
    """

    loss_type: str | list[str] = "uni_dpo"
    """Name of the loss, see `unidpo-mm list losses`; TRL's names and lists are accepted."""
    loss_weights: list[float] | None = None
    """Weights of the losses if `loss_type` is a list, as in TRL."""
    beta: float | None = None
    """Reward scale."""
    eta: float | None = None
    """Slope of the quality weight, 1 / score units."""
    gamma: float | None = None
    """Exponent of the performance weight."""
    tau_ref: float | None = None
    """Threshold of the performance weight, in units of rewards."""
    nll_lambda: float | None = None
    """Weight of the calibrated NLL."""
    tau_good: float | str | None = None
    """Minimum score of a good response, or ``median``."""
    sft_weight: float | None = None
    """Weight of the NLL of every chosen response."""
    detach_weights: bool | None = None
    """Whether gradients do not flow through w_perf."""
    length_norm: bool | None = None
    """Whether log-probs are means over tokens; to choose where, set a list in `loss_kwargs`, such
    as ``{"length_norm": ["margin", "nll"]}``."""
    label_smoothing: float | None = None
    """Assumed share of flipped preferences, for losses that have it."""
    simpo_gamma: float | None = None
    """Target margin of SimPO, in units of rewards."""
    loss_kwargs: dict[str, Any] | None = None
    """Further parameters of the loss, which are not fields here."""
    loss_by_source: dict[str, dict[str, Any]] | None = None
    """Data source -> parameters of the loss that differ there."""

    reference: Literal["auto", "frozen_copy", "lora_off", "cached", "none"] = "auto"
    """``auto`` is the model before training: with a LoRA adapter that is initially zero, the model
    with the adapter turned off; with another LoRA adapter, a frozen copy of the adapter; else a
    frozen copy of the model. ``cached`` keeps its log-probs on disk."""
    reference_build: Literal["before", "first_epoch"] = "before"
    """When a cached reference is computed: in a pass before training, or with the batches of the
    first epoch, which needs a frozen copy unless only a LoRA adapter is trained."""
    freeze: list[str] | None = None
    """Parts of the model that are not trained; `None` for the default of the family."""
    memory: str | None = None
    """Activation memory of a micro-batch in gigabytes, or ``auto``: as few layers as possible are
    checkpointed. With `None`, `activation_checkpointing` applies to all layers or to none."""
    learning_rates: dict[str, float] | None = None
    """Part of the model -> its learning rate; the others have `learning_rate`."""
    disable_dropout: bool = True
    """Whether all dropout of the policy is turned off, as in TRL."""
    max_length: int | None = None
    """Maximum number of tokens in prompt and response, with image tokens; `None` for no limit."""
    length_policy: Literal["error", "drop", "truncate_response", "shrink_image"] = (
        "truncate_response"
    )
    """Handling of rows that exceed `max_length`; see `data.length_policy` in docs/recipe.md."""
    max_skipped_fraction: float = 0.0
    """Maximum share of rows that are skipped and counted because an image is missing or broken."""
    images: str | None = None
    """Directory of relative image paths in the data sets; `None` for the current directory. If it
    is set, absolute paths must be inside it as well."""
    score_scale: list[float] | None = None
    """Common scale of all scores, [lowest, highest], to which declared scales are mapped."""
    scores: dict[str, Any] | None = None
    """Meaning and handling of the scores in the data sets: the fields of
    `unidpo_mm.data.scores.ScoreOptions`, such as ``{"scale": (0, 5), "misordered": "drop"}``."""
    prompt_style: Literal["auto", "chat", "raw"] = "auto"
    """How plain string prompts are rendered; see `unidpo_mm.adapter.AdapterOptions`."""
    chat_template_kwargs: dict[str, Any] | None = None
    """Variables for the chat template, such as ``{"enable_thinking": False}``; a column of this
    name overrides them for its row."""
    reasoning: Literal["keep", "strip"] | None = None
    """Handling of reasoning in responses that the chat template would change, for data sets in
    memory whose rows do not set it; see `data.sources.reasoning` in docs/recipe.md."""
    image_min_pixels: int | None = None
    """Minimum image size in pixels, for models with dynamic resolution."""
    image_max_pixels: int | None = None
    """Maximum image size in pixels, for models with dynamic resolution."""
    layout: Literal["auto", "joined", "packed", "plain"] = "auto"
    """``plain`` runs prompt and images once for each response, ``packed`` once for all responses
    of a prompt, ``joined`` puts all packed groups of a micro-batch into one row without padding.
    ``auto`` chooses the most efficient one that gives the same log-probs on rows of the run."""
    padding_side: Literal["left", "right"] = "right"
    """The side on which batch rows are padded."""
    logps_chunk_size: int = 512
    """Number of positions in responses whose logits are in memory at the same time."""
    eval_fraction: float = 0.0
    """Share of the training rows, split by prompt and image, to evaluate on if there is no
    eval_dataset."""
    eval_generations: int = 4
    """Number of held-out prompts to generate a response to at each evaluation."""
    eval_max_new_tokens: int = 64
    """Maximum number of tokens in such a response."""
    feature_cache_gb: float = 0.0
    """Maximum size in gigabytes of the disk cache of image features, for frozen vision towers; 0
    for no cache."""
    group_by_prompt: bool = False
    """Whether to join rows that share prompt and images, to run both only once."""
    pair_weighting: Literal["pair", "group"] = "pair"
    """``pair`` weights every pair equally, ``group`` every prompt."""
    preflight: bool = True
    """Whether to read every row and image once before training starts."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """Handling of a loss or gradient that is NaN or infinite: ``stop`` ends the run before the
    optimizer changes a weight, ``skip`` skips that optimizer step and counts it."""
    allow_changes: list[str] | None = None
    """Names of differences from a checkpoint with which training may resume; ``all`` for any."""
    worker_timeout: float = 600.0
    """Maximum seconds that a data worker may take for a batch; 0 for no limit."""
    adapter: str | None = None
    """Name of the model family; `None` to detect it from the model type."""
    model_init_kwargs: dict[str, Any] | None = None
    """Arguments of `from_pretrained` for a model that is passed by name."""
    base_name_or_path: str | None = None
    """Base model of a LoRA adapter directory that is passed as model; `None` for the one in its
    ``adapter_config.json``."""
    model_adapter_name: str | None = None
    """As in older TRL: the adapter of a PEFT model that is trained; `None` for the active one."""
    ref_adapter_name: str | None = None
    """As in older TRL: the adapter of a PEFT model that is the reference; `None` for a frozen copy
    of the adapter that is trained."""

    uni_dpo_qual_eta: float | None = None
    """The official code's name of `eta`."""
    uni_dpo_perf_gamma: float | None = None
    """The official code's name of `gamma`."""
    uni_dpo_tau_ref: float | None = None
    """The official code's name of `tau_ref`."""
    uni_dpo_nll_lambda: float | None = None
    """The official code's name of `nll_lambda`."""
    uni_dpo_tau_good: float | None = None
    """The official code's name of `tau_good`."""
    dpo_length_norm: bool | None = None
    """The official text and math code's name of `length_norm`."""
    dpo_average_log_prob: bool | None = None
    """The official multimodal code's name of `length_norm`."""
    precompute_ref_log_probs: bool = False
    """TRL's name of ``reference="cached"``."""
    sync_ref_model: bool = False
    """TRL's switch, which is not supported: true is an error."""

    learning_rate: float = 1e-6
    """Initial learning rate; the released text settings use 1e-6."""
    log_level_replica: str = "error"
    """Log level of transformers on all processes but the first, which prints the warnings."""
    logging_nan_inf_filter: bool = False
    """False, unlike in transformers, so that a NaN loss is logged as NaN."""
    remove_unused_columns: bool = False
    """Rows keep their fields until the adapter encodes them."""
    accelerator_config: dict[str, Any] | str | None = field(default=None)
    """As in `TrainingArguments`, but batches are not dispatched; the sampler makes them even."""

    def __post_init__(self) -> None:
        check_arguments(self)
        if self.accelerator_config is None or isinstance(self.accelerator_config, dict):
            options = self.accelerator_config or {}
            # The sampler adds fillers of weight 0, so that all processes have as many batches.
            self.accelerator_config = {"dispatch_batches": False, "even_batches": False, **options}
        resolve_aliases(self)
        check_data_options(self)
        use_cpu_without_gpus(self)
        super().__post_init__()  # type: ignore[no-untyped-call] # as transformers wrote it
        check_processes(self)

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes without access tokens: checkpoints contain these settings."""
        state = {**self.__dict__, "hub_token": None}
        if self.model_init_kwargs:
            state["model_init_kwargs"] = {
                name: value
                for name, value in self.model_init_kwargs.items()
                if not is_secret_key(name)
            }
        return state

    def __copy__(self) -> "UniDPOConfig":
        """Copy all attributes, including the access tokens that `__getstate__` omits."""
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> "UniDPOConfig":
        """Copy all attributes deeply, as `__copy__`."""
        copied = object.__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    def to_dict(self) -> dict[str, Any]:
        """Return the settings with masked secrets, as trackers record them."""
        settings = super().to_dict()  # type: ignore[no-untyped-call] # as transformers wrote it
        masked: dict[str, Any] = mask_secrets(settings)
        return masked

    def configured_loss(self) -> ConfiguredLoss:
        """Return the loss with its parameters.

        Raises:
            RecipeError: If the loss does not have a parameter, or a value is invalid.
        """
        parameters = {name: getattr(self, name) for name in LOSS_FIELDS} | (self.loss_kwargs or {})
        if isinstance(parameters["length_norm"], list):
            parameters["length_norm"] = tuple(parameters["length_norm"])
        name = str(self.loss_type)  # __post_init__ replaced a list by a mixture
        missing = score_options(self).missing
        if missing != "error" and weights_missing_scores(name):
            parameters.setdefault("missing_quality", missing)
        return configure_loss(name, parameters, self.loss_by_source)
