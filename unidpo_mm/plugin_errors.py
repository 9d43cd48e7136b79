"""Problems of plugins: fields of the wrong type, and exceptions raised in users' files."""

import traceback
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

__all__ = ["MODULE_PREFIX", "failed_line", "located", "wrong_fields"]

MODULE_PREFIX = "unidpo_mm_plugin_"
"""Start of the module names of users' files."""


def wrong_fields(plugin: Any) -> dict[str, str]:
    """Return each field of a dataclass whose value does not have the declared type."""
    if not is_dataclass(plugin) or isinstance(plugin, type):
        return {}
    from pydantic import ValidationError

    wrong = {}
    for name, hint in get_type_hints(type(plugin)).items():
        value = getattr(plugin, name, None)
        try:
            _adapter(hint).validate_python(value, strict=not isinstance(value, set))
        except ValidationError as error:
            wrong[name] = f"is {value!r:.80}: {error.errors()[0]['msg'].lower()}"
    return wrong


def _adapter(hint: Any) -> Any:
    """Return the check of a type; records are only checked to be of their class."""
    from pydantic import ConfigDict, TypeAdapter
    from pydantic.errors import PydanticUserError

    try:
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:  # a dataclass cannot get a config
        return TypeAdapter(hint)


def failed_line(error: BaseException) -> str:
    """Return file and line of the innermost frame in a user's plugin file; empty without one."""
    places = [
        f"{frame.f_code.co_filename}, line {line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__", "").startswith(MODULE_PREFIX)
    ]
    return places[-1] if places else ""


def located(error: BaseException) -> str:
    """Return an exception as one line, with the line of code that raised it."""
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    line = f"line {frames[-1].lineno} of {Path(frames[-1].filename).name}: " if frames else ""
    place = failed_line(error)  # rather than the line of a library that the file calls
    if place:
        file, _, number = place.rpartition(", line ")
        line = f"line {number} of {Path(file).name}: "
    text = " ".join(str(error).split())
    return f"{line}{type(error).__name__}: {text}".rstrip(": ")
