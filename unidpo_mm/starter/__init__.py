"""Write a first recipe for the data and the model at hand."""

from .choices import Starter
from .recipe import starter_recipe

__all__ = ["Starter", "starter_recipe"]
