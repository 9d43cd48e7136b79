"""Gumbel noise by hash: exact sampling, independent of batches, positions and other responses."""

import math
from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from unidpo_mm.inference.decoding import Sampling
from unidpo_mm.inference.noise import gumbel_noise, noise_key, sampling_processors

TOKENS = torch.arange(5000)


def keys(count: int, prompt: str = "p") -> list[int]:
    return [noise_key(0, prompt, number) for number in range(count)]


def test_it_has_the_distribution_of_gumbel() -> None:
    noise = gumbel_noise(keys(40), 3, TOKENS)
    assert noise.dtype is torch.float32
    assert float(noise.mean()) == pytest.approx(0.5772, abs=0.01)
    assert float(noise.var()) == pytest.approx(math.pi**2 / 6, abs=0.02)
    assert bool(noise.isfinite().all())


def test_neighbors_are_independent() -> None:
    rows = torch.cat([gumbel_noise(keys(6), position, TOKENS) for position in range(6)])
    correlation = torch.corrcoef(rows).fill_diagonal_(0).abs().max()
    assert float(correlation) < 0.06  # 4 standard errors of 5,000 tokens
    shifted = torch.corrcoef(torch.stack([rows[0, 1:], rows[0, :-1]]))[0, 1]
    assert abs(float(shifted)) < 0.06


def test_it_depends_on_seed_prompt_number_and_position_only() -> None:
    alone = gumbel_noise([noise_key(0, "p", 2)], 1, TOKENS)
    assert torch.equal(gumbel_noise(keys(5), 1, TOKENS)[2:3], alone)
    assert torch.equal(gumbel_noise([noise_key(0, "p", 2)], 1, TOKENS[:10]), alone[:, :10])
    others = [
        gumbel_noise([key], position, TOKENS)
        for key, position in (
            (noise_key(1, "p", 2), 1),
            (noise_key(0, "q", 2), 1),
            (noise_key(0, "p", 3), 1),
            (noise_key(0, "p", 2), 2),
        )
    ]
    assert not any(torch.equal(alone, other) for other in others)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1.0),
        Sampling(temperature=0.5),
        Sampling(temperature=1.5, top_k=7),
        Sampling(temperature=1.0, top_p=0.8),
        Sampling(temperature=1.0, min_p=0.1),
        Sampling(temperature=1.3, top_k=12, top_p=0.9, min_p=0.02),
    ],
)
def test_the_arg_max_is_a_sample_of_the_limited_softmax(sampling: Sampling) -> None:
    torch.manual_seed(1)
    logits: Any = torch.randn(1, 24) * 2
    ids: Any = torch.zeros(1, 5, dtype=torch.long)
    *limits, _noise = sampling_processors(sampling, [0], 5)
    expected = logits
    for processor in limits:
        expected = processor(ids, expected)
    rows = 1000
    draws = torch.cat(
        [
            sampling_processors(sampling, keys(rows, f"p{block}"), 5)(
                ids.expand(rows, -1), logits.expand(rows, -1)
            ).argmax(1)
            for block in range(20)
        ]
    )
    counts = torch.bincount(draws, minlength=24).double()
    probability = expected.double().softmax(-1)[0]
    assert bool((counts[probability == 0] == 0).all())
    possible = probability > 1e-4
    merged = [*counts[possible].tolist(), float(counts[~possible].sum())]
    expected_counts = [*(probability[possible] * len(draws)).tolist()]
    expected_counts.append(len(draws) - sum(expected_counts))
    if expected_counts[-1] < 1:  # too few for the test
        merged, expected_counts = merged[:-1], expected_counts[:-1]
        total = sum(merged) / sum(expected_counts)
        expected_counts = [count * total for count in expected_counts]
    assert chisquare(merged, expected_counts).pvalue > 0.001
    wrong = torch.roll(probability, 1)[possible] * len(draws) + 1e-3
    wrong = wrong / wrong.sum() * sum(counts[possible].tolist())
    assert chisquare(counts[possible].tolist(), wrong.tolist()).pvalue < 1e-6  # the control
