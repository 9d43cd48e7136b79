"""The models that a recipe names, from small files of their directories; no weights are read."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..lora_directory import base_of, is_adapter_directory
from .load import Making
from .scorer import Scorer

__all__ = ["GENERATOR", "LOCAL", "ModelFacts", "family_notes", "model_facts", "scorer_model"]

GENERATOR = "generator"
"""Role of the model that generates responses; scorers have the names of their scores."""
LOCAL = "local:"
"""Prefix of the checkpoint of a judge in this process."""
UNKNOWN = "unknown"
WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.gguf")


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """A model according to the small files of its directory.

    Attributes:
        role: `GENERATOR`, or the name of a score.
        name: Its directory, its name on the hub, or its name on a server.
        license: The license in its model card, `README.md`; ``unknown`` without one.
        model_type: The type in its configuration; `None` if it is not in a local directory.
        size: Bytes of its weights on disk; `None` if it is not in a local directory.
    """

    role: str
    name: str
    license: str = UNKNOWN
    model_type: str | None = None
    size: int | None = None


def model_facts(making: Making) -> list[ModelFacts]:
    """Return the models of a recipe: the generator, if one is used, and those of scorers."""
    return [_facts(role, name) for role, name in _models(making)]


def scorer_model(scorer: Scorer) -> str | None:
    """Return the model of a scorer; `None` if it has none.

    It is the parameter `judge` if that is a checkpoint in this process, and else `model`.
    """
    judge: Any = getattr(scorer, "judge", None)
    if isinstance(judge, str) and judge.startswith(LOCAL):
        return judge.removeprefix(LOCAL)
    model: Any = getattr(scorer, "model", None)
    return str(model) if isinstance(model, str | Path) and str(model) else None


def family_notes(facts: list[ModelFacts]) -> list[str]:
    """Return a note for each scorer whose model has the type of the generator.

    A judge prefers responses of its own kind (Panickssery et al., 2024, arXiv 2404.13076).
    """
    policy = next((fact.model_type for fact in facts if fact.role == GENERATOR), None)
    return [
        f"The model of {fact.role} has the same type as the generator, {policy}: models tend to "
        "prefer responses of their own family."
        for fact in facts
        if fact.role != GENERATOR and policy is not None and fact.model_type == policy
    ]


def _models(making: Making) -> Iterator[tuple[str, str]]:
    recipe = making.recipe
    if recipe.sample.responses != "given":
        if recipe.sample.server is not None:
            yield GENERATOR, recipe.sample.server.model
        elif recipe.model is not None:
            yield GENERATOR, recipe.model.name_or_path
    for name, scorer in making.scorers.items():
        model = scorer_model(scorer)
        if model is not None:
            yield name, model


def _facts(role: str, name: str) -> ModelFacts:
    folder = Path(name)
    if not folder.is_dir():
        return ModelFacts(role=role, name=name)
    base = _base(folder)
    places = [folder] if base is None else [folder, base]
    licenses = [text for place in places if (text := _license(place)) is not None]
    return ModelFacts(
        role=role,
        name=name,
        license=licenses[0] if licenses else UNKNOWN,
        model_type=_model_type(places[-1]),
        size=sum(map(_size, places)),
    )


def _base(folder: Path) -> Path | None:
    """Return the local base model of a LoRA adapter; `None` for others."""
    if not is_adapter_directory(folder):
        return None
    try:
        base = Path(base_of(folder))
    except ModelError:  # loading the model reports it
        return None
    return base if base.is_dir() else None


def _license(folder: Path) -> str | None:
    """Return the license in the front matter of a model card; `None` without one."""
    from huggingface_hub import metadata_load

    try:
        metadata = metadata_load(folder / "README.md") or {}
    except Exception:  # a damaged card: YAML and decoding raise errors of several kinds
        return None
    name = metadata.get("license")
    if name == "other":
        name = metadata.get("license_name") or name
    return " ".join(map(str, name)) if isinstance(name, list) else name and str(name)


def _model_type(folder: Path) -> str | None:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return str(config["model_type"])
    except (OSError, ValueError, KeyError, TypeError):  # loading the model reports it
        return None


def _size(folder: Path) -> int:
    files = {file for pattern in WEIGHTS for file in folder.glob(pattern)}
    return sum(file.stat().st_size for file in files)
