"""Preference losses as pure functions of tensors: one file per loss, found by its name.

`base.py` defines what a loss declares about itself, `weights.py` the pair weights of Uni-DPO; every
other module is a loss. docs/losses.md describes how to add one.
"""

from .base import Loss
from .uni_dpo import uni_dpo_loss

__all__ = ["Loss", "uni_dpo_loss"]
