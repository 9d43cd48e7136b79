"""Metrics are weighted means over all pairs and over those of each domain."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from builders import encoded, mixed_rows, pairs_of

from unidpo_mm.data.collate import collate
from unidpo_mm.plugins import load_loss
from unidpo_mm.records import GroupBatch, LossOutput, SequenceLogps
from unidpo_mm.training.metrics import MetricSums, pair_values
from unidpo_mm.training.step import StepOutput
from unidpo_mm.training.throughput import Throughput

LOSS = load_loss("uni_dpo")


@pytest.fixture
def batch(unchanged: Any) -> GroupBatch:
    loaded = unchanged("llava")
    groups = encoded(loaded, mixed_rows(images=True))
    groups[0] = dataclasses.replace(groups[0], weight=0.0)  # a filler
    return collate(groups, pad_token_id=loaded.adapter.pad_token_id)


def output_for(batch: GroupBatch, *, reference: bool = True) -> StepOutput:
    draw = torch.Generator().manual_seed(0)
    count = len(batch.pairs)

    def numbers() -> torch.Tensor:
        return torch.randn(count, generator=draw, dtype=torch.float64)

    pairs = pairs_of(*(numbers() for _ in range(6)), weight=batch.pairs.weight)
    if not reference:
        pairs = dataclasses.replace(pairs, reference_chosen=None, reference_rejected=None)
    loss = LossOutput(
        per_unit=numbers(),
        chosen_rewards=numbers(),
        rejected_rewards=numbers(),
        terms={name: numbers() for name in LOSS.terms},
    )
    return StepOutput(loss, batch.pairs.weight, SequenceLogps(numbers(), torch.ones(count)), pairs)


def means_one_by_one(batch: GroupBatch, output: StepOutput) -> dict[str, float]:
    """Return the means, with a loop over metrics, domains and pairs."""
    values = {"loss": output.loss.per_unit, **pair_values(output)}
    means = {}
    for group in ("all", *dict.fromkeys(batch.pairs.domains)):
        for name, column in values.items():
            counted = [
                (float(value), float(weight))
                for value, weight, domain in zip(
                    column, batch.pairs.weight, batch.pairs.domains, strict=True
                )
                if weight > 0 and group in ("all", domain)
            ]
            if counted:
                total = sum(value * weight for value, weight in counted)
                key = name if group == "all" else f"{group}/{name}"
                means[key] = total / sum(weight for _, weight in counted)
    return means


@pytest.mark.parametrize("reference", [True, False])
def test_means_are_those_of_a_loop_over_pairs(batch: GroupBatch, reference: bool) -> None:
    output = output_for(batch, reference=reference)
    sums = MetricSums(LOSS)
    sums.on_step(batch, output)
    means = sums.means()
    expected = means_one_by_one(batch, output)
    shared = expected.keys() & means.keys()
    assert len(shared) > 40
    assert ("logps/chosen_change" in means) is reference
    assert {name: means[name] for name in shared} == pytest.approx(
        {name: expected[name] for name in shared}, rel=1e-12
    )


def test_batches_add_up(batch: GroupBatch) -> None:
    output = output_for(batch)
    once, twice = MetricSums(LOSS), MetricSums(LOSS)
    once.on_step(batch, output)
    for _ in range(2):
        twice.on_step(batch, output)
    assert torch.equal(twice.table, 2 * once.table)


def test_a_nan_stays_in_its_domain(batch: GroupBatch) -> None:
    output = output_for(batch)
    place = batch.pairs.domains.index("math")
    output.loss.per_unit[place] = math.nan
    sums = MetricSums(LOSS)
    sums.on_step(batch, output)
    means = sums.means()
    assert math.isnan(means["math/loss"])
    assert math.isfinite(means["multimodal/loss"])
    assert math.isnan(means["loss"])


def test_throughput_reads_counts_when_it_is_measured() -> None:
    meter = Throughput()
    meter.start_step(0)
    for _ in range(2):  # units, tokens, positions, targets, images
        meter.count(torch.tensor([3.0, 80.0, 100.0, 20.0, 0.0], dtype=torch.float64))
    logs = meter.measure(1, 2, "pair")
    assert logs["padding"] == 0.2
    assert logs["tokens_per_second"] / logs["pairs_per_second"] == pytest.approx(80 / 3, rel=0.1)
    assert "images_per_second" not in logs
    again = meter.measure(1, 2, "pair")
    assert again["pairs_per_second"] == 0
    assert "tokens_per_second" not in again
