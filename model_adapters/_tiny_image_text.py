"""Build tiny random checkpoints of the model types of `image_text` with processors, offline.

Random weights are scaled: with those that transformers draws, images hardly change the results, and
some projectors are zero, so mistakes would go unnoticed.
"""

from pathlib import Path
from typing import Any

import torch

from ._tiny_image_sizes import SIZED
from ._tiny_image_tiles import TILED

__all__ = ["build"]

BUILDERS = {**SIZED, **TILED}
"""Model type -> function of a directory that returns configuration and processor."""


def build(folder: Path, *, model_type: str, seed: int) -> Path:
    """Write a tiny checkpoint of one of the model types; return its directory."""
    from transformers import AutoModelForImageTextToText

    config, processor = BUILDERS[model_type](folder, model_type)
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(config)
    _scale_weights(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@torch.no_grad()
def _scale_weights(model: Any) -> None:
    """Enlarge weights, in place, so that images and all layers change the results."""
    for name, weight in model.named_parameters():
        if weight.ndim < 2:
            continue
        if float(weight.abs().max()) == 0:
            weight.normal_(0, 0.2)
        elif "lm_head" not in name:
            weight.mul_(5 if "embed" in name else 7)
