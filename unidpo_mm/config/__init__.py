"""Options and recipes: a YAML file and overrides become a frozen, typed `Recipe`, or one error.

`options` declares every option. `load` reads a file strictly (`yaml_loader`), applies overrides
(`overrides`), validates the sections (`recipe`, `problems`), and runs further checks (`checks`).
All problems are reported together. `python` has the same options for Python. Importing this package
does not import torch.
"""

from .dump import dump_recipe
from .load import Check, load_recipe
from .recipe import (
    DataSection,
    ImagesSection,
    LossSection,
    ModelSection,
    Recipe,
    RunSection,
    TrainSection,
)
from .sections import LoraOptions, ScoreOptions, SourceLoss, SourceOptions

__all__ = [
    "Check",
    "DataSection",
    "ImagesSection",
    "LoraOptions",
    "LossSection",
    "ModelSection",
    "Recipe",
    "RunSection",
    "ScoreOptions",
    "SourceLoss",
    "SourceOptions",
    "TrainSection",
    "dump_recipe",
    "load_recipe",
]
