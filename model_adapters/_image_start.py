"""Errors of a processor that cannot encode any image, which are found before the first row.

A chat template without a placeholder for images, or a missing setting, would otherwise be reported
for each row with an image, as if the row had caused it.
"""

from collections.abc import Sequence
from typing import Any

from unidpo_mm.adapter import ImageSetting, place_of
from unidpo_mm.errors import DataError, Problem, ProcessorError

from ._images import TOKEN_SETTINGS

__all__ = [
    "cannot_encode",
    "other_tensors",
    "template_failure",
    "unknown_placeholder",
    "wrong_placeholders",
    "wrong_token",
]


def wrong_placeholders(processor: Any, image_token: str, count: int) -> ProcessorError:
    """Return the error of a chat template that writes another number of placeholders than one."""
    number = f"{count} placeholders" if count else "no placeholder"
    problem = f"the chat template of the model writes {number} for an image ('{image_token}')"
    remedy = f"Save a chat template that writes '{image_token}' once for each image"
    return ProcessorError(Problem(place_of(processor), problem, remedy))


def template_failure(processor: Any, error: DataError) -> ProcessorError | None:
    """Return the error of a chat template that fails for every row.

    Args:
        processor: The processor with the template.
        error: Why the template refuses a row with an image.

    Returns:
        The error; `None` if the template may accept other rows.
    """
    from jinja2 import TemplateSyntaxError

    cause = error.__cause__
    if not isinstance(cause, TemplateSyntaxError | TypeError):
        return None
    problem = f"the chat template of the model fails for an image: {_text(cause)}"
    remedy = "Save a chat template that accepts a list of texts and images as content"
    if isinstance(cause, TemplateSyntaxError):
        remedy = "Correct the chat template"
    return ProcessorError(Problem(place_of(processor), problem, remedy))


def cannot_encode(
    processor: Any, settings: Sequence[ImageSetting], error: BaseException
) -> ProcessorError:
    """Return the error of a processor that cannot encode any image.

    Args:
        processor: The processor.
        settings: Its settings that the number of image tokens depends on.
        error: Why it refuses an image.
    """
    names = [f"{s.name} in {s.place}" for s in settings if s.value is None]
    missing = " and ".join(names)
    problem = f"{type(processor).__name__} cannot encode an image: {_text(error)}"
    remedy = "Use the files of the processor from the original checkpoint"
    if missing:
        verb = "is" if len(names) == 1 else "are"
        problem = f"{missing} {verb} not set, so {type(processor).__name__} cannot encode an image "
        problem += f"({_text(error)})"
        remedy = f"Set {missing}, as in the original checkpoint"
    return ProcessorError(Problem(place_of(processor), problem, remedy))


def wrong_token(processor: Any, config: Any, expected: int, token: str | None) -> ProcessorError:
    """Return the error of a processor whose image token has another id than in the configuration.

    Args:
        processor: The processor.
        config: The configuration of the model.
        expected: The id in the configuration.
        token: The image token of the processor; `None` for what it writes for an image.
    """
    tokenizer = getattr(processor, "tokenizer", processor)
    name = next(name for name in TOKEN_SETTINGS if getattr(config, name, None) == expected)
    if token is None:
        token_id = getattr(processor, "image_token_id", None)
        token_id = token_id if isinstance(token_id, int) else None
    else:
        token_id = tokenizer.convert_tokens_to_ids(token)
    problem = f"config.json says {name} {expected}, and "
    if token_id in (None, expected):
        problem += f"{type(processor).__name__} writes no such token for an image"
    else:
        text = tokenizer.convert_ids_to_tokens(token_id) if token is None else token
        problem += f"the tokenizer has '{text}' at {token_id}"
    remedy = f"Correct {name} in config.json, or the files of the tokenizer"
    return ProcessorError(Problem(place_of(processor), problem, remedy))


def other_tensors(processor: Any, names: Sequence[str]) -> ProcessorError:
    """Return the error of a processor that returns tensors which the model does not take."""
    problem = f"{type(processor).__name__} belongs to another model: it returns {', '.join(names)}"
    remedy = "Use the files of the processor from the original checkpoint"
    return ProcessorError(Problem(place_of(processor), f"{problem} for an image", remedy))


def unknown_placeholder(processor: Any) -> ProcessorError:
    """Return the error of a model without a chat template whose placeholder is in no table."""
    problem = "the model has no chat template, and how it writes an image in a prompt is not known"
    remedy = "Save a chat template with the processor"
    return ProcessorError(Problem(place_of(processor), problem, remedy))


def _text(error: BaseException) -> str:
    """Return the class and the first words of an error in a line."""
    text = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
