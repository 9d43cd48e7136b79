"""Public names for authors of losses, model families and data formats.

A loss outside of this package needs no other import:

    from unidpo_mm.authoring import Loss, LossConfig, LossOutput, PairLogps, implicit_rewards

See docs/losses.md for a complete example.
"""

from .adapter import Adapter, AdapterFamily, AdapterOptions
from .data.formats import Context, Format
from .data.formats._reader import RowReader
from .errors import DataError, ModelError, Problem, RecipeError, UniDPOError
from .losses.base import (
    Loss,
    LossConfig,
    Unit,
    Value,
    always,
    implicit_rewards,
    loss_output,
    never,
    require,
    require_fraction,
    require_nonnegative,
    require_positive,
    token_rewards,
)
from .pipelines.scorer import Candidate, Fault, Score, Scorer, ScoringContext
from .records import (
    EncodedGroup,
    GroupBatch,
    ImageRef,
    LossOutput,
    Media,
    MediaSlot,
    Message,
    ModelInputs,
    Pair,
    PairLogps,
    PreferenceRow,
    Preferences,
    Response,
    RowInfo,
    SequenceLogps,
    VideoRef,
)

__all__ = [
    "Adapter",
    "AdapterFamily",
    "AdapterOptions",
    "Candidate",
    "Context",
    "DataError",
    "EncodedGroup",
    "Fault",
    "Format",
    "GroupBatch",
    "ImageRef",
    "Loss",
    "LossConfig",
    "LossOutput",
    "Media",
    "MediaSlot",
    "Message",
    "ModelError",
    "ModelInputs",
    "Pair",
    "PairLogps",
    "PreferenceRow",
    "Preferences",
    "Problem",
    "RecipeError",
    "Response",
    "RowInfo",
    "RowReader",
    "Score",
    "Scorer",
    "ScoringContext",
    "SequenceLogps",
    "UniDPOError",
    "Unit",
    "Value",
    "VideoRef",
    "always",
    "implicit_rewards",
    "loss_output",
    "never",
    "require",
    "require_fraction",
    "require_nonnegative",
    "require_positive",
    "token_rewards",
]
