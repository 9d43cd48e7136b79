"""Lengths of rows in tokens or characters, and the savings of shared prompts."""

from collections.abc import Hashable, Sequence

import torch

from ..data.measure import MeasuredRow
from ..errors import RowTooLong
from ..records import PreferenceRow
from .numbers import spearman, summarize
from .report import LengthReport

__all__ = ["character_lengths", "length_report", "margins_by_length"]


def character_lengths(rows: Sequence[PreferenceRow]) -> list[MeasuredRow]:
    """Return lengths in characters, without images."""
    return [
        MeasuredRow(
            prompt=sum(len(message.text) for message in row.messages),
            responses=tuple(len(response.text) for response in row.responses),
        )
        for row in rows
    ]


def length_report(
    rows: Sequence[PreferenceRow],
    lengths: Sequence[MeasuredRow],
    keys: Sequence[Hashable],
    *,
    unit: str,
    limited: bool,
    drop: bool,
) -> LengthReport | None:
    """Return the report of lengths; `None` if no row could be measured.

    Args:
        rows: The rows.
        lengths: Their lengths.
        keys: Their keys, which are equal for rows that share prompt and images.
        unit: The unit of the lengths, ``tokens`` or ``characters``.
        limited: Whether there is a maximum length.
        drop: Whether rows that do not fit are dropped.
    """
    measured = [row for row in lengths if row.responses]
    if not measured:
        return None
    differences = margins_by_length(rows, lengths)
    gaps = torch.tensor([gap for gap, _ in differences], dtype=torch.float64)
    scored = torch.tensor([d for d in differences if d[1] == d[1]], dtype=torch.float64)
    by_prompt = {key: row.prompt for key, row in zip(keys, lengths, strict=True) if row.responses}
    responses = [length for row in measured for length in row.responses]
    plain, shared = sum(row.plain for row in measured), sum(row.packed for row in measured)
    grouped = sum(responses) + sum(by_prompt.values())
    return LengthReport(
        unit=unit,
        prompt=summarize([row.prompt for row in measured]),
        response=summarize(responses),
        row=summarize([row.longest for row in measured]),
        pairs=len(gaps),
        chosen_longer=float((gaps > 0).double().mean()) if len(gaps) else 0.0,
        equal=float((gaps == 0).double().mean()) if len(gaps) else 0.0,
        margin_correlation=spearman(scored[:, 1], scored[:, 0]) if len(scored) > 1 else None,
        sharing=plain / max(shared, 1),
        grouping=plain / max(grouped, 1),
        truncated=sum(row.truncated for row in lengths) if limited else None,
        shrunk=sum(row.shrunk for row in lengths) if limited else None,
        dropped=sum(drop and row.kind is RowTooLong for row in lengths) if limited else None,
    )


def margins_by_length(
    rows: Sequence[PreferenceRow], lengths: Sequence[MeasuredRow]
) -> list[tuple[float, float]]:
    """Return for each pair how much longer its chosen response is, and the margin of its scores.

    The margin is NaN if a score is missing.
    """
    differences = []
    for row, measured in zip(rows, lengths, strict=True):
        for pair in row.pairs if measured.responses else ():
            chosen, rejected = row.responses[pair.chosen].score, row.responses[pair.rejected].score
            margin = float("nan") if chosen is None or rejected is None else chosen - rejected
            gap = measured.responses[pair.chosen] - measured.responses[pair.rejected]
            differences.append((float(gap), margin))
    return differences
