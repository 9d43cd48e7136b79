"""lmms-eval: its logged samples, `*_samples_<task>.jsonl`; ids are the numbers of documents."""

from . import Bridge
from ._samples import read_samples

__all__ = ["BRIDGE"]

BRIDGE = Bridge(name="lmms_eval", title="lmms-eval", read=read_samples)
