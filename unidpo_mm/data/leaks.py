"""Keep prompts out of training data that are questions of benchmarks or of held-out rows.

    index = LeakIndex(hash_questions(questions))
    report = keep_rows_out(rows, index)
    rows = [rows[number] for number in report.kept]

Prompts are compared by hashes of their texts and images, before a model is loaded. See `LeakIndex`
for what matches, and `LIMITS` for what cannot be recognized.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

import numpy

from ..errors import counted
from ..records import PreferenceRow
from .leak_index import KINDS, LeakIndex, LeakKind
from .question_cache import cached_hashes
from .questions import Question, QuestionHashes, TextRule, hash_questions, prompt_questions

__all__ = ["LIMITS", "Leak", "LeakReport", "keep_out", "keep_rows_out"]

Item = TypeVar("Item")

SameImage: TypeAlias = Literal["drop", "report"]
"""What happens to prompts with an image of a question and another text."""

LIMITS = (
    "Not recognized: paraphrased or translated questions, images that are cropped, mirrored, "
    "rotated, or changed in brightness or colors, and frames of videos."
)
"""A sentence for reports: the copies that hashes cannot recognize."""

MESSAGES: Mapping[LeakKind, str] = {
    "question": "the prompt is the question of",
    "image": "the prompt has another question about an image of",
    "similar_image": "the prompt has another question, and an image that looks like one of",
}


@dataclass(frozen=True, kw_only=True)
class Leak:
    """A prompt that matches a question to keep out.

    Attributes:
        kind: How it matches, see `LeakIndex`.
        prompt: Index of the prompt.
        where: File and row of the prompt.
        of: File and row of the question.
    """

    kind: LeakKind
    prompt: int
    where: str
    of: str

    @property
    def message(self) -> str:
        """How the prompt matches and with which question, as a sentence without its period."""
        return f"{MESSAGES[self.kind]} {self.of}"


@dataclass(frozen=True, kw_only=True)
class LeakReport:
    """The result of comparing prompts with the questions to keep out.

    Attributes:
        kept: Indices of the prompts to keep, in their order.
        leaks: The leaks, whose prompts are dropped.
        reported: Matches whose prompts are kept.
        questions: Number of questions.
        unreadable: Descriptions of images and videos of prompts that cannot be read or decoded.
        unreadable_questions: Descriptions of those of questions.
    """

    kept: tuple[int, ...]
    leaks: tuple[Leak, ...]
    reported: tuple[Leak, ...]
    questions: int
    unreadable: tuple[str, ...] = ()
    unreadable_questions: tuple[str, ...] = ()

    def counts(self) -> dict[LeakKind, int]:
        """Return the number of prompts of each kind, dropped or not."""
        numbers = Counter(leak.kind for leak in (*self.leaks, *self.reported))
        return {kind: numbers[kind] for kind in KINDS}

    def sentences(self) -> list[str]:
        """Return a summary, one sentence per item; the last one is `LIMITS`."""
        prompts = counted(len(self.kept) + len(self.leaks), "prompt")
        return [
            f"compared {prompts} with {counted(self.questions, 'question')} to keep out",
            *_summary("dropped", self.leaks),
            *_summary("kept and reported", self.reported),
            *_unreadable("prompts", self.unreadable),
            *_unreadable("questions to keep out", self.unreadable_questions),
            LIMITS,
        ]


def _summary(verb: str, leaks: Sequence[Leak]) -> Iterator[str]:
    """Yield the number of leaks of each kind, with the first one."""
    for kind in KINDS:
        if same_kind := [leak for leak in leaks if leak.kind == kind]:
            first = same_kind[0]
            count = counted(len(same_kind), "prompt")
            yield f"{verb} {count} ({kind}); the first, {first.where}: {first.message}"


def _unreadable(owners: str, media: Sequence[str]) -> Iterator[str]:
    """Yield the number of images and videos that cannot be read, if there are any."""
    if media:
        count = counted(len(media), "image or video", "images or videos")
        yield f"{count} of {owners} cannot be compared, for example {media[0]}"


def keep_rows_out(
    rows: Sequence[PreferenceRow],
    index: LeakIndex,
    *,
    same_image: SameImage = "drop",
    key: str | None = None,
) -> LeakReport:
    """Return the rows to keep and the leaks among them, see `keep_out`."""
    return keep_out(rows, index, prompt_questions, same_image=same_image, key=key)


def keep_out(
    prompts: Sequence[Item],
    index: LeakIndex,
    questions_of: Callable[[Item], Sequence[Question]],
    *,
    same_image: SameImage = "drop",
    key: str | None = None,
) -> LeakReport:
    """Return the prompts to keep and the leaks among them; images that look the same are reported.

    Args:
        prompts: The prompts.
        index: The questions to keep out.
        questions_of: Returns the questions of a prompt that may be a leak.
        same_image: Whether prompts with an image of a question and another text are dropped, or
            kept and reported.
        key: The `files_digest` of the prompts, to keep their hashes in the cache; `None` to compute
            them. A hash takes about 1 kB per image.

    Raises:
        ValueError: If the hashes with this key are those of other prompts.
    """
    questions = [(n, item) for n, prompt in enumerate(prompts) for item in questions_of(prompt)]
    hashes = _hashes([question for _, question in questions], index.questions.text, key)
    leaks = _leaks([number for number, _ in questions], hashes, index)
    reported = {"similar_image"} if same_image == "drop" else {"similar_image", "image"}
    dropped = {leak.prompt for leak in leaks if leak.kind not in reported}
    return LeakReport(
        kept=tuple(number for number in range(len(prompts)) if number not in dropped),
        leaks=tuple(leak for leak in leaks if leak.kind not in reported),
        reported=tuple(leak for leak in leaks if leak.kind in reported),
        questions=len(index.questions),
        unreadable=hashes.unreadable,
        unreadable_questions=index.questions.unreadable,
    )


def _hashes(questions: Sequence[Question], text: TextRule, key: str | None) -> QuestionHashes:
    if key is None:
        return hash_questions(questions, text)
    hashes = cached_hashes(key, lambda: questions, text)
    if hashes.where != tuple(question.where for question in questions):
        raise ValueError(f"the key {key} belongs to other prompts")
    return hashes


def _leaks(prompts: Sequence[int], hashes: QuestionHashes, index: LeakIndex) -> list[Leak]:
    """Return the most serious match of each prompt, in the order of the prompts.

    Args:
        prompts: Index of the prompt of each question, ascending.
        hashes: Hashes of the questions.
        index: The questions to keep out.
    """
    matches = index.find(hashes)
    best: dict[int, Leak] = {}
    for number in numpy.flatnonzero(matches.kinds < len(KINDS)).tolist():
        prompt, kind = prompts[number], KINDS[matches.kinds[number]]
        before = best.get(prompt)
        if before is None or KINDS.index(kind) < KINDS.index(before.kind):
            of = index.questions.where[matches.questions[number]]
            best[prompt] = Leak(kind=kind, prompt=prompt, where=hashes.where[number], of=of)
    return list(best.values())
