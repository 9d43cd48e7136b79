"""Alarms: each one is raised by a small run that provokes it, at its end and in the log."""

import html
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trainers import config, make_trainer

from unidpo_mm.ledger.alarms import find_alarms, read_visits
from unidpo_mm.records import Message, Pair, PreferenceRow, Response

Checkpoint = Callable[[str], Path]

UNI_DPO = {"name": "uni_dpo", "tau_good": 3.0, "nll_lambda": 1e-6}


def rows(
    responses: Callable[[int], tuple[str, str]],
    scores: Callable[[int], tuple[float, float]] = lambda number: (4.0, 2.0),
    weights: Callable[[int], float] = lambda number: 1.0,
) -> list[PreferenceRow]:
    """Return 16 rows of two sources with these responses and scores."""
    return [
        PreferenceRow(
            id=f"r{number}",
            domain="text",
            source="even" if number % 2 == 0 else "odd",
            where=f"row {number}",
            messages=(Message("user", (f"What is {number}?",)),),
            responses=tuple(
                Response(text, score)
                for text, score in zip(responses(number), scores(number), strict=True)
            ),
            pairs=(Pair(0, 1, weights(number)),),
        )
        for number in range(16)
    ]


def ordinary(number: int) -> tuple[str, str]:
    return f"The answer is {number}.", "Hello, world!"


def displaced(number: int) -> tuple[str, str]:
    """A rejected response that repeats the chosen one: lowering it lowers both."""
    return "no", "no no no no no no no no"


def disputed(number: int) -> tuple[str, str]:
    """A chosen response that one row with a large weight rejects."""
    return ("no", "yes yes") if number else ("Hello, world!", "no")


def of_growing_length(number: int) -> tuple[str, str]:
    return "yes " * (number + 1), "Hello, world!"


def of_growing_margin(number: int) -> tuple[float, float]:
    return 1.0 + number / 4, 1.0


def one_side_against_its_scores(number: int) -> tuple[float, float]:
    return (4.0, 1.0) if number % 2 else (1.0, 4.0)


DISPUTED = rows(disputed, weights=lambda number: 1.0 if number else 60.0)

ALL_IN_ONE_STEP: dict[str, Any] = {"per_device_train_batch_size": 16, "learning_rate": 0.004}

PROVOKED: dict[str, tuple[list[PreferenceRow], dict[str, Any]]] = {
    "chosen log-probs fall": (
        rows(displaced),
        {"loss": {"name": "dpo", "beta": 0.1}, "learning_rate": 0.3},
    ),
    "contributions collapse": (
        rows(ordinary),
        {"loss": {"name": "dpo", "beta": 2.0}, "learning_rate": 0.1},
    ),
    "gate always open": (DISPUTED, {"loss": UNI_DPO, **ALL_IN_ONE_STEP}),
    "gate never open": (DISPUTED, {"loss": {**UNI_DPO, "tau_good": 50.0}, **ALL_IN_ONE_STEP}),
    "one part of the data dominates": (
        rows(ordinary, one_side_against_its_scores),
        {"loss": {**UNI_DPO, "eta": 1.5}},
    ),
    "score range unfit for eta": (rows(ordinary), {"loss": {**UNI_DPO, "eta": 20.0}}),
    "weights depend on length": (
        rows(of_growing_length, of_growing_margin),
        {"loss": {**UNI_DPO, "performance_weight": "none"}},
    ),
}


FAST = ("chosen log-probs fall", "gate always open")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in PROVOKED],
)
def test_a_small_run_raises_the_alarm(
    checkpoint: Checkpoint, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    data, settings = PROVOKED[name]
    args = config(
        tmp_path,
        **{
            "per_device_train_batch_size": 8,
            "max_steps": 16,
            "learning_rate": 1e-3,
            "save_strategy": "no",
            **settings,
        },
    )
    trainer = make_trainer(checkpoint("llama"), data, args)
    with caplog.at_level(logging.WARNING):
        trainer.train()
    raised = {alarm.name: alarm for alarm in find_alarms(read_visits(tmp_path / "ledger"))}
    assert name in raised
    assert raised[name].advice in caplog.text
    page = html.unescape((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert raised[name].message in page


def test_the_same_run_with_usual_settings_raises_none(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    args = config(
        tmp_path,
        loss={**UNI_DPO, "nll_lambda": 1.0},
        per_device_train_batch_size=8,
        max_steps=16,
        learning_rate=1e-3,
    )
    make_trainer(checkpoint("llama"), rows(ordinary), args).train()
    assert find_alarms(read_visits(tmp_path / "ledger")) == []
