"""Saving of PEFT models: the active adapter only, without an empty model card."""

import shutil
from pathlib import Path
from types import MethodType
from typing import Any

from .lora_kinds import save_difference
from .peft_models import active_adapter

__all__ = ["save_active_adapter_only"]


def save_active_adapter_only(model: Any) -> None:
    """Make `save_pretrained` of a PEFT model write its active adapter and nothing else.

    By default PEFT writes all loaded adapters, including the frozen copy for the reference, and a
    model card without content. The adapter is written to the directory itself, whatever its name,
    so that PEFT can load it from there.

    The method of the instance is replaced, so that it applies whoever saves the model: the trainer,
    `push_to_hub` or the user.
    """
    model.save_pretrained = MethodType(_save_active_adapter, model)
    model.create_or_update_model_card = MethodType(_write_no_card, model)
    config = model.peft_config[active_adapter(model)]
    base = config.base_model_name_or_path or getattr(model.config, "_name_or_path", None)
    if base and Path(base).is_dir():  # so that it loads from any current directory
        config.base_model_name_or_path = str(Path(base).absolute())


def _save_active_adapter(
    model: Any,
    save_directory: str | Path,
    safe_serialization: bool = True,
    selected_adapters: list[str] | None = None,
    **options: Any,
) -> None:
    """Write the active adapter, or those that the caller selects, as PEFT does."""
    save = type(model).save_pretrained
    name = active_adapter(model)
    directory = Path(save_directory)
    save(model, str(directory), safe_serialization, selected_adapters or [name], **options)
    inner = directory / name
    writes = bool(options.get("is_main_process", True)) and selected_adapters is None
    if writes and name != "default" and inner.is_dir():
        for file in inner.iterdir():
            shutil.move(file, directory / file.name)
        inner.rmdir()
    if writes:
        save_difference(model, directory)


def _write_no_card(model: Any, output_dir: str) -> None:
    """Write no model card: PEFT's template has no content."""
