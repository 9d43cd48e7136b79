"""A pair whose prompt is in the column `question`: RLAIF-V, SPA-VL and MMPR."""

from .pairs import pair_format

__all__ = ["FORMAT"]

FORMAT = pair_format("rlaif_v", "question")
