"""Time and memory of a preference step beside TRL's: same pairs, one process, interleaved.

    make bench                    # every case
    make bench ARGS="'LLaVA VQA'"

Ours are packed. Processing of pictures and collation are counted, the optimizer's step is not.
Time is the CPU time of this process on one thread, memory the peak of live tensors above what lived
before the step. The models are random and small, of real proportions (shapes.py). Speed and memory
are relative to the first line of each case: TRL with checkpointing, without the hooks that make it
back-propagate through a frozen tower; for text TRL as it ships.
"""

import csv
import gc
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from inputs import build, check_proportions, pairs_of, rows_of
from shapes import CASES, Case

from unidpo_mm.training.memory_policy import MemoryPolicy

ROUNDS = 5
COLUMNS = (
    *("case", "who", "seconds", "spread", "megabytes", "speedup", "memory", "loss"),
    *("device", "dtype", "threads", "versions", "commit", "load"),
)
LORA = {"r": 16, "lora_alpha": 32}
LAYERS = r".*(q|k|v|o|gate|up|down)_proj"


def settings(folder: Path, pairs: int, *, checkpointing: bool) -> dict[str, Any]:
    """Returns what both trainers are told."""
    return {
        "output_dir": str(folder / "out"),
        "per_device_train_batch_size": pairs,
        "max_steps": 1,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "save_strategy": "no",
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
    made: list[Any] | None = None,
) -> Callable[[], float]:
    """Returns a function that runs one step from rows to gradients and gives the loss.

    Args:
        case: What is run.
        folder: Its model.
        checkpointing: Whether every layer is checkpointed.
        caches: ``none`` runs reference and tower live, ``filled`` reads both, ``built`` computes
            and writes both, as the steps of the first epoch do.
        memory: Bytes for activations, in place of `checkpointing`.
        made: Takes the trainer, for who wants to look into it.
    """
    from peft import LoraConfig

    from unidpo_mm import UniDPOConfig, UniDPOTrainer

    rows = rows_of(case)
    args = UniDPOConfig(
        **settings(folder, len(pairs_of(rows)), checkpointing=checkpointing),
        loss_type="sigmoid",
        layout="packed",
        eval_generations=0,
        model_init_kwargs={"dtype": "float32"},
        reference="auto" if caches == "none" else "cached",
        reference_build="first_epoch",
        feature_cache_gb=0.0 if caches == "none" else 1.0,
        memory=None if memory is None else str(memory / 1e9),
    )
    lora = LoraConfig(**LORA, target_modules=layers(case))
    trainer = UniDPOTrainer(str(folder), args, train_dataset=rows, peft_config=lora)
    trainer.model_wrapped = trainer.model
    if made is not None:
        made.append(trainer)
    if memory is not None:
        trainer.model.train()
        MemoryPolicy(trainer).on_train_begin(args, trainer.state, trainer.control)
    step = stepper(trainer)
    if caches != "built":
        return step

    def first_epoch() -> float:
        trainer.parts.reference.store.clear()
        if trainer.parts.features is not None:
            trainer.parts.features.clear()
        return step()

    return first_epoch


def theirs(
    case: Case,
    folder: Path,
    *,
    checkpointing: bool = True,
    hooks: bool = False,
    precompute: bool = False,
) -> Callable[[], float]:
    """The same with TRL.

    Without its hooks it does not back-propagate through a frozen tower; the log-probabilities of
    its reference can be handed in for text.
    """
    import trl.trainer.utils
    from datasets import Dataset
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer

    trl.trainer.utils._use_triton = lambda device: (
        True
    )  # score response positions only, as on a GPU
    pairs = pairs_of(rows_of(case))
    args = DPOConfig(
        **settings(folder, len(pairs), checkpointing=checkpointing),
        max_length=None,
        precompute_ref_log_probs=precompute,
        model_init_kwargs={"dtype": "float32"},
    )
    trainer = DPOTrainer(
        str(folder),
        args=args,
        train_dataset=Dataset.from_list(pairs),
        peft_config=LoraConfig(**LORA, target_modules=layers(case)),
    )
    step = stepper(trainer)
    if not hooks:
        remove_gradient_hooks(trainer.model)
    return step


def remove_gradient_hooks(model: Any) -> None:
    """Removes what makes inputs require gradients, and keeps it from coming back.

    TRL switches checkpointing off and on around its reference, and each time one more is set.
    """
    model.get_base_model().enable_input_require_grads = lambda: None
    for module in model.modules():
        for key, hook in list(module._forward_hooks.items()):
            if getattr(hook, "__name__", "") == "make_inputs_require_grads":
                del module._forward_hooks[key]


def layers(case: Case) -> str:
    """Returns the linear layers of the language model, as a pattern of module names."""
    return LAYERS if case.family == "llama" else f".*language_model{LAYERS}"


