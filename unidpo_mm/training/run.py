"""Train from a recipe, from reading its data to recording the run."""

import contextlib
import dataclasses
import logging
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import TrainerCallback

from ..config import Recipe, dump_recipe
from ..config.checks.python_arguments import check_steps
from ..config.from_recipe import config_of
from ..config.options import option_names
from ..config.python import UniDPOConfig
from ..config.yaml_loader import parse_yaml
from ..data.load import DataFiles
from ..distributed import errors_shared
from ..errors import Problem, RecipeError, UniDPOError
from ..plugins import CALLBACKS, OBSERVERS, Kind, load, suggestion
from .checkpoints import CheckpointDamaged, checkpoint_paths, clean_up, verify
from .console import print_startup_report
from .identity import ALLOW_ALL, compare_options, read_identity, recorded_options, refuse_changes
from .observers import Observer
from .output_directory import RECIPE_FILE, exclusive, same_data_files, same_sections
from .run_record import WriteRecord
from .trainer import UniDPOTrainer

__all__ = [
    "check_from_recipe",
    "data_files",
    "finished_run",
    "run_settings",
    "train_from_recipe",
    "trainer_for",
]

logger = logging.getLogger(__name__)


LENGTH_OPTIONS = ("max_steps", "num_train_epochs")
"""Options that set the length of a run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings:
    """The options of a recipe, apart from data and model.

    Attributes:
        args: The options of the trainer.
        names: Field of `UniDPOConfig` -> its name in a recipe.
        callbacks, observers: Those of `run.callbacks` and `run.observers`.
    """

    args: UniDPOConfig
    names: dict[str, str]
    callbacks: list[TrainerCallback]
    observers: list[Observer]


def train_from_recipe(recipe: Recipe) -> UniDPOTrainer:
    """Train from a recipe, or resume its run, and return the trainer.

    The resolved recipe, a record of the run, and the final model with its processor are written
    into the output directory, next to the checkpoints.

    Raises:
        UniDPOError: If the recipe, a row or the model cannot be used; raised before training
            starts.
    """
    settings = run_settings(recipe)
    with contextlib.ExitStack() as stack:
        with errors_shared():
            if settings.args.should_save:
                stack.enter_context(exclusive(Path(recipe.train.output_dir)))
                _check_resumable(recipe, settings)
        trainer = trainer_for(recipe, settings)
        trainer.add_callback(WriteRecord(recipe, trainer))
        trainer.train(resume_from_checkpoint=_requested(recipe))
        trainer.save_final_model()
    return trainer


def finished_run(recipe: Recipe) -> str | None:
    """Return a message if the run of a recipe is already finished; `None` if it is not.

    Neither the model nor the data is read.
    """
    if recipe.run.resume != "auto":
        return None
    folder = Path(recipe.train.output_dir)
    try:
        manifest = verify(folder)
        recorded = read_identity(folder)
        if recorded is None or not (
            same_sections(folder, recipe) and same_data_files(folder, recipe)
        ):
            return None  # training reads the data and reports which rows differ
    except (CheckpointDamaged, OSError, ValueError, AttributeError):
        return None
    current = recorded_options(config_of(recipe))
    changes = compare_options(recorded["options"], current, processes=(1, 1))
    if any(not change.honored or change.name in LENGTH_OPTIONS for change in changes):
        return None
    with contextlib.suppress(RecipeError), exclusive(folder):
        clean_up(folder)  # the run may have been killed after writing the last file
    return (
        f"'{folder}' holds the finished run: step {manifest.step} of {manifest.max_steps}. Nothing "
        "was changed. To train further, raise train.max_steps or train.num_train_epochs; to start "
        "from scratch, set run.resume=never or another train.output_dir"
    )


def _check_resumable(recipe: Recipe, settings: RunSettings) -> None:
    """Compare the options of a recipe with its checkpoint, before data and model are read.

    Raises:
        RecipeError: If an option that may change the result differs, unless that is allowed.
    """
    requested = _requested(recipe)
    paths = [Path(requested)] if isinstance(requested, str) else []
    if requested is True:
        paths = checkpoint_paths(Path(recipe.train.output_dir))
    for path in paths:
        if recorded := read_identity(path):
            current = recorded_options(settings.args)
            changes = compare_options(recorded["options"], current, processes=(1, 1))
            allowed = recipe.run.allow_changes or ()
            refuse_changes(changes, allowed, checkpoint=path, names=settings.names)
            return


def _requested(recipe: Recipe) -> str | bool | None:
    """Return the checkpoint to resume from: True for the newest, `None` to start from scratch."""
    if recipe.run.resume == "never":
        return None
    if recipe.run.resume != "auto":
        return recipe.run.resume
    return bool(checkpoint_paths(Path(recipe.train.output_dir))) or None


def check_from_recipe(recipe: Recipe) -> None:
    """Read recipe, data and model as a run does, print its startup report, and stop."""
    folder = Path(recipe.train.output_dir)
    existed = folder.exists()
    trainer = trainer_for(recipe)
    if not existed and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()  # transformers creates it, but a check must not leave files behind
    args = trainer.args
    steps_per_epoch = -(-len(trainer.get_train_dataloader()) // args.gradient_accumulation_steps)
    steps = args.max_steps if args.max_steps > 0 else round(steps_per_epoch * args.num_train_epochs)
    check_steps(args, steps)
    print_startup_report(trainer, max_steps=steps, console=Console())


def trainer_for(recipe: Recipe, settings: RunSettings | None = None) -> UniDPOTrainer:
    """Read the data, load the model and build the trainer of a recipe.

    Raises:
        UniDPOError: If data, settings or model have problems; lists those of all data files.
    """
    settings = settings or run_settings(recipe)
    training, evaluation = data_files(recipe)
    trainer = UniDPOTrainer(
        recipe.model.name_or_path,
        settings.args,
        train_dataset=training,
        eval_dataset=evaluation,
        peft_config=recipe.model.lora,
        callbacks=settings.callbacks,
        observers=settings.observers,
    )
    trainer.option_names = settings.names
    trainer.recipe = parse_yaml(dump_recipe(recipe), RECIPE_FILE).data
    return trainer


def data_files(recipe: Recipe) -> tuple[DataFiles, DataFiles]:
    """Return the sources of training and of evaluation."""
    data = recipe.data
    return (
        DataFiles(sources=data.sources, images=data.images),
        DataFiles(sources=data.eval_sources, images=data.images),
    )


def run_settings(recipe: Recipe) -> RunSettings:
    """Return the options, callbacks and observers of a recipe, before data and model are read.

    Raises:
        RecipeError: If an argument, a callback, an observer or an allowed change is invalid.
    """
    args = config_of(recipe)
    names = option_names(field.name for field in dataclasses.fields(args))
    allowed = {*names.values(), ALLOW_ALL}
    problems = [
        Problem(
            "run.allow_changes",
            f"unknown name '{name}'{suggestion(name, allowed)}",
            f"Use data, model, processes, {ALLOW_ALL} or a key of the recipe",
        )
        for name in (recipe.run.allow_changes or ())
        if name not in allowed
    ]
    made: dict[Kind, list[Any]] = {CALLBACKS: [], OBSERVERS: []}
    for kind, sections in ((CALLBACKS, recipe.run.callbacks), (OBSERVERS, recipe.run.observers)):
        for name, settings in sections.items():
            try:
                made[kind].append(load(kind, name)(settings))
            except UniDPOError as error:
                where = f"{kind.where}.{name}"
                problems += error.problems or [Problem(where, str(error), "Correct it")]
    if problems:
        raise RecipeError(problems)
    return RunSettings(args=args, names=names, callbacks=made[CALLBACKS], observers=made[OBSERVERS])
