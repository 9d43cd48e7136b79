"""The record of a run: recipe, settings, log and identity."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..lora_directory import is_adapter_directory

__all__ = ["RunRecord"]


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The record of a run; everything but the directory is empty for a model without one.

    Attributes:
        directory: The directory of the model or LoRA adapter.
        recipe: The recipe with all its defaults.
        settings: Loss, reference, prompts, judges and versions of the run (`run.json`).
        state: The state of the trainer, with every logged number.
        identity: The identity of the run, with a digest of its data.
    """

    directory: Path
    recipe: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)
    identity: Mapping[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> Mapping[str, Any]:
        """The section `model` of the recipe."""
        return self.recipe.get("model") or {}

    @property
    def start(self) -> str | None:
        """The model that the run started from; `None` if that is not recorded."""
        return self.model.get("name_or_path")

    @property
    def is_adapter(self) -> bool:
        """Whether the directory contains a LoRA adapter, not a full model."""
        return is_adapter_directory(self.directory)

    @property
    def logs(self) -> Sequence[Mapping[str, Any]]:
        """All logged metrics in order, those of training and those of evaluations."""
        return self.state.get("log_history") or ()
