"""Compare questions by their text: spelling, options and instructions on the format do not count.

A question occurs in many layouts: with a placeholder of its image, with labels, with its options in
another order, with a sentence about the form of the answer. `parse_question` reduces all of them to
the question itself and the set of its options.
"""

import hashlib
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

__all__ = ["GRAM", "QuestionText", "hash_grams", "hash_text", "parse_question", "share_options"]

GRAM = 13
"""Number of consecutive words that are compared, as in the decontamination of GPT-3."""

PLACEHOLDER = re.compile(r"<\|?/?\s*(?:image|img|video|vision)[^<>]{0,24}>|\[(?:image|img|video)\]")
"""A place for media that is written in the text: ``<image>``, ``<image 1>``, ``<|image_pad|>``."""

QUESTION_LABEL = re.compile(r"(?<!\S)question\s?:\s")
"""The label of the question, after a hint or examples."""

OPTIONS_LABEL = re.compile(r"(?<!\S)(?:options|choices)\s?:?$")
"""The label of the options at the end of the text in front of them."""

LETTERS = "abcdefghij"
"""Letters of options."""

OPTION = re.compile(
    rf"(?:(?<!\S)|(?<=[,;]))"
    rf"(?:[(\[]([{LETTERS}])[)\]]|([{LETTERS}])(?:[.):](?=[\s\u0080-\U0010ffff])|\u3001))"
)
"""The beginning of an option: ``A.``, ``A)``, ``A:`` or ``(A)``, also with Chinese punctuation."""

INSTRUCTIONS = re.compile(
    r"""(?:(?<!\S)(?:
        (?:please\ )?(?:try\ to\ )?answer\ (?:the\ question\ )?
            (?:yes\ or\ no|(?:using|with)\ [^.?!]*)
        | (?:please\ )?select\ the\ correct\ answer\ from\ the\ options\ above
        | (?:please\ )?(?:let's\ think|think|reason)\ step\ by\ step[^.?!]*
        | \u8bf7\u76f4\u63a5\u56de\u7b54\u9009\u9879\u5b57\u6bcd
        | answer:
    )[\s.\u3002]*)+$""",
    re.VERBOSE,
)
"""Sentences at the end of a prompt about the form of the answer, which toolkits append."""

EDGES = " .,;:?!\u3002\uff1f"
"""Punctuation that does not count at the ends of a question or an option."""

FACTOR = numpy.uint64(0x9E3779B97F4A7C15)
"""Odd factor of the polynomial that combines the hashes of the words of a 13-gram."""


@dataclass(frozen=True, slots=True)
class QuestionText:
    """A question without its layout.

    Attributes:
        stem: The question without options, in lower case, with single spaces.
        options: The texts of its options; empty if it has none.
    """

    stem: str
    options: frozenset[str] = frozenset()


def parse_question(text: str, options: Iterable[str] = ()) -> QuestionText:
    """Return a question without its layout.

    Args:
        text: The text of a prompt or of a question of a benchmark, possibly with options.
        options: Texts of options that are not part of `text`.
    """
    flat = _without_layout(_folded(text))
    stem, listed = _split_options(flat)
    texts = frozenset(option for option in (*listed, *map(_option_text, options)) if option)
    stem = OPTIONS_LABEL.sub("", stem.strip()).strip(EDGES)
    return QuestionText(stem or " ".join(sorted(texts)), texts)


def share_options(first: Collection[int], second: Collection[int]) -> bool:
    """Return whether two questions with the same stem can be the same question.

    "Which of the following is correct?" is the stem of many questions, so at least half of the
    options of the question that has fewer must be options of the other, too. A question without
    options can be the same as any.

    Args:
        first: Hashes of the options of a question.
        second: Hashes of the options of the other question.
    """
    fewer = min(len(first), len(second))
    return not fewer or 2 * len(set(first) & set(second)) >= fewer


def hash_text(text: str) -> int:
    """Return a hash of 64 bits that is equal in every process; it is never 0."""
    content = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little") or 1


def hash_grams(stems: Sequence[str]) -> tuple[NDArray[numpy.int64], NDArray[numpy.uint64]]:
    """Return hashes of all sequences of `GRAM` words; stems with fewer words have none.

    Words are separated by spaces, so there are none in languages that are written without them.

    Args:
        stems: Texts in lower case, with single spaces.

    Returns:
        [G] The index of the stem, ascending, and [G] the hash of each sequence.
    """
    hashes: dict[str, int] = {}
    words, owners = [], []
    for number, stem in enumerate(stems):
        for word in stem.split():
            if word not in hashes:
                hashes[word] = hash_text(word)
            words.append(hashes[word])
            owners.append(number)
    values, owner = numpy.array(words, dtype=numpy.uint64), numpy.array(owners, dtype=numpy.int64)
    count = max(len(values) - GRAM + 1, 0)
    combined = numpy.zeros(count, dtype=numpy.uint64)
    for place in range(GRAM if count else 0):
        combined = combined * FACTOR + values[place : place + count]
    complete = owner[:count] == owner[len(owner) - count :]
    return owner[:count][complete], combined[complete]


def _folded(text: str) -> str:
    """Return a text in lower case and compatible characters, without placeholders of media."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    if "<" in folded or "[" in folded:
        folded = PLACEHOLDER.sub(" ", folded)
    return " ".join(folded.split())


def _without_layout(flat: str) -> str:
    """Return the text after the last label and in front of instructions, if there is any."""
    *_, labeled = QUESTION_LABEL.split(flat)
    question = labeled.strip() or flat
    return INSTRUCTIONS.sub("", question).strip() or question


def _split_options(flat: str) -> tuple[str, list[str]]:
    """Return the text in front of the options, and the options, to which the rest belongs."""
    markers = list(OPTION.finditer(flat))[-len(LETTERS) :]
    for first in range(len(markers) - 1):
        run = markers[first:]
        if "".join(sorted(match[1] or match[2] for match in run)) == LETTERS[: len(run)]:
            ends = [*(match.start() for match in run[1:]), len(flat)]
            texts = [flat[match.end() : end] for match, end in zip(run, ends, strict=True)]
            return flat[: run[0].start()], [text.strip(EDGES) for text in texts]
    return flat, []


def _option_text(option: str) -> str:
    return _folded(option).strip(EDGES)
