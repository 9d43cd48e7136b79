"""Recipes: a YAML file plus overrides becomes one frozen, typed `Recipe`, or one error.

A file is read strictly (`yaml_loader`), overrides are laid over it (`overrides`), the sections are
validated (`sections`, `problems`), and whoever knows losses, models or data adds its own checks
(`load`). Every problem is reported at once. Nothing here imports torch.
"""

from .dump import dump_recipe
from .load import Check, load_recipe
from .sections import (
    DataSection,
    ImagesSection,
    LoraSection,
    LossSection,
    ModelSection,
    Recipe,
    RunSection,
    ScoresSection,
    SourceLoss,
    SourceSection,
    TrainSection,
)

__all__ = [
    "Check",
    "DataSection",
    "ImagesSection",
    "LoraSection",
    "LossSection",
    "ModelSection",
    "Recipe",
    "RunSection",
    "ScoresSection",
    "SourceLoss",
    "SourceSection",
    "TrainSection",
    "dump_recipe",
    "load_recipe",
]
