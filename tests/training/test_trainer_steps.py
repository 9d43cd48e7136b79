"""Steps of the trainer: comparison with `preference_step`, exact means, decreasing losses."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import QWEN_TYPES, make_image, mixed_rows, row
from torch import Tensor
from trainers import config, make_trainer, state_of

from unidpo_mm import UniDPOTrainer
from unidpo_mm.config import LoraOptions
from unidpo_mm.records import Pair, PreferenceRow
from unidpo_mm.training.numerical_watch import NonFiniteError

Checkpoint = Callable[[str], Path]


def logged(trainer: UniDPOTrainer, name: str = "loss") -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


# ---- the step by hand ----


def test_responses_in_no_pair_cost_nothing(checkpoint: Checkpoint, tmp_path: Path) -> None:
    scores = (5.0, 3.0, 1.0, 2.0)
    rows = [
        row(f"r{n}", "?", [f"{n} {text}" for text in ("a", "a b", "c", "c d")], scores)
        for n in range(2)
    ]
    all_responses = [dataclasses.replace(item, pairs=(Pair(0, 2),)) for item in rows]
    two = [dataclasses.replace(r, responses=r.responses[::2], pairs=(Pair(0, 1),)) for r in rows]
    results = []
    for name, data in (("all", all_responses), ("two", two)):
        trainer = make_trainer(checkpoint("llama"), data, config(tmp_path / name, max_steps=2))
        (item,) = trainer.get_train_dataloader()
        trainer.train()
        results.append((item["counts"], logged(trainer)))
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("model_type", "loss"),
    [("llava", "uni_dpo"), ("qwen3", "dpo"), ("llava_onevision", "simpo"), ("qwen2_vl", "uni_dpo")],
)
def test_logged_losses_equal_those_of_preference_step(
    checkpoint: Checkpoint, tmp_path: Path, model_type: str, loss: str
) -> None:
    rows = mixed_rows(images=model_type != "qwen3")
    settings = {"loss_type": loss, "max_steps": 5, "learning_rate": 0.05}
    folder = checkpoint(model_type)
    trainer = make_trainer(folder, rows, config(tmp_path, **settings))
    trainer.train()

    by_hand = make_trainer(folder, rows, config(tmp_path, **settings))
    policy = by_hand.model.train()
    trainable = [p for p in policy.parameters() if p.requires_grad]
    losses, margins = [], []
    epoch = 0
    while len(losses) < 5:
        loader = by_hand.get_train_dataloader()
        loader.set_epoch(epoch)
        for item in loader:
            output = by_hand.preference_step(policy, item["batch"])
            mean = output.loss_sum / output.weight.sum()
            policy.zero_grad()
            mean.backward()
            with torch.no_grad():
                for parameter in trainable:
                    if parameter.grad is not None:
                        parameter -= 0.05 * parameter.grad
            losses.append(float(mean.detach()))
            assert output.loss.chosen_rewards is not None
            assert output.loss.rejected_rewards is not None
            margin = output.loss.chosen_rewards - output.loss.rejected_rewards
            margins.append(float((margin * output.weight).sum() / output.weight.sum()))
        epoch += 1
    assert logged(trainer) == pytest.approx(losses[:5], rel=1e-5)  # packed against plain
    assert logged(trainer, "rewards/margins") == pytest.approx(
        margins[:5], rel=1e-5, abs=2e-6
    )  # of float32 log-probs about 5
    assert len({round(value, 6) for value in losses[:5]}) > 1  # the steps differ


# ---- accumulation ----

EQUAL = [
    row("a", "Hello", ("world!", "?"), (4.0, 1.0)),
    row("b", "Compute 3 + 4.", ("The answer is 7.", "Two" * 9), (3.0, 2.0), domain="math"),
    row("c", "What is it?", ("A red square", "Blue"), (5.0, 4.0), images=[make_image(1)]),
    row("d", "Hello " * 9, ("a " * 15, "word"), (2.0, 1.0)),
]
UNEQUAL = [
    row("a", "Hello", ("world!", "?"), (4.0, 1.0)),
    row(
        "b",
        "What is it?",
        ("A red square", "Blue circle there", "no"),
        (5.0, 3.0, 1.0),
        pairs=[Pair(0, 1), Pair(0, 2), Pair(1, 2)],
        images=[make_image(1)],
    ),
    row("c", "Compute", ("7", "8", "9"), (3.0, 2.0, 2.0), pairs=[Pair(0, 1), Pair(0, 2, 0.25)]),
    row("d", "How many?", ("a " * 9, "two", "!"), (3.0, 1.0, 1.0), pairs=[Pair(0, 1), Pair(0, 2)]),
]


def after_three_steps(
    folder: Path,
    output: Path,
    rows: Sequence[PreferenceRow],
    batch_size: int,
    accumulation: int,
    cls: type[UniDPOTrainer] = UniDPOTrainer,
    **settings: Any,
) -> tuple[dict[str, Tensor], list[float]]:
    args = config(
        output,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        learning_rate=0.5,
        max_steps=3,
        max_grad_norm=1.0,
        **settings,
    )
    trainer = make_trainer(folder, rows, args, cls=cls)
    trainer.train()
    assert trainer.state.epoch == 3  # each step saw every row once
    return state_of(trainer), logged(trainer)


def largest_difference(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    assert first.keys() == second.keys()
    return max(float((value - second[name]).abs().max()) for name, value in first.items())


@pytest.mark.parametrize("loss", ["uni_dpo", "sft"])
@pytest.mark.parametrize(
    ("rows", "shapes"),
    [(EQUAL, [(4, 1), (2, 2), (1, 4)]), (UNEQUAL, [(8, 1), (4, 2), (1, 4)])],
    ids=["equal", "unequal"],
)
def test_accumulation_does_not_change_parameters_or_logged_losses(
    checkpoint: Checkpoint,
    tmp_path: Path,
    rows: list[PreferenceRow],
    shapes: list[tuple[int, int]],
    loss: str,
) -> None:
    if loss == "sft":
        shapes = [(len(rows) + 1, 1), (1, len(rows))]  # units are the chosen responses
    results = [
        after_three_steps(checkpoint("llava"), tmp_path / str(shape), rows, *shape, loss_type=loss)
        for shape in shapes
    ]
    first = results[0]
    for other in results[1:]:
        assert largest_difference(first[0], other[0]) < 1e-6
        assert other[1] == pytest.approx(first[1], rel=1e-5)
    start = state_of(make_trainer(checkpoint("llava"), rows, config(tmp_path)))
    assert largest_difference(first[0], start) > 1e-3


@pytest.mark.parametrize("model_type", ["llava_onevision", *QWEN_TYPES])
def test_accumulation_does_not_change_any_family(
    checkpoint: Checkpoint, tmp_path: Path, model_type: str
) -> None:
    folder = checkpoint(model_type)
    single = after_three_steps(folder, tmp_path / "single", UNEQUAL, 8, 1)
    accumulated = after_three_steps(folder, tmp_path / "accumulated", UNEQUAL, 1, 4)
    assert largest_difference(single[0], accumulated[0]) < 1e-6
    assert accumulated[1] == pytest.approx(single[1], rel=1e-5)


class MeanOfMeans(UniDPOTrainer):
    """A trainer with the usual mistake: it averages each micro-batch separately."""

    loss_is_scaled_for_ga = False

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        output = self.preference_step(model, inputs["batch"])
        return output.loss_sum / output.weight.sum() / self.args.gradient_accumulation_steps


def test_the_comparison_detects_a_mean_of_means(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = checkpoint("llava")
    right, _ = after_three_steps(folder, tmp_path / "a", UNEQUAL, 8, 1)
    wrong, _ = after_three_steps(folder, tmp_path / "b", UNEQUAL, 1, 4, cls=MeanOfMeans)
    assert largest_difference(right, wrong) > 1e-5


def test_a_pair_of_weight_zero_changes_nothing(checkpoint: Checkpoint, tmp_path: Path) -> None:
    ignored = row("e", "x", ("yes", "no"), (4.0, 1.0), pairs=[Pair(0, 1, 0.0)])
    with_it, _ = after_three_steps(checkpoint("llava"), tmp_path / "a", [*EQUAL, ignored], 5, 1)
    without, _ = after_three_steps(checkpoint("llava"), tmp_path / "b", EQUAL, 5, 1)
    assert largest_difference(with_it, without) < 1e-6


@pytest.mark.parametrize("loss", ["uni_dpo", "sft"])
def test_a_step_with_only_zero_weights_does_not_change_the_model(
    checkpoint: Checkpoint, tmp_path: Path, loss: str
) -> None:
    ignored = row("e", "x", ("yes", "no"), (4.0, 1.0), pairs=[Pair(0, 1, 0.0)])
    settings = {"per_device_train_batch_size": 1, "max_steps": 2, "loss_type": loss}
    with_it = make_trainer(checkpoint("llama"), [EQUAL[0], ignored], config(tmp_path, **settings))
    with_it.train()
    steps = 2 if loss == "sft" else 1  # sft has no target in the ignored row: both steps are EQUAL
    settings["max_steps"] = steps
    without = make_trainer(checkpoint("llama"), [EQUAL[0]], config(tmp_path, **settings))
    without.train()
    assert largest_difference(state_of(with_it), state_of(without)) < 1e-7


def test_a_pair_of_weight_two_counts_as_two_pairs(checkpoint: Checkpoint, tmp_path: Path) -> None:
    heavy = row("a", "Hello", ("world!", "?"), (4.0, 1.0), pairs=[Pair(0, 1, 2.0)])
    twin = row("e", "Hello", ("world!", "?"), (4.0, 1.0))
    weighted, _ = after_three_steps(checkpoint("llava"), tmp_path / "a", [heavy, *EQUAL[1:]], 9, 1)
    doubled, _ = after_three_steps(checkpoint("llava"), tmp_path / "b", [*EQUAL, twin], 9, 1)
    assert largest_difference(weighted, doubled) < 1e-6


# ---- decreasing losses ----


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("model_type", ["llama", "llava"])
def test_a_tiny_batch_is_memorized(
    checkpoint: Checkpoint, tmp_path: Path, model_type: str, lora: bool
) -> None:

    rows = EQUAL if model_type == "llava" else [EQUAL[0], EQUAL[1], EQUAL[3]]
    args = config(
        tmp_path,
        per_device_train_batch_size=4,
        max_steps=25,
        learning_rate=1e-2,
        optim="adamw_torch",
    )
    trainer = make_trainer(
        checkpoint(model_type), rows, args, peft_config=LoraOptions(r=8) if lora else None
    )
    trainer.train()
    losses, accuracies = logged(trainer), logged(trainer, "rewards/accuracies")
    assert accuracies[0] == 0.0  # policy and reference are equal: a tie is wrong
    assert accuracies[-1] == 1.0
    assert losses[-1] < losses[0] / 3
    assert logged(trainer, "w_perf")[-1] < logged(trainer, "w_perf")[0]


@pytest.mark.parametrize("kind", ["single responses", "pairs"])
def test_sft_learns_the_chosen_responses(checkpoint: Checkpoint, tmp_path: Path, kind: str) -> None:
    rows = EQUAL
    if kind == "single responses":
        rows = [row.for_responses() for row in EQUAL]
        assert all(not row.pairs and len(row.responses) == 1 for row in rows)
    args = config(
        tmp_path,
        loss_type="sft",
        per_device_train_batch_size=4,
        max_steps=15,
        learning_rate=1e-2,
        optim="adamw_torch",
    )
    trainer = make_trainer(checkpoint("llava"), rows, args)
    assert trainer.parts.reference is None
    trainer.train()
    losses = logged(trainer)
    assert losses[-1] < losses[0] / 2
    assert losses[0] > math.log(2)


def test_sft_on_pairs_starts_at_the_mean_loss_of_the_chosen_responses(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    args = config(tmp_path, loss_type="sft", per_device_train_batch_size=9, max_steps=1)
    trainer = make_trainer(checkpoint("llava"), EQUAL, args)
    trainer.train()
    pairs = make_trainer(checkpoint("llava"), EQUAL, config(tmp_path, loss_type="dpo"))
    batch = pairs.data_collator([pairs.parts.adapter.encode(row) for row in EQUAL])["batch"]
    with torch.no_grad():
        chosen = pairs.preference_step(pairs.model, batch).pairs.policy_chosen.mean
    assert logged(trainer)[0] == pytest.approx(-float(chosen.mean()), rel=1e-6)


def test_a_nan_loss_ends_the_run(checkpoint: Checkpoint, tmp_path: Path) -> None:
    trainer = make_trainer(checkpoint("llama"), [EQUAL[0]], config(tmp_path, max_steps=1))
    with torch.no_grad():
        trainer.model.get_parameter("model.lm_head.weight").fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="the loss is not finite"):
        trainer.train()


def test_the_log_contains_pace_and_time_left(checkpoint: Checkpoint, tmp_path: Path) -> None:
    trainer = make_trainer(checkpoint("llama"), [EQUAL[0]], config(tmp_path, max_steps=2))
    trainer.train()
    assert all(pace > 0 for pace in logged(trainer, "pairs_per_second"))
    assert logged(trainer, "seconds_left")[-1] == 0.0
