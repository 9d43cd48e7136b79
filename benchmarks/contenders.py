"""The contenders of the benchmark: trainers that run a step or an epoch and return its loss."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from inputs import pairs_of, rows_of
from shapes import Case
from torch import nn

from unidpo_mm.training.callbacks import ActivationMemoryBudget

__all__ = ["Contender", "Run", "contenders", "within_memory"]


@dataclass(frozen=True)
class Run:
    """A step or an epoch to measure.

    Attributes:
        compute: Runs the step or the epoch and returns its loss.
        model: The model that is trained, with the parameter names of its checkpoint.
    """

    compute: Callable[[], float]
    model: nn.Module


Contender = Callable[[Case, Path], Run]

LORA = {"r": 16, "lora_alpha": 32}
LAYERS = r".*(q|k|v|o|gate|up|down)_proj"


def contenders(case: Case) -> dict[str, Contender]:
    """Return the contenders of a case by name; the first one is the baseline."""
    if case.epoch_steps:
        return {
            "TRL, hooks removed": theirs,
            "TRL, as it ships": partial(theirs, hooks=True),
            "ours, caches built during the epoch": partial(ours, caches="built"),
            "ours, the same, no checkpointing": partial(ours, caches="built", checkpointing=False),
        }
    ours_live_and_cached: dict[str, Contender] = {
        "ours, reference live": ours,
        "ours, caches": partial(ours, caches="filled"),
        "ours, caches, no checkpointing": partial(ours, caches="filled", checkpointing=False),
        "ours, first epoch with caches": partial(ours, caches="built"),
        "ours, first epoch, no checkpointing": partial(ours, caches="built", checkpointing=False),
    }
    off = {"TRL, no checkpointing": partial(theirs, checkpointing=False)}
    if case.image is None:
        best = partial(theirs, checkpointing=False, precompute=True)
        precomputed = {"TRL, reference precomputed, no checkpointing": best}
        return {"TRL, as it ships": theirs, **off, **precomputed, **ours_live_and_cached}
    if not case.lora:  # TRL sets its hooks only for LoRA
        return {"TRL, as it ships": theirs, **off, **ours_live_and_cached}
    as_it_ships = {"TRL, as it ships": partial(theirs, hooks=True)}
    return {"TRL, hooks removed": theirs, **as_it_ships, **off, **ours_live_and_cached}


def within_memory(case: Case, folder: Path, budget: float) -> Run:
    """Return our run with as few checkpointed layers as the budget in bytes allows."""
    return ours(case, folder, caches="filled", memory=budget)


def settings(case: Case, folder: Path, *, checkpointing: bool) -> dict[str, Any]:
    """Return the training arguments of both trainers."""
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
    """Return a run of our trainer, with all groups in one row.

    Args:
        case: The case.
        folder: The directory of its model.
        checkpointing: Whether every layer is checkpointed.
        caches: ``none`` computes reference and vision tower in each step, ``filled`` reads both
            from disk, ``built`` computes and writes both, as in the steps of the first epoch.
        memory: Bytes for activations, instead of `checkpointing`.
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
    compute = make_epoch(trainer) if case.epoch_steps else make_step(trainer)
    run = Run(compute, trainer.model.model)
    if caches != "built":
        return run

    def with_empty_caches() -> float:
        trainer.parts.reference.store.clear()
        if trainer.parts.features is not None:
            trainer.parts.features.clear()
        return run.compute()

    return replace(run, compute=with_empty_caches)


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
        case: The case.
        folder: The directory of its model.
        checkpointing: Whether every layer is checkpointed.
        hooks: Whether it keeps the hooks that make it back-propagate through a frozen tower.
        precompute: Whether the reference log-probs are precomputed; only for text.
    """
    import trl.trainer.utils
    from datasets import Dataset
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer

    # compute log-probs of response positions only, as on a GPU
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
    compute = make_epoch(trainer) if case.epoch_steps else make_step(trainer)
    if not hooks and case.lora:
        remove_gradient_hooks(trainer.model)
    return Run(compute, trainer.model)


def remove_gradient_hooks(model: Any) -> None:
    """Remove the hooks that make inputs require gradients, and prevent new ones.

    TRL switches checkpointing off and on around its reference, which sets one more hook each time.
    """
    model.get_base_model().enable_input_require_grads = lambda: None
    for module in model.modules():
        for key, hook in list(module._forward_hooks.items()):
            if getattr(hook, "__name__", "") == "make_inputs_require_grads":
                del module._forward_hooks[key]


def layers(case: Case) -> str:
    """Return a pattern of module names that matches the linear layers of the language model."""
    return LAYERS if case.family == "llama" else f".*language_model{LAYERS}"


def make_step(trainer: Any) -> Callable[[], float]:
    """Return a step of a trainer: one batch of its rows, loss, gradients."""
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


def make_epoch(trainer: Any) -> Callable[[], float]:
    """Return a complete training over the rows of a trainer, as users start it."""
    return lambda: float(trainer.train().training_loss)
