"""Rules and limits of pairs, as properties and against brute force."""

import itertools
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unidpo_mm.data.pairing import (
    MIN_FOR_SIGMA,
    RULES,
    IndexPair,
    Rated,
    balanced,
    form_pairs,
    lengths_agree,
    limited,
    without_contained,
    without_small_margins,
    without_uneven_lengths,
)

TEXTS = st.sampled_from(["a", "b", " b", "c ", "c", "a b", "d", "e"])
RATED = st.builds(
    Rated,
    text=TEXTS,
    score=st.none() | st.sampled_from([0.0, 0.1, 0.3, 1.0, 5.0]),
    right=st.none() | st.booleans(),
    length=st.integers(1, 50),
    choosable=st.booleans(),
    rejectable=st.booleans(),
)
GROUPS = st.lists(RATED, min_size=0, max_size=20)


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=500, deadline=None)
@given(responses=GROUPS, key=st.text(max_size=3))
def test_every_pair_has_two_responses_with_falling_scores(
    rule: str, responses: list[Rated], key: str
) -> None:
    before = list(responses)
    pairs = form_pairs(responses, rule, key=key)
    for chosen, rejected in pairs:
        better, worse = responses[chosen], responses[rejected]
        assert better.text.strip() != worse.text.strip()
        assert better.score is not None
        assert worse.score is not None
        assert better.score > worse.score
        assert better.choosable
        assert worse.rejectable
    assert pairs == form_pairs(responses, rule, key=key)
    assert len(set(pairs)) == len(pairs)
    assert responses == before


def rated(*scores: float | None, **options: Sequence[object]) -> list[Rated]:
    texts = [f"response {n}" for n in range(len(scores))]
    fields = [{name: values[n] for name, values in options.items()} for n in range(len(scores))]
    return [
        Rated(**{"text": text, "score": score, **field})  # type: ignore[arg-type] # of test values
        for text, score, field in zip(texts, scores, fields, strict=True)
    ]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("all", [(1, 0), (1, 2), (1, 3), (0, 2), (3, 2)]),
        ("best_vs_worst", [(1, 2)]),
        ("adjacent", [(1, 0), (3, 2)]),
        ("right_vs_wrong", [(1, 2), (3, 2)]),
        ("right_vs_weaker", [(1, 3)]),
        ("best_vs_sigma", []),
    ],
)
def test_rules(rule: str, expected: list[IndexPair]) -> None:
    responses = rated(2.0, 5.0, 1.0, 2.0, None, right=[None, True, False, True, False])
    assert sorted(form_pairs(responses, rule)) == sorted(expected)


def test_a_response_that_may_not_be_chosen_is_skipped() -> None:
    responses = rated(5.0, 4.0, 1.0, choosable=[False, True, True], rejectable=[True, True, False])
    assert form_pairs(responses, "best_vs_worst") == []  # the best of the choosable is the worst
    responses = rated(5.0, 4.0, 1.0, choosable=[False, True, True])
    assert form_pairs(responses, "best_vs_worst") == [(1, 2)]


def test_a_random_response_depends_on_the_key_alone() -> None:
    responses = rated(*map(float, range(10)))
    drawn = {form_pairs(responses, "best_vs_random", key=str(n))[0] for n in range(60)}
    assert {chosen for chosen, _ in drawn} == {9}
    assert len({rejected for _, rejected in drawn}) == 9


def test_two_standard_deviations_below_the_mean() -> None:
    scores = [0.0, *([9.0] * 7), *([11.0] * 8), 6.0]
    responses = rated(*scores)
    assert len(scores) > MIN_FOR_SIGMA
    ((chosen, rejected),) = form_pairs(responses, "best_vs_sigma")
    assert (scores[chosen], scores[rejected]) == (11.0, 6.0)  # mean 9.1, deviation 2.5


def test_limits_within_a_prompt() -> None:
    responses = [
        Rated(text="yes", score=3.0, length=10),
        Rated(text="yes, it is", score=2.9, length=30),
        Rated(text="no", score=1.0, length=100),
    ]
    pairs = [(0, 1), (0, 2), (1, 2)]
    assert without_small_margins(responses, pairs, 0.1) == pairs  # 3 - 2.9 is 0.1000...09
    assert without_small_margins(responses, pairs, 1.95) == [(0, 2)]
    assert without_contained(responses, pairs) == [(0, 2), (1, 2)]
    assert without_uneven_lengths(responses, pairs, 0.3, 3.0) == [(0, 1), (1, 2)]
    assert limited(responses, pairs, 2) == [(0, 2), (1, 2)]


def test_equal_margins_are_drawn() -> None:
    responses = rated(1.0, 1.0, 0.0, 0.0)
    pairs = form_pairs(responses, "all")
    drawn = {limited(responses, pairs, 1, key=str(n))[0] for n in range(40)}
    assert drawn == set(pairs)


def smallest_number_dropped(lengths: Sequence[tuple[int, int]], tolerance: float) -> int:
    for kept in range(len(lengths), 0, -1):
        for numbers in itertools.combinations(range(len(lengths)), kept):
            chosen, rejected = (sum(lengths[n][side] for n in numbers) for side in (0, 1))
            if lengths_agree(chosen, rejected, tolerance):
                return len(lengths) - kept
    return len(lengths)


@pytest.mark.parametrize("block", range(10))
def test_balanced_lengths_are_near_the_optimum(block: int) -> None:
    for case in range(20):
        draw = random.Random(20 * block + case)
        offset = draw.choice([0, 0, 20, -10])
        lengths = [
            (max(draw.randint(1, 60) + offset, 1), draw.randint(1, 60))
            for _ in range(draw.randint(1, 11))
        ]
        tolerance = draw.choice([0.02, 0.05, 0.1])
        kept = balanced(lengths, tolerance, key=str(case))
        chosen, rejected = (sum(lengths[n][side] for n in kept) for side in (0, 1))
        assert not kept or lengths_agree(chosen, rejected, tolerance)
        dropped = len(lengths) - len(kept)
        assert dropped <= smallest_number_dropped(lengths, tolerance) + 2
        assert kept == balanced(lengths, tolerance, key=str(case))


def test_pairs_of_the_longer_side_are_dropped() -> None:
    lengths = [(100, 50)] * 10 + [(60, 60)] * 90
    kept = balanced(lengths, 0.05)
    assert set(range(10, 100)) <= set(kept)
    assert 93 <= len(kept) <= 96  # 100 n + 60 * 90 <= 1.05 (50 n + 60 * 90)


def test_the_released_scripts_toy_set() -> None:
    """200 prompts, of whose pairs the released script made 113 with equal texts."""
    draw = random.Random(0)
    groups = [
        rated(*(float(draw.choice([0, 0, 10])) for _ in range(4)), right=[True] * 4)
        for _ in range(200)
    ]
    for number, group in enumerate(groups):
        groups[number] = [
            Rated(text=f"{draw.randint(0, 2)}", score=item.score, right=bool(item.score))
            for item in group
        ]
    for rule in ("right_vs_wrong", "best_vs_worst", "all"):
        for group in groups:
            for chosen, rejected in form_pairs(group, rule):
                assert group[chosen].text != group[rejected].text
