"""Held-out rows share no image and no prompt with training rows; every domain gives its share."""

import hashlib
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import pytest
from builders import make_image, row
from hypothesis import given, settings

from unidpo_mm.data.split import split_rows
from unidpo_mm.records import PreferenceRow


class Named:
    """An image that consists only of its key."""

    def __init__(self, name: str) -> None:
        self.name = name

    def open(self) -> Any:
        return make_image(0)

    def describe(self) -> str:
        return self.name

    def key(self) -> str:
        return hashlib.sha256(self.name.encode()).hexdigest()


def make_row(number: int, prompt: str, images: tuple[str, ...], domain: str) -> PreferenceRow:
    rendered = [make_image(0)] * len(images)
    item = row(f"r{number}", prompt, images=rendered, domain=domain)
    return replace(item, images=tuple(Named(name) for name in images))


def keys_of(rows: list[PreferenceRow]) -> set[str]:
    return {
        key
        for item in rows
        for key in ([image.key() for image in item.images] or [item.messages[0].text])
    }


ROW = st.tuples(st.integers(0, 8), st.lists(st.sampled_from("abcdefgh"), max_size=2, unique=True))


@settings(max_examples=80, deadline=None)
@given(drawn=st.lists(ROW, max_size=40), fraction=st.floats(0, 0.9), seed=st.integers(0, 5))
def test_no_image_or_text_prompt_is_on_both_sides(
    drawn: list[Any], fraction: float, seed: int
) -> None:
    rows = [
        make_row(n, f"Question {q}", tuple(p), "multimodal" if p else ("text", "math")[q % 2])
        for n, (q, p) in enumerate(drawn)
    ]
    training, held_out = split_rows(rows, fraction, seed=seed)
    assert keys_of(training).isdisjoint(keys_of(held_out))
    assert [item for item in rows if item in training] == training  # in their order
    assert len(training) + len(held_out) == len(rows)
    assert not (held_out and fraction == 0)
    assert {item.domain for item in training} == {item.domain for item in rows}


def domains(count: int = 60) -> list[PreferenceRow]:
    rows = []
    for n in range(count):
        rows += [
            make_row(3 * n, f"text {n}", (), "text"),
            make_row(3 * n + 1, f"math {n % 20}", (), "math"),
            make_row(3 * n + 2, "What is it?", (f"p{n % 30}",), "multimodal"),
        ]
    return rows


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_every_domain_gives_its_share(fraction: float) -> None:
    _, held_out = split_rows(domains(), fraction, seed=0)
    for domain in ("text", "math", "multimodal"):
        result = sum(item.domain == domain for item in held_out)
        assert fraction * 60 <= result < fraction * 60 + 3  # at most a cluster more


def test_a_small_fraction_takes_at_least_one_cluster_of_each_domain() -> None:
    _, held_out = split_rows(domains(), 0.001, seed=0)
    assert {item.domain for item in held_out} == {"text", "math", "multimodal"}
    assert len(held_out) == 1 + 3 + 2


def test_a_domain_with_a_single_cluster_is_not_held_out() -> None:
    rows = [make_row(n, "What?", ("same",), "multimodal") for n in range(5)]
    assert split_rows(rows, 0.5, seed=0) == (rows, [])


def test_the_seed_chooses_and_repeats() -> None:
    rows = domains()
    ids = [[item.id for item in split_rows(rows, 0.2, seed=seed)[1]] for seed in (1, 1, 2)]
    assert ids[0] == ids[1] != ids[2]


def test_adding_a_domain_leaves_the_split_of_the_others() -> None:
    rows = domains()
    text = [item for item in rows if item.domain == "text"]
    alone = split_rows(text, 0.2, seed=3)[1]
    together = [item for item in split_rows(rows, 0.2, seed=3)[1] if item.domain == "text"]
    assert alone == together


def test_chains_of_shared_images_stay_together() -> None:
    chain = [make_row(n, "?", (f"p{n}", f"p{n + 1}"), "multimodal") for n in range(6)]
    others = [make_row(10 + n, "?", (f"q{n}",), "multimodal") for n in range(6)]
    for seed in range(8):
        held_out = set(split_rows(chain + others, 0.4, seed=seed)[1])
        assert sum(item in held_out for item in chain) in (0, 6)


def test_the_same_question_about_other_images_is_not_a_shared_prompt() -> None:
    rows = [make_row(n, "What is it?", (f"p{n}",), "multimodal") for n in range(10)]
    training, held_out = split_rows(rows, 0.3, seed=0)
    assert (len(training), len(held_out)) == (7, 3)