def stepper(trainer: Any) -> Callable[[], float]:
    """Returns a step of a trainer: one batch from its rows, loss, gradients."""
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


def cpu_seconds(step: Callable[[], float]) -> float:
    """Returns the CPU time of one step."""
    gc.collect()
    began = time.process_time()
    step()
    return time.process_time() - began


def peak_bytes(step: Callable[[], float]) -> int:
    """Returns the peak of live tensors above what lived before, from the profiler's events."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        step()
    live = peak = 0
    for event in found.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak


Contender = Callable[[Case, Path], Callable[[], float]]

PEERS: dict[str, Contender] = {
    "TRL, hooks removed": theirs,
    "TRL, as it ships": partial(theirs, hooks=True),
    "TRL, no checkpointing": partial(theirs, checkpointing=False),
}
TEXT_PEERS: dict[str, Contender] = {
    "TRL, as it ships": partial(theirs, hooks=True),
    "TRL, no checkpointing": partial(theirs, checkpointing=False),
    "TRL, reference handed in, no checkpointing": partial(
        theirs, checkpointing=False, precompute=True
    ),
}
OURS: dict[str, Contender] = {
    "ours, reference live": ours,
    "ours, caches": partial(ours, caches="filled"),
    "ours, caches, no checkpointing": partial(ours, caches="filled", checkpointing=False),
    "ours, first epoch with caches": partial(ours, caches="built"),
    "ours, first epoch, no checkpointing": partial(ours, caches="built", checkpointing=False),
}
MEMORY_SHARES = (1.0, 2.2)
"""Of TRL's memory, that `memory` is allowed."""


def compare(case: Case) -> list[dict[str, Any]]:
    """Returns a line for each contender; speed and memory are relative to the first, TRL."""
    with TemporaryDirectory() as name:
        folder = build(case, Path(name) / "model")
        os.environ["UNIDPO_MM_CACHE"] = str(Path(name) / "cache")
        check_proportions(case, folder)
        peers = TEXT_PEERS if case.picture is None else PEERS
        steps = {who: make(case, folder) for who, make in (peers | OURS).items()}
        losses = {who: step() for who, step in steps.items()}  # warms up, too
        check_losses(losses)
        peaks = {who: peak_bytes(step) for who, step in steps.items()}
        first, least = next(iter(peaks.values())), peaks["ours, caches"]
        rest = least - layers_need(case, folder)  # whatever is no activation of a layer
        for share in MEMORY_SHARES:
            who = f"ours, caches, memory for {share:.1f}x"
            budget = max(share * first - rest, 1.0)
            steps[who] = ours(case, folder, caches="filled", memory=budget)
            losses[who], peaks[who] = steps[who](), peak_bytes(steps[who])
        seconds: dict[str, list[float]] = {who: [] for who in steps}
        for _ in range(ROUNDS):
            for who, step in steps.items():
                seconds[who].append(cpu_seconds(step))
    yardstick = statistics.median(next(iter(seconds.values())))
    return [
        {
            "case": case.name,
            "who": who,
            "seconds": round(statistics.median(values), 3),
            "spread": round(max(values) - min(values), 3),
            "megabytes": round(peaks[who] / 2**20, 1),
            "speedup": round(yardstick / statistics.median(values), 2),
            "memory": round(peaks[who] / first, 3),
            "loss": losses[who],
            **SURROUNDINGS,
        }
        for who, values in seconds.items()
    ]


def layers_need(case: Case, folder: Path) -> int:
    """Returns the bytes that the layers take with all of them checkpointed."""
    from unidpo_mm.training.memory_policy import measure_first_batch

    made: list[Any] = []
    ours(case, folder, checkpointing=False, made=made)
    made[0].model.train()
    found = measure_first_batch(made[0])
    return found.needed(len(found.kept))


def check_losses(losses: dict[str, float]) -> None:
    """Refuses to compare work that is not the same: parity of gradients is in tests/peers."""
    values = list(losses.values())
    if max(values) - min(values) > 2e-5:
        raise SystemExit(f"the losses differ: {losses}")


def surroundings() -> dict[str, str]:
    """Returns what the figures depend on beside the code."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    names = ("torch", "transformers", "trl", "peft", "accelerate")
    return {
        "device": platform.processor() or platform.machine(),
        "dtype": "float32",
        "threads": "1",
        "versions": " ".join(f"{name}={version(name)}" for name in names),
        "commit": commit.stdout.strip(),
        "load": f"{os.getloadavg()[0]:.1f}",
    }


SURROUNDINGS = surroundings()


def main(wanted: list[str]) -> None:
    """Prints the table of the cases named, or of all, as CSV."""
    torch.set_num_threads(1)
    out = csv.DictWriter(sys.stdout, COLUMNS)
    out.writeheader()
    for case in CASES:
        if not wanted or case.name in wanted:
            for line in compare(case):
                out.writerow(line)
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
