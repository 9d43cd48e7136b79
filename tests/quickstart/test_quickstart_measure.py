"""Metrics of captions equal values computed by hand."""

from pathlib import Path

import pytest
from unidpo_mm_eval.benchmarks.quickstart import named_kinds
from unidpo_mm_quickstart.captions import caption_metrics, majority_rate, rate, shuffle
from unidpo_mm_quickstart.images import Canvas
from unidpo_mm_quickstart.pipeline import PairResult
from unidpo_mm_quickstart.runner import DemoRunner, values_of


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


def test_metrics_equal_a_count_by_hand():
    truth = [canvas("animal"), canvas("food"), canvas("flag", "hand"), canvas("face", "plant")]
    captions = ["animal and food", "food", "hand", "heart and plant"]
    actual = caption_metrics(captions, truth)
    assert actual.accuracy.value == 3 / 4  # the last caption names a heart first
    assert actual.hallucination_rate.value == 1 / 2  # of two images with one object
    assert actual.hallucination_rate.n == 2
    assert actual.object_recall.value == 4 / 6
    assert actual.caption_words.value == (3 + 1 + 1 + 3) / 4
    assert actual.exact.value == 1 / 4


def test_a_wrong_first_kind_is_a_hallucination_even_next_to_the_right_one():
    assert caption_metrics(["food and animal"], [canvas("animal")]).hallucination_rate.value == 1
    assert caption_metrics(["food"], [canvas("animal")]).hallucination_rate.value == 0


def test_a_repeated_kind_is_not_a_hallucination():
    assert caption_metrics(["animal and animal"], [canvas("animal")]).hallucination_rate.value == 0


def test_standard_error_of_a_rate():
    actual = rate([True, True, False, False])
    assert (actual.value, actual.n) == (0.5, 4)
    assert actual.error == pytest.approx((1 / 3) ** 0.5 / 2)


def test_the_majority_rate_is_that_of_the_best_constant_caption():
    truth = [canvas("animal"), canvas("animal", "food"), canvas("flag")]
    assert majority_rate(truth) == 2 / 3


def test_shuffling_moves_every_caption():
    captions = [str(n) for n in range(20)]
    mixed = shuffle(captions, seed=0)
    assert sorted(mixed) == sorted(captions)
    assert all(a != b for a, b in zip(captions, mixed, strict=True))


def test_the_values_of_a_model_equal_a_count_by_hand():
    actual = caption_metrics(
        ["animal and food", "food"], [canvas("animal"), canvas("food", "hand")]
    )
    pairs = {
        "a": PairResult(domain="multimodal", correct=True, chosen_logp=-1.0),
        "b": PairResult(domain="math", correct=False, chosen_logp=-2.0),
        "c": PairResult(domain="text", correct=True, chosen_logp=-3.0),
        "d": PairResult(domain="text", correct=False, chosen_logp=-6.0),
    }
    values = values_of(actual, pairs)
    assert list(values) == list(DemoRunner.metrics)
    assert values["hallucination_rate"] == 1.0
    assert values["object_recall"] == 2 / 3
    expected = {"all": 0.5, "multimodal": 1.0, "math": 0.0, "text": 0.5}
    assert {domain: values[f"pairs_{domain}"] for domain in expected} == expected
    assert values["chosen_logp"] == -3.0
