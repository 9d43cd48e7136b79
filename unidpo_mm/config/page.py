"""Write the tables of docs/recipe.md and docs/training_arguments.md from the declared options.

Run ``python -m unidpo_mm.config.page docs``.
"""

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from typing_extensions import is_typeddict

from .options import documentation, option_keys
from .problems import section_at
from .python import UniDPOConfig
from .recipe import Recipe, keys_of
from .sections import Section
from .training_arguments import ARGUMENTS, training_arguments

__all__ = ["TABLES", "default_text", "updated_page"]

IN_PYTHON = {
    "model.name_or_path": "`model`",
    "model.dtype": "`model_init_kwargs`",
    "model.lora": "`peft_config`",
    "model.attn_implementation": "`model_init_kwargs`",
    "model.trust_remote_code": "`model_init_kwargs`",
    "model.init_kwargs": "`model_init_kwargs`",
    "data.sources": "`train_dataset`",
    "data.sources.images": "`images`",
    "data.sources.reasoning": "`reasoning`",
    "data.sources.loss": "`loss_by_source`",
    "data.sources.scores": "`scores`",
    "data.eval_sources": "`eval_dataset`",
    "data.seed": "`data_seed`",
    "loss.name": "`loss`",
    "train.output_dir": "`output_dir`",
    "run.resume": "`train(resume_from_checkpoint)`",
    "run.callbacks": "`callbacks`",
    "run.observers": "`observers`",
    **{key: f"`{name}`" for name, key in option_keys().items()},
}
"""Key -> its equivalent in Python. The keys of `Options` are added by the last line."""

INHERITED = {"model.lora.": "`peft_config`", "data.sources.scores.": "`scores`"}
"""Prefix of keys -> their equivalent in Python."""

FILES_ONLY = "recipes only"
"""Text for keys without an equivalent: in Python, rows are passed as objects."""


def updated_page(page: str, tables: Mapping[str, Sequence[str]]) -> str:
    """Replace the tables of a page, which are enclosed in ``<!-- table: TITLE -->`` comments.

    Args:
        page: The page, as Markdown.
        tables: Title of a table -> its lines.

    Raises:
        ValueError: If the page lacks the comments of one of the tables.
    """
    for title, lines in tables.items():
        start, end = f"<!-- table: {title} -->\n", f"\n<!-- /table: {title} -->"
        before, opening, rest = page.partition(start)
        _, closing, after = rest.partition(end)
        if not opening or not closing:
            raise ValueError(f"the page lacks the comments that enclose the table '{title}'")
        page = "\n".join([f"{before}{start}", *lines, f"{end}{after}"])
    return page


def recipe_table() -> list[str]:
    """Return the lines of the table of all recipe keys."""
    head = ["| key | default | meaning | in Python |", "| --- | --- | --- | --- |"]
    return [*head, *_lines(Recipe, "")]


def arguments_table() -> list[str]:
    """Return the lines of the table of all arguments of `TrainingArguments`."""
    defaults = training_arguments() | {
        field.name: field.default
        for field in dataclasses.fields(UniDPOConfig)
        if field.default is not dataclasses.MISSING
    }
    lines = ["| argument | default | status | notes |", "| --- | --- | --- | --- |"]
    for name in training_arguments():
        argument = ARGUMENTS[name]
        status = "refused" if argument.refused else "honored"
        note = argument.note
        if argument.refused and argument.remedy != "Remove it":
            note = f"{note}. {argument.remedy.removeprefix('Remove it; ')}"
        lines.append(f"| `{name}` | {_written(defaults[name])} | {status} | {note} |")
    return lines


def _lines(section: type[Section], prefix: str) -> list[str]:
    lines = []
    texts = documentation(section)
    for name in keys_of(section):
        field = section.model_fields[name]
        key = f"{prefix}{name}"
        inner = section_at((), field.annotation)
        if is_typeddict(inner):  # the parameters of a loss
            inner = None
        if prefix or inner is None:
            python = IN_PYTHON.get(key) or next(
                (text for start, text in INHERITED.items() if key.startswith(start)), FILES_ONLY
            )
            text = texts.get(name, "")
            lines.append(f"| `{key}` | {default_text(field)} | {text} | {python} |")
        if inner is not None and name != "eval_sources":
            lines += _lines(inner, f"{key}.")
    return lines


def default_text(field: Any) -> str:
    """Return the default of a key, as Markdown."""
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        return "see below"
    return _written([] if value == () else value)


def _written(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    value = getattr(value, "value", value)
    return f"`{value!r}`" if value in ("", [], {}) else f"`{value}`"


TABLES: dict[str, Callable[[], list[str]]] = {
    "recipe": recipe_table,
    "training_arguments": arguments_table,
}
"""Name of a page and of its table -> the function that returns the lines of the table."""


if __name__ == "__main__":
    for name, table in TABLES.items():
        path = Path(sys.argv[1]) / f"{name}.md"
        text = updated_page(path.read_text(encoding="utf-8"), {name: table()})
        path.write_text(text, encoding="utf-8")
