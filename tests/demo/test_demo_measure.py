"""Figures of captions, computed by hand."""

from pathlib import Path

import pytest
from unidpo_mm_eval.demo.captions import figures, majority_rate, named_kinds, rate, shuffle
from unidpo_mm_eval.demo.compare import cell, markdown
from unidpo_mm_eval.demo.pictures import Canvas


def canvas(*kinds: str) -> Canvas:
    return Canvas(id="-".join(kinds), file=Path("x.png"), kinds=kinds, concepts=())


@pytest.mark.parametrize(
    ("caption", "kinds"),
    [
        ("animal and food", ["animal", "food"]),
        ("Animals, a FLAG.", ["animal", "flag"]),
        ("food food and food", ["food"]),
        ("a hearty meal", []),
        ("", []),
        ("a building, then an animal", ["building", "animal"]),
    ],
)
def test_kinds_are_read_from_captions(caption, kinds):
    assert named_kinds(caption) == kinds


def test_figures_equal_a_count_by_hand():
    truth = [canvas("animal"), canvas("food"), canvas("flag", "hand"), canvas("face", "plant")]
    captions = ["animal and food", "food", "hand", "heart and plant"]
    found = figures(captions, truth)
    assert found.accuracy.value == 3 / 4  # the last one names a heart first
    assert found.hallucination_rate.value == 1 / 2  # of two pictures with one object
    assert found.hallucination_rate.n == 2
    assert found.object_recall.value == 4 / 6
    assert found.caption_words.value == (3 + 1 + 1 + 3) / 4
    assert found.exact.value == 1 / 4


def test_a_wrong_first_kind_beside_the_right_one_counts():
    assert figures(["food and animal"], [canvas("animal")]).hallucination_rate.value == 1
    assert figures(["food"], [canvas("animal")]).hallucination_rate.value == 0


def test_a_repeated_kind_is_no_hallucination():
    assert figures(["animal and animal"], [canvas("animal")]).hallucination_rate.value == 0


def test_standard_error_of_a_rate():
    found = rate([True, True, False, False])
    assert (found.value, found.n) == (0.5, 4)
    assert found.error == pytest.approx((1 / 3) ** 0.5 / 2)


def test_majority_is_the_best_constant_answer():
    truth = [canvas("animal"), canvas("animal", "food"), canvas("flag")]
    assert majority_rate(truth) == 2 / 3


def test_shuffled_captions_all_move():
    captions = [str(n) for n in range(20)]
    mixed = shuffle(captions, seed=0)
    assert sorted(mixed) == sorted(captions)
    assert all(a != b for a, b in zip(captions, mixed, strict=True))


def test_cells_show_mean_and_standard_error_over_seeds():
    assert cell({"accuracy": [0.5, 0.6, 0.7]}, "accuracy") == "60 ± 6"
    assert cell({"caption_words": [1.0, 2.0]}, "caption_words") == "1.50 ± 0.50"
    assert "| right kind first, % | 50 ± 0 |" in markdown({"warmup": {"accuracy": [0.5]}})
