"""Variables for the chat template in evaluation, and those that a checkpoint was trained with."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from unidpo_mm.errors import Problem, RecipeError

if TYPE_CHECKING:
    from .checkpoint import Checkpoint

__all__ = [
    "TRAINED_WITH",
    "VARIABLES",
    "different_variables",
    "parse_variables",
    "variables_of",
]

OPTION = "--chat-template-kwargs"
RECORD = "run.json"
"""What the trainer writes beside a checkpoint, or beside the directory of several."""
VARIABLES = "chat_template_kwargs"
"""Key of a manifest, and of the prompts in the trainer's record."""
TRAINED_WITH = "trained_with_chat_template_kwargs"
"""Key of a manifest whose checkpoint was trained with other variables."""


def parse_variables(values: Sequence[str]) -> dict[str, Any]:
    """Return the variables of a command line: JSON objects, or NAME=VALUE.

    Raises:
        RecipeError: With every value that is neither.
    """
    variables: dict[str, Any] = {}
    problems = []
    for text in values:
        try:
            variables |= _parsed(text)
        except ValueError:
            remedy = "Use a JSON object such as '{\"enable_thinking\": false}', or NAME=VALUE"
            problems.append(Problem(OPTION, f"cannot read '{text}'", remedy))
    if problems:
        raise RecipeError(problems)
    return variables


def _parsed(text: str) -> dict[str, Any]:
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


def variables_of(checkpoint: "Checkpoint", variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a manifest records of the variables; nothing where there are none.

    Args:
        checkpoint: The checkpoint, whose trainer may have recorded others.
        variables: The ones in use.
    """
    record: dict[str, Any] = {VARIABLES: dict(variables)} if variables else {}
    trained = _trained_with(checkpoint)
    if trained is not None and trained != dict(variables):
        record[TRAINED_WITH] = trained
    return record


def different_variables(manifest: Mapping[str, Any]) -> str | None:
    """Return a warning if a checkpoint was trained with other variables than it is asked with."""
    if TRAINED_WITH not in manifest:
        return None
    used, trained = manifest.get(VARIABLES) or {}, manifest[TRAINED_WITH]
    return (
        f"the checkpoint was trained with {VARIABLES} {json.dumps(trained)} and is evaluated with "
        f"{json.dumps(used)}: use {OPTION} '{json.dumps(trained)}' for the prompts of its training"
    )


def _trained_with(checkpoint: "Checkpoint") -> dict[str, Any] | None:
    """Return the variables in the trainer's record; `None` if there is no record of them."""
    folder = Path(checkpoint.base) if checkpoint.lora is None else checkpoint.lora
    for place in (folder, folder.parent):
        try:
            content = json.loads((place / RECORD).read_text(encoding="utf-8"))
            variables = content["prompts"][VARIABLES]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        return dict(variables) if isinstance(variables, dict) else {}
    return None
