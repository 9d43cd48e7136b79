"""The model type that a LoRA adapter was trained on, and that of its base model.

The files of an adapter do not say the type. Weights of another model may still fit, because the
layers of many language models have the same names and sizes.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import ModelError, Problem
from ..lora_directory import ADAPTER_CONFIG, BASE_KEY, PROCESSOR_FILES, TOKENIZER_FILES

__all__ = ["check_base_type"]


def check_base_type(directory: str, base: str, model_type: str, *, key: str | None) -> None:
    """Refuse a base model of another type than that of the model that an adapter was trained on.

    Args:
        directory: The adapter directory.
        base: Path or hub name of the base model.
        model_type: The type of the base model.
        key: The setting of the base model, for messages; `None` if the user cannot set it.

    Raises:
        ModelError: If the types differ. Nothing is raised if the files do not show the type.
    """
    settings = _content(Path(directory) / ADAPTER_CONFIG)
    types = _types_of_base(settings, base) or _types_of_class(settings)
    types = types or _types_of_processor(directory, base)
    if not types or model_type in types:
        return
    names = " or ".join(f"'{name}'" for name in types)
    raise ModelError(
        Problem(
            directory,
            f"the LoRA adapter was trained on a model of the type {names}, and the base model "
            f"'{base}' is of the type '{model_type}'",
            f"Set {key or 'the base'} to the model that it was trained on",
        )
    )


def _types_of_base(settings: dict[str, Any], base: str) -> Sequence[str]:
    """Return the type of the recorded base model, if it is another one and can be read."""
    from transformers import PreTrainedConfig

    recorded = settings.get(BASE_KEY)
    if not isinstance(recorded, str) or not recorded or recorded == base:
        return ()
    try:
        content, _ = PreTrainedConfig.get_config_dict(recorded)
    except (OSError, ValueError):  # the model has moved
        return ()
    model_type = content.get("model_type")
    return (model_type,) if isinstance(model_type, str) else ()


def _types_of_class(settings: dict[str, Any]) -> Sequence[str]:
    """Return the type of the class of the base model, which PEFT records without a task."""
    import transformers

    mapping = settings.get("auto_mapping")
    name = mapping.get("base_model_class") if isinstance(mapping, dict) else None
    config_class = getattr(getattr(transformers, str(name), None), "config_class", None)
    model_type = getattr(config_class, "model_type", None)
    return (model_type,) if isinstance(model_type, str) and model_type else ()


def _types_of_processor(directory: str, base: str) -> Sequence[str]:
    """Return the types with the processor of an adapter, if that of the base model is another."""
    from transformers.models.auto import processing_auto

    saved, of_base = _processor_classes(directory), _processor_classes(base)
    if not of_base or saved & of_base:
        return ()
    classes = dict(getattr(processing_auto, "PROCESSOR_MAPPING_NAMES", {}))
    return sorted(model_type for model_type, name in classes.items() if name in saved)


def _processor_classes(name_or_path: str) -> set[str]:
    """Return the names of the processor's class in the files of a checkpoint."""
    from transformers.utils.hub import cached_file

    names = set()
    for file in (*PROCESSOR_FILES, *TOKENIZER_FILES):
        try:
            path = cached_file(name_or_path, file, _raise_exceptions_for_missing_entries=False)
        except (OSError, ValueError):
            continue
        name = _content(Path(path)).get("processor_class") if path else None
        if isinstance(name, str):
            names.add(name)
    return names


def _content(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file; empty if it cannot be read, which is reported later."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
