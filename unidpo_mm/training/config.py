"""`UniDPOConfig`: transformers' `TrainingArguments` plus what preference tuning needs.

The names are those of TRL's `DPOConfig` where they mean the same. Batch sizes count pairs.
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
"""Fields that are parameters of the loss; None takes the default of the loss chosen."""


@dataclass
class UniDPOConfig(TrainingArguments):
    """Settings of `UniDPOTrainer`: every `TrainingArguments` field, and those below.

    A loss parameter left at None takes the chosen loss's own default; one that the loss does not
    have is an error.
    """

    loss_type: str | list[str] = "uni_dpo"
    """Name of the loss, see `unidpo-mm list losses`; TRL's names and lists are understood."""
    loss_weights: list[float] | None = None
    """Weights where `loss_type` is a list, as in TRL."""
    beta: float | None = None
    """Reward scale."""
    eta: float | None = None
    """Slope of the quality weight, 1 / score units."""
    gamma: float | None = None
    """Exponent of the performance weight."""
    tau_ref: float | None = None
    """Threshold of the performance weight, reward units."""
    nll_lambda: float | None = None
    """Weight of the calibrated NLL."""
    tau_good: float | str | None = None
    """Least score of a good answer, or ``median``."""
    sft_weight: float | None = None
    """Weight of the NLL on every chosen answer."""
    detach_weights: bool | None = None
    """Whether w_perf is a constant for the gradient."""
    length_norm: bool | None = None
    """Whether log-probabilities are means over tokens; for single uses give a list in
    `loss_kwargs`, as in ``{"length_norm": ["margin", "nll"]}``."""
    label_smoothing: float | None = None
    """Assumed share of flipped preferences, for losses that have it."""
    simpo_gamma: float | None = None
    """Target margin of SimPO, reward units."""
    loss_kwargs: dict[str, Any] | None = None
    """Parameters of a loss that have no field of their own here."""
    loss_by_source: dict[str, dict[str, Any]] | None = None
    """Source -> parameters that differ there."""

    reference: Literal["auto", "frozen_copy", "lora_off", "cached", "none"] = "auto"
    """``auto`` is the model before training: with its LoRA adapter off while the adapter is zero,
    with a frozen copy of a LoRA adapter that is not, else a frozen copy of the model; ``cached``
    keeps its log-probs on disk."""
    reference_build: Literal["before", "first_epoch"] = "before"
    """When a cached reference is computed: in a pass before training, or with the batches of the
    first epoch, which holds a frozen copy where more than a LoRA trains."""
    freeze: list[str] | None = None
    """Parts of the model that do not train; None for the family's default."""
    memory: str | None = None
    """``auto``, or gigabytes for the activations of a micro-batch: just as many layers as needed
    are checkpointed. None leaves it to `activation_checkpointing`: all of them, or none."""
    learning_rates: dict[str, float] | None = None
    """Part -> learning rate; the others take `learning_rate`."""
    disable_dropout: bool = True
    """Whether every dropout of the policy is set to 0, as in TRL."""
    max_length: int | None = None
    """Most tokens of prompt and answer, image tokens included; None for no limit."""
    length_policy: Literal["error", "drop", "truncate_response", "shrink_image"] = (
        "truncate_response"
    )
    """What happens to longer rows; see `data.length_policy` in docs/recipe.md."""
    max_skipped_fraction: float = 0.0
    """Share of rows that may be left out, and counted, since an image is missing or broken."""
    images: str | None = None
    """Directory that relative image paths in the data sets start from; None for the current one.
    If it is set, absolute paths have to lie in it, too."""
    score_scale: list[float] | None = None
    """The unit of all scores, [lowest, highest]; scores of a declared scale are mapped to it."""
    scores: dict[str, Any] | None = None
    """What the scores of the data sets mean and what is done with them: the fields of
    `unidpo_mm.data.scores.ScoreOptions`, such as ``{"scale": (0, 5), "misordered": "drop"}``."""
    prompt_style: Literal["auto", "chat", "raw"] = "auto"
    """How plain string prompts are rendered; see `unidpo_mm.adapter.AdapterOptions`."""
    chat_template_kwargs: dict[str, Any] | None = None
    """Variables for the chat template, such as ``{"enable_thinking": False}``; a row's own column
    of this name overrides them."""
    reasoning: Literal["keep", "strip"] | None = None
    """What happens to responses that the chat template would change, see `data.sources.reasoning`
    of a recipe; for data sets in memory whose rows do not say it themselves."""
    image_min_pixels: int | None = None
    """Least pixels of an image, for models whose resolution follows it."""
    image_max_pixels: int | None = None
    """Most pixels of an image, likewise."""
    layout: Literal["auto", "joined", "packed", "plain"] = "auto"
    """``plain`` runs prompt and images once for each answer, ``packed`` once for all answers,
    ``joined`` puts all groups of a micro-batch in one such row, without padding; ``auto`` takes
    the leanest that a check on the run's own rows allows."""
    padding_side: Literal["left", "right"] = "right"
    """Where rows are filled."""
    logps_chunk_size: int = 512
    """Response positions whose logits exist at a time."""
    eval_fraction: float = 0.0
    """Share of the training rows held out by prompt and image, without an eval_dataset."""
    eval_generations: int = 4
    """Held-out prompts that are answered at each evaluation."""
    eval_max_new_tokens: int = 64
    """Most tokens of such an answer."""
    feature_cache_gb: float = 0.0
    """Most gigabytes on disk for features of images, where the tower is frozen; 0 for none."""
    group_by_prompt: bool = False
    """Whether rows that share prompt and images are joined, to run both once."""
    pair_weighting: Literal["pair", "group"] = "pair"
    """``group`` lets every prompt count alike, however many pairs its answers make."""
    preflight: bool = True
    """Whether every row and image is read once before training starts."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """What happens when a loss or gradient is NaN or infinite: ``stop`` ends the run before the
    optimizer changes a weight, ``skip`` leaves that optimizer step out and counts it."""
    allow_changes: list[str] | None = None
    """Differences from a checkpoint that training may resume with, by name; ``all`` for any."""
    worker_timeout: float = 600.0
    """Maximum seconds that a data worker may take for a batch; 0 for no limit."""
    adapter: str | None = None
    """Name of the model family; None to find it by the model's type."""
    model_init_kwargs: dict[str, Any] | None = None
    """Arguments of `from_pretrained` where the model is given by name."""
    base_name_or_path: str | None = None
    """Base model of a LoRA adapter directory given as model; None for the one that its
    ``adapter_config.json`` names."""
    model_adapter_name: str | None = None
    """As in older TRL: which of a PEFT model's adapters trains; None for the active one."""
    ref_adapter_name: str | None = None
    """As in older TRL: which of a PEFT model's adapters is the reference; None for a frozen copy
    of the adapter that trains."""

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
    """TRL's switch; true means ``reference="cached"``."""
    sync_ref_model: bool = False
    """TRL's switch; true is an error that says what happens instead."""

    learning_rate: float = 1e-6
    """Initial learning rate; the released text settings use 1e-6."""
    log_level_replica: str = "error"
    """Log level of transformers on all processes but the first, which prints the warnings."""
    logging_nan_inf_filter: bool = False
    """transformers' default hides a NaN loss in the log; ours shows it."""
    remove_unused_columns: bool = False
    """Rows keep their fields until the adapter encodes them."""
    accelerator_config: dict[str, Any] | str | None = field(default=None)
    """As in `TrainingArguments`; batches are never dispatched and always even by themselves."""

    def __post_init__(self) -> None:
        check_arguments(self)
        if self.accelerator_config is None or isinstance(self.accelerator_config, dict):
            given = self.accelerator_config or {}
            # our sampler already gives every process as many batches, by fillers of weight 0
            self.accelerator_config = {"dispatch_batches": False, "even_batches": False, **given}
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
        """Copy with all attributes; only what is written to disk leaves tokens out."""
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> "UniDPOConfig":
        """Copy with all attributes, as `__copy__`."""
        copied = object.__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a dictionary, secrets masked; trackers record it."""
        settings = super().to_dict()  # type: ignore[no-untyped-call] # as transformers wrote it
        masked: dict[str, Any] = mask_secrets(settings)
        return masked

    def configured_loss(self) -> ConfiguredLoss:
        """Return the loss with its parameters.

        Raises:
            RecipeError: If a parameter is wrong or not one of the loss's.
        """
        given = {name: getattr(self, name) for name in LOSS_FIELDS}
        parameters = {**given, **(self.loss_kwargs or {})}
        if isinstance(parameters["length_norm"], list):
            parameters["length_norm"] = tuple(parameters["length_norm"])
        name = str(self.loss_type)  # a list became one name in __post_init__
        missing = score_options(self).missing
        if missing != "error" and weights_missing_scores(name):
            parameters.setdefault("missing_quality", missing)
        return configure_loss(name, parameters, self.loss_by_source)
