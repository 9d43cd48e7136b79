"""Duplicate rows, and held-out rows whose prompt or image is in the training rows."""

from collections.abc import Hashable, Sequence

from ..data.groups import prompt_key
from ..records import PreferenceRow
from .report import OverlapReport

__all__ = ["overlap"]

MAX_PLACES = 20


def overlap(
    training: Sequence[PreferenceRow],
    held_out: Sequence[PreferenceRow],
    media: Sequence[Sequence[str]],
) -> OverlapReport:
    """Return duplicates, contradictions and shared prompts, images and videos.

    Args:
        training: Training rows.
        held_out: Evaluation rows.
        media: Hashes of the media of each training row, then of each held-out row.
    """
    first: dict[Hashable, PreferenceRow] = {}
    duplicates: list[tuple[str, str]] = []
    preferred: set[tuple[Hashable, str, str]] = set()
    for row, keys in zip(training, media, strict=False):
        prompt, preferences = prompt_key(row, keys), _preferences(row)
        before = first.setdefault((prompt, preferences), row)
        if before is not row:
            duplicates.append((row.where, before.where))
        preferred |= {(prompt, better, worse) for better, worse in preferences}
    contradictions = sum(
        (prompt, worse, better) in preferred for prompt, better, worse in preferred
    )
    training_prompts = {_question(row) for row in training}
    training_images = {key for keys in media[: len(training)] for key in keys if key}
    prompts, shared_images, where = 0, 0, []
    for row, keys in zip(held_out, media[len(training) :], strict=True):
        # the same question about another image is not an overlap
        same_prompt = _question(row) in training_prompts and not row.media
        same_image = any(key in training_images for key in keys)
        prompts += same_prompt
        shared_images += same_image
        if same_prompt or same_image:
            where.append(row.where)
    return OverlapReport(
        duplicates=len(duplicates),
        first_duplicates=duplicates[:MAX_PLACES],
        contradictions=contradictions,
        shared_prompts=prompts,
        shared_images=shared_images,
        first_shared=where[:MAX_PLACES],
    )


def _preferences(row: PreferenceRow) -> frozenset[tuple[str, str]]:
    """Return (chosen, rejected) of each pair, or (response, "") if there are no pairs."""
    if not row.pairs:
        return frozenset((response.text, "") for response in row.responses)
    texts = [response.text for response in row.responses]
    return frozenset((texts[pair.chosen], texts[pair.rejected]) for pair in row.pairs)


def _question(row: PreferenceRow) -> Hashable:
    return tuple((message.role, " ".join(message.text.split())) for message in row.messages)
