"""The ranking of suspected label errors, on constructed margins with planted errors."""

from pathlib import Path

import numpy
import polars as pl
import pytest

from unidpo_mm.ledger.tables import SUSPECTED, Ledger, top_pairs

PAIRS, SWAPPED = 400, 40


def ledger(skill: float, *, seed: int = 0, epochs: int = 2) -> tuple[Ledger, set[str]]:
    """Return visits in which the policy ranks pairs with a skill, and the swapped pairs.

    One of the two sources has margins of ten times the size.
    """
    draw = numpy.random.default_rng(seed)
    frames = []
    swapped = draw.permutation(PAIRS) < SWAPPED
    for epoch in range(epochs):
        size = numpy.where(numpy.arange(PAIRS) % 2, 10.0, 1.0)
        margin = size * (skill * numpy.where(swapped, -1, 1) + draw.normal(0, 0.5, PAIRS))
        frames.append(
            pl.DataFrame(
                {
                    "step": epoch * PAIRS // 8 + numpy.arange(PAIRS) // 8 + 1,
                    "rank": [0] * PAIRS,
                    "position": numpy.arange(PAIRS) % 8,
                    "pair_id": [f"pair-{n}" for n in range(PAIRS)],
                    "row_id": [f"row-{n}" for n in range(PAIRS)],
                    "applied": [True] * PAIRS,
                    "source": ["large" if n % 2 else "small" for n in range(PAIRS)],
                    "domain": ["text"] * PAIRS,
                    "score_margin": [1.0] * PAIRS,
                    "reward_margin": margin,
                    "policy_chosen_logp": 7 * margin,
                    "policy_rejected_logp": [0.0] * PAIRS,
                    "chosen_length": [7.0] * PAIRS,
                    "rejected_length": [3.0] * PAIRS,
                    "pair_weight": [1.0] * PAIRS,
                    "contribution": [1.0] * PAIRS,
                }
            )
        )
    opened = Ledger(Path("run"), pl.concat(frames).lazy(), (), {}, "pair")
    return opened, {f"pair-{n}" for n in numpy.flatnonzero(swapped)}


def test_swapped_pairs_of_every_source_are_listed() -> None:
    opened, swapped = ledger(1.0)
    listed = top_pairs(opened, "suspected", limit=None)
    right = [name in swapped for name in listed["pair_id"]]
    assert sum(right) >= 0.9 * SWAPPED
    assert sum(right) >= 0.9 * len(right)
    assert set(listed["source"]) == {"small", "large"}
    assert (listed["suspicion"] > SUSPECTED).all()


def test_a_policy_that_cannot_rank_the_pairs_accuses_hardly_any() -> None:
    counts = [
        len(top_pairs(ledger(0.0, seed=seed)[0], "suspected", limit=None)) for seed in range(5)
    ]
    assert max(counts) < 0.1 * PAIRS


def test_more_visits_make_more_certain() -> None:
    recalls = []
    for epochs in (1, 4):
        opened, swapped = ledger(0.5, epochs=epochs)
        listed = top_pairs(opened, "suspected", limit=None)["pair_id"]
        recalls.append(len(swapped & set(listed)) / SWAPPED)
    assert recalls[1] > recalls[0] + 0.2


def test_the_ratio_is_that_of_two_normal_distributions() -> None:
    opened, _ = ledger(1.0, epochs=1)
    visits = opened.visits.collect()
    ranked = dict(top_pairs(opened, "suspected", limit=None).select("pair_id", "suspicion").rows())
    name = next(iter(ranked))
    window = (pl.col("step") - 1) * (PAIRS // 64) // (PAIRS // 8)
    row = visits.with_columns(window=window).filter(pl.col("pair_id") == name)
    same = visits.with_columns(window=window).filter(
        (pl.col("window") == row["window"]) & (pl.col("source") == row["source"])
    )
    margins = (same["policy_chosen_logp"] / 7).to_numpy()
    mean, deviation = margins.mean(), margins.std(ddof=1)
    margin = row["policy_chosen_logp"][0] / 7

    def log_density(center: float) -> float:
        return float(-((margin - center) ** 2) / (2 * deviation**2))

    assert ranked[name] == pytest.approx(log_density(-mean) - log_density(mean))
