"""Rows that are there twice, and held-out rows whose prompt or image is trained on."""

from collections.abc import Hashable, Sequence

from ..data.groups import prompt_key
from ..records import PreferenceRow
from .report import OverlapReport

__all__ = ["overlap"]

SHOWN = 20


def overlap(
    training: Sequence[PreferenceRow],
    held_out: Sequence[PreferenceRow],
    images: Sequence[Sequence[str]],
) -> OverlapReport:
    """Return what is there more than once.

    Args:
        training: Rows to train on.
        held_out: Rows to evaluate on.
        images: Hashes of the images of each training row, then of each held-out row.
    """
    first: dict[Hashable, PreferenceRow] = {}
    twice: list[tuple[str, str]] = []
    preferred: set[tuple[Hashable, str, str]] = set()
    for row, keys in zip(training, images, strict=False):
        prompt, preferences = prompt_key(row, keys), _preferences(row)
        before = first.setdefault((prompt, preferences), row)
        if before is not row:
            twice.append((row.where, before.where))
        preferred |= {(prompt, better, worse) for better, worse in preferences}
    against = sum((prompt, worse, better) in preferred for prompt, better, worse in preferred)
    seen_prompts = {_question(row) for row in training}
    seen_images = {key for keys in images[: len(training)] for key in keys if key}
    prompts, shared_images, where = 0, 0, []
    for row, keys in zip(held_out, images[len(training) :], strict=True):
        # the same question about another image is no overlap
        same_prompt = _question(row) in seen_prompts and not row.images
        same_image = any(key in seen_images for key in keys)
        prompts += same_prompt
        shared_images += same_image
        if same_prompt or same_image:
            where.append(row.where)
    return OverlapReport(
        duplicates=len(twice),
        first_duplicates=twice[:SHOWN],
        contradictions=against,
        shared_prompts=prompts,
        shared_images=shared_images,
        first_shared=where[:SHOWN],
    )


def _preferences(row: PreferenceRow) -> frozenset[tuple[str, str]]:
    """Return (chosen, rejected) of each pair; of a row without pairs its answers."""
    if not row.pairs:
        return frozenset((response.text, "") for response in row.responses)
    texts = [response.text for response in row.responses]
    return frozenset((texts[pair.chosen], texts[pair.rejected]) for pair in row.pairs)


def _question(row: PreferenceRow) -> Hashable:
    return tuple((message.role, " ".join(message.text.split())) for message in row.messages)
