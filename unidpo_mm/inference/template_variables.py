"""Variables for the chat template, and the options with which a checkpoint was trained."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ..errors import Problem, RecipeError

__all__ = [
    "OPTION",
    "TRAINED_WITH",
    "VARIABLES",
    "parse_variables",
    "trained_model_options",
    "trained_variables",
]

OPTION = "--chat-template-kwargs"
RECORD = "run.json"
"""File of the trainer next to a checkpoint, or next to the directory of several."""
RECIPE = "recipe.yaml"
"""File of the trainer next to `RECORD`."""
VARIABLES = "chat_template_kwargs"
"""Key of a manifest, and of the prompts in the trainer's record."""
TRAINED_WITH = "trained_with_chat_template_kwargs"
"""Key of a manifest whose checkpoint was trained with different variables."""


def parse_variables(values: Sequence[str] | None) -> dict[str, Any]:
    """Parse the variables of a command line: JSON objects, or NAME=VALUE."""
    variables: dict[str, Any] = {}
    problems = []
    for text in values or ():
        try:
            variables |= _parse(text)
        except ValueError:
            remedy = "Use a JSON object such as '{\"enable_thinking\": false}', or NAME=VALUE"
            problems.append(Problem(OPTION, f"cannot parse '{text}'", remedy))
    if problems:
        raise RecipeError(problems)
    return variables


def _parse(text: str) -> dict[str, Any]:
    if text.lstrip().startswith("{"):
        content = json.loads(text)
        if not isinstance(content, dict):
            raise ValueError
        return content
    name, separator, value = text.partition("=")
    if not separator or not name.strip().isidentifier():
        raise ValueError
    try:
        parsed = yaml.safe_load(value)
        json.dumps(parsed)
    except (yaml.YAMLError, TypeError) as error:
        raise ValueError from error
    return {name.strip(): parsed}


def trained_variables(directory: Path) -> dict[str, Any] | None:
    """Return the variables in the trainer's record of a checkpoint; `None` if not recorded."""
    for place in (directory, directory.parent):
        try:
            content = json.loads((place / RECORD).read_text(encoding="utf-8"))
            variables = content["prompts"][VARIABLES]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        return dict(variables) if isinstance(variables, dict) else {}
    return None


def trained_model_options(directory: Path) -> dict[str, Any]:
    """Return the section `model` of the recipe of a run; empty if this is not a run's output.

    Args:
        directory: The output directory of a run, or one of its checkpoints.

    Raises:
        RecipeError: If the recipe of a run cannot be read.
    """
    places = [directory]
    if directory.name.startswith("checkpoint-"):
        places.append(directory.parent)
    for place in places:
        path = place / RECIPE
        if not (path.is_file() and (place / RECORD).is_file()):
            continue
        try:
            return dict(yaml.safe_load(path.read_text(encoding="utf-8"))["model"])
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            problem = f"the recipe of the run cannot be read ({reason.rstrip('.')})"
            raise RecipeError(
                Problem(str(path), problem, "Restore the file or delete it")
            ) from error
    return {}
