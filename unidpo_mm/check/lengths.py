"""How long rows are, in tokens of a model or in characters, and what sharing prompts saves."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import torch

from ..data.measure import MeasuredRow
from ..errors import RowTooLong
from ..records import PreferenceRow
from .numbers import spearman, summary
from .report import LengthReport, Summary

__all__ = ["Lengths", "character_lengths", "length_report", "margins_by_length", "token_lengths"]


@dataclass
class Lengths:
    """Lengths of rows.

    Attributes:
        unit: ``tokens`` or ``characters``.
        prompts: [rows], of prompts; 0 for rows that do not fit.
        answers: [rows][answers].
        images: [rows], tokens of images; empty without a model.
        cut, shrunk, dropped: What the length policy did; None where there is no limit.
        alike: Pairs whose answers are the same tokens.
    """

    unit: str
    prompts: list[int] = field(default_factory=list)
    answers: list[list[int]] = field(default_factory=list)
    images: list[int] = field(default_factory=list)
    cut: int | None = None
    shrunk: int | None = None
    dropped: int | None = None
    alike: int = 0


def character_lengths(rows: Sequence[PreferenceRow]) -> Lengths:
    """Return lengths in characters, which need no model; images count nothing."""
    return Lengths(
        "characters",
        [sum(len(message.text) for message in row.messages) for row in rows],
        [[len(response.text) for response in row.responses] for row in rows],
    )


def token_lengths(rows: Sequence[MeasuredRow], *, limited: bool, drop: bool) -> Lengths:
    """Return lengths in tokens, as the model's own processor makes them.

    Args:
        rows: What the rows measure.
        limited: There is a longest length.
        drop: Rows that do not fit are skipped rather than refused.
    """
    found = Lengths("tokens")
    for measured in rows:
        found.prompts.append(measured.prompt)
        found.answers.append(list(measured.answers))
        found.images.append(measured.images)
        found.alike += measured.alike
    if limited:
        found.cut = sum(measured.cut for measured in rows)
        found.shrunk = sum(measured.shrunk for measured in rows)
        found.dropped = sum(drop and measured.kind is RowTooLong for measured in rows)
    return found


def length_report(
    rows: Sequence[PreferenceRow], lengths: Lengths, keys: Sequence[Hashable]
) -> LengthReport | None:
    """Return what lengths tell; None where no row could be measured.

    Args:
        rows: The rows.
        lengths: Of them.
        keys: What is equal for rows that share prompt and images.
    """
    measured = [n for n, answers in enumerate(lengths.answers) if answers]
    if not measured:
        return None
    prompts = [lengths.prompts[n] for n in measured]
    answers = [length for n in measured for length in lengths.answers[n]]
    longest = [lengths.prompts[n] + max(lengths.answers[n]) for n in measured]
    longer = margins_by_length(rows, lengths)
    gaps = torch.tensor([gap for gap, _ in longer], dtype=torch.float64)
    scored = torch.tensor([one for one in longer if one[1] == one[1]], dtype=torch.float64)
    sharing, grouping = _saved(lengths, measured, keys)
    return LengthReport(
        unit=lengths.unit,
        prompt=_some(prompts),
        answer=_some(answers),
        row=_some(longest),
        pairs=len(gaps),
        chosen_longer=float((gaps > 0).double().mean()) if len(gaps) else 0.0,
        equal=float((gaps == 0).double().mean()) if len(gaps) else 0.0,
        margin_correlation=spearman(scored[:, 1], scored[:, 0]) if len(scored) > 1 else None,
        sharing=sharing,
        grouping=grouping,
        cut=lengths.cut,
        shrunk=lengths.shrunk,
        dropped=lengths.dropped,
    )


def margins_by_length(rows: Sequence[PreferenceRow], lengths: Lengths) -> list[tuple[float, float]]:
    """Return for each pair by how much its chosen answer is longer, and the margin of its scores.

    The margin is NaN where a score is missing.
    """
    found = []
    for row, answers in zip(rows, lengths.answers, strict=True):
        for pair in row.pairs if answers else ():
            chosen, rejected = row.responses[pair.chosen].score, row.responses[pair.rejected].score
            margin = float("nan") if chosen is None or rejected is None else chosen - rejected
            found.append((float(answers[pair.chosen] - answers[pair.rejected]), margin))
    return found


def _some(values: Sequence[float]) -> Summary:
    found = summary(values)
    assert found is not None  # of one row at least
    return found


def _saved(
    lengths: Lengths, measured: Sequence[int], keys: Sequence[Hashable]
) -> tuple[float, float]:
    """Return how many times fewer tokens run with shared prompts, and with rows joined, too."""
    plain = shared = grouped = 0
    by_prompt: dict[Hashable, int] = defaultdict(int)
    for n in measured:
        prompt, answers = lengths.prompts[n], lengths.answers[n]
        plain += len(answers) * prompt + sum(answers)
        shared += prompt + sum(answers)
        grouped += sum(answers)
        by_prompt[keys[n]] = prompt
    grouped += sum(by_prompt.values())
    return plain / max(shared, 1), plain / max(grouped, 1)
