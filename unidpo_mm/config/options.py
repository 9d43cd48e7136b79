"""Every option of a run, declared once: type, default, range, meaning and key in a recipe.

Everything else about an option is derived from its declaration: the sections of a recipe
(`recipe.py`), the fields of `UniDPOConfig`, the validation of both, and `docs/recipe.md`. To add an
option, declare it here, use it, and test it.

This module imports neither torch nor transformers, so that a recipe is read in milliseconds.
"""

import ast
import inspect
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from functools import cache
from typing import Annotated, Any, Literal, get_type_hints

import pydantic

__all__ = ["OptionInfo", "Options", "documentation", "option", "options"]

Positive = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, pydantic.Field(min_length=1)]
Names = list[Name]

PYTHON_ONLY = None
"""Key of an option that a recipe does not have."""


def option(default: Any, key: str | None = "train", **constraints: Any) -> Any:
    """Declare an option.

    Args:
        default: Its default.
        key: The section of a recipe that it belongs to, or its whole key where the key is called
            otherwise, for example ``data.seed``; `PYTHON_ONLY` if a recipe does not have it.
        **constraints: The range of its values, as in `pydantic.Field`.
    """
    return field(default=default, metadata={"key": key, "constraints": constraints})


@dataclass(kw_only=True)
class Options:
    """The options of a run beside the arguments of `transformers.TrainingArguments`."""

    # ---- the model ----

    adapter: Name | None = option(None, "model")
    """Model family, see `unidpo-mm list models`, or the path of a Python file with a family; null:
    detected from the model type."""
    base_name_or_path: Name | None = option(None, "model")
    """Base model of a LoRA adapter directory; null: the one that its `adapter_config.json`
    names."""
    freeze: Names | None = option(None, "model")
    """Parts that are not trained, neither in full nor by a LoRA adapter; null: the family's
    default, []: none."""
    layout: Literal["auto", "joined", "packed", "plain"] = option("auto", "model")
    """`plain` computes prompt and images once per response, `packed` once per group of responses,
    `joined` also puts all groups of a micro-batch into one row without padding; `auto` uses the
    fastest of them that a check on the run's own rows allows."""
    prompt_style: Literal["auto", "chat", "raw"] = option("auto", "model")
    """Whether plain string prompts are rendered by the chat template; `auto`: if there is one."""
    chat_template_kwargs: dict[str, Any] | None = option(None, "model")
    """Variables for the chat template, such as `enable_thinking: false`, in training and wherever
    the run generates; a row's own column of this name overrides them."""
    image_min_pixels: int | None = option(None, "model", ge=1)
    """Minimum image size in pixels (dynamic-resolution models only); null: the processor's
    limit."""
    image_max_pixels: int | None = option(None, "model", ge=1)
    """Maximum image size in pixels (dynamic-resolution models only): larger images are scaled down,
    and the number of tokens follows the pixels; null: the processor's limit."""
    model_init_kwargs: dict[str, Any] | None = option(None, "model.init_kwargs")
    """Further arguments of `from_pretrained`."""
    model_adapter_name: str | None = option(None, PYTHON_ONLY)
    """Which LoRA adapter of a PEFT model is trained, as in older TRL; None: the active one."""
    ref_adapter_name: str | None = option(None, PYTHON_ONLY)
    """Which LoRA adapter of a PEFT model is the reference, as in older TRL; None: a frozen copy of
    the one that is trained."""

    # ---- the data ----

    eval_fraction: float = option(0.0, "data", ge=0, lt=1)
    """Fraction of the training rows that is held out for evaluation, split by prompt and image."""
    score_scale: tuple[float, float] | None = option(None, "data")
    """The unit of all scores, [lowest, highest], and so of `loss.eta` and `loss.tau_good`; scores
    of a source that declares its own scale are mapped to it."""
    max_length: int | None = option(None, "data", ge=1)
    """Maximum number of tokens of a prompt with one response, image tokens included; null: no
    limit."""
    length_policy: Literal["error", "drop", "truncate_response", "shrink_image"] = option(
        "truncate_response", "data"
    )
    """What happens to longer rows: an error, skipped and counted, their responses truncated, or
    their images scaled down. Tokens of a prompt or an image are never cut."""
    max_skipped_fraction: float = option(0.0, "data.images.max_skipped_fraction", ge=0, lt=1)
    """Fraction of the rows that may be skipped, and are counted, because an image is missing or
    damaged."""
    data_seed: int | None = option(42, "data.seed", ge=0, lt=2**32)
    """Seed of the split and of the order of rows."""
    feature_cache_gb: float = option(0.0, "data", ge=0, le=1e9)
    """Maximum number of gigabytes on disk for the features of images, if the vision tower is
    frozen; 0: no cache."""
    group_by_prompt: bool = option(False, "data")
    """Whether rows that share prompt and images are joined, up to a micro-batch of pairs, so that
    both are computed once; pairs of one prompt are then part of the same step."""
    pair_weighting: Literal["pair", "group"] = option("pair", "data")
    """`group` weights every prompt equally, however many pairs its responses make."""
    preflight: bool = option(True, "data")
    """Whether every row and image is checked before training starts."""
    worker_timeout: float = option(600.0, "data", ge=0, le=1e9)
    """Maximum number of seconds that a data worker may take for a batch; 0: no limit."""
    images: str | None = option(None, PYTHON_ONLY)
    """Directory that relative image paths of data sets in memory start from; None: the current
    one. If it is set, absolute paths have to be inside it, too."""
    scores: dict[str, Any] | None = option(None, PYTHON_ONLY)
    """What the scores of data sets in memory mean: the keys of `data.sources.scores`, such as
    ``{"scale": (0, 5), "misordered": "drop"}``."""
    reasoning: Literal["keep", "strip"] | None = option(None, PYTHON_ONLY)
    """As `data.sources.reasoning`, for data sets in memory whose rows do not state it."""
    padding_side: Literal["left", "right"] = option("right", PYTHON_ONLY)
    """Side on which rows are padded."""

    # ---- the loss ----

    loss: Any = option(None, PYTHON_ONLY)
    """The loss: a name (`unidpo-mm list losses`), a mapping such as ``{"name": "uni_dpo", "beta":
    1.0}``, a loss's configuration object, or the path of a Python file with a loss; the keys of the
    section `loss` of a recipe. The fields below that TRL and the official code have are aliases."""
    loss_by_source: dict[str, dict[str, Any]] | None = option(None, PYTHON_ONLY)
    """Source -> loss parameters that differ there."""
    loss_type: str | list[str] | None = option(None, PYTHON_ONLY)
    """TRL's name of `loss`; a list is a mixture."""
    loss_weights: list[float] | None = option(None, PYTHON_ONLY)
    """Weights of a mixture, as in TRL."""
    loss_kwargs: dict[str, Any] | None = option(None, PYTHON_ONLY)
    """Parameters of the loss that have no field of their own here."""

    # ---- training ----

    reference: Literal["auto", "frozen_copy", "lora_off", "cached", "none"] = option("auto")
    """Where reference log-probs come from. `auto` is the model before training: with its LoRA
    adapter disabled while the adapter is zero, with a frozen copy of a LoRA adapter that is not,
    else a frozen copy of the model; `cached` computes each once and keeps it on disk."""
    reference_build: Literal["before", "first_epoch"] = option("before")
    """When a cached reference is computed: before training, or with the batches of the first
    epoch, which keeps a frozen copy if more than a LoRA adapter is trained."""
    memory: Literal["auto"] | Positive | None = option(None)
    """`auto`, or gigabytes for the activations of a micro-batch: exactly as many layers as
    necessary are checkpointed. Null: `activation_checkpointing` decides, all of them or none."""
    learning_rates: dict[str, Positive] | None = option(None)
    """Part of the model -> its learning rate; the others use `learning_rate`."""
    disable_dropout: bool = option(True)
    """Whether every dropout of the policy is set to 0, as in TRL."""
    logps_chunk_size: int = option(512, ge=1)
    """Number of response positions whose logits exist at a time."""
    eval_generations: int = option(4, ge=0)
    """Number of held-out prompts that a response is generated for and logged at each
    evaluation."""
    eval_max_new_tokens: int = option(64, ge=1)
    """Maximum number of tokens of such a response."""

    # ---- the run ----

    allow_changes: Names | None = option(None, "run")
    """Differences from a checkpoint that a resumed run may have: recipe keys, `data`, `model`,
    `processes`, or `all`. Changes that have no effect on training are always allowed."""
    on_nonfinite: Literal["stop", "skip"] = option("stop", "run")
    """What happens when a loss or gradient is NaN or infinite: `stop` ends the run before any
    weight is changed, `skip` skips and counts that optimizer step."""


