"""The generation settings that a trained model is saved with.

Many models have settings of sampling, such as a temperature, in a `generation_config.json` that
does not turn sampling on. transformers saves such settings if they are those of the loaded file,
and raises an error if anything changed. The trainer changes them: it sets the special tokens of the
tokenizer. Without this module, all work would be lost at the first save.
"""

import copy
import logging
import re
import tempfile
from typing import Any

from ..errors import ModelError, Problem

__all__ = ["keep_settings", "prepare_settings"]

logger = logging.getLogger(__name__)

FLAG = re.compile(r"^- `(\w+)`:", re.MULTILINE)
"""A setting in the message of transformers about settings that cannot be saved."""


def prepare_settings(settings: Any) -> None:
    """Make sure that generation settings can be saved after training.

    Settings without effect are kept if transformers saves them, and removed otherwise, with a
    warning.

    Args:
        settings: The `generation_config` of the model; `None` if it has none.

    Raises:
        ModelError: If the settings cannot be saved.
    """
    error = None if settings is None else _saving_error(settings)
    if error is None:
        return
    invalid = FLAG.findall(str(error))
    for name in invalid:
        setattr(settings, name, None)
    if invalid and (error := _saving_error(settings)) is None:
        logger.warning(
            "the model's generation settings are invalid and were removed, because transformers "
            "would not save them: %s",
            ", ".join(invalid),
        )
        return
    problem = f"the generation settings of the model cannot be saved ({_first_line(error)})"
    raise ModelError(Problem("generation_config", problem, "Correct them before training"))


def keep_settings(settings: Any) -> None:
    """Let transformers save settings whose special tokens the trainer has changed.

    Args:
        settings: The `generation_config` of the model; `None` if it has none.
    """
    if settings is not None:
        # transformers compares this number with that of the settings when it saves them
        settings._original_object_hash = hash(settings)


def _saving_error(settings: Any) -> Exception | None:
    """Return why settings cannot be saved after another special token was set, or `None`."""
    changed = copy.deepcopy(settings)
    changed.bos_token_id = 1 if changed.bos_token_id == 0 else 0
    with tempfile.TemporaryDirectory() as directory:
        try:
            keep_settings(changed)
            changed.save_pretrained(directory)
        except (TypeError, ValueError) as error:
            return error
    return None


def _first_line(error: Exception | None) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip().rstrip(".:") if lines else type(error).__name__
