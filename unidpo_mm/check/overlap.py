"""Duplicate rows, and held-out rows whose prompt or image is in the training rows."""

import hashlib
from collections.abc import Hashable, Sequence
from typing import Any

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
    first: dict[bytes, str] = {}
    duplicates = 0
    first_duplicates: list[tuple[str, str]] = []
    orders: dict[bytes, int] = {}  # key of a pair -> 1, 2, or 3 if it occurs in both orders
    training_prompts: set[bytes] = set()
    for row, keys in zip(training, media, strict=False):
        prompt, preferences = _digest(prompt_key(row, keys)), _preferences(row)
        content = _digest((prompt, sorted(preferences)))
        if content in first:
            duplicates += 1
            if len(first_duplicates) < MAX_PLACES:
                first_duplicates.append((row.where, first[content]))
        first.setdefault(content, row.where)
        for better, worse in preferences:
            pair = _digest((prompt, *sorted((better, worse))))
            orders[pair] = orders.get(pair, 0) | (1 if better < worse else 2)
        training_prompts.add(_digest(_question(row)))
    contradictions = 2 * sum(order == 3 for order in orders.values())
    training_images = {key for keys in media[: len(training)] for key in keys if key}
    prompts, shared_images, where = 0, 0, []
    for row, keys in zip(held_out, media[len(training) :], strict=True):
        # the same question about another image is not an overlap
        same_prompt = _digest(_question(row)) in training_prompts and not row.media
        same_image = any(key in training_images for key in keys)
        prompts += same_prompt
        shared_images += same_image
        if same_prompt or same_image:
            where.append(row.where)
    return OverlapReport(
        duplicates=duplicates,
        first_duplicates=first_duplicates,
        contradictions=contradictions,
        shared_prompts=prompts,
        shared_images=shared_images,
        first_shared=where[:MAX_PLACES],
    )


def _digest(value: Any) -> bytes:
    """Return a digest, which takes less memory than the texts of many rows."""
    text = repr(value).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).digest()


def _preferences(row: PreferenceRow) -> frozenset[tuple[str, str]]:
    """Return (chosen, rejected) of each pair, or the labels, or the responses without either."""
    if row.labels:
        return frozenset(
            (row.responses[label.response].text, str(label.good)) for label in row.labels
        )
    if not row.pairs:
        return frozenset((response.text, "") for response in row.responses)
    texts = [response.text for response in row.responses]
    return frozenset((texts[pair.chosen], texts[pair.rejected]) for pair in row.pairs)


def _question(row: PreferenceRow) -> Hashable:
    return tuple((message.role, " ".join(message.text.split())) for message in row.messages)
