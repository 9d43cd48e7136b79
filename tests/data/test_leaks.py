"""The leak guard finds copies of questions, keeps other prompts, and says what it cannot see."""

import dataclasses
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.planted_images import emoji_of, encoded, photo
from unidpo_mm_quickstart.exercises import math_tasks, text_tasks
from unidpo_mm_quickstart.images import KINDS, Canvas, Emoji, draw_canvases
from unidpo_mm_quickstart.training_rows import QUESTION

from unidpo_mm.data.images import FileImage, MemoryImage
from unidpo_mm.data.leak_index import KINDS as LEAK_KINDS
from unidpo_mm.data.leak_index import LeakIndex
from unidpo_mm.data.leaks import LIMITS, LeakReport, keep_out, keep_rows_out
from unidpo_mm.data.question_cache import cached_hashes
from unidpo_mm.data.questions import Question, hash_questions, joined_hashes, row_question
from unidpo_mm.data.videos import FramesVideo
from unidpo_mm.records import MediaSlot, Message, PreferenceRow, Response

COPIES = 10
"""Planted prompts per kind of copy; there are four kinds."""


def question(number: int, text: str, *images: object, options: Sequence[str] = ()) -> Question:
    where = f"prompts.jsonl row {number}"
    refs = tuple(MemoryImage(image, where) for image in images)
    return Question(where=where, text=text, images=refs, options=tuple(options))


def index_of(*questions: Question, text: str = "exact") -> LeakIndex:
    return LeakIndex(hash_questions(questions, text))


def compared(prompts: Sequence[Question], index: LeakIndex, **options: str) -> LeakReport:
    return keep_out(prompts, index, lambda prompt: (prompt,), **options)


def kinds(prompts: Sequence[Question], index: LeakIndex) -> list[str]:
    """Return the kind of each prompt's match; an empty string if there is none."""
    matches = index.find(hash_questions(prompts, index.questions.text))
    return [(*LEAK_KINDS, "")[kind] for kind in matches.kinds.tolist()]


# The acceptance criterion: all planted copies, and no clean prompt.


def benchmark(images: Sequence[Image.Image]) -> list[Question]:
    return [
        question(
            n,
            f"Which of these words fits image {n // 2}?",
            encoded(image),
            options=(f"red {n}", f"blue {n}", f"green {n}"),
        )
        for n, image in enumerate(images)
    ]


def planted(questions: Sequence[Question], images: Sequence[Image.Image]) -> list[Question]:
    """Return `COPIES` prompts of each kind; the image comes from memory, where it is not the copy.

    Exact copies; images as JPEG; texts with other white space and case; reordered options.
    """

    def listed(n: int, layout: str, order: Sequence[int] = (0, 1, 2)) -> str:
        options = [questions[n].options[place] for place in order]
        lines = (f"{letter}. {text}" for letter, text in zip("ABC", options, strict=True))
        return layout.join((questions[n].text, *lines))

    def turned(n: int) -> str:
        return "\u00a0 " + listed(n, "\n\n\t ").swapcase() + "  \n"

    changes: list[Callable[[int], tuple[str, bytes]]] = [
        lambda n: (listed(n, "\n"), encoded(images[n])),
        lambda n: (listed(n, "\n"), encoded(images[n], "JPEG", quality=90)),
        lambda n: (turned(n), encoded(images[n])),
        lambda n: (listed(n, "\n", (2, 0, 1)), encoded(images[n])),
    ]
    drawn = random.Random(0).sample(range(len(questions)), COPIES * len(changes))
    return [
        question(number, *changes[place % len(changes)](number))
        for place, number in enumerate(drawn)
    ]


def canvases(folder: Path, numbers: range, count: int) -> list[Canvas]:
    emoji = [emoji_of(kind, n, folder / "emoji") for kind in KINDS for n in numbers]
    return draw_canvases(emoji, folder / "images", count, name="canvas", seed=numbers.start)


def opened(drawn: Sequence[Canvas]) -> list[Image.Image]:
    images = []
    for canvas in drawn:
        with Image.open(canvas.file) as image:
            images.append(image.convert("RGB"))
    return images


def demo_prompts(drawn: Sequence[Canvas], count: int, split: str) -> list[Question]:
    """Return the prompts of the quick-start: images with one question, sums and words."""
    sums = math_tasks(split, count, seed=1)
    words = text_tasks(split, 24, seed=1)
    texts = [question(n, task.prompt) for n, task in enumerate([*sums, *words])]
    images = [Question(where=c.id, text=QUESTION, images=(FileImage(c.file, c.id),)) for c in drawn]
    return [*images, *texts]


