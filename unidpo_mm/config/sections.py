"""The sections of a recipe that the data and model layers also use, and their base class.

The text under a field is its only documentation: `docs/recipe.md` and error messages are generated
from it.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from typing_extensions import TypedDict

from .values import Count, Fraction, Name, Names, Scale, Share, Weight

__all__ = [
    "LoraOptions",
    "QuantizationOptions",
    "ScoreOptions",
    "Section",
    "SourceLoss",
    "SourceOptions",
]


def _or_defaults(value: Any) -> Any:
    """Convert null, which a recipe may have for a section, to the defaults of the section."""
    return {} if value is None else value


class Section(BaseModel):
    """The base class of all sections: frozen, strictly typed, without unknown keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )


class LoraOptions(Section):
    """A LoRA adapter (peft), trained instead of the weights that it adapts."""

    r: Count = 16
    """Rank of the update."""
    alpha: Count = 32
    """Scale of the update, which is multiplied by alpha / r."""
    dropout: Fraction = 0.0
    """Dropout probability on the input of the update, during training."""
    targets: Name | Names = "language_model"
    """Parts of the model whose linear layers are adapted, or names of modules; modules of frozen
    parts are skipped."""
    modules_to_save: Names = ()  # type: ignore[assignment] # lists become tuples
    """Parts or modules that are trained in full, in addition to the low-rank update."""
    dora: bool = False
    """Whether magnitude and direction of each weight are trained separately (DoRA); closer to full
    training, and slower."""
    rslora: bool = False
    """Whether the update is multiplied by alpha / sqrt(r), so that its size does not depend on the
    rank (rank-stabilized LoRA)."""
    init: Literal["default", "pissa", "pissa_niter_16", "olora"] = "default"
    """Start of the update: zero, or a part of each weight, from its singular values (`pissa`;
    `pissa_niter_16` approximates them in much less time) or its QR decomposition (`olora`). Then
    LoRA adapters are saved with twice the rank, and apply to the unchanged base model."""


class QuantizationOptions(Section):
    """Quantized weights of the base model, on which a LoRA adapter is trained."""

    bits: Literal[4, 8]
    """Number of bits per weight of the language model's linear layers. All other weights keep
    `model.dtype`, in which the model computes."""
    library: Literal["bitsandbytes", "torchao"] = "bitsandbytes"
    """Library of the quantized weights. With `torchao`, there are 8 bits only, and inputs are
    not quantized. Needs the extra `quantization` or `torchao`."""
    type: Literal["nf4", "fp4"] = "nf4"
    """Format of 4-bit weights."""
    double: bool = True
    """Whether the scales of 4-bit weights are quantized, too."""


class ScoreOptions(Section):
    """The meaning of a source's scores, and how pairs are made from them."""

    scale: Scale | None = None
    """Lowest and highest possible score; scores are mapped from it to `data.score_scale`. It is
    never estimated from the data."""
    judge: Name | None = None
    """The model or person that assigned the scores, for reports."""
    missing: Literal["error"] | Share = "error"
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


class SourceOptions(Section):
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
    """Directory to which paths of images and videos in the rows are relative; null: the directory
    of the file."""
    images_outside: bool = False
    """Whether these paths may lead out of that directory."""
    fetch_images: bool = False
    """Whether images and videos may be downloaded from URLs; each is downloaded once and kept."""
    domain: Literal["text", "math", "multimodal"] | None = None
    """Domain of the rows in reports; null: multimodal for rows with media, otherwise text."""
    name: Name | None = None
    """Name of the source in reports; null: derived from the path."""
    split: Name | None = None
    """Split of a data set on a hub, or of one that `datasets` saved."""
    subset: Name | None = None
    """Configuration of a data set on a hub, or an entry of `dataset_info.json`."""
    repeat: Count = 1
    """How often each row of the source occurs in an epoch."""
    streaming: bool = False
    """Whether the rows are read while the run trains and not before, for data that are too large to
    be read first; then all sources are read like this, and `train.max_steps` is required."""
    weight: Weight = 1.0
    """How often rows are drawn from a source that is streamed, in relation to the others."""
    scores: Annotated[ScoreOptions, BeforeValidator(_or_defaults)] = ScoreOptions()
    """The meaning of the scores; by default, they are used as they are."""
    reasoning: Literal["keep", "strip"] | None = None
    """What happens to responses that the chat template would change, for example by removing their
    `<think>` blocks: `keep` trains on each response exactly as it is written, `strip` removes the
    reasoning from all responses and counts it; null: an error. An opening tag that already ends the
    generation prompt is never repeated, and the template may trim blanks around a response."""
    loss: SourceLoss = {}
    """Loss parameters that differ for this source."""

    @property
    def source_name(self) -> str:
        """The name of the source in messages and reports."""
        return self.name or self.subset or Path(self.path).stem
