"""Pairs without scores train with the weight of their source, and never open the gate."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from builders import pairs_of, row
from trainers import config, make_trainer

from unidpo_mm.config import ScoreOptions, SourceOptions
from unidpo_mm.config.from_recipe import _loss_of
from unidpo_mm.errors import DataError, RecipeError
from unidpo_mm.losses.uni_dpo import LOSS, UniDPOLossConfig
from unidpo_mm.training.configured_loss import configure_loss
from unidpo_mm.training.startup_checks import score_warnings

Checkpoint = Callable[[str], Path]
NAN = float("nan")


def test_a_pair_without_scores_has_the_configured_weight_and_a_closed_gate() -> None:
    chosen, rejected = [5.0, NAN, 5.0], [1.0, 1.0, NAN]
    pairs = pairs_of([-2.0] * 3, [-2.0] * 3, [-1.0] * 3, [-1.0] * 3, chosen, rejected)
    terms = LOSS.compute(pairs, UniDPOLossConfig(tau_good=3.0, missing_quality=0.25)).terms
    assert terms["w_qual"].tolist() == pytest.approx([1 / (1 + math.exp(-0.7 * 4)), 0.25, 0.25])
    assert terms["nll_gate"].tolist() == [1.0, 0.0, 0.0]


def test_without_a_configured_weight_a_missing_score_makes_the_loss_nan() -> None:
    pairs = pairs_of([-2.0], [-2.0], [-1.0], [-1.0], [NAN], [1.0])
    assert LOSS.compute(pairs, UniDPOLossConfig(tau_good=3.0)).per_unit.isnan().all()


def test_sources_with_and_without_scores_train_in_one_batch(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    rows = [
        row("a", "What?", ("red square", "blue"), (5.0, 1.0), source="scored"),
        row("b", "How?", ("two", "one circle"), (None, None), source="bare"),
    ]
    args = config(tmp_path, loss_by_source={"bare": {"missing_quality": 0.25}}, max_steps=1)
    trainer = make_trainer(checkpoint("llama"), rows, args)
    assert trainer.parts.settings.by_source["bare"]["tau_good"] == float("inf")
    batch = next(iter(trainer.get_train_dataloader()))["batch"]
    output = trainer.preference_step(trainer.model, batch)
    bare = batch.pairs.source == batch.sources.index("bare")
    assert output.loss.terms["w_qual"][bare].tolist() == pytest.approx([0.25])
    assert torch.isfinite(output.loss_sum)
    with pytest.raises(DataError, match="the score is missing"):
        make_trainer(checkpoint("llama"), rows, config(tmp_path))


# ---- scores that do not fit the loss ----


def rows_of(*scores: tuple[float, float]) -> list:
    return [
        row(str(n), f"Question {n}", ("a", "b"), pair, source="s") for n, pair in enumerate(scores)
    ]


SPREAD = [(4.0 + n / 20, 1.0 + n / 10) for n in range(20)]


@pytest.mark.parametrize(
    ("scores", "parameters", "expected"),
    [
        (SPREAD, {}, []),
        ([(a / 10, b / 10) for a, b in SPREAD], {}, ["w_qual is near 0.5", "median margin"]),
        ([(a * 10, b) for a, b in SPREAD], {}, ["w_qual is 1 for nearly all pairs"]),
        (SPREAD, {"tau_good": 8.0}, ["no chosen response is good enough", "range from 4 to 4.95"]),
        (SPREAD, {"tau_good": 0.0}, ["every chosen response is good enough"]),
        (SPREAD, {"tau_good": 8.0, "nll_lambda": 0.0}, []),
        (SPREAD, {"quality_weight": "none", "eta": 0.0}, []),
    ],
    ids=["good", "fractions", "hundreds", "tau high", "tau low", "no nll", "no quality"],
)
def test_scores_on_another_scale_cause_a_warning_with_numbers(
    scores: list, parameters: dict, expected: list[str]
) -> None:
    rows = rows_of(*scores)
    settings = configure_loss("uni_dpo", parameters).with_medians(rows)
    warnings = score_warnings(rows, settings)
    assert len(warnings) == bool(expected)
    for part in expected:
        assert part in warnings[0]


def test_scores_that_hardly_use_their_declared_scale_cause_a_warning() -> None:
    rows = rows_of(*SPREAD)
    settings = configure_loss("uni_dpo", {}).with_medians(rows)
    assert score_warnings(rows, settings, {"s": (0.0, 5.0)}) == []
    (warning,) = score_warnings(rows, settings, {"s": (0.0, 100.0)})
    assert "a small part of the declared scale [0, 100]" in warning


def test_a_loss_without_scores_causes_no_warning() -> None:
    assert score_warnings(rows_of(*SPREAD), configure_loss("dpo", {})) == []


# ---- in a recipe ----


@pytest.mark.parametrize(
    ("loss", "parameters"), [("uni_dpo", {"missing_quality": 0.5}), ("dpo", {}), ("sft", {})]
)
def test_a_recipe_passes_the_weight_to_losses_that_have_one(loss: str, parameters: dict) -> None:
    source = SourceOptions(path="a.jsonl", scores=ScoreOptions(missing=0.5))
    assert _loss_of(source, loss) == parameters


def test_a_loss_that_needs_every_score_is_refused() -> None:
    source = SourceOptions(path="a.jsonl", scores=ScoreOptions(missing=0.5))
    with pytest.raises(RecipeError, match=r"'a', scores.missing: the loss 'mm_dpo' needs"):
        _loss_of(source, "mm_dpo")
