"""The preparation of a run, and the inputs that it refuses."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import load_tiny, mixed_rows, row
from torch import nn
from trainers import config, make_trainer, state_of
from transformers import Trainer

import unidpo_mm
from unidpo_mm import UniDPOTrainer
from unidpo_mm.config import LoraOptions
from unidpo_mm.errors import DataError, ModelError, RecipeError, UniDPOError
from unidpo_mm.modeling.references.kinds import FrozenCopy, LoraOff
from unidpo_mm.training.preparing import _check_sharding
from unidpo_mm.training.resuming import CheckpointedTrainer
from unidpo_mm.training.saving import SavingTrainer
from unidpo_mm.training.step import preference_step

Checkpoint = Callable[[str], Path]
ROWS = mixed_rows(images=False)


# ---- the shape of the code ----

OURS = (UniDPOTrainer, CheckpointedTrainer, SavingTrainer)

OVERRIDDEN = {
    "__init__",
    "_get_grad_norm",  # checked for NaN and infinity
    "_get_output_dir",  # checkpoints are staged
    "_init_training_state",
    "_load_best_model",
    "_load_from_checkpoint",
    "_load_optimizer_and_scheduler",  # changed options take effect
    "_maybe_log_save_evaluate",  # a signal saves and ends the run
    "_push_from_checkpoint",
    "_run_epoch",  # a finished run is not changed
    "_save",
    "_save_checkpoint",
    "compute_loss",
    "create_optimizer",
    "evaluation_loop",
    "get_batch_samples",
    "get_eval_dataloader",
    "get_train_dataloader",
    "log",
    "save_model",  # sharded runs save whole models
    "train",
    "training_step",
}
"""The hooks of transformers' Trainer that are overridden; a new one needs a reason."""


def test_the_trainer_overrides_only_these_hooks() -> None:
    ours = {name for cls in OURS for name, value in vars(cls).items() if inspect.isfunction(value)}
    theirs = {name for cls in Trainer.__mro__ for name in vars(cls)}
    assert ours & theirs == OVERRIDDEN


def test_the_step_fits_a_screen() -> None:
    lines, _ = inspect.getsourcelines(preference_step)
    assert len(lines) <= 45


@pytest.mark.parametrize(
    "method",
    [m for cls in OURS for m in vars(cls).values() if inspect.isfunction(m)],
    ids=lambda m: m.__name__,
)
def test_no_method_of_the_trainer_is_longer_than_a_screen(method: Any) -> None:
    assert len(inspect.getsourcelines(method)[0]) <= 45


def test_no_module_grows_beyond_400_lines() -> None:
    core = Path(unidpo_mm.__file__).parent
    long = {
        path.relative_to(core.parent).as_posix()
        for folder in (core, core.parent / "model_adapters")
        for path in folder.rglob("*.py")
        if len(path.read_text(encoding="utf-8").splitlines()) > 400
    }
    assert not long


def test_a_new_lora_adapter_depends_on_the_seed_of_the_run(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    def first_weights(seed: int) -> list[torch.Tensor]:
        args = config(tmp_path, seed=seed)
        trainer = make_trainer(checkpoint("llama"), ROWS, args, peft_config=LoraOptions(r=2))
        return [value for name, value in state_of(trainer).items() if "lora_A" in name]

    first, again, other = first_weights(1), first_weights(1), first_weights(2)
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    assert not any(torch.equal(*pair) for pair in zip(first, other, strict=True))


# ---- learning rates by part ----


def rate_by_name(trainer: UniDPOTrainer) -> dict[str, float]:
    assert trainer.optimizer is not None
    by_id = {
        id(p): group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]
    }
    model: Any = trainer.model.model
    return {name: by_id[id(p)] for name, p in model.named_parameters() if id(p) in by_id}