@pytest.mark.parametrize("kind", ["photos", "canvases"])
def test_every_planted_copy_is_dropped(kind, tmp_path):
    images = [photo(seed, (160, 120)) for seed in range(48)]
    if kind == "canvases":
        images = opened(canvases(tmp_path, range(40), 48))
    questions = benchmark(images)
    prompts = planted(questions, images)
    report = compared(prompts, index_of(*questions))
    assert len(prompts) == len(report.leaks) == 4 * COPIES
    assert report.counts() == {"question": 40, "image": 0, "similar_image": 0}
    pairs = [(leak.where, leak.of) for leak in report.leaks]
    assert pairs == [(prompt.where, prompt.where) for prompt in prompts]


def test_no_clean_prompt_of_the_quick_start_is_dropped(tmp_path):
    clean = demo_prompts(canvases(tmp_path / "clean", range(40), 240), 60, "train")
    held_out = demo_prompts(canvases(tmp_path / "held", range(40, 60), 120), 60, "heldout")
    report = compared(clean, index_of(*held_out))
    assert (len(report.kept), report.leaks) == (len(clean), ())
    assert compared(held_out, index_of(*held_out)).kept == ()


# What matches.


def test_a_question_about_the_same_image_is_a_leak_and_another_one_is_reported_as_such():
    image, other = photo(0), photo(1)
    jpeg = encoded(image, "JPEG", quality=90)
    index = index_of(question(1, "What is it?", encoded(image)))
    prompts = [
        question(2, "what is  it", encoded(image)),
        question(3, "What is it?", jpeg),
        question(4, "What is it?", encoded(other)),
        question(5, "Where is it?", encoded(image)),
        question(6, "Where is it?", jpeg),
        question(7, "Where is it?", encoded(other)),
        question(8, "Where is it?", encoded(other), jpeg),
        question(9, "Where is it?", jpeg, encoded(image)),
    ]
    expected = [*("question", "question", "", "image", "similar_image", "")]
    assert kinds(prompts, index) == [*expected, "similar_image", "image"]
    report = compared(prompts, index)
    assert report.kept == (2, 4, 5, 6)
    assert [leak.prompt for leak in report.leaks] == [0, 1, 3, 7]
    report = compared(prompts, index, same_image="report")
    assert report.kept == (2, 3, 4, 5, 6, 7)
    assert [leak.kind for leak in report.reported] == [
        *("image", "similar_image", "similar_image", "image")
    ]


def test_a_text_without_image_is_a_leak_by_its_text():
    index = index_of(question(1, "What is 3 + 4?"), question(2, "Is it red?", encoded(photo(0))))
    prompts = [
        question(1, "what is 3 + 4"),
        question(2, "What is 3 + 4?", encoded(photo(1))),
        question(3, "Is it red?"),
        question(4, "Is it red?", encoded(photo(1))),
        question(5, "What is 3 + 5?"),
    ]
    assert kinds(prompts, index) == ["question", "question", "question", "", ""]


def test_a_general_question_with_other_options_is_another_question():
    text = "Which is true?"
    index = index_of(question(1, text, options=["Ice melts.", "Ice burns.", "Ice sings."]))
    prompts = [
        question(1, f"{text}\nA. Ice sings\nB. ice melts\nC. Ice burns"),
        question(2, f"{text}\nA. Ice sings\nB. ice melts\nC. Ice runs"),
        question(3, f"{text}\nA. Gold melts\nB. Gold burns\nC. Gold sings"),
        question(4, text),
    ]
    assert kinds(prompts, index) == ["question", "question", "", "question"]


def test_plain_images_match_by_their_content_only():
    white, larger = Image.new("RGB", (60, 40), "white"), Image.new("RGB", (90, 60), "white")
    index = index_of(question(1, "What is it?", encoded(white)))
    prompts = [question(n, "What is it?", encoded(i)) for n, i in enumerate((white, larger))]
    assert kinds(prompts, index) == ["question", ""]


def test_videos_match_by_their_content():
    def clip(*seeds: int) -> tuple[FramesVideo, ...]:
        frames = tuple(MemoryImage(photo(seed, (40, 30)), "row 1") for seed in seeds)
        return (FramesVideo(frames),)

    index = index_of(Question(where="a", text="What happens?", videos=clip(0, 1)))
    prompts = [
        Question(where="b", text="what happens", videos=clip(0, 1)),
        Question(where="c", text="What happens?", videos=clip(0, 2)),
        Question(where="d", text="Why?", videos=clip(0, 1)),
    ]
    assert kinds(prompts, index) == ["question", "", "image"]


