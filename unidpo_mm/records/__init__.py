"""The records that data passes through; each is frozen and checks its own invariants.

    PreferenceRow -> EncodedGroup -> GroupBatch -> SequenceLogps -> PairLogps -> LossOutput
        rows.py               batches.py                      logps.py

Letters in shapes: B rows of a batch, T positions, K responses of a group, N responses of a batch,
M response tokens of a batch, P pairs, U units of a response loss. Error messages name the id of the
row. This package imports torch and nothing heavier.
"""

from .batches import EncodedGroup, GroupBatch, Layout
from .logps import LossOutput, PairLogps, SequenceLogps
from .rows import (
    DOMAINS,
    ROLES,
    SCORE_MISSING,
    Domain,
    ImageRef,
    ImageSlot,
    Message,
    Pair,
    PreferenceRow,
    Reasoning,
    Response,
)

__all__ = [
    "DOMAINS",
    "ROLES",
    "SCORE_MISSING",
    "Domain",
    "EncodedGroup",
    "GroupBatch",
    "ImageRef",
    "ImageSlot",
    "Layout",
    "LossOutput",
    "Message",
    "Pair",
    "PairLogps",
    "PreferenceRow",
    "Reasoning",
    "Response",
    "SequenceLogps",
]