@dataclass(frozen=True)
class OptionInfo:
    """A declared option.

    Attributes:
        name: Its name in Python.
        key: Its key in a recipe; `None` if recipes do not have it.
        annotation: Its type with its range, for pydantic.
        default: Its default.
        meaning: Its documentation.
    """

    name: str
    key: str | None
    annotation: Any
    default: Any
    meaning: str


@cache
def options() -> Mapping[str, OptionInfo]:
    """Return every option by its Python name."""
    hints = get_type_hints(Options, include_extras=True)
    meanings = documentation(Options)
    return {
        item.name: OptionInfo(
            name=item.name,
            key=_key(item),
            annotation=Annotated[hints[item.name], pydantic.Field(**item.metadata["constraints"])],
            default=item.default,
            meaning=meanings[item.name],
        )
        for item in fields(Options)
    }


def documentation(declaration: type) -> Mapping[str, str]:
    """Return the text under each field of a class, on one line."""
    (body,) = ast.parse(inspect.cleandoc(inspect.getsource(declaration))).body
    return dict(_documented(body))


def _documented(declaration: ast.stmt) -> Iterator[tuple[str, str]]:
    statements: list[ast.stmt] = getattr(declaration, "body", [])
    for statement, following in itertools.pairwise(statements):
        match statement, following:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                yield name, " ".join(text.split())


def _key(item: Field[Any]) -> str | None:
    key: str | None = item.metadata["key"]
    return key if key is None or "." in key else f"{key}.{item.name}"