def test_each_part_has_its_configured_learning_rate(checkpoint: Checkpoint, tmp_path: Path) -> None:
    args = config(
        tmp_path,
        freeze=[],
        learning_rate=1e-3,
        learning_rates={"projector": 0.5, "vision_tower": 0.25},
        lr_scheduler_type="linear",
        weight_decay=0.1,
        max_steps=4,
    )
    trainer = make_trainer(checkpoint("llava"), mixed_rows(images=True), args)
    trainer.create_optimizer_and_scheduler(4)
    rates = rate_by_name(trainer)
    model: Any = trainer.model.model
    assert set(rates) == {name for name, _ in model.named_parameters()}
    for name, rate in rates.items():
        part = {"model.multi_modal_projector": 0.5, "model.vision_tower": 0.25}
        expected = next((r for prefix, r in part.items() if name.startswith(prefix)), 1e-3)
        assert rate == expected, name
    assert trainer.optimizer is not None
    decays = {group["weight_decay"] for group in trainer.optimizer.param_groups}
    assert decays == {0.0, 0.1}  # biases and norms have no decay
    assert trainer.lr_scheduler is not None
    trainer.optimizer.step()
    trainer.lr_scheduler.step()
    later = sorted(set(rate_by_name(trainer).values()))
    assert later == pytest.approx([7.5e-4, 0.1875, 0.375])


