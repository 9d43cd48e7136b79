"""Parameters of the loss that differ by source, and medians of scores."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import batch_of, load_tiny, row
from trainers import config, make_trainer

from unidpo_mm.errors import DataError, RecipeError
from unidpo_mm.losses import hinge
from unidpo_mm.plugins import _load, load_loss
from unidpo_mm.records import LossOutput, Pair, PreferenceRow, SequenceLogps
from unidpo_mm.training.configured_loss import SOURCE_PARAMETERS, configure_loss
from unidpo_mm.training.step import pair_up

Checkpoint = Callable[[str], Path]


def rows_of(source: str, *scores: float | None) -> list[PreferenceRow]:
    return [
        row(f"{source}{n}", f"{source} {n}", ("red square", "blue"), (score, 0.0), source=source)
        for n, score in enumerate(scores)
    ]


def test_parameters_that_are_none_have_the_default_of_the_loss() -> None:
    assert configure_loss("uni_dpo", {"beta": None}).config.beta == 2.0
    assert configure_loss("dpo", {"beta": None}).config.beta == 0.1


def test_the_median_is_over_the_chosen_responses_of_each_source() -> None:
    rows = rows_of("a", 1.0, 2.0, 9.0) + rows_of("b", 4.0, 5.0)
    rows.append(
        row("r", "z", ("p", "q", "s"), (8.0, 6.0, 0.0), source="b", pairs=[Pair(0, 2), Pair(1, 2)])
    )
    settings = configure_loss("uni_dpo", {}).with_medians(rows)
    assert settings.by_source == {"a": {"tau_good": 2.0}, "b": {"tau_good": 5.5}}
    assert isinstance(settings.config.tau_good, float)


def test_a_source_may_set_a_number_while_others_use_medians() -> None:
    rows = rows_of("a", 1.0, 3.0) + rows_of("b", 4.0)
    settings = configure_loss("uni_dpo", {}, {"b": {"tau_good": 8.0, "nll_lambda": 0.2}})
    resolved = settings.with_medians(rows).by_source
    assert resolved == {"a": {"tau_good": 2.0}, "b": {"tau_good": 8.0, "nll_lambda": 0.2}}


def test_a_median_without_scores_is_refused() -> None:
    with pytest.raises(DataError, match=r"source 'a'.*no chosen response has a score"):
        configure_loss("uni_dpo", {}).with_medians(rows_of("a", None))


def test_a_loss_that_needs_no_scores_needs_no_median() -> None:
    settings = configure_loss("uni_dpo", {"quality_weight": "none", "nll_lambda": 0.0})
    resolved = settings.with_medians(rows_of("a", None))
    assert not resolved.loss.needs_scores(resolved.config)
    assert (
        resolved.config.tau_good == math.inf
    )  # no response is good enough: the gate is always closed


def test_a_source_that_enables_the_nll_needs_scores() -> None:
    settings = configure_loss(
        "uni_dpo", {"quality_weight": "none", "nll_lambda": 0.0}, {"a": {"nll_lambda": 0.2}}
    )
    problems = settings.check_rows(rows_of("a", None) + rows_of("b", None))
    assert [p.where for p in problems] == ["data.jsonl row a0, field 'score_chosen'"]


def test_each_pair_has_the_parameters_of_its_source(checkpoint: Checkpoint) -> None:
    loaded = load_tiny(checkpoint("llama"))
    rows = rows_of("a", 1.0) + rows_of("b", 2.0) + rows_of("a", 3.0)
    parameters = {
        "beta": 3.5,
        "eta": 0.1,
        "gamma": 1.0,
        "tau_ref": 0.8,
        "nll_lambda": 0.2,
        "tau_good": 8,
    }
    assert set(parameters) == set(SOURCE_PARAMETERS)
    settings = configure_loss("uni_dpo", {"tau_good": 2.5}, {"b": parameters})
    rows[2] = row("a9", "z", ("p", "q"), (3.0, 1.0), source="a")
    config_ = settings.config_for(batch_of(loaded, rows))
    for name, value in parameters.items():
        common = getattr(settings.config, name)
        assert getattr(config_, name).tolist() == [common, value, common], name
    alone = settings.config_for(batch_of(loaded, rows[:1]))
    assert alone is settings.config


def test_parameters_by_source_reach_the_training_loss(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """Before training, each loss is w_qual w_perf ln 2 with the parameters of the pair's source."""
    rows = rows_of("a", 3.0) + rows_of("b", 3.0)
    kwargs: dict[str, Any] = {
        "tau_good": 2.5,
        "max_steps": 1,
        "loss_by_source": {"b": {"eta": 0.0, "gamma": 0.0}},
    }
    trainer = make_trainer(checkpoint("llama"), rows, config(tmp_path, **kwargs))
    trainer.train()
    batch = trainer.data_collator([trainer.parts.adapter.encode(row) for row in rows])["batch"]
    plain = make_trainer(checkpoint("llama"), rows, config(tmp_path, **kwargs))
    with torch.no_grad():
        output = plain.preference_step(plain.model.eval(), batch)
    pairs = output.pairs
    margin = 2.0 * (pairs.policy_chosen.mean - pairs.policy_rejected.mean)[0]
    first = 1 / (1 + math.exp(-2.1)) * (1 - float(torch.sigmoid(margin - 2.0))) ** 3 * math.log(2)
    expected = [first, 0.5 * math.log(2)]
    assert output.loss.per_pair.tolist() == pytest.approx(expected)
    logged = trainer.state.log_history[0]["loss"]
    assert logged == pytest.approx(sum(expected) / 2, rel=1e-5)


def test_the_record_contains_all_parameters() -> None:
    described = configure_loss("dpo", {"beta": 0.3}, {"b": {"beta": 0.1}}).describe()
    assert described == {
        "name": "dpo",
        "beta": 0.3,
        "label_smoothing": 0.0,
        "length_norm": False,
        "by_source": {"b": {"beta": 0.1}},
    }


def test_a_loss_that_returns_a_mean_is_refused(checkpoint: Checkpoint) -> None:
    """A frequent mistake in custom losses: the mean would be broadcast to all pairs."""
    loaded = load_tiny(checkpoint("llama"))
    batch = batch_of(loaded, rows_of("a", 1.0, 3.0))
    settings = configure_loss("simpo", {})

    def mean(pairs: Any, settings_: Any) -> LossOutput:
        return LossOutput(per_unit=pairs.policy_chosen.mean.mean())

    wrong = dataclasses.replace(settings, loss=dataclasses.replace(settings.loss, compute=mean))
    lengths = batch.targets.lengths.double()
    policy = SequenceLogps(-lengths, lengths)
    pairs = pair_up(policy, None, batch)
    assert settings.compute(policy, pairs, batch).per_unit.shape == (2,)
    with pytest.raises(RecipeError, match=r"simpo': compute returns .* \(\) for 2 pairs"):
        wrong.compute(policy, pairs, batch)


def test_a_loss_is_named_after_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    renamed = dataclasses.replace(hinge.LOSS, name="henge")
    monkeypatch.setattr(hinge, "LOSS", renamed)
    _load.cache_clear()
    with pytest.raises(RecipeError, match=r"'hinge' is the name of .* LOSS.name is 'henge'"):
        load_loss("hinge")
    _load.cache_clear()
