"""Report the rows and dump the step if a loss or gradient is not finite, then stop or skip it.

The dump contains the model before the step and all inputs of the step, so that `unidpo-mm replay`
can compute it again, in one process and without the data or the reference.
"""

import dataclasses
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config.loss_aliases import resolve_loss
from ..conformance.log_probs import RESTORE, weights_not_finite
from ..distributed import barrier, gather_objects
from ..errors import Problem, counted
from ..kernels.packing import PREFIX
from ..modeling.parts import compute_dtype
from ..plugins import is_path
from .configured_loss import loss_state
from .numerical_watch import NonFiniteError
from .saving import SavingTrainer

__all__ = ["DUMP_FILE", "handle_non_finite", "rank_file"]

logger = logging.getLogger(__name__)

DUMP_FILE = "dump.json"
FORMAT_VERSION = 2
"""Version of the dump; in version 1 a batch had no parts."""

MAX_SKIPPED = 10
"""Maximum number of consecutive skipped steps; the next one stops the run."""

MAX_NAMED = 10
"""Maximum number of row ids in a message."""


def rank_file(rank: int) -> str:
    """Return the name of a process's file with its micro-batches."""
    return f"batches-{rank}.pt"


def handle_non_finite(trainer: SavingTrainer) -> None:
    """Stop training or skip the step before the optimizer changes a weight.

    Every process calls it.

    Raises:
        NonFiniteError: If `on_nonfinite` is ``stop``, or too many consecutive steps were skipped.
    """
    watch, args = trainer.watch, trainer.args
    step = trainer.state.global_step + 1
    broken, rows = _rows_of_all(trainer)
    problem = next(text for text in gather_objects(watch.describe()) if text)
    skips = args.on_nonfinite == "skip" and watch.consecutive_skips < MAX_SKIPPED
    folder = Path(args.output_dir or "") / f"nonfinite-step-{step}"
    if not skips or watch.skipped == 0:
        write_dump(trainer, folder, step)
    named = _listed(broken or rows)
    where = f"step {step}, row{'s' if len(broken or rows) > 1 else ''} {named}"
    if not skips:
        changed = trainer.is_deepspeed_enabled and watch.grad_norm is not None
        problem += (
            "; DeepSpeed has already applied this step, earlier checkpoints are kept"
            if changed
            else "; this step did not change any weight"
        )
        if watch.consecutive_skips:
            skipped = counted(watch.consecutive_skips, "step before it was", "steps before it were")
            problem += f", and {skipped} skipped"
        option = trainer.option_names.get("on_nonfinite", "on_nonfinite")
        remedy = (
            f"Replay the step with 'unidpo-mm replay {folder}', fix or remove the row, lower the "
            f"learning rate, or set {option} to skip"
        )
        if lost := weights_not_finite(trainer.model_wrapped):
            problem, remedy = f"{problem}; {lost}", RESTORE
        raise NonFiniteError(Problem(where, problem, remedy))
    watch.skipped += 1
    watch.consecutive_skips += 1
    if trainer.is_world_process_zero():
        logger.warning("%s: %s; the step is skipped (%d so far)", where, problem, watch.skipped)
    trainer.train_sums.table = trainer.metrics_before
    if trainer.ledger is not None:
        trainer.ledger.skip_step()
    trainer.model_wrapped.zero_grad(set_to_none=True)  # optimizers ignore weights without gradient


def write_dump(trainer: SavingTrainer, folder: Path, step: int) -> None:
    """Write all inputs of the current step; every process calls it."""
    staged = folder.parent / f".{folder.name}"
    if trainer.is_world_process_zero():
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
    barrier()
    trainer.save_model(str(staged / "model"), _internal_call=True)
    staged.mkdir(parents=True, exist_ok=True)  # on the disks of other nodes
    torch.save(_batches(trainer), staged / rank_file(trainer.args.process_index))
    if trainer.is_world_process_zero():
        text = json.dumps(_description(trainer, step), indent=1)
        (staged / DUMP_FILE).write_text(text, encoding="utf-8")
    barrier()
    if trainer.is_world_process_zero():
        shutil.rmtree(folder, ignore_errors=True)
        staged.rename(folder)
    barrier()


def _description(trainer: SavingTrainer, step: int) -> dict[str, Any]:
    parts, args, watch = trainer.parts, trainer.args, trainer.watch
    plain: Any = parts.logp_model.model
    norm = None if watch.grad_norm is None else float(watch.grad_norm)
    name, _ = resolve_loss(args)
    return {
        "format": FORMAT_VERSION,
        "step": step,
        "processes": args.world_size,
        "units": float(trainer.units),
        "loss": parts.settings.describe(),
        "loss_path": name if is_path(name) else None,
        "loss_state": loss_state(parts.settings),
        "family": parts.family.name,
        "autocast": _name(compute_dtype(args, parts.logp_model))
        if args.bf16 or args.fp16
        else None,
        "chunk_size": parts.logp_model.chunk_size,
        "grad_norm": norm,
        "dropout": not args.disable_dropout,
        "lora_adapter": getattr(plain, "active_adapter", None),
        "attention": str(plain.config.get_text_config()._attn_implementation).removeprefix(PREFIX),
        "weights": {
            name: {"dtype": _name(p.dtype), "trains": p.requires_grad}
            for name, p in plain.named_parameters()
        },
    }


def _batches(trainer: SavingTrainer) -> dict[str, Any]:
    """Return the micro-batches of this process, with the log-probs of the reference."""
    reference = trainer.parts.reference
    content = []
    for batch, per_unit in trainer.watch.batches:
        logps = None
        if reference is not None:
            with torch.no_grad(), trainer.accelerator.autocast():
                logps = reference.token_logps(trainer.model_wrapped, batch).cpu()
        content.append(
            {
                "batch": _plain(batch),
                "per_unit": per_unit.cpu(),
                "reference": logps,
                "rows": list(batch.units(trainer.watch.unit).row_ids),
            }
        )
    return {"batches": content, "rng_state": trainer.watch.rng_state}


def _plain(value: Any) -> Any:
    """Convert records to mappings of tensors on the CPU, texts and numbers.

    `torch.load` reads these types without running code.
    """
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if dataclasses.is_dataclass(value):
        fields = [f.name for f in dataclasses.fields(value) if f.init]
        return {name: _plain(getattr(value, name)) for name in fields}
    return value


def _rows_of_all(trainer: SavingTrainer) -> tuple[list[str], list[str]]:
    broken: dict[str, None] = {}
    rows: dict[str, None] = {}
    for rank_broken, rank_rows in gather_objects(trainer.watch.rows()):
        broken |= dict.fromkeys(rank_broken)
        rows |= dict.fromkeys(rank_rows)
    return list(broken), list(rows)


def _listed(rows: list[str]) -> str:
    text = ", ".join(f"'{row}'" for row in rows[:MAX_NAMED])
    return text + (f" and {len(rows) - MAX_NAMED} more" if len(rows) > MAX_NAMED else "")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
