"""The choices of a first recipe, one function each, with their reasons as comments."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch

from ..data.measure import measure_rows
from ..number_format import bfloat16_slowdown
from ..records import PreferenceRow

__all__ = [
    "ScoreFacts",
    "Starter",
    "batch_choice",
    "device_choice",
    "eval_choice",
    "length_choice",
    "loss_choice",
    "score_facts",
]

ETA = 0.7
"""The quality weight's slope in the released settings."""
USUAL_WEIGHTS = (0.6, 0.98)
"""Quality weights of the median margin for which that slope is kept."""
TARGET_WEIGHT = 0.85
"""Quality weight that the median margin gets otherwise."""
PAIRS_PER_STEP = 32
MICRO_BATCH = 4
MEASURED_ROWS = 200
EVAL_ROWS = 200
"""Number of held-out rows that is enough for a curve."""


@dataclass(kw_only=True)
class Starter:
    """A recipe in the making.

    Attributes:
        recipe: Its sections.
        comments: Key path -> the reason for its value.
        notes: What was found and what the user has to decide.
    """

    recipe: dict[str, dict[str, Any]] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def set(self, key: str, value: Any, comment: str = "") -> None:
        """Set a key such as ``data.max_length``, with the reason for its value."""
        section, _, name = key.partition(".")
        self.recipe.setdefault(section, {})[name] = value
        if comment:
            self.comments[key] = comment


@dataclass(frozen=True)
class ScoreFacts:
    """Scores of the pairs of a source.

    Attributes:
        low, high: The lowest and the highest.
        median_margin: Median difference of the two scores of a pair.
        median_chosen: Median score of chosen responses.
        missing: Number of pairs without scores.
    """

    low: float
    high: float
    median_margin: float
    median_chosen: float
    missing: int


def score_facts(rows: Sequence[PreferenceRow]) -> ScoreFacts | None:
    """Return what the scores of rows are; `None` if no pair has scores."""
    pairs = [
        (row.responses[pair.chosen].score, row.responses[pair.rejected].score)
        for row in rows
        for pair in row.pairs
    ]
    scored = [(a, b) for a, b in pairs if a is not None and b is not None]
    if not scored:
        return None
    every = [score for pair in scored for score in pair]
    return ScoreFacts(
        low=min(every),
        high=max(every),
        median_margin=median(a - b for a, b in scored),
        median_chosen=median(a for a, _ in scored),
        missing=len(pairs) - len(scored),
    )


def eval_choice(starter: Starter, rows: Sequence[PreferenceRow]) -> None:
    """Hold out rows for evaluation, if there are enough."""
    if len(rows) < 20:
        starter.notes.append(f"{len(rows)} rows are too few to hold some out for evaluation")
        return
    fraction = min(max(EVAL_ROWS / len(rows), 0.01), 0.1)
    fraction = float(f"{fraction:.1g}")
    held_out = round(len(rows) * fraction)
    starter.set("data.eval_fraction", fraction, f"about {held_out} rows, split by prompt and image")
    starter.set("train.eval_strategy", "epoch")
    starter.set("train.save_strategy", "epoch")


