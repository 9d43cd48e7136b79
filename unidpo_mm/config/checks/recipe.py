"""Check a recipe against losses, training arguments, the disk and the machine.

Each check takes a typed recipe and returns problems whose `where` is a key path; `load_recipe` adds
file and line and reports all of them together.
"""

import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_type_hints

from ...errors import ModelError, Problem, RecipeError
from ...lora_directory import ADAPTER_CONFIG, base_of, is_adapter_directory
from ...plugins import load_loss, suggestion
from .. import Recipe, SourceOptions
from ..training_arguments import REMOVED, refused_values, training_arguments
from .argument_ranges import range_problems
from .launch import as_only_process, check_environment
from .loss import loss_config
from .optimizer import one_line
from .packages import check_output, check_packages, check_secrets
from .types import type_problems

__all__ = [
    "ALL_CHECKS",
    "check_environment",
    "check_files",
    "check_loss",
    "check_machine",
    "check_train",
]

HUB_NAME = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")
"""``organisation/name``, the form of names on a hub."""

OTHER_KEYS = {
    "resume_from_checkpoint": "Use run.resume instead",
    "data_seed": "Use data.seed instead",
}
"""Training arguments that a recipe sets elsewhere."""


def check_loss(recipe: Recipe) -> list[Problem]:
    """Check that the loss exists and has the parameters of the recipe and of each source."""
    try:
        loss = load_loss(recipe.loss.name)
    except RecipeError as error:
        return list(error.problems)
    problems = loss_config(loss, recipe.loss.parameters, "loss")[1]
    for where, source in _sources(recipe):
        problems += loss_config(loss, dict(source.loss), f"{where}.loss")[1]
    return problems


def _sources(recipe: Recipe) -> Iterator[tuple[str, SourceOptions]]:
    """Yield each source of training and evaluation data with its key path."""
    for group in ("sources", "eval_sources"):
        for number, source in enumerate(getattr(recipe.data, group)):
            yield f"data.{group}.{number}", source


def check_train(recipe: Recipe) -> list[Problem]:
    """Check the keys of `train`: names, types, ranges and unsupported arguments."""
    from transformers import TrainingArguments  # importing it takes seconds

    arguments = recipe.train.arguments
    hints = get_type_hints(TrainingArguments)
    problems = []
    values = {}
    for name, value in arguments.items():
        if name in OTHER_KEYS:
            problems.append(Problem(f"train.{name}", "this is not set here", OTHER_KEYS[name]))
        elif name not in training_arguments():
            problems.append(_unknown_argument(recipe, name))
        elif wrong := type_problems(f"train.{name}", value, hints[name]):
            problems += wrong
        else:
            values[name] = value
    defaults = {**training_arguments(), "learning_rates": recipe.train.learning_rates}
    problems += refused_values(values, prefix="train.")
    problems += range_problems(values, defaults, prefix="train.")
    sizes = {name: getattr(recipe.model, name) for name in ("image_min_size", "image_max_size")}
    problems += range_problems(sizes, {}, prefix="model.")
    return [*problems, *_held_out(recipe, arguments)]


def _unknown_argument(recipe: Recipe, name: str) -> Problem:
    where = f"train.{name}"
    if name in REMOVED:
        return Problem(where, f"transformers no longer has an argument '{name}'", REMOVED[name])
    fields = list(type(recipe.train).model_fields)
    near = suggestion(name, [*training_arguments(), *fields])
    text = f"unknown training argument '{name}'{near}"
    remedy = f"Use one of {', '.join(fields)}, or an argument of transformers.TrainingArguments"
    return Problem(where, text, remedy)


def _held_out(recipe: Recipe, arguments: Mapping[str, Any]) -> list[Problem]:
    """Return a problem for each argument that evaluates, if no row is held out."""
    if recipe.data.eval_fraction > 0 or recipe.data.eval_sources:
        return []
    evaluating = [
        name
        for name, off in (("eval_strategy", "no"), ("eval_on_start", False))
        if arguments.get(name, off) != off
    ]
    remedy = "Set data.eval_fraction or data.eval_sources, or remove it"
    return [Problem(f"train.{name}", "no row is held out", remedy) for name in evaluating]


def check_machine(recipe: Recipe) -> list[Problem]:
    """Check whether transformers accepts the arguments together and on this machine."""
    arguments = recipe.train.arguments
    if check_train(recipe) or check_environment(recipe):
        return []
    problems = check_packages(recipe)
    if problems or not arguments:
        return problems
    text = _refusal_by_transformers(arguments)
    if not text:
        return []
    mentioned = {name: re.search(rf"\b{name}\b", text) for name in arguments}
    places = {name: match.start() for name, match in mentioned.items() if match}
    names = sorted(places, key=lambda name: places[name])
    for name in (*names, *arguments):  # blame the argument without which there is no error
        others = {other: value for other, value in arguments.items() if other != name}
        if not _refusal_by_transformers(others):
            return [Problem(f"train.{name}", text, f"Change train.{name}")]
    where = f"train.{names[0]}" if names else "train"
    return [Problem(where, text, "Change the arguments that cause it")]