def test_long_texts_match_by_half_of_their_words_if_that_is_chosen():
    def words(name: str, count: int) -> str:
        return " ".join(f"{name}{n}" for n in range(count))

    template = words("please", 30)
    long = [question(n, f"{template} {words(f'q{n}x', 40)}?") for n in range(12)]
    picky = [question(n, f"{q.text} Hurry up.") for n, q in enumerate(long)]
    prompts = [
        *picky[:2],
        question(20, f"Context. {words('q3x', 40)}"),
        question(21, f"{template} {words('new', 40)}"),
        question(22, words("q4x", 14)),
        question(23, "short"),
    ]
    assert kinds(prompts, index_of(*long)) == [""] * 6
    index = index_of(*long, text="13gram")
    assert kinds(prompts, index) == ["question", "question", "question", "", "", ""]
    images = [encoded(photo(seed)) for seed in (0, 1)]
    with_image = [question(n, q.text, images[0]) for n, q in enumerate(long)]
    repeated = [question(n, picky[n].text, images[n]) for n in (0, 1)]
    assert kinds(repeated, index_of(*with_image, text="13gram")) == ["question", ""]


def row(*turns: str, image: bytes | None = None) -> PreferenceRow:
    messages = [Message("system", ("Be brief.",))]
    for number, turn in enumerate(turns):
        slot = (MediaSlot("image"),) if image and not number else ()
        messages += [Message("user", (*slot, turn)), Message("assistant", ("Yes.",))]
    return PreferenceRow(
        id="a",
        domain="multimodal" if image else "text",
        source="s",
        where="s.jsonl row 1",
        messages=tuple(messages[:-1]),
        images=(MemoryImage(image, "s.jsonl row 1"),) if image else (),
        responses=(Response("r"),),
    )


def test_the_last_turn_of_a_dialogue_may_be_a_question():
    image = encoded(photo(0))
    index = index_of(
        question(1, "How many dogs are there?", image),
        row_question(row("Who wrote it?", "Are you sure?")),
    )
    rows = [
        row("Describe it.", "How many dogs are there?", image=image),
        row("How many dogs are there?", "Why?", image=image),
        row("Who wrote it?", "Are you sure?"),
        row("Who sang it?", "Are you sure?"),
    ]
    report = keep_rows_out(rows, index)
    assert report.kept == (3,)
    assert [(leak.prompt, leak.kind) for leak in report.leaks] == [
        (0, "question"), (1, "image"), (2, "question")
    ]  # fmt: skip


# What is reported.


def test_the_report_names_places_counts_and_limits():
    index = index_of(question(7, "What is it?", encoded(photo(0))), question(8, "Why?", b"broken"))
    prompts = [question(1, "What is it?"), question(2, "Who?"), question(3, "Who?", b"damaged")]
    report = compared(prompts, index)
    assert report.counts() == {"question": 1, "image": 0, "similar_image": 0}
    assert report.leaks[0].message == "the prompt is the question of prompts.jsonl row 7"
    text = "\n".join(report.sentences())
    assert "compared 3 prompts with 2 questions to keep out" in text
    assert "dropped 1 prompt (question); the first, prompts.jsonl row 1: the prompt is" in text
    assert "1 image or video of prompts cannot be compared, for example in memory" in text
    assert "1 image or video of questions to keep out cannot be compared" in text
    assert report.sentences()[-1] == LIMITS
    assert "paraphrased or translated" in LIMITS
    assert "cropped" in LIMITS


def test_there_may_be_no_prompts_and_no_questions():
    prompts = [question(1, "What?", encoded(photo(0))), question(2, "")]
    assert compared(prompts, index_of()).kept == (0, 1)
    assert compared([], index_of(*prompts)).kept == ()
    assert compared(prompts, index_of(*prompts, text="13gram")).kept == ()


def test_the_size_of_batches_changes_nothing(monkeypatch):
    questions = [question(n, f"What is {n}?", encoded(photo(n % 5, (60, 40)))) for n in range(20)]
    prompts = [
        question(n, f"What is {2 * n}?", q.images[0].content) for n, q in enumerate(questions)
    ]
    expected = compared(prompts, index_of(*questions))
    monkeypatch.setattr("unidpo_mm.data.questions.BATCH", 3)
    assert compared(prompts, index_of(*questions)) == expected
    parts = joined_hashes([hash_questions(questions[:7]), hash_questions(questions[7:])])
    assert compared(prompts, LeakIndex(parts)) == expected
    with pytest.raises(ValueError, match="different rules"):
        joined_hashes([hash_questions([]), hash_questions([], "13gram")])


