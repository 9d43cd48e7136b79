"""Evaluate a model on held-out pairs, and generate responses to a few fixed prompts."""

import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..adapter import Adapter
from ..atomic import write_text
from ..data.row_table import columns_of
from ..inference.decoding import Decoding
from ..inference.generation import generate_responses
from ..modeling.logp_model import evaluating
from ..records import GroupBatch, PreferenceRow
from .metrics import MetricSums
from .step import StepOutput

__all__ = [
    "SAMPLES_FILE",
    "Sample",
    "evaluate_pairs",
    "generate_samples",
    "keep_samples",
    "pick_samples",
    "write_samples",
]


SAMPLES_FILE = "samples.jsonl"
"""The file in the output directory with the samples of each evaluation."""


@dataclass(frozen=True)
class Sample:
    """A generated response to a held-out prompt."""

    row_id: str
    domain: str
    prompt: str
    answer: str
    preferred: str
    """The best response in the data, for comparison; empty if the only label is bad."""


@torch.no_grad()
def evaluate_pairs(
    policy: nn.Module,
    batches: Iterable[GroupBatch],
    step: Callable[[nn.Module, GroupBatch], StepOutput],
    sums: MetricSums,
) -> None:
    """Add the metrics of all batches by `step` to `sums`, and reduce them over processes."""
    with evaluating(policy):
        for batch in batches:
            sums.on_step(batch, step(policy, batch))
    sums.reduce()


def pick_samples(rows: Sequence[PreferenceRow], count: int) -> list[PreferenceRow]:
    """Return `count` rows, always the same ones, alternating between the domains."""
    by_domain: dict[int, list[int]] = {}
    for number, domain in enumerate(columns_of(rows).domain.tolist()):
        by_domain.setdefault(domain, []).append(number)
    turns = itertools.zip_longest(*by_domain.values())
    numbers = [number for turn in turns for number in turn if number is not None]
    return [rows[number] for number in numbers[:count]]


@torch.no_grad()
def generate_samples(
    model: Any,
    adapter: Adapter,
    rows: Sequence[PreferenceRow],
    *,
    max_new_tokens: int,
    device: torch.device | str,
) -> list[Sample]:
    """Generate a response to the prompt of each row with greedy decoding, one row at a time."""
    model.eval()  # the trainer sets training mode again before its next step
    decoding = Decoding(max_new_tokens=max_new_tokens)
    samples = []
    for row in rows:
        prompts = [adapter.encode_prompt(row)]
        (response,) = generate_responses(model, adapter, prompts, decoding, device=device)
        preferred = "".join(row.responses[number].text for number in row.targets()[:1])
        samples.append(Sample(row.id, row.domain, row.messages[-1].text, response.text, preferred))
    return samples


def write_samples(path: Path, samples: Sequence[Sample], *, step: int) -> None:
    """Append samples to a JSONL file, one object per line with the step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as lines:
        for sample in samples:
            lines.write(json.dumps({"step": step, **asdict(sample)}, ensure_ascii=False) + "\n")


def keep_samples(path: Path, *, up_to: int) -> None:
    """Remove the samples of later steps from a file, if it exists; other lines stay."""
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept_lines = [line for line in lines if _step_of(line) <= up_to]
    if len(kept_lines) < len(lines):
        write_text(path, "".join(kept_lines))


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return 0.0
