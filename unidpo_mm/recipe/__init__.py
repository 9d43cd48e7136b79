"""Recipes: a YAML file and overrides become a frozen, typed `Recipe`, or one error.

`load` reads a file strictly (`yaml_loader`), applies overrides (`overrides`), validates the
sections (`sections`, `problems`), and runs the checks of packages that know losses, models and
data. All problems are reported together. No module of this package imports torch.
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