def _refusal_by_transformers(arguments: Mapping[str, Any]) -> str:
    """Return why transformers refuses training arguments; empty if it accepts them."""
    from transformers import TrainingArguments

    try:
        with warnings.catch_warnings(), as_only_process():  # the run itself shows the warnings
            warnings.simplefilter("ignore")
            TrainingArguments(output_dir="unused", **arguments)
    except Exception as error:  # transformers, accelerate and torch raise errors of any kind
        return one_line(error)
    return ""


def check_files(recipe: Recipe) -> list[Problem]:
    """Check that model directory, data files and image directories exist and are readable."""
    problems = [*_check_model(recipe), *check_output(recipe)]
    for where, source in _sources(recipe):
        problems += _check_source(f"{where}.path", source.path)
        images = None if source.images is None else Path(source.images)
        if images is not None and not images.is_dir():
            state = "is not a directory" if images.exists() else "does not exist"
            remedy = "Use the directory of the images, absolute or relative to the recipe"
            problems.append(Problem(f"{where}.images", f"'{images}' {state}", remedy))
    return problems


ALL_CHECKS = (
    check_environment,
    check_files,
    check_secrets,
    check_loss,
    check_machine,
    check_train,
)
"""All checks of a recipe that run before data are read and a model is loaded."""


def _check_model(recipe: Recipe) -> Iterable[Problem]:
    model = recipe.model
    where, path = "model.name_or_path", Path(model.name_or_path)
    if path.is_dir():
        if is_adapter_directory(path):
            yield from _check_adapter(recipe)
        elif not (path / "config.json").is_file():
            problem = f"the directory '{path}' has no config.json and no {ADAPTER_CONFIG}"
            remedy = "Use a directory that save_pretrained wrote for a model or a LoRA adapter"
            yield Problem(where, problem, remedy)
    elif path.exists():
        yield Problem(where, f"'{path}' is a file", "Use the directory that contains it")
    elif not _may_be_on_a_hub(model.name_or_path):
        problem = f"the directory '{model.name_or_path}' does not exist"
        remedy = "Use a directory, absolute or relative to the recipe, or a hub name like org/name"
        yield Problem(where, problem, remedy)
    if model.lora is not None and model.lora.dora and model.lora.init != "default":
        problem = f"'{model.lora.init}' cannot be combined with model.lora.dora"
        yield Problem("model.lora.init", problem, "Remove one of the two")
    if model.base_name_or_path is not None and not is_adapter_directory(path):
        problem = f"it is set, and '{path}' is not a LoRA adapter directory"
        yield Problem("model.base_name_or_path", problem, "Remove it")


def _check_adapter(recipe: Recipe) -> Iterable[Problem]:
    """Check a LoRA adapter directory that training starts from."""
    model, key = recipe.model, "model.base_name_or_path"
    if model.lora is not None:
        problem = f"'{model.name_or_path}' already is a LoRA adapter, and a new one is configured"
        remedy = (
            "Remove model.lora to train the existing adapter, or merge it first: unidpo-mm "
            f"export {model.name_or_path} --merge --output DIRECTORY"
        )
        yield Problem("model.lora", problem, remedy)
    try:
        base_of(model.name_or_path, model.base_name_or_path, key=key)
    except ModelError as error:
        yield from error.problems


def _check_source(where: str, written: str) -> Iterable[Problem]:
    path = Path(written)
    if path.exists():
        if not os.access(path, os.R_OK):
            yield Problem(where, f"'{written}' is not readable", "Change its permissions")
        elif path.is_dir() and not any(path.iterdir()):
            problem = f"the directory '{written}' is empty"
            yield Problem(where, problem, "Use a directory with data files")
    elif not _may_be_on_a_hub(written):
        remedy = "Use a file, absolute or relative to the recipe, or a hub name like org/name"
        yield Problem(where, f"the file '{written}' does not exist", remedy)


def _may_be_on_a_hub(written: str) -> bool:
    """Return whether a name has the form ``org/name`` and does not look like a data file."""
    suffixes = (".json", ".jsonl", ".parquet", ".csv", ".arrow", ".yaml", ".yml")
    return bool(HUB_NAME.match(written)) and not written.lower().endswith(suffixes)