# Properties.

TEXTS = st.lists(
    st.sampled_from("what is the red cat dog A. B. (A) (B) answer: image 3 ?".split()), max_size=12
).map(" ".join)


@settings(max_examples=50, deadline=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=6), seed=st.integers(0, 99))
def test_matches_do_not_depend_on_white_space_and_case(texts, seed):
    generator = random.Random(seed)
    images = [encoded(photo(n, (40, 30))) for n in range(2)]
    questions = [question(n, t, *images[: generator.randrange(2)]) for n, t in enumerate(texts)]
    changed = [
        dataclasses.replace(q, text=q.text.upper().replace(" ", generator.choice("\n\t\u00a0")))
        for q in questions
    ]
    index, other = index_of(*questions), index_of(*changed)
    matches = [i.find(hash_questions(p)) for i in (index, other) for p in (questions, changed)]
    for match in matches:
        assert (match.kinds == 0).all()
        assert match.questions.tolist() == matches[0].questions.tolist()


def test_nothing_is_changed():
    questions = [question(n, f"What is {n}?", encoded(photo(n))) for n in range(4)]
    hashes = hash_questions(questions, "13gram")
    before = {
        column.name: numpy.copy(getattr(hashes, column.name))
        for column in dataclasses.fields(hashes)
        if isinstance(getattr(hashes, column.name), numpy.ndarray)
    }
    copies = [dataclasses.replace(item) for item in questions]
    index = LeakIndex(hashes)
    first, second = index.find(hashes), index.find(hashes)
    assert questions == copies
    assert (first.kinds == second.kinds).all()
    for name, values in before.items():
        assert (getattr(hashes, name) == values).all()


# Speed and real images.


def many_prompts(count: int, seed: int) -> list[Question]:
    """Return prompts of which half have images; every hundredth is the same for every seed."""
    generator = numpy.random.default_rng(seed)
    words = [f"word{n}" for n in range(2000)]
    prompts = []
    for number in range(count):
        source = numpy.random.default_rng(number) if number % 100 == 0 else generator
        text = " ".join(words[n] for n in source.integers(0, 2000, size=30))
        text = f"<image>\n{text}?\nA. yes {number}\nB. no {number}\nAnswer with the letter."
        pixels = source.integers(0, 256, size=(16, 18, 3), dtype=numpy.uint8)
        images = (Image.fromarray(pixels),) if number % 2 else ()
        prompts.append(question(number, text, *images))
    return prompts


@pytest.mark.parametrize(
    ("prompts", "questions", "seconds"),
    [
        (2_000, 600, (20, 5)),
        pytest.param(100_000, 30_000, (60, 5), marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)
@pytest.mark.parametrize("text", ["exact", "13gram"])
def test_prompts_are_compared_in_time(prompts, questions, seconds, text):
    kept_out, candidates = many_prompts(questions, 1), many_prompts(prompts, 2)
    times, reports = [], []
    for _ in range(2):
        start = time.process_time()  # other processes do not count
        index = LeakIndex(cached_hashes("questions", lambda: kept_out, text))
        reports.append(compared(candidates, index, key="prompts"))
        times.append(time.process_time() - start)
    assert len(reports[0].leaks) == questions // 100
    assert reports[0] == reports[1]
    assert times[0] < seconds[0]
    assert times[1] < seconds[1]


@pytest.fixture(scope="module")
def emoji() -> dict[str, list[Emoji]]:
    from unidpo_mm_quickstart.assets import fetch_assets
    from unidpo_mm_quickstart.images import load_emoji, split_emoji

    return split_emoji(load_emoji(fetch_assets().emoji))


@pytest.mark.slow
def test_the_canvases_of_the_quick_start_differ(emoji, tmp_path):
    clean = draw_canvases(emoji["train"], tmp_path, 940, name="train", seed=1)
    held_out = draw_canvases(emoji["heldout"], tmp_path, 300, name="heldout", seed=2)
    prompts = demo_prompts(clean, 36, "train")
    questions = demo_prompts(held_out, 36, "heldout")
    index = index_of(*questions)
    report = compared(prompts, index)
    assert (len(prompts), report.leaks) == (1000, ())
    images = opened(held_out[:40])
    copies = [question(n, QUESTION, encoded(i, "JPEG", quality=90)) for n, i in enumerate(images)]
    assert kinds(copies, index) == ["question"] * 40