def test_the_learning_rate_of_a_part_is_used_in_steps(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    rows = mixed_rows(images=True)
    moved = {}
    for rate in (0.0, 0.5):
        args = config(tmp_path, freeze=[], learning_rates={"projector": rate}, max_steps=1,
                      per_device_train_batch_size=9)  # fmt: skip
        trainer = make_trainer(checkpoint("llava"), rows, args)
        before = state_of(trainer)
        trainer.train()
        after = state_of(trainer)
        moved[rate] = {name for name in before if not torch.equal(before[name], after[name])}
    projector = {name for name in moved[0.5] if "multi_modal_projector" in name}
    assert projector
    assert moved[0.0] == moved[0.5] - projector


def test_learning_rates_apply_to_the_parts_of_a_lora_adapter(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    args = config(tmp_path, learning_rate=1e-3, learning_rates={"projector": 0.5})
    trainer = make_trainer(
        checkpoint("llava"),
        mixed_rows(images=True),
        args,
        peft_config=LoraOptions(modules_to_save=["projector"]),
    )
    trainer.create_optimizer()
    rates = rate_by_name(trainer)
    assert {rate for name, rate in rates.items() if "projector" in name} == {0.5}
    assert {rate for name, rate in rates.items() if ".lora_" in name} == {1e-3}


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"projectr": 1e-3}, r"train.learning_rates.projectr.*did you mean 'projector'"),
        ({"projector": -1.0}, r"learning_rates.projector.*-1.0.*greater than or equal to 0"),
        ({"projector": "fast"}, r"learning_rates.projector.*'fast'"),
    ],
)
def test_wrong_learning_rates_are_refused(
    checkpoint: Checkpoint, tmp_path: Path, rates: Any, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        make_trainer(checkpoint("llava"), ROWS, config(tmp_path, learning_rates=rates))


# ---- checkpointing of activations ----


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("model_type", ["llava", "llava_onevision", "qwen2_vl"])
def test_checkpointing_skips_a_frozen_tower_and_does_not_change_steps(
    checkpoint: Checkpoint, tmp_path: Path, model_type: str, lora: bool
) -> None:
    results = []
    for on in (True, False):
        trainer = make_trainer(
            checkpoint(model_type),
            mixed_rows(images=True),
            config(tmp_path, activation_checkpointing=on, max_steps=2),
            peft_config=LoraOptions(r=4) if lora else None,
        )
        model: Any = trainer.model.model
        copied = getattr(trainer.parts.reference, "logp_model", None)
        towers = [
            module
            for holder in filter(None, (model, copied))
            for name, module in holder.named_modules()
            if name.endswith(("vision_tower", "visual"))
        ]
        needs_grad: list[bool] = []
        for tower in towers:
            tower.register_forward_hook(
                lambda module, args, output, flags=needs_grad: flags.append(output[0].requires_grad)
            )
        trainer.train()
        assert len(needs_grad) == 1  # one batch has images: one pass for policy and reference
        assert not any(needs_grad)
        layers = {
            name: module.gradient_checkpointing
            for name, module in model.named_modules()
            if hasattr(module, "gradient_checkpointing") and re.search(r"\.(layers|blocks)\.", name)
        }
        decoder = [value for name, value in layers.items() if "language_model.layers" in name]
        assert decoder == [on] * (len(decoder) - 1) + [
            False
        ]  # checkpointing the last layer saves nothing
        assert not any(value for name, value in layers.items() if "language_model" not in name)
        losses = [e["loss"] for e in trainer.state.log_history if "loss" in e]
        results.append((losses, state_of(trainer)))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    for name, value in results[0][1].items():
        torch.testing.assert_close(value, results[1][1][name], rtol=1e-5, atol=1e-6)


# ---- models, references, adapters ----


def test_a_loaded_model_trains_like_one_from_a_directory(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = checkpoint("llava")
    rows = mixed_rows(images=True)
    by_folder = make_trainer(folder, rows, config(tmp_path))
    loaded = load_tiny(folder)
    by_object = make_trainer(
        loaded.model, rows, config(tmp_path), processing_class=loaded.adapter.processor
    )
    for trainer in (by_folder, by_object):
        trainer.train()
    expected, actual = state_of(by_folder), state_of(by_object)
    assert all(torch.equal(value, actual[name]) for name, value in expected.items())


def test_frozen_parts_do_not_change(checkpoint: Checkpoint, tmp_path: Path) -> None:
    trainer = make_trainer(checkpoint("llava"), mixed_rows(images=True), config(tmp_path))
    before = state_of(trainer)
    trainer.train()
    after = state_of(trainer)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith(("model.language_model", "lm_head")) for name in changed)


def test_the_kind_of_reference_depends_on_the_trained_weights(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = checkpoint("llama")
    full = make_trainer(folder, ROWS, config(tmp_path))
    lora = make_trainer(folder, ROWS, config(tmp_path), peft_config=LoraOptions(r=2))
    copied = make_trainer(
        folder, ROWS, config(tmp_path, reference="frozen_copy"), peft_config=LoraOptions(r=2)
    )
    without = make_trainer(folder, ROWS, config(tmp_path, loss_type="simpo"))
    assert isinstance(full.parts.reference, FrozenCopy)
    assert isinstance(lora.parts.reference, LoraOff)
    assert isinstance(copied.parts.reference, FrozenCopy)
    assert without.parts.reference is None


@pytest.mark.parametrize("as_folder", [True, False])
def test_ref_model_is_used(checkpoint: Checkpoint, tmp_path: Path, as_folder: bool) -> None:
    other = load_tiny(checkpoint("llama"))
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    reference: Any = other.model
    if as_folder:
        other.model.save_pretrained(tmp_path / "other")
        reference = str(tmp_path / "other")
    rows = ROWS
    args = config(tmp_path, max_steps=1)
    trainer = make_trainer(checkpoint("llama"), rows, args, ref_model=reference)
    plain = make_trainer(checkpoint("llama"), rows, args)
    batch = plain.data_collator([plain.parts.adapter.encode(row) for row in rows])["batch"]
    moved = trainer.preference_step(trainer.model.eval(), batch)
    still = plain.preference_step(plain.model.eval(), batch)
    assert still.loss.chosen_rewards is not None
    assert moved.loss.chosen_rewards is not None
    assert still.loss.chosen_rewards.abs().max() == 0
    assert moved.loss.chosen_rewards.abs().min() > 1e-4


def test_the_policy_as_ref_model_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    model = load_tiny(checkpoint("llama")).model
    with pytest.raises(ModelError, match="the same object as the model that is being trained"):
        make_trainer(model, ROWS, config(tmp_path), ref_model=model)


def test_a_ref_model_with_another_kind_of_reference_is_refused(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    args = config(tmp_path, reference="lora_off")
    with pytest.raises(RecipeError, match="ref_model is set and reference is 'lora_off'"):
        make_trainer(checkpoint("llama"), ROWS, args, ref_model=str(checkpoint("llama")))


def test_peft_configurations_are_accepted_and_prompt_learning_is_refused(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    from peft import LoraConfig, PromptTuningConfig

    folder = checkpoint("llama")
    lora = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    trainer = make_trainer(folder, ROWS, config(tmp_path), peft_config=lora)
    assert isinstance(trainer.parts.reference, LoraOff)
    prompt = PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
    with pytest.raises(ModelError, match="puts virtual tokens before the prompt"):
        make_trainer(folder, ROWS, config(tmp_path), peft_config=prompt)
    with pytest.raises(ModelError, match="already has an adapter"):
        make_trainer(
            trainer.parts.logp_model.model,
            ROWS,
            config(tmp_path),
            peft_config=lora,
            processing_class=trainer.parts.adapter.processor,
        )


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_mixed_precision_trains_float32_weights_that_start_equal_to_the_reference(
    checkpoint: Checkpoint, tmp_path: Path, lora: bool
) -> None:
    args = config(
        tmp_path,
        bf16=True,
        model_init_kwargs={"dtype": "bfloat16"},
        tau_good=-100.0,
        learning_rate=0.5,
        max_steps=2,
        per_device_train_batch_size=9,
    )
    trainer = make_trainer(
        checkpoint("llava"),
        mixed_rows(images=True),
        args,
        peft_config=LoraOptions(r=4) if lora else None,
    )
    dtypes = {(p.requires_grad, p.dtype) for p in trainer.model.parameters()}
    assert dtypes == {(True, torch.float32), (False, torch.bfloat16)}
    before = state_of(trainer)
    trainer.train()
    first, second = trainer.state.log_history[:2]
    assert first["rewards/margins"] == 0.0
    assert first["nll_gate"] == 0.0  # strict, so no rounding opens it
    assert second["rewards/margins"] != 0.0
    trainable = {name for name, p in trainer.model.model.named_parameters() if p.requires_grad}
    after = state_of(trainer)
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert moved == trainable


# ---- errors before training ----


class Untouched(nn.Module):
    """A placeholder for a model, for inputs that are refused before the model is used."""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"loss_type": "dpo", "eta": 0.5},
            r"loss.eta.*the loss 'dpo' has no parameter 'eta'.*Choose from beta, label_smoothing",
        ),
        ({"loss_type": "unidpo"}, r"unknown loss 'unidpo', did you mean 'uni_dpo'"),
        ({"loss_type": "uni_dpo", "beta": -1.0}, r"loss.*beta must be > 0.*-1.0"),
        ({"loss_type": "uni_dpo", "beta": "high"}, r"loss.beta.*'high'"),
        ({"loss_kwargs": {"quality_weigth": "none"}}, r"did you mean 'quality_weight'"),
        ({"loss_kwargs": {"quality_weight": "sometimes"}}, r"loss.quality_weight.*sometimes"),
        ({"loss_by_source": {"math": {"etta": 1.0}}}, r"data source 'math', loss.etta.*'eta'"),
        (
            {"loss_by_source": {"math": {"quality_weight": "none"}}},
            r"'math'.*cannot differ between sources",
        ),
        ({"length_norm": ["margin", "all"]}, r"loss.length_norm"),
        ({"tau_good": "mean"}, r"loss.tau_good.*'mean'"),
    ],
)
def test_a_wrong_loss_is_refused_before_the_model_is_loaded(
    tmp_path: Path, settings: Any, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        make_trainer(Untouched(), ROWS, config(tmp_path, **settings))


def test_all_wrong_parameters_are_reported_together(tmp_path: Path) -> None:
    args = config(
        tmp_path, loss_type="dpo", eta=1.0, gamma=2.0, loss_by_source={"a": {"tau_ref": 1.0}}
    )
    with pytest.raises(RecipeError) as error:
        make_trainer(Untouched(), ROWS, args)
    assert [p.where.rpartition(".")[2] for p in error.value.problems].count("eta") == 1
    assert {p.where for p in error.value.problems} >= {"loss.eta", "loss.gamma"}
    assert any(p.where.endswith("tau_ref") for p in error.value.problems)


@pytest.mark.parametrize("model_type", ["bert", "vit"])
def test_a_model_without_a_family_is_refused(tmp_path: Path, model_type: str) -> None:
    from transformers import AutoConfig, AutoModel

    settings = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }  # fmt: skip
    model = AutoModel.from_config(AutoConfig.for_model(model_type, **settings))
    model.save_pretrained(tmp_path / "model")
    for model_argument in (tmp_path / "model", model):
        with pytest.raises(ModelError, match=rf"no model family serves.*'{model_type}'"):
            make_trainer(model_argument, ROWS, config(tmp_path))


