"""The columns of a ledger.

A line is a *visit*: one unit of the loss (a preference pair, or a response if the loss is one of
single responses) in one optimizer step.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

__all__ = ["COLUMNS", "VALUES", "VISIT", "Column", "column_of_term", "names"]

Kind = Literal["text", "integer", "number", "flag"]


@dataclass(frozen=True)
class Column:
    """A column of the ledger.

    Attributes:
        name: Its name.
        kind: The kind of its values: ``text``, ``integer`` (32 bits), ``number`` (float64, null if
            the run has no such value) or ``flag``.
        meaning: What it contains, with the unit.
    """

    name: str
    kind: Kind
    meaning: str


VISIT = (
    Column("step", "integer", "optimizer step that used the pair, counted from 1"),
    Column("epoch", "number", "passes over the data before that step, for example 0.25"),
    Column("rank", "integer", "process that computed the pair"),
    Column("position", "integer", "order of the pairs of a step and process, with gaps"),
    Column("pair_id", "text", "id of the pair, the same in every run on the same row"),
    Column("row_id", "text", "id of the row; rows that were joined have a common one"),
    Column("source", "text", "data source"),
    Column("domain", "text", "text, math or multimodal"),
    Column("applied", "flag", "false if on_nonfinite skipped the step"),
)
"""Columns that identify a visit."""

VALUES = (
    Column("weight", "number", "weight of the pair in the mean of the step (pair_weighting)"),
    Column("score_chosen", "number", "score of the chosen response"),
    Column("score_rejected", "number", "score of the rejected response"),
    Column("chosen_length", "number", "tokens of the chosen response"),
    Column("rejected_length", "number", "tokens of the rejected response"),
    Column("policy_chosen_logp", "number", "log-prob of the chosen response, summed over tokens"),
    Column("policy_rejected_logp", "number", "the same of the rejected response"),
    Column("reference_chosen_logp", "number", "chosen response under the reference"),
    Column("reference_rejected_logp", "number", "rejected response under the reference"),
    Column("reward_chosen", "number", "implicit reward of the chosen response"),
    Column("reward_rejected", "number", "implicit reward of the rejected response"),
    Column("loss", "number", "loss of the pair, before it is multiplied by `weight`"),
    Column("dloss_dchosen", "number", "derivative of the loss by `policy_chosen_logp`"),
    Column("dloss_drejected", "number", "derivative of the loss by `policy_rejected_logp`"),
    Column(
        "contribution",
        "number",
        "|d loss / d reward margin|, through every weight that is not detached: how strongly the "
        "pair pulls",
    ),
)
"""Values that every loss has; the terms of the loss follow them under their own names."""

DERIVED = (
    Column("score_margin", "number", "score_chosen - score_rejected"),
    Column("reward_margin", "number", "reward_chosen - reward_rejected"),
)
"""Columns that are computed when a part is written."""

COLUMNS = (*VISIT, *VALUES, *DERIVED)

COMPUTED = frozenset(
    """
    accuracy effective_by_contribution effective_by_weight first_step group last_step pair_weight
    pairs period share_of_contribution visits
    """.split()
)
"""Names of columns that questions to a ledger compute, which no term may have."""


def column_of_term(term: str) -> str:
    """Return the column of a term of a loss: its name, unless another column has it."""
    return f"term_{term}" if term in {*names(COLUMNS), *COMPUTED} else term


def names(columns: Iterable[Column]) -> tuple[str, ...]:
    """Return the names of columns."""
    return tuple(column.name for column in columns)
