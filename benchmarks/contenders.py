"""Who is compared: a contender runs a step or an epoch and gives its loss."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from inputs import pairs_of, rows_of
from shapes import Case
from torch import nn

from unidpo_mm.training.memory_policy import ActivationMemoryBudget

__all__ = ["Contender", "Run", "contenders", "within_memory"]


@dataclass(frozen=True)
class Run:
    """What is measured.

    Attributes:
        go: Runs a step, or an epoch, and returns its loss.
        model: What it trains, under the names of its checkpoint.
    """

    go: Callable[[], float]
    model: nn.Module


Contender = Callable[[Case, Path], Run]

LORA = {"r": 16, "lora_alpha": 32}
LAYERS = r".*(q|k|v|o|gate|up|down)_proj"


def contenders(case: Case) -> dict[str, Contender]:
    """Return who runs a case; the first one is the yardstick."""
    if case.epoch_steps:
        return {
            "TRL, hooks removed": theirs,
            "TRL, as it ships": partial(theirs, hooks=True),
            "ours, caches built on the way": partial(ours, caches="built"),
            "ours, the same, no checkpointing": partial(ours, caches="built", checkpointing=False),
        }
    own: dict[str, Contender] = {
        "ours, reference live": ours,
        "ours, caches": partial(ours, caches="filled"),
        "ours, caches, no checkpointing": partial(ours, caches="filled", checkpointing=False),
        "ours, first epoch with caches": partial(ours, caches="built"),
        "ours, first epoch, no checkpointing": partial(ours, caches="built", checkpointing=False),
    }
    off = {"TRL, no checkpointing": partial(theirs, checkpointing=False)}
    if case.image is None:
        best = partial(theirs, checkpointing=False, precompute=True)
        given = {"TRL, reference handed in, no checkpointing": best}
        return {"TRL, as it ships": theirs, **off, **given, **own}
    if not case.lora:  # TRL sets its hooks for a LoRA only
        return {"TRL, as it ships": theirs, **off, **own}
    ships = {"TRL, as it ships": partial(theirs, hooks=True)}
    return {"TRL, hooks removed": theirs, **ships, **off, **own}


def within_memory(case: Case, folder: Path, budget: float) -> Run:
    """Return ours with as few layers checkpointed as the budget, in bytes, allows."""
    return ours(case, folder, caches="filled", memory=budget)


def settings(case: Case, folder: Path, *, checkpointing: bool) -> dict[str, Any]:
    """Return what both trainers are told."""
    return {
        "output_dir": str(folder / "out"),
        "per_device_train_batch_size": case.groups * case.pairs,
        "num_train_epochs": 1,
        "max_steps": -1 if case.epoch_steps else 1,
        "learning_rate": 0.0,  # every round starts from the same weights
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "max_grad_norm": 0.0,
        "beta": 0.1,
        "activation_checkpointing": checkpointing,
    }


def ours(
    case: Case,
    folder: Path,
    *,
    checkpointing: bool = True,
    caches: str = "none",
    memory: float | None = None,
) -> Run:
    """Return a run of ours, all groups in one row.

    Args:
        case: What is run.
        folder: Its model.
        checkpointing: Whether every layer is checkpointed.
        caches: ``none`` runs reference and tower live, ``filled`` reads both, ``built`` computes
            and writes both, as the steps of the first epoch do.
        memory: Bytes for activations, in place of `checkpointing`.
    """
    from peft import LoraConfig

    from unidpo_mm import UniDPOConfig, UniDPOTrainer

    args = UniDPOConfig(
        **settings(case, folder, checkpointing=checkpointing),
        loss_type="sigmoid",
        layout="joined",
        eval_generations=0,
        model_init_kwargs={"dtype": "float32"},
        reference="auto" if caches == "none" else "cached",
        reference_build="first_epoch",
        feature_cache_gb=0.0 if caches == "none" else 1.0,
        memory=None if memory is None else str(memory / 1e9),
    )
    trainer = UniDPOTrainer(
        str(folder),
        args,
        train_dataset=rows_of(case),
        peft_config=LoraConfig(**LORA, target_modules=layers(case)) if case.lora else None,
    )
    trainer.model_wrapped = trainer.model
    if memory is not None:
        trainer.model.train()
        ActivationMemoryBudget(trainer).on_train_begin(args, trainer.state, trainer.control)
    go = epoch_of(trainer) if case.epoch_steps else step_of(trainer)
    run = Run(go, trainer.model.model)
    if caches != "built":
        return run

    def first_time() -> float:
        trainer.parts.reference.store.clear()
        if trainer.parts.features is not None:
            trainer.parts.features.clear()
        return run.go()

    return replace(run, go=first_time)


def theirs(
    case: Case,
    folder: Path,
    *,
    checkpointing: bool = True,
    hooks: bool = False,
    precompute: bool = False,
) -> Run:
    """Return a run of TRL.

    Args:
        case: What is run.
        folder: Its model.
        checkpointing: Whether every layer is checkpointed.
        hooks: Whether it keeps the hooks with which it back-propagates through a frozen tower.
        precompute: Whether the reference's log-probabilities are handed in; for text alone.
    """
    import trl.trainer.utils
    from datasets import Dataset
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer

    # score response positions only, as on a GPU
    trl.trainer.utils._use_triton = lambda device: True
    args = DPOConfig(
        **settings(case, folder, checkpointing=checkpointing),
        max_length=None,
        precompute_ref_log_probs=precompute,
        model_init_kwargs={"dtype": "float32"},
    )
    trainer = DPOTrainer(
        str(folder),
        args=args,
        train_dataset=Dataset.from_list(pairs_of(rows_of(case))),
        peft_config=LoraConfig(**LORA, target_modules=layers(case)) if case.lora else None,
    )
    if not case.lora and case.image is not None:
        for name, parameter in trainer.model.named_parameters():
            parameter.requires_grad_("language_model" in name or "lm_head" in name)
    go = epoch_of(trainer) if case.epoch_steps else step_of(trainer)
    if not hooks and case.lora:
        remove_gradient_hooks(trainer.model)
    return Run(go, trainer.model)


def remove_gradient_hooks(model: Any) -> None:
    """Remove what makes inputs require gradients, and keeps it from coming back.

    TRL switches checkpointing off and on around its reference, and each time one more is set.
    """
    model.get_base_model().enable_input_require_grads = lambda: None
    for module in model.modules():
        for key, hook in list(module._forward_hooks.items()):
            if getattr(hook, "__name__", "") == "make_inputs_require_grads":
                del module._forward_hooks[key]


def layers(case: Case) -> str:
    """Return the linear layers of the language model, as a pattern of module names."""
    return LAYERS if case.family == "llama" else f".*language_model{LAYERS}"


def step_of(trainer: Any) -> Callable[[], float]:
    """Return a step of a trainer: one batch from its rows, loss, gradients."""
    model, loader = trainer.model, trainer.get_train_dataloader()
    if trainer.args.activation_checkpointing and not getattr(trainer.args, "memory", None):
        model.activation_checkpointing_enable({"use_reentrant": False})
    model.train()

    def step() -> float:
        model.zero_grad()
        loss = trainer.compute_loss(model, next(iter(loader)))
        loss.backward()
        return float(loss.detach())

    return step


def epoch_of(trainer: Any) -> Callable[[], float]:
    """Return a whole run of a trainer over its rows, as its users start it."""
    return lambda: float(trainer.train().training_loss)
