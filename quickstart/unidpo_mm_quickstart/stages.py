"""The stages of the quick-start: assemble, warm up, tune on preferences.

Both training stages are ordinary recipes, `configs/quickstart/warmup.yaml` and `uni_dpo.yaml`. This
module sets their paths and seeds.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState

from unidpo_mm.config import Recipe, load_recipe
from unidpo_mm.config.shipped import shipped_recipe
from unidpo_mm.number_format import fastest_dtype
from unidpo_mm.training.callbacks import StartupReport
from unidpo_mm.training.console import ConsoleProgress
from unidpo_mm.training.run import trainer_for
from unidpo_mm.training.run_record import WriteRecord
from unidpo_mm.training.trainer import UniDPOTrainer

from .assets import fetch_assets
from .qwen_shape import assemble_qwen_vl
from .training_rows import DOMAINS, DemoData, Sizes, write_data
from .vlm import assemble_vlm

__all__ = ["Shape", "Start", "assemble", "dtype_overrides", "train_quietly", "tune", "warm_up"]

Shape = Literal["llava", "qwen_vl"]
OnProgress = Callable[[float], None]
"""Called with the fraction of the optimizer steps that are done."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """The starting point of a stage.

    Attributes:
        folder: Directory of the seed's files.
        seed: Seed of everything.
        data: The data files and images.
        model: Directory of the model.
    """

    folder: Path
    seed: int
    data: DemoData
    model: Path


def assemble(
    folder: Path,
    seed: int,
    *,
    split: str,
    shape: Shape = "llava",
    sizes: Sizes | None = None,
) -> Start:
    """Download the parts, write the data and assemble the model.

    Args:
        folder: Directory for the data and models of this seed.
        seed: Seed of everything.
        split: Unseen concepts to evaluate on, ``heldout`` or ``validation``.
        shape: ``llava``, or ``qwen_vl``, whose vision tower is random.
        sizes: Numbers of images and rows; `None` for the defaults.
    """
    assets = fetch_assets()
    data = write_data(assets.emoji, folder / "data", seed=seed, split=split, sizes=sizes)
    if shape == "llava":
        model = assemble_vlm(assets, data.train, seed=seed)
    else:
        model = assemble_qwen_vl(assets, seed=seed)
    copy = shutil.copytree(model, folder / "assembled", dirs_exist_ok=True)
    return Start(folder=folder, seed=seed, data=data, model=copy)


def warm_up(
    start: Start, on_progress: OnProgress | None = None, *, overrides: Sequence[str] = ()
) -> Path:
    """Run the warm-up recipe; return the directory of the model with its LoRA adapter merged.

    Args:
        start: The assembled model and the data.
        on_progress: Called after each optimizer step.
        overrides: Overrides of recipe keys.
    """
    folder = start.folder / "warmup"
    recipe = load_recipe(
        shipped_recipe("quickstart/warmup.yaml"),
        [
            f"model.name_or_path={start.model}",
            f"data.sources=[{{path: {start.data.file('warmup')}}}]",
            f"train.output_dir={folder}",
            *_overrides(start.seed),
            *overrides,
        ],
    )
    trainer = _train(recipe, on_progress)
    merged = folder / "merged"
    model: Any = trainer.model.model
    model.merge_and_unload().to(fastest_dtype()).save_pretrained(merged)
    trainer.parts.adapter.processor.save_pretrained(merged)
    return merged


def tune(
    start: Start,
    folder: Path,
    *,
    recipe: Path | None = None,
    overrides: Sequence[str] = (),
    on_progress: OnProgress | None = None,
) -> list[Mapping[str, float]]:
    """Run the preference stage; write the tuned model and return the log history.

    Args:
        start: The warmed-up model and the data.
        folder: Directory for the tuned model.
        recipe: The recipe; `None` for `configs/quickstart/uni_dpo.yaml`.
        overrides: Overrides of recipe keys, in which `$DATA` is replaced by the data directory.
        on_progress: Called after each optimizer step.
    """
    scale = "scores: {scale: [0, 10], judge: rules}"
    sources = ", ".join(
        f"{{path: {start.data.file(domain)}, name: {domain}, domain: {domain}, {scale}}}"
        for domain in DOMAINS
    )
    loaded = load_recipe(
        recipe or shipped_recipe("quickstart/uni_dpo.yaml"),
        [
            f"model.name_or_path={start.model}",
            f"data.sources=[{sources}]",
            f"train.output_dir={folder}",
            *_overrides(start.seed),
            *(override.replace("$DATA", str(start.data.folder)) for override in overrides),
        ],
    )
    trainer = _train(loaded, on_progress)
    return list(trainer.state.log_history)


def dtype_overrides(dtype: torch.dtype) -> list[str]:
    """Return the overrides that make a recipe compute in `dtype`."""
    name = str(dtype).removeprefix("torch.")
    return [f"model.dtype={name}", f"train.bf16={str(dtype is torch.bfloat16).lower()}"]


class Progress(TrainerCallback):
    """A callback that reports the fraction of the steps that are done."""

    def __init__(self, on_progress: OnProgress) -> None:
        self.on_progress = on_progress

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Report it."""
        self.on_progress(state.global_step / state.max_steps)


def _overrides(seed: int) -> list[str]:
    """Return the overrides that set every seed, never resume, and use the fastest dtype."""
    seeds = [f"train.seed={seed}", f"data.seed={seed}"]
    return [*seeds, "run.resume=never", *dtype_overrides(fastest_dtype())]


def _train(recipe: Recipe, on_progress: OnProgress | None) -> UniDPOTrainer:
    """Train from a recipe; with `on_progress`, the trainer itself prints nothing."""
    trainer = trainer_for(recipe)
    trainer.add_callback(WriteRecord(recipe, trainer))
    if on_progress is not None:
        trainer.args.disable_tqdm = True
        for callback in (ConsoleProgress, StartupReport):
            trainer.remove_callback(callback)
        trainer.add_callback(Progress(on_progress))
    trainer.train()
    trainer.save_final_model()
    return trainer


def train_quietly(recipe: Recipe) -> UniDPOTrainer:
    """Train from a recipe without progress bars, reports or a saved model."""
    trainer = trainer_for(recipe)
    trainer.args.disable_tqdm = True
    for callback in (ConsoleProgress, StartupReport):
        trainer.remove_callback(callback)
    trainer.train()
    return trainer
