"""Losses as pure functions of tensors: one file each, found by its name.

`base.py` holds what a loss states about itself, `weights.py` the weights of Uni-DPO; every other
module is a loss. To add one, see CONTRIBUTING.md.
"""

from .base import Loss
from .uni_dpo import uni_dpo_loss

__all__ = ["Loss", "uni_dpo_loss"]
