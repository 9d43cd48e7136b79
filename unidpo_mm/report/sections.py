"""The record of a run as sections of tables, which a page and a model card render.

Cells and paragraphs are plain text with Markdown's `code`. Nothing is stated that is not in the
record: what a run did not record is not mentioned.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.sections import LoraOptions, ScoreOptions
from ..lora_directory import HUB_NAME
from .record import RunRecord

__all__ = [
    "Section",
    "Table",
    "held_out_table",
    "is_hub_name",
    "run_sections",
    "short_name",
    "versions",
]

Row = tuple[str, ...]

TRAINING_KEYS = (
    "learning_rate",
    "learning_rates",
    "lr_scheduler_type",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "optim",
    "weight_decay",
    "warmup_steps",
    "warmup_ratio",
    "max_grad_norm",
    "bf16",
    "fp16",
    "seed",
)
"""Training arguments that a card lists if the recipe sets them."""

LORA_KEYS = ("r", "alpha", "targets")
"""Settings of LoRA that a card always lists; others are listed if they are not the default."""

WEIGHT_METRICS = ("w_qual", "w_perf", "weight", "nll_gate", "effective_sample_size")
HELD_OUT_METRICS = ("loss", "rewards/accuracies", "rewards/margins", "logps/accuracies")

REFERENCES = {
    "CachedReference": "the model before training, its log-probs cached",
    "FrozenCopy": "a frozen copy of the model before training",
    "FrozenLora": "the model before training, as a frozen LoRA adapter",
    "MovingLora": "an earlier state of the LoRA adapter, moved during training",
    "LoraOff": "the model without its LoRA adapter",
    "none": "none",
}
"""Names of references in the record of a run -> their meaning."""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        titles: The titles of the columns.
        rows: The cells of each row.
    """

    titles: Row
    rows: Sequence[Row]


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes:
        title: Its title.
        table: Its table.
        text: A paragraph below the table.
    """

    title: str
    table: Table
    text: str = ""


def run_sections(record: RunRecord) -> list[Section]:
    """Return data, settings and weights of a run; without those it has not recorded."""
    sections = (_data(record), _training(record), _weights(record))
    return [section for section in sections if section.table.rows]


def held_out_table(record: RunRecord) -> Table | None:
    """Return the first and the last evaluation on held-out rows; `None` if there was none."""
    evaluations = [log for log in record.logs if "eval_loss" in log]
    if not evaluations:
        return None
    first, last = evaluations[0], evaluations[-1]
    rows = [
        (f"`{name}`", f"{first[f'eval_{name}']:.4g}", f"{last[f'eval_{name}']:.4g}")
        for name in HELD_OUT_METRICS
        if f"eval_{name}" in first and f"eval_{name}" in last
    ]
    return Table(("Held-out rows", f"Step {first['step']}", f"Step {last['step']}"), rows)


def versions(record: RunRecord) -> dict[str, str]:
    """Return the versions of the libraries of a run."""
    return dict(record.settings.get("versions") or {})


def short_name(path: str) -> str:
    """Return a hub name, or the last part of a local path, which means nothing elsewhere."""
    return path if is_hub_name(path) else Path(path).name


def is_hub_name(name: str) -> bool:
    """Return whether a name is one of a hub and not an existing path."""
    return bool(HUB_NAME.match(name)) and not Path(name).exists()


def _data(record: RunRecord) -> Section:
    data = record.recipe.get("data") or {}
    rows = [
        (
            _code(_source_name(source)),
            _code(short_name(source["path"])),
            _scores(source.get("scores") or {}),
            (source.get("scores") or {}).get("judge") or "not recorded",
            _source_rows(record, source),
        )
        for source in data.get("sources") or ()
    ]
    settings = record.settings
    counts = [
        f"{settings[key]:,} rows {text}"
        for key, text in (("train_rows", "for training"), ("eval_rows", "held out"))
        if settings.get(key)
    ]
    scale = data.get("score_scale")
    unit = f" Scores are on the scale {_scale(scale)}." if scale else ""
    return Section(
        "Training data",
        Table(("Source", "Data", "Scores", "Judge", "Training rows"), rows),
        f"{' and '.join(counts)}.{unit}" if counts else "",
    )


def _training(record: RunRecord) -> Section:
    return Section("Training", Table(("Setting", "Value"), list(_settings(record))))


def _settings(record: RunRecord) -> Iterator[Row]:
    loss = dict(record.settings.get("loss") or {})
    if loss:
        yield "Loss", _code(loss.pop("name"))
        by_source = loss.pop("by_source", None) or {}
        yield from ((f"`{key}`", _code(v)) for key, v in loss.items() if v is not None)
        yield from ((f"Loss, source `{key}`", _code(value)) for key, value in by_source.items())
    if record.settings.get("reference"):
        name = str(record.settings["reference"])
        yield "Reference", REFERENCES.get(name, name)
    lora = record.model.get("lora")
    if lora:
        defaults = LoraOptions().model_dump(mode="json")
        stated = {k: v for k, v in lora.items() if k in LORA_KEYS or v != defaults.get(k)}
        yield "LoRA", _code(stated)
        if record.model.get("quantization"):
            yield "Quantized base model", _code(record.model["quantization"])
    elif record.model:
        frozen = record.model.get("freeze")
        yield "Frozen parts", "default" if frozen is None else _code(frozen)
    train = record.recipe.get("train") or {}
    yield from (
        (f"`{key}`", _code(train[key])) for key in TRAINING_KEYS if train.get(key) is not None
    )
    steps = record.state.get("global_step")
    if steps:
        yield "Optimizer steps", f"{steps:,} of {record.state['max_steps']:,}"
    if record.settings.get("processes"):
        yield "Processes", str(record.settings["processes"])


def _weights(record: RunRecord) -> Section:
    """Return the first and the last logged means of the weights."""
    logs = [log for log in record.logs if "loss" in log]
    rows = []
    for name in WEIGHT_METRICS:
        values = [log[name] for log in logs if name in log]
        if values:
            rows.append((f"`{name}`", f"{values[0]:.4g}", f"{values[-1]:.4g}"))
    titles = ("Mean over pairs", "First", "Last")
    if rows:
        titles = ("Mean over pairs", f"Step {logs[0]['step']}", f"Step {logs[-1]['step']}")
    return Section("Weights of the pairs", Table(titles, rows))


def _source_name(source: Mapping[str, Any]) -> str:
    name: str = source.get("name") or source.get("subset") or Path(source["path"]).stem
    return name


def _source_rows(record: RunRecord, source: Mapping[str, Any]) -> str:
    name = _source_name(source)
    digests = (record.identity.get("data") or {}).get("sources") or ()
    return next((f"{item['rows']:,}" for item in digests if item["source"] == name), "")


def _scores(scores: Mapping[str, Any]) -> str:
    """Return the settings of scores that are not the default."""
    defaults = ScoreOptions().model_dump()
    changed = {k: v for k, v in scores.items() if k != "judge" and v != defaults.get(k)}
    parts = [f"{key} {_scale(v) if key == 'scale' else v}" for key, v in changed.items()]
    return ", ".join(parts) or "as in the data"


def _scale(scale: Sequence[float]) -> str:
    return f"{scale[0]:g} to {scale[1]:g}"


def _code(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return f"`{text}`"
