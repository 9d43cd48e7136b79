"""The record of a run in its output directory: recipe, settings, and a report to look at."""

import dataclasses
import enum
import hashlib
import json
import logging
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState

from ..atomic import write_text
from ..config import Recipe, dump_recipe
from ..modeling.logp_model import unwrap_peft
from ..report import RunRecord, report_page
from ..report.sections import TRAINING_KEYS
from .output_directory import RECIPE_FILE, RECORD_FILE, file_stamps
from .saving import SavingTrainer

__all__ = ["REPORT_FILE", "WriteRecord", "WriteReport"]

logger = logging.getLogger(__name__)

REPORT_FILE = "report.html"
"""The report of a run."""

STATE = ("global_step", "max_steps", "log_history")
"""Fields of the state of the trainer that the report needs."""

RECORDED_PACKAGES = ("unidpo-mm", "torch", "transformers", "peft", "accelerate", "datasets")


class WriteRecord(TrainerCallback):
    """A callback that writes the recipe and the record of a run when training begins.

    A run that is refused before that writes nothing.
    """

    def __init__(self, recipe: Recipe, trainer: SavingTrainer) -> None:
        self.recipe = recipe
        self.trainer = trainer

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write both files on the first process."""
        if state.is_world_process_zero:
            write_record(self.recipe, self.trainer)
            if state.global_step:
                logger.warning("resuming at step %d of %d", state.global_step, state.max_steps)


class WriteReport(TrainerCallback):
    """A callback that writes the report of a run at its start, its checkpoints and its end."""

    def __init__(self, trainer: SavingTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Replace the report of an earlier run in the same directory."""
        self._write(state)

    def on_save(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the report up to this step."""
        self._write(state)

    def on_train_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the report of the whole run."""
        self._write(state, ended=True)

    def _write(self, state: TrainerState, *, ended: bool = False) -> None:
        trainer = self.trainer
        if not (state.is_world_process_zero and trainer.args.should_save):
            return
        folder = Path(trainer.args.output_dir or "")
        try:
            record = record_of(trainer, state)
            has_ledger = trainer.ledger is not None
            page = report_page(record, trainer.alarms, ended=ended, has_ledger=has_ledger)
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / REPORT_FILE, page)
        except Exception as error:  # a report must never end a run
            logger.warning("%s cannot be written: %s", folder / REPORT_FILE, error)


def record_of(trainer: SavingTrainer, state: TrainerState) -> RunRecord:
    """Return the record of a run that is in progress."""
    return RunRecord(
        directory=Path(trainer.args.output_dir or ""),
        recipe=trainer.recipe or _options(trainer),
        settings=settings_of(trainer),
        state={name: getattr(state, name) for name in STATE},
        identity=trainer.identity or {},
    )


def write_record(recipe: Recipe, trainer: SavingTrainer) -> None:
    """Write the resolved recipe and a record of the run into the output directory."""
    folder = Path(recipe.train.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / RECIPE_FILE, dump_recipe(recipe))
    record = {
        **settings_of(trainer),
        "prompts": _prompts(recipe, trainer.parts.adapter.processor),
        "judges": {
            source.source_name: source.scores.judge
            for source in recipe.data.sources
            if source.scores.judge is not None
        },
        "data_files": file_stamps(recipe),
    }
    write_text(folder / RECORD_FILE, json.dumps(record, indent=2))


def settings_of(trainer: SavingTrainer) -> dict[str, Any]:
    """Return what a run uses: loss, reference, layout, number of rows, processes and versions."""
    parts = trainer.parts
    return {
        "loss": parts.settings.describe(),
        "reference": parts.reference_name,
        "layout": dataclasses.asdict(trainer.layout),
        "train_rows": None if parts.stream else len(parts.train_rows),
        "eval_rows": len(parts.eval_rows),
        "processes": trainer.args.world_size,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in RECORDED_PACKAGES},
    }


def _options(trainer: SavingTrainer) -> Mapping[str, Any]:
    """Return the options of a run from Python, in the sections of a recipe."""
    args, model = trainer.args, trainer.parts.logp_model.model
    base = unwrap_peft(model)
    train = {key: getattr(args, key) for key in TRAINING_KEYS if hasattr(args, key)}
    return {
        "model": {
            "name_or_path": getattr(base, "name_or_path", None) or None,
            "freeze": args.freeze,
            "lora": _lora(getattr(model, "peft_config", {})),
        },
        "train": {k: v.value if isinstance(v, enum.Enum) else v for k, v in train.items()},
    }


def _lora(configs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return rank, alpha and targets of the first LoRA adapter; `None` if there is none."""
    for config in configs.values():
        targets = getattr(config, "target_modules", None)
        return {
            "r": getattr(config, "r", None),
            "alpha": getattr(config, "lora_alpha", None),
            "targets": sorted(targets) if isinstance(targets, set | list | tuple) else targets,
        }
    return None


def _prompts(recipe: Recipe, processor: Any) -> dict[str, Any]:
    """Return the rendering of prompts and responses, and the digest of the chat template."""
    tokenizer = getattr(processor, "tokenizer", None)
    template = getattr(processor, "chat_template", None)
    template = template or getattr(tokenizer, "chat_template", None)
    style = recipe.model.prompt_style
    if style == "auto":
        style = "raw" if template is None else "chat"
    sources = (*recipe.data.sources, *recipe.data.eval_sources)
    return {
        "style": style,
        "chat_template_sha256": (
            None if template is None else hashlib.sha256(str(template).encode()).hexdigest()
        ),
        "chat_template_kwargs": recipe.model.chat_template_kwargs,
        "reasoning": {s.source_name: s.reasoning for s in sources if s.reasoning is not None},
    }
