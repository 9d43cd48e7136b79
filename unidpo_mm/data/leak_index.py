"""An index of questions to keep out of training data, in which prompts are looked up."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy
from numpy.typing import NDArray

from .image_hash import ImageTable
from .key_table import Indices, KeyTable, collect
from .question_text import share_options
from .questions import QuestionHashes

__all__ = ["KINDS", "LeakIndex", "LeakKind", "Matches"]

LeakKind = Literal["question", "image", "similar_image"]
"""Kinds of matches, see `LeakIndex`."""

KINDS: tuple[LeakKind, ...] = ("question", "image", "similar_image")
"""The kinds, the most serious one first."""

MAX_OWNERS = 10
"""Maximum number of questions that have a 13-gram; if there are more, it belongs to a template."""

SHARE = 0.5
"""Minimum share of the 13-grams of a question that a prompt has in common with it."""

FACTOR = numpy.uint64(0x9E3779B97F4A7C15)
"""Odd factor that spreads small numbers over 64 bits."""

Links = tuple[Indices, Indices, NDArray[numpy.bool_]]
"""[L] Index of a prompt, [L] number of an image of the index, and [L] whether they are equal."""


@dataclass(frozen=True)
class Matches:
    """The most serious match of each of N prompts.

    Attributes:
        kinds: [N] Index into `KINDS`, or their number for a prompt without a match.
        questions: [N] The first question of the index that matches in this way; -1 if there is
            none.
    """

    kinds: Indices
    questions: Indices

    @classmethod
    def empty(cls, prompts: int) -> "Matches":
        """Return matches of prompts of which none matches."""
        return cls(numpy.full(prompts, len(KINDS)), numpy.full(prompts, -1))

    def with_kind(self, kind: LeakKind, prompts: Indices, questions: Indices) -> "Matches":
        """Return the matches with further ones, which do not replace more serious ones.

        Args:
            kind: Their kind.
            prompts: [P] Indices of prompts.
            questions: [P] Indices of questions.
        """
        kinds, firsts = self.kinds.copy(), self.questions.copy()
        order = numpy.lexsort((questions, prompts))
        prompts, place = numpy.unique(prompts[order], return_index=True)
        new = KINDS.index(kind) < kinds[prompts]
        kinds[prompts[new]] = KINDS.index(kind)
        firsts[prompts[new]] = questions[order][place[new]]
        return Matches(kinds, firsts)


class LeakIndex:
    """Questions of benchmarks and held-out rows, in which prompts are looked up.

    A prompt matches a question with the kind

    - ``question`` if the texts are the same and so is at least one image, or one of both has no
      image; images are the same if they are equal or look the same,
    - ``image`` if they have an equal image or video, and other texts,
    - ``similar_image`` if they have images that look the same, and other texts.

    Texts are the same if they are equal as `parse_question` returns them and, without images, their
    options do not contradict each other. If prompts and questions have 13-grams, texts with at
    least half of the question's are the same, too.

    Args:
        questions: Hashes of the questions.
    """

    def __init__(self, questions: QuestionHashes) -> None:
        self.questions = questions
        self._texts = _TextTable(questions)
        keys, self._image_of = numpy.unique(questions.media_keys, return_inverse=True)
        self._media = KeyTable(keys)
        self._thumbnails = ImageTable(questions.thumbnails)
        self._thumbnail_image = self._image_of[questions.thumbnail_media]
        images = self._image_of[questions.media]
        order = numpy.argsort(images, kind="stable")
        _, first = numpy.unique(images[order], return_index=True)
        self._first_question = questions.media_owners[order][first]
        self._questions = KeyTable(_combined(questions.stems[questions.media_owners], images))
        self._grams = _GramTable(questions)

    def find(self, prompts: QuestionHashes) -> Matches:
        """Return the most serious match of each prompt."""
        links = self._image_links(prompts)
        prompt, image, equal = links
        first = self._first_question[image]
        return (
            Matches.empty(len(prompts))
            .with_kind("question", *self._texts.find(prompts))
            .with_kind("question", *self._same_question(prompts, links))
            .with_kind("question", *self._shared_grams(prompts, links))
            .with_kind("image", prompt[equal], first[equal])
            .with_kind("similar_image", prompt[~equal], first[~equal])
        )

    def _image_links(self, prompts: QuestionHashes) -> Links:
        """Return the images of the index that are equal to images of prompts or look the same."""
        media, images = collect(self._media.pairs(prompts.media_keys))
        thumbnails, similar = self._thumbnails.pairs(prompts.thumbnails)
        of_media = KeyTable(prompts.media.astype(numpy.uint64))

        def links(media: Indices, images: Indices) -> tuple[Indices, Indices]:
            pair, place = collect(of_media.pairs(media.astype(numpy.uint64)))
            return prompts.media_owners[place], images[pair]

        equal = links(media, images)
        alike = links(prompts.thumbnail_media[thumbnails], self._thumbnail_image[similar])
        is_equal = numpy.repeat((True, False), (len(equal[0]), len(alike[0])))
        prompt, image = (numpy.concatenate(pair) for pair in zip(equal, alike, strict=True))
        return prompt, image, is_equal

    def _same_question(self, prompts: QuestionHashes, links: Links) -> tuple[Indices, Indices]:
        """Return prompts and questions with the same text and an image in common."""
        prompt, image, _ = links
        link, place = collect(self._questions.pairs(_combined(prompts.stems[prompt], image)))
        return prompt[link], self.questions.media_owners[place]

    def _shared_grams(self, prompts: QuestionHashes, links: Links) -> tuple[Indices, Indices]:
        """Return prompts and questions that share 13-grams, and an image if both have some."""
        prompt, question = self._grams.find(prompts)
        bare = ~(prompts.has_media[prompt] & self.questions.has_media[question])
        of_question = KeyTable(self.questions.media_owners.astype(numpy.uint64))
        pair, place = collect(of_question.pairs(question.astype(numpy.uint64)))
        image = self._image_of[self.questions.media[place]]
        count = len(self._first_question)
        shared = numpy.isin(prompt[pair] * count + image, links[0] * count + links[1])
        bare[pair[shared]] = True
        return prompt[bare], question[bare]


class _TextTable:
    """Questions by their texts, for pairs of a prompt and a question without a common image."""

    def __init__(self, questions: QuestionHashes) -> None:
        self._every: dict[int, dict[frozenset[int], int]] = {}
        self._bare: dict[int, dict[frozenset[int], int]] = {}
        columns = (questions.stems.tolist(), questions.option_sets(), questions.has_media.tolist())
        for number, (stem, options, has_media) in enumerate(zip(*columns, strict=True)):
            self._every.setdefault(stem, {}).setdefault(options, number)
            if not has_media:
                self._bare.setdefault(stem, {}).setdefault(options, number)

    def find(self, prompts: QuestionHashes) -> tuple[Indices, Indices]:
        """Return prompts and the first question with the same text of each."""
        columns = (prompts.stems.tolist(), prompts.option_sets(), prompts.has_media.tolist())
        results: dict[tuple[int, frozenset[int], bool], int] = {}
        matches = []
        for number, prompt in enumerate(zip(*columns, strict=True)):
            if prompt not in results:
                results[prompt] = self._first(*prompt)
            if results[prompt] >= 0:
                matches.append((number, results[prompt]))
        pairs = numpy.array(matches, dtype=numpy.int64).reshape(-1, 2)
        return pairs[:, 0], pairs[:, 1]

    def _first(self, stem: int, options: frozenset[int], has_media: bool) -> int:
        questions = (self._bare if has_media else self._every).get(stem, {})
        same = (n for others, n in questions.items() if share_options(options, others))
        return next(same, -1)


class _GramTable:
    """The 13-grams of questions, each once per question, without those of templates."""

    def __init__(self, questions: QuestionHashes) -> None:
        owners, grams = _unique_pairs(questions.gram_owners, questions.grams)
        _, inverse, counts = numpy.unique(grams, return_inverse=True, return_counts=True)
        rare = counts[inverse] <= MAX_OWNERS
        self._owners = owners[rare]
        self._table = KeyTable(grams[rare])
        self._needed = SHARE * numpy.bincount(self._owners, minlength=len(questions))

    def find(self, prompts: QuestionHashes) -> tuple[Indices, Indices]:
        """Return prompts and questions of which at least half of the 13-grams are the same."""
        query, place = collect(self._table.pairs(prompts.grams))
        prompt, place = _unique_pairs(prompts.gram_owners[query], place)  # a gram may be repeated
        count = max(len(self._needed), 1)
        codes, shared = numpy.unique(prompt * count + self._owners[place], return_counts=True)
        prompt, question = numpy.divmod(codes, count)
        enough = shared >= self._needed[question]
        return prompt[enough], question[enough]


def _unique_pairs(owners: Indices, values: NDArray[Any]) -> tuple[Indices, NDArray[Any]]:
    """Return pairs of owner and value, each once."""
    order = numpy.lexsort((values, owners))
    owners, values = owners[order], values[order]
    first = numpy.ones(len(owners), dtype=bool)
    first[1:] = (owners[1:] != owners[:-1]) | (values[1:] != values[:-1])
    return owners[first], values[first]


def _combined(stems: NDArray[numpy.uint64], images: Indices) -> NDArray[numpy.uint64]:
    """Return a key for each pair of a text and an image."""
    return stems ^ ((images.astype(numpy.uint64) + numpy.uint64(1)) * FACTOR)
