"""Questions of prompts, benchmarks and held-out rows, and the hashes by which they are compared."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import islice, pairwise
from typing import Any, Literal, TypeAlias

import numpy
from numpy.typing import NDArray

from ..records import ImageRef, PreferenceRow, VideoRef
from .content import NO_STAMP, stamp
from .image_hash import THUMBNAIL, Thumbnails, thumbnail
from .images import in_threads
from .key_table import Indices
from .media_keys import UNREADABLE, content_key, media_name
from .question_text import hash_grams, hash_text, parse_question

__all__ = [
    "Question",
    "QuestionHashes",
    "Stamps",
    "TextRule",
    "hash_questions",
    "joined_hashes",
    "prompt_questions",
    "row_question",
]

MediaRef: TypeAlias = ImageRef | VideoRef

TextRule: TypeAlias = Literal["exact", "13gram"]
"""How texts are compared: equal questions, or also questions with half of their 13-grams."""

Stamps: TypeAlias = Mapping[str, tuple[int, int, int]]
"""Path of a file -> its `stamp` before it was read."""

BATCH = 4096
"""Number of questions whose images are referred to at once."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """The question of a prompt, of a benchmark or of a held-out row.

    Attributes:
        where: File and row, for messages.
        text: The text, possibly with options and placeholders of images.
        options: The texts of options that are not part of `text`.
        images: The images.
        videos: The videos.
    """

    where: str
    text: str
    options: tuple[str, ...] = ()
    images: tuple[ImageRef, ...] = ()
    videos: tuple[VideoRef, ...] = ()

    @property
    def media(self) -> tuple[MediaRef, ...]:
        """The images, followed by the videos."""
        return (*self.images, *self.videos)


def row_question(row: PreferenceRow) -> Question:
    """Return the question of a row: the text of all turns of the user, with images and videos."""
    return _row_question(row, [turn.text for turn in row.messages if turn.role == "user"])


def prompt_questions(row: PreferenceRow) -> tuple[Question, ...]:
    """Return the questions of a row that may be a leak: of the dialogue, and of its last turn.

    The last turn of a dialogue may be a question of a benchmark. The last turn of a held-out
    dialogue, such as "Are you sure?", does not identify it, so `row_question` has the whole text.
    """
    turns = [turn.text for turn in row.messages if turn.role == "user"]
    dialogue = _row_question(row, turns)
    return (dialogue,) if len(turns) < 2 else (dialogue, _row_question(row, turns[-1:]))


def _row_question(row: PreferenceRow, turns: Sequence[str]) -> Question:
    return Question(where=row.where, text="\n".join(turns), images=row.images, videos=row.videos)


@dataclass(frozen=True, kw_only=True)
class QuestionHashes:
    """Hashes of N questions in columns; questions, options and media are numbered from 0.

    Attributes:
        where: File and row of each question.
        stems: [N] Hash of the text of each question without options.
        has_media: [N] Whether the question has an image or a video.
        option_owners, options: [O] Question and hash of each option, in the order of questions.
        media_owners, media: [M] Question and number of each readable image or video.
        media_keys: [U] Hash of the content of each distinct image or video.
        thumbnail_media, thumbnails: [T] Number and [T, 16, 18, 3] pixels of each image.
        gram_owners, grams: [G] Question and hash of each 13-gram; empty for the rule ``exact``.
        text: The rule by which texts are compared.
        unreadable: Descriptions of distinct images and videos that cannot be read or decoded.
        files: The files of images and videos; what else cannot be read has no stamp.
    """

    where: tuple[str, ...]
    stems: NDArray[numpy.uint64]
    has_media: NDArray[numpy.bool_]
    option_owners: Indices
    options: NDArray[numpy.uint64]
    media_owners: Indices
    media: Indices
    media_keys: NDArray[numpy.uint64]
    thumbnail_media: Indices
    thumbnails: Thumbnails
    gram_owners: Indices
    grams: NDArray[numpy.uint64]
    text: TextRule
    unreadable: tuple[str, ...] = ()
    files: Stamps = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.where)

    def option_sets(self) -> list[frozenset[int]]:
        """Return the hashes of the options of each question."""
        bounds = numpy.searchsorted(self.option_owners, numpy.arange(len(self) + 1)).tolist()
        values = self.options.tolist()
        return [frozenset(values[start:stop]) for start, stop in pairwise(bounds)]


def hash_questions(questions: Iterable[Question], text: TextRule = "exact") -> QuestionHashes:
    """Return the hashes of questions; each distinct image is opened once per `BATCH` questions.

    Args:
        questions: The questions; they are not kept.
        text: Whether 13-grams are hashed, too.
    """
    waiting, parts = iter(questions), []
    while batch := list(islice(waiting, BATCH)):
        parts.append(_hash_batch(batch, text))
    return joined_hashes(parts or [_hash_batch([], text)])


def joined_hashes(parts: Sequence[QuestionHashes]) -> QuestionHashes:
    """Return the hashes of all parts, whose questions and media are numbered in their order.

    Raises:
        ValueError: If their texts are compared by different rules.
    """
    if len({part.text for part in parts}) > 1:
        raise ValueError("the parts compare texts by different rules")
    questions = _offsets([len(part) for part in parts])
    media = _offsets([len(part.media_keys) for part in parts])
    offsets = {
        "option_owners": questions,
        "media_owners": questions,
        "gram_owners": questions,
        "media": media,
        "thumbnail_media": media,
    }
    columns: dict[str, Any] = {}
    for column in fields(QuestionHashes):
        values = [getattr(part, column.name) for part in parts]
        if column.name == "text":
            columns["text"] = parts[0].text
        elif isinstance(values[0], tuple):
            columns[column.name] = tuple(item for value in values for item in value)
        elif isinstance(values[0], Mapping):
            columns[column.name] = {path: value for part in values for path, value in part.items()}
        else:
            added = offsets.get(column.name, [0] * len(parts))
            pairs = zip(values, added, strict=True)
            columns[column.name] = numpy.concatenate([v + n if n else v for v, n in pairs])
    return QuestionHashes(**columns)


def _offsets(sizes: Sequence[int]) -> list[int]:
    return [sum(sizes[:number]) for number in range(len(sizes))]


def _hash_batch(questions: Sequence[Question], text: TextRule) -> QuestionHashes:
    parsed = [parse_question(question.text, question.options) for question in questions]
    options = [
        (number, hash_text(option))
        for number, item in enumerate(parsed)
        for option in sorted(item.options)
    ]
    gram_owners, grams = hash_grams([item.stem for item in parsed] if text == "13gram" else [])
    return QuestionHashes(
        where=tuple(question.where for question in questions),
        stems=numpy.array([hash_text(item.stem) for item in parsed], dtype=numpy.uint64),
        has_media=numpy.array([bool(q.media) for q in questions], dtype=bool),
        option_owners=_indices(number for number, _ in options),
        options=numpy.array([value for _, value in options], dtype=numpy.uint64),
        gram_owners=gram_owners,
        grams=grams,
        text=text,
        **_media_columns(questions),
    )


def _media_columns(questions: Sequence[Question]) -> dict[str, Any]:
    """Return the columns of media; media that cannot be read have no number."""
    names = [[media_name(media) for media in question.media] for question in questions]
    refs = {media_name(media): media for question in questions for media in question.media}
    hashes = dict(zip(refs, in_threads(_hash_media, refs.values()), strict=True))
    readable = [name for name, item in hashes.items() if item.key]
    numbers = {name: number for number, name in enumerate(readable)}
    links = [(n, numbers[name]) for n, row in enumerate(names) for name in row if name in numbers]
    pixels = {numbers[n]: item.pixels for n, item in hashes.items() if item.pixels is not None}
    return {
        "media_owners": _indices(owner for owner, _ in links),
        "media": _indices(number for _, number in links),
        "media_keys": numpy.array([hashes[name].key for name in readable], dtype=numpy.uint64),
        "thumbnail_media": _indices(pixels),
        "thumbnails": numpy.array([*pixels.values()], dtype=numpy.uint8).reshape(-1, *THUMBNAIL),
        "unreadable": tuple(refs[n].describe() for n, item in hashes.items() if item.failed),
        "files": {path: value for item in hashes.values() for path, value in item.files.items()},
    }


@dataclass(frozen=True)
class _MediaHash:
    """Hashes of an image or a video.

    Attributes:
        key: Hash of its content; 0 if it cannot be read.
        pixels: [16, 18, 3] The thumbnail; `None` for videos and images that cannot be opened.
        failed: Whether it cannot be read or decoded; videos are not decoded.
        files: Its file, see `QuestionHashes.files`.
    """

    key: int
    pixels: NDArray[numpy.uint8] | None
    failed: bool
    files: Stamps


def _hash_media(media: MediaRef) -> _MediaHash:
    path = getattr(media, "path", None)
    files = {} if path is None else {str(path): stamp(path)}  # before the file is read
    content = content_key(media)
    if content.startswith(UNREADABLE):
        # a failed download may succeed at the next start
        return _MediaHash(0, None, True, files or {media.describe(): NO_STAMP})
    if not hasattr(media, "open"):  # a video
        return _MediaHash(hash_text(content), None, False, files)
    pixels = thumbnail(media)  # type: ignore[arg-type] # only images are left
    return _MediaHash(hash_text(content), pixels, pixels is None, files)


def _indices(numbers: Iterable[int]) -> Indices:
    return numpy.fromiter(numbers, dtype=numpy.int64)
