"""The records that data passes through; each is frozen and checks its own invariants.

    PreferenceRow -> EncodedGroup -> GroupBatch -> SequenceLogps -> PairLogps -> LossOutput
        rows.py       groups.py      batches.py               logps.py

Letters in shapes: B rows of a batch, T positions, K responses of a group, N responses of a batch,
M response tokens of a batch, P pairs, U units of a loss. Error messages name the id of the
row. This package imports torch and nothing heavier.
"""

from .batches import (
    CacheKeys,
    EncoderInputs,
    GroupBatch,
    Layout,
    MediaInputs,
    ModelInputs,
    Targets,
    Units,
)
from .groups import EncodedGroup, Media, Preferences, RowInfo
from .logps import LossOutput, PairLogps, SequenceLogps
from .messages import MEDIA_KINDS, ROLES, ImageRef, MediaKind, MediaSlot, Message
from .rows import (
    DOMAINS,
    NO_RESPONSE,
    SCORE_MISSING,
    Domain,
    Label,
    Pair,
    PreferenceRow,
    Reasoning,
    Response,
    Unit,
    chosen_of,
)
from .videos import FrameSampling, SampledVideo, VideoRef

__all__ = [
    "DOMAINS",
    "MEDIA_KINDS",
    "NO_RESPONSE",
    "ROLES",
    "SCORE_MISSING",
    "CacheKeys",
    "Domain",
    "EncodedGroup",
    "EncoderInputs",
    "FrameSampling",
    "GroupBatch",
    "ImageRef",
    "Label",
    "Layout",
    "LossOutput",
    "Media",
    "MediaInputs",
    "MediaKind",
    "MediaSlot",
    "Message",
    "ModelInputs",
    "Pair",
    "PairLogps",
    "PreferenceRow",
    "Preferences",
    "Reasoning",
    "Response",
    "RowInfo",
    "SampledVideo",
    "SequenceLogps",
    "Targets",
    "Unit",
    "Units",
    "VideoRef",
    "chosen_of",
]
