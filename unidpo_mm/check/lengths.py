"""Lengths of rows in tokens or characters, and the savings of shared prompts."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import torch

from ..data.measure import MeasuredRow
from ..errors import RowTooLong
from ..records import PreferenceRow
from .numbers import spearman, summarize
from .report import LengthReport

__all__ = ["Lengths", "character_lengths", "length_report", "margins_by_length", "token_lengths"]


@dataclass
class Lengths:
    """Lengths of rows.

    Attributes:
        unit: ``tokens`` or ``characters``.
        prompts: Length of each prompt; 0 for rows that do not fit.
        responses: Lengths of the responses of each row.
        images: Image tokens of each row; empty without a model.
        truncated, shrunk, dropped: Truncated responses, images scaled down and rows dropped by the
            length policy; `None` if there is no maximum length.
        identical: Pairs whose responses have the same tokens.
    """

    unit: str
    prompts: list[int] = field(default_factory=list)
    responses: list[list[int]] = field(default_factory=list)
    images: list[int] = field(default_factory=list)
    truncated: int | None = None
    shrunk: int | None = None
    dropped: int | None = None
    identical: int = 0


def character_lengths(rows: Sequence[PreferenceRow]) -> Lengths:
    """Return lengths in characters, without images."""
    return Lengths(
        "characters",
        [sum(len(message.text) for message in row.messages) for row in rows],
        [[len(response.text) for response in row.responses] for row in rows],
    )


def token_lengths(rows: Sequence[MeasuredRow], *, limited: bool, drop: bool) -> Lengths:
    """Return lengths in tokens.

    Args:
        rows: Measurements of the rows.
        limited: Whether there is a maximum length.
        drop: Whether rows that do not fit are dropped.
    """
    lengths = Lengths("tokens")
    for measured in rows:
        lengths.prompts.append(measured.prompt)
        lengths.responses.append(list(measured.responses))
        lengths.images.append(measured.images)
        lengths.identical += measured.identical
    if limited:
        lengths.truncated = sum(measured.truncated for measured in rows)
        lengths.shrunk = sum(measured.shrunk for measured in rows)
        lengths.dropped = sum(drop and measured.kind is RowTooLong for measured in rows)
    return lengths


def length_report(
    rows: Sequence[PreferenceRow], lengths: Lengths, keys: Sequence[Hashable]
) -> LengthReport | None:
    """Return the report of lengths; `None` if no row could be measured.

    Args:
        rows: The rows.
        lengths: Their lengths.
        keys: Their keys, which are equal for rows that share prompt and images.
    """
    measured = [n for n, responses in enumerate(lengths.responses) if responses]
    if not measured:
        return None
    prompts = [lengths.prompts[n] for n in measured]
    responses = [length for n in measured for length in lengths.responses[n]]
    longest = [lengths.prompts[n] + max(lengths.responses[n]) for n in measured]
    differences = margins_by_length(rows, lengths)
    gaps = torch.tensor([gap for gap, _ in differences], dtype=torch.float64)
    scored = torch.tensor([d for d in differences if d[1] == d[1]], dtype=torch.float64)
    sharing, grouping = _savings(lengths, measured, keys)
    return LengthReport(
        unit=lengths.unit,
        prompt=summarize(prompts),
        response=summarize(responses),
        row=summarize(longest),
        pairs=len(gaps),
        chosen_longer=float((gaps > 0).double().mean()) if len(gaps) else 0.0,
        equal=float((gaps == 0).double().mean()) if len(gaps) else 0.0,
        margin_correlation=spearman(scored[:, 1], scored[:, 0]) if len(scored) > 1 else None,
        sharing=sharing,
        grouping=grouping,
        truncated=lengths.truncated,
        shrunk=lengths.shrunk,
        dropped=lengths.dropped,
    )


def margins_by_length(rows: Sequence[PreferenceRow], lengths: Lengths) -> list[tuple[float, float]]:
    """Return for each pair how much longer its chosen response is, and the margin of its scores.

    The margin is NaN if a score is missing.
    """
    differences = []
    for row, responses in zip(rows, lengths.responses, strict=True):
        for pair in row.pairs if responses else ():
            chosen, rejected = row.responses[pair.chosen].score, row.responses[pair.rejected].score
            margin = float("nan") if chosen is None or rejected is None else chosen - rejected
            differences.append((float(responses[pair.chosen] - responses[pair.rejected]), margin))
    return differences


def _savings(
    lengths: Lengths, measured: Sequence[int], keys: Sequence[Hashable]
) -> tuple[float, float]:
    """Return the factors by which shared prompts, and also joined rows, reduce the tokens."""
    plain = shared = grouped = 0
    by_prompt: dict[Hashable, int] = defaultdict(int)
    for n in measured:
        prompt, responses = lengths.prompts[n], lengths.responses[n]
        plain += len(responses) * prompt + sum(responses)
        shared += prompt + sum(responses)
        grouped += sum(responses)
        by_prompt[keys[n]] = prompt
    grouped += sum(by_prompt.values())
    return plain / max(shared, 1), plain / max(grouped, 1)