def test_missing_scores_are_reported_with_row_and_field(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    rows = [
        row("a", "x", ("y", "z"), (4.0, None)),
        row("b", "w", ("y", "z"), (None, None)),
        row("c", "v", ("y", "z"), (4.0, 1.0)),
    ]
    with pytest.raises(DataError) as error:
        make_trainer(checkpoint("llama"), rows, config(tmp_path))
    assert [problem.where for problem in error.value.problems] == [
        "data.jsonl row a, field 'score_rejected'",
        "data.jsonl row b, field 'score_chosen'",
        "data.jsonl row b, field 'score_rejected'",
    ]
    for loss in ("dpo", "simpo", "sft"):
        make_trainer(checkpoint("llama"), rows, config(tmp_path, loss_type=loss))


def test_uni_dpo_without_its_scored_parts_needs_no_scores(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    rows = [row("a", "x", ("y", "z"), (None, None))]
    args = config(tmp_path, nll_lambda=0.0, loss_kwargs={"quality_weight": "none"}, max_steps=1)
    trainer = make_trainer(checkpoint("llama"), rows, args)
    trainer.train()
    assert trainer.state.log_history[0]["nll_gate"] == 0.0


def test_losses_on_pairs_refuse_rows_without_pairs(checkpoint: Checkpoint, tmp_path: Path) -> None:
    rows = [row("a", "x", ("y",), (None,), pairs=()), row("b", "w", ("y", "z"))]
    with pytest.raises(DataError, match=r"row a: the row has no pair.*'dpo' needs pairs"):
        make_trainer(checkpoint("llama"), rows, config(tmp_path, loss_type="dpo"))


def test_invalid_rows_are_reported_before_the_first_step(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    rows = [
        row("a", "long " * 30, ("y", "z")),
        row("b", "x", ("y", "z")),
        row("c", "so long " * 30, ("y", "z")),
    ]
    with pytest.raises(DataError) as error:
        make_trainer(checkpoint("llama"), rows, config(tmp_path, max_length=40))
    assert [p.where.split(",")[0] for p in error.value.problems] == [
        "data.jsonl row a",
        "data.jsonl row c",
    ]


def test_training_without_rows_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    trainer = make_trainer(checkpoint("llama"), [], config(tmp_path, loss_type="dpo"))
    with pytest.raises(DataError, match="the training set is empty"):
        trainer.train()


def test_fsdp_that_accelerate_would_ignore_is_refused(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from accelerate.utils import DistributedType

    args: Any = SimpleNamespace(fsdp=["full_shard"], tokens_per_micro_batch=None)
    state = SimpleNamespace()
    for kind in (DistributedType.NO, DistributedType.MULTI_CPU):
        with pytest.raises(UniDPOError, match=f"accelerate uses {kind.value}"):
            _check_sharding(args, SimpleNamespace(distributed_type=kind, state=state))
    _check_sharding(args, SimpleNamespace(distributed_type=DistributedType.FSDP, state=state))


def test_ways_to_shard_that_would_hang_or_skip_nothing_are_refused() -> None:
    from types import SimpleNamespace

    from accelerate.utils import DistributedType
    from torch.distributed.fsdp.wrap import size_based_auto_wrap_policy

    kind = DistributedType.FSDP
    args: Any = SimpleNamespace(
        fsdp=True,
        on_nonfinite="skip",
        deepspeed_plugin=None,
        tokens_per_micro_batch=None,
        layout="auto",
    )

    def accelerator(version: int, policy: Any) -> Any:
        plugin = SimpleNamespace(fsdp_version=version, auto_wrap_policy=policy)
        return SimpleNamespace(distributed_type=kind, state=SimpleNamespace(fsdp_plugin=plugin))

    _check_sharding(args, accelerator(2, None))
    with pytest.raises(UniDPOError, match="version 1 of FSDP"):
        _check_sharding(args, accelerator(1, None))
    with pytest.raises(UniDPOError, match="wrapped by their size"):
        _check_sharding(args, accelerator(2, size_based_auto_wrap_policy))
    args.tokens_per_micro_batch = 4096
    with pytest.raises(UniDPOError, match="depends on the layout, which is chosen only after FSDP"):
        _check_sharding(args, accelerator(2, None))
    args.layout = "packed"
    _check_sharding(args, accelerator(2, None))
    args.deepspeed_plugin = SimpleNamespace(zero_stage=2, zero3_init_flag=False)
    with pytest.raises(UniDPOError, match="none can be skipped"):
        _check_sharding(args, accelerator(2, None))
