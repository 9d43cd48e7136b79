"""Metrics of an evaluation, in total and by domain, and generated responses."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import make_image, mixed_rows, row
from trainers import config, make_trainer

from unidpo_mm import UniDPOTrainer
from unidpo_mm.config import LoraOptions
from unidpo_mm.data.workers import batch_of
from unidpo_mm.errors import DataError
from unidpo_mm.modeling.logp_model import compute_logps
from unidpo_mm.records import Pair, PreferenceRow
from unidpo_mm.training.evaluation import evaluate_pairs
from unidpo_mm.training.metrics import PAIR_METRICS, MetricSums

Checkpoint = Callable[[str], Path]

SETTINGS = {"beta": 2.0, "eta": 0.7, "gamma": 3.0, "tau_ref": 1.0, "nll_lambda": 0.2, "tau_good": 3}


def moved_trainer(folder: Path, output: Path, rows: Any, **settings: Any) -> UniDPOTrainer:
    """Return a trainer whose policy differs from its reference, with batches of unequal size."""
    args = config(output, **{**SETTINGS, "per_device_eval_batch_size": 3, **settings})
    trainer = make_trainer(folder, rows, args, eval_dataset=list(rows))
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.03 * torch.randn_like(parameter))
    return trainer


def by_hand(trainer: UniDPOTrainer, rows: Sequence[PreferenceRow]) -> dict[str, float]:
    """Return means over all pairs, computed pair by pair in NumPy from one row at a time."""
    trainer.model.eval()
    values: dict[str, list[float]] = {}
    weights: list[float] = []

    def add(**metrics: float) -> None:
        for name, value in metrics.items():
            values.setdefault(name, []).append(value)

    for example in rows:
        group = trainer.parts.adapter.encode(example)
        batch = trainer.data_collator([group])["batch"]
        assert trainer.parts.reference is not None
        with torch.no_grad():
            policy = compute_logps(trainer.model, trainer.parts.adapter, batch)
            reference = trainer.parts.reference.token_logps(trainer.model, batch)
        lengths = [ids.numel() for ids in group.response_ids]
        p = [part.double().mean().item() for part in policy.split(lengths)]
        q = [part.double().mean().item() for part in reference.split(lengths)]
        for pair in example.pairs:
            w, l = pair.chosen, pair.rejected  # noqa: E741 - the paper's letters
            s_w, s_l = example.responses[w].score, example.responses[l].score
            assert s_w is not None
            assert s_l is not None
            margin = 2.0 * (p[w] - q[w] - p[l] + q[l])
            w_qual = 1 / (1 + np.exp(-0.7 * (s_w - s_l)))
            w_perf = (1 - 1 / (1 + np.exp(-(2.0 * (p[w] - p[l]) - 1.0)))) ** 3
            gate = float(q[w] > p[w] and s_w >= 3)
            plain = np.log1p(np.exp(-margin))
            add(
                **{
                    "loss": w_qual * w_perf * plain - 0.2 * gate * p[w],
                    "rewards/chosen": 2.0 * (p[w] - q[w]),
                    "rewards/rejected": 2.0 * (p[l] - q[l]),
                    "rewards/margins": margin,
                    "rewards/accuracies": float(margin > 0),
                    "unweighted_loss": plain,
                    "logps/chosen": p[w],
                    "logps/rejected": p[l],
                    "logps/accuracies": float(p[w] > p[l]),
                    "logps/chosen_change": p[w] - q[w],
                    "w_qual": w_qual,
                    "w_perf": w_perf,
                    "nll_gate": gate,
                    "weight": w_qual * w_perf,
                    "weight_squared": (w_qual * w_perf) ** 2,
                }
            )
            weights.append(pair.weight)
    weight = np.array(weights)
    means = {name: float((np.array(x) * weight).sum() / weight.sum()) for name, x in values.items()}
    first, squared = means.pop("weight"), means.pop("weight_squared")
    means["effective_sample_size"] = float(weight.sum() * first**2 / squared)
    return means


@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize("model_type", ["llava", "llava_onevision", "qwen2_5_vl"])
def test_metrics_equal_a_computation_by_hand_in_total_and_by_domain(
    checkpoint: Checkpoint, tmp_path: Path, model_type: str, batch_size: int
) -> None:
    rows = mixed_rows(images=True)
    folder = checkpoint(model_type)
    trainer = moved_trainer(folder, tmp_path, rows, per_device_eval_batch_size=batch_size)
    metrics = trainer.evaluate()
    for domain in (None, "text", "math", "multimodal"):
        chosen = [row for row in rows if domain in (None, row.domain)]
        prefix = "eval_" if domain is None else f"eval_{domain}/"
        for name, value in by_hand(trainer, chosen).items():
            assert metrics[prefix + name] == pytest.approx(value, rel=2e-5, abs=2e-6), prefix + name
    assert 0 < metrics["eval_nll_gate"] < 1
    assert metrics["eval_effective_sample_size"] < 6.5  # of pairs, counted with their weights


def test_the_comparison_detects_a_mean_of_batch_means(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    rows = mixed_rows(images=False)
    trainer = moved_trainer(checkpoint("llama"), tmp_path, rows)
    means = [by_hand(trainer, [row])["loss"] for row in rows]
    assert trainer.evaluate()["eval_loss"] != pytest.approx(float(np.mean(means)), rel=1e-3)


def test_a_tie_counts_as_wrong(checkpoint: Checkpoint, tmp_path: Path) -> None:
    rows = mixed_rows(images=False)
    trainer = make_trainer(checkpoint("llama"), rows, config(tmp_path), eval_dataset=rows)
    metrics = trainer.evaluate()
    assert metrics["eval_rewards/margins"] == 0.0
    assert metrics["eval_rewards/accuracies"] == 0.0
    assert metrics["eval_nll_gate"] == 0.0


def test_a_single_domain_is_not_reported_twice(checkpoint: Checkpoint, tmp_path: Path) -> None:
    rows = [row("a", "x", ("y", "z")), row("b", "w", ("y", "z"))]
    trainer = make_trainer(checkpoint("llama"), rows, config(tmp_path), eval_dataset=rows)
    metrics = trainer.evaluate()
    assert not any(name.startswith("eval_text/") for name in metrics)
    # metrics of every loss on pairs; weight and its square become the effective sample size
    assert {f"eval_{name}" for name in PAIR_METRICS if not name.startswith("weight")} <= set(
        metrics
    )


def test_evaluation_between_steps_changes_no_step(checkpoint: Checkpoint, tmp_path: Path) -> None:
    rows = mixed_rows(images=True)
    losses = []
    for extra in ({}, {"eval_strategy": "steps", "eval_steps": 1, "eval_generations": 2}):
        args = config(tmp_path / str(len(losses)), **extra)
        trainer = make_trainer(checkpoint("llava"), rows, args, eval_dataset=rows[:3])
        trainer.train()
        losses.append([e["loss"] for e in trainer.state.log_history if "loss" in e])
    assert losses[0] == losses[1]


def test_evaluation_disables_dropout_and_restores_training_mode(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    rows = mixed_rows(images=False)
    lora = LoraOptions(r=4, dropout=0.5)
    args = config(tmp_path, disable_dropout=False)
    trainer = make_trainer(checkpoint("llama"), rows, args, eval_dataset=rows, peft_config=lora)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    policy = trainer.model.train()

    def measured() -> dict[str, float]:
        sums = MetricSums(trainer.parts.settings.loss)
        batches = map(batch_of, trainer.get_eval_dataloader())
        evaluate_pairs(policy, batches, trainer.preference_step, sums)
        return sums.means()

    assert measured() == measured()
    assert all(module.training for module in policy.modules())


def test_losses_without_a_reference_report_the_change_since_the_first_evaluation(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    rows = mixed_rows(images=False)
    args = config(tmp_path, loss_type="sft", learning_rate=0.2)
    trainer = make_trainer(checkpoint("llama"), rows, args, eval_dataset=rows)
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert before["eval_logps/chosen_change"] == 0.0
    change = after["eval_logps/chosen"] - before["eval_logps/chosen"]
    assert after["eval_logps/chosen_change"] == pytest.approx(change)
    assert change > 0
    assert 0 <= after["eval_logps/accuracies"] <= 1  # pairs are evaluated with sft, too
    assert "eval_rewards/margins" not in after


def test_responses_to_fixed_held_out_prompts_are_written_at_each_evaluation(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    rows = mixed_rows(images=True)
    args = config(
        tmp_path,
        max_steps=2,
        eval_strategy="steps",
        eval_steps=1,
        eval_generations=4,
        eval_max_new_tokens=5,
    )
    trainer = make_trainer(checkpoint("llava"), rows, args, eval_dataset=rows)
    trainer.train()
    lines = (tmp_path / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    samples = [json.loads(line) for line in lines]
    assert [sample["step"] for sample in samples] == [1] * 4 + [2] * 4
    ids = [sample["row_id"] for sample in samples]
    assert ids[:4] == ids[4:] == ["text", "math", "one", "long"]  # alternating domains
    assert samples[1]["preferred"] == "The answer is 23."
    assert samples[2]["prompt"] == "What is it?"


def test_a_written_response_is_the_greedy_one_of_the_model(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = checkpoint("llava_next")
    rows = [row("p", "What is it?", ("A red square", "Blue"), images=[make_image(4)])]
    args = config(tmp_path, eval_generations=1, eval_max_new_tokens=6)
    trainer = make_trainer(folder, rows, args, eval_dataset=rows)
    trainer.evaluate()
    sample = json.loads((tmp_path / "samples.jsonl").read_text(encoding="utf-8"))
    processor = AutoProcessor.from_pretrained(folder)
    chat = [
        {
            "role": "user",
            "content": [
                {"type": "image", "image": make_image(4)},
                {"type": "text", "text": "What is it?"},
            ],
        }
    ]
    inputs = processor.apply_chat_template(
        chat, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    generated = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    expected = processor.tokenizer.decode(
        generated[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    )
    assert sample["answer"] == expected.strip()


def test_rows_are_held_out_from_the_training_rows_if_there_are_no_others(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    rows = [row(f"r{n}", f"Compute {n} + 1", (str(n + 1), "none")) for n in range(10)]
    trainer = make_trainer(checkpoint("llama"), rows, config(tmp_path, eval_fraction=0.2))
    assert (len(trainer.parts.train_rows), len(trainer.parts.eval_rows)) == (8, 2)
    assert "eval_loss" in trainer.evaluate()


def test_evaluating_without_rows_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    trainer = make_trainer(checkpoint("llama"), [row()], config(tmp_path))
    with pytest.raises(DataError, match=r"there is no evaluation set.*eval_fraction"):
        trainer.get_eval_dataloader()


def test_weights_of_pairs_apply_to_metrics(checkpoint: Checkpoint, tmp_path: Path) -> None:
    rows = [
        row("a", "x", ("y", "z"), (4.0, 1.0), pairs=[Pair(0, 1, 3.0)]),
        row("b", "w", ("red square", "z"), (2.0, 2.0)),
        row("c", "v", ("never", "counted"), (2.0, -9.0), pairs=[Pair(0, 1, 0.0)]),
    ]
    trainer = moved_trainer(checkpoint("llama"), tmp_path, rows)
    expected = by_hand(trainer, rows)
    assert trainer.evaluate()["eval_w_qual"] == pytest.approx(expected["w_qual"], rel=1e-9)
    weight, tie = 1 / (1 + np.exp(-0.7 * 3)), 0.5
    assert expected["w_qual"] == pytest.approx((3 * weight + tie) / 4)