def length_choice(starter: Starter, rows: Sequence[PreferenceRow], adapter: Any) -> None:
    """Limit the length of rows by that of the data, measured with the model's tokenizer."""
    if adapter is None:
        starter.set("data.max_length", 2048, "tokens; not measured, because no model was read")
        return
    step = max(len(rows) // MEASURED_ROWS, 1)
    rows_measured = [*measure_rows(rows[::step], adapter)]
    measured = [item for item in rows_measured if not item.problems]
    if not measured:
        problem = rows_measured[0].problems[0]
        text = f"no row could be encoded, such as {problem.where}: {problem.message}. "
        starter.notes.append(text + problem.remedy)
        return
    longest = max(item.longest for item in measured)
    limit = 256 * math.ceil(1.1 * longest / 256)
    text = f"tokens; the longest of {len(measured)} measured rows has {longest}"
    starter.set("data.max_length", limit, text)


def loss_choice(starter: Starter, rows: Sequence[PreferenceRow]) -> None:
    """Choose the loss by labels and scores: Uni-DPO needs scores, KTO labels."""
    if any(row.other_images for row in rows):
        text = "the data have rejected_images, with which chosen responses are compared"
        starter.set("train.image_preference", {"view": "column"}, text)
    labels = [label.good for row in rows for label in row.labels]
    if labels:  # this loss also learns from pairs
        _labels_choice(starter, sum(labels), len(labels))
        return
    facts = score_facts(rows)
    if facts is None:
        starter.set("loss.name", "dpo", "uni_dpo needs scores, and the data have none")
        starter.set("loss.beta", 0.1, "0.05 to 0.5 are common for summed log-probs")
        return
    starter.set("loss.name", "uni_dpo")
    starter.set("loss.beta", 2.0, "log-probs are means per token, so it is larger than in DPO")
    weight = 1 / (1 + math.exp(-ETA * facts.median_margin))
    low, high = USUAL_WEIGHTS
    if low <= weight <= high or facts.median_margin <= 0:
        text = f"as released; the median margin {facts.median_margin:g} gets w_qual {weight:.2f}"
        starter.set("loss.eta", ETA, text)
    else:
        eta = math.log(TARGET_WEIGHT / (1 - TARGET_WEIGHT)) / facts.median_margin
        text = (
            f"the released 0.7 would give the median margin {facts.median_margin:g} a w_qual of "
            f"{weight:.2f}, this gives it {TARGET_WEIGHT}"
        )
        starter.set("loss.eta", float(f"{eta:.2g}"), text)
    text = f"chosen responses from this score on are good; {facts.median_chosen:g} in all data"
    starter.set("loss.tau_good", "median", text)


def _labels_choice(starter: Starter, good: int, labels: int) -> None:
    """Choose KTO, with equal total weights of good and bad responses."""
    starter.set("loss.name", "kto", f"{good:,} of {labels:,} labeled responses are good")
    starter.set("loss.beta", 0.1, "0.05 to 0.5 are common for summed log-probs")
    bad = labels - good
    if good and bad and good != bad:
        side = "desirable" if good < bad else "undesirable"
        weight = float(f"{max(good, bad) / min(good, bad):.3g}")
        starter.set(f"loss.{side}_weight", weight, "so that both labels have the same total weight")


def batch_choice(starter: Starter, rows: Sequence[PreferenceRow]) -> None:
    """Choose how many pairs a step has: fewer if there are few rows."""
    labeled = any(row.labels for row in rows)
    noun = "labeled responses" if labeled else "pairs"
    units = sum((2 if labeled else 1) * len(row.pairs) + len(row.labels) for row in rows)
    per_step = min(PAIRS_PER_STEP, max(MICRO_BATCH, units // 20))
    accumulation = max(per_step // MICRO_BATCH, 1)
    starter.set("train.per_device_train_batch_size", MICRO_BATCH, noun)
    text = f"{MICRO_BATCH * accumulation} {noun} per step and process, {units:,} in the data"
    starter.set("train.gradient_accumulation_steps", accumulation, text)
    starter.set("train.warmup_steps", 0.1, "share of all steps")


def device_choice(starter: Starter) -> None:
    """Choose number formats and memory for the device of this machine."""
    starter.set("train.memory", "auto", "checkpoints as few layers as the free memory allows")
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        bf16 = torch.cuda.is_bf16_supported()
        starter.set("train.bf16" if bf16 else "train.fp16", True, name)
        return
    if torch.accelerator.is_available():
        return
    starter.set("train.use_cpu", True, "no GPU was found on this machine")
    if bfloat16_slowdown() > 1:
        starter.set("model.dtype", "float32", "this processor has no fast bfloat16")
