"""lm-eval: its logged samples, `samples_<task>_<time>.jsonl`; ids are the numbers of documents."""

from . import Bridge
from ._samples import read_samples

BRIDGE = Bridge(name="lm_eval", title="lm-eval", read=read_samples)
