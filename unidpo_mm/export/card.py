"""The model card of an exported model, from the record of its run.

A card has no number that is not in the record: what a run did not record is not mentioned.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .. import __version__
from ..config.sections import LoraOptions, ScoreOptions
from ..lora_directory import HUB_NAME
from ..secrets import mask_text
from .evaluation import Evaluation
from .proof import Proof
from .record import RunRecord

__all__ = ["ModelCard"]

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

SERVED_RANKS = (16, 32, 64, 128, 256, 320, 512)
"""Values of vLLM's option ``--max-lora-rank``; the first is its default."""

KINDS = {
    "adapter": "a LoRA adapter for",
    "merged": "a LoRA adapter merged into",
    "full": "a fully trained version of",
}


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """The content of a model card.

    Attributes:
        record: The record of the run.
        name: Name of the exported model: its repository on a hub, or its directory.
        base: The base model.
        kind: ``adapter``, ``merged`` or ``full``.
        auto_class: The transformers class that loads it.
        has_images: Whether the model takes images.
        lora: The configuration of the exported LoRA adapter; empty for a full model.
        is_served: Whether vLLM serves a model of this kind.
        proof: The comparison with the trained model.
        notes: What the user should know.
        evaluations: Results with intervals.
    """

    record: RunRecord
    name: str
    base: str
    kind: str
    auto_class: str
    has_images: bool
    lora: Mapping[str, Any]
    is_served: bool
    proof: Proof
    notes: tuple[str, ...]
    evaluations: tuple[Evaluation, ...]

    def text(self) -> str:
        """Return the card as Markdown with metadata for the Hugging Face hub."""
        sections = [
            self._head(),
            f"# {self.name}\n\n{self._summary()}",
            f"## Use\n\n{self._use()}",
            *(
                f"## {title}\n\n{content}"
                for title, content in (
                    ("Training data", self._data()),
                    ("Training", self._training()),
                    ("Weights of the pairs", self._weights()),
                    ("Evaluation", self._evaluation()),
                    ("Checks", self._checks()),
                    ("Versions", self._versions()),
                )
                if content
            ),
        ]
        return mask_text("\n\n".join(sections) + "\n")

    def _head(self) -> str:
        content: dict[str, Any] = {
            "library_name": "peft" if self.kind == "adapter" else "transformers",
            "pipeline_tag": "image-text-to-text" if self.has_images else "text-generation",
            "tags": ["preference-tuning", "dpo", "unidpo-mm"],
        }
        if _is_hub_name(self.base):
            content["base_model"] = self.base
            content["base_model_relation"] = "adapter" if self.kind == "adapter" else "finetune"
        return f"---\n{yaml.safe_dump(content, sort_keys=False)}---"

    def _summary(self) -> str:
        loss = self.record.settings.get("loss") or {}
        how = f" with the loss `{loss['name']}`" if loss else ""
        return (
            f"This is {KINDS[self.kind]} `{_short(self.base)}`, tuned on preference data{how} by "
            f"unidpo-mm."
        )

    def _use(self) -> str:
        loader = "AutoProcessor" if self.has_images else "AutoTokenizer"
        base, name = _short(self.base), self.name
        load = f'model = {self.auto_class}.from_pretrained("{name}", dtype="auto")'
        serve = f"vllm serve {name}"
        if self.kind == "adapter":
            load = f'model = {self.auto_class}.from_pretrained("{base}", dtype="auto")\n'
            load += f'model.load_adapter("{name}")'
            serve = f"vllm serve {base} --enable-lora --lora-modules tuned={name}"
            rank = max([self.lora["r"], *(self.lora.get("rank_pattern") or {}).values()])
            if rank > SERVED_RANKS[0]:
                serve += f" --max-lora-rank {next((r for r in SERVED_RANKS if r >= rank), rank)}"
        code = (
            f"from transformers import {self.auto_class}, {loader}\n\n{load}\n"
            f'processor = {loader}.from_pretrained("{name}")'
        )
        blocks = [f"```python\n{code}\n```"]
        if self.is_served:
            blocks.append(f"```bash\n{serve}\n```")
        return "\n\n".join(blocks)

    def _data(self) -> str:
        data = self.record.recipe.get("data") or {}
        rows = [
            (
                _code(source.get("name") or source.get("subset") or Path(source["path"]).stem),
                _code(_short(source["path"])),
                _scores(source.get("scores") or {}),
                (source.get("scores") or {}).get("judge") or "not recorded",
                _source_rows(self.record, source),
            )
            for source in data.get("sources") or ()
        ]
        if not rows:
            return ""
        text = _table(("Source", "Data", "Scores", "Judge", "Training rows"), rows)
        settings = self.record.settings
        counts = [
            f"{settings[key]:,} rows {text}"
            for key, text in (("train_rows", "for training"), ("eval_rows", "held out"))
            if settings.get(key)
        ]
        scale = data.get("score_scale")
        unit = f" Scores are on the scale {_scale(scale)}." if scale else ""
        return f"{text}\n\n{' and '.join(counts)}.{unit}" if counts else text

    def _training(self) -> str:
        record, loss = self.record, dict(self.record.settings.get("loss") or {})
        rows: list[tuple[str, str]] = []
        if loss:
            rows.append(("Loss", _code(loss.pop("name"))))
            by_source = loss.pop("by_source", None) or {}
            rows += [(f"`{key}`", _code(v)) for key, v in loss.items() if v is not None]
            rows += [(f"Loss, source `{key}`", _code(value)) for key, value in by_source.items()]
        if record.settings.get("reference"):
            name = str(record.settings["reference"])
            rows.append(("Reference", REFERENCES.get(name, name)))
        lora = record.model.get("lora")
        if lora:
            defaults = LoraOptions().model_dump(mode="json")
            stated = {k: v for k, v in lora.items() if k in LORA_KEYS or v != defaults.get(k)}
            rows.append(("LoRA", _code(stated)))
            if record.model.get("quantization"):
                rows.append(("Quantized base model", _code(record.model["quantization"])))
        elif record.model:
            frozen = record.model.get("freeze")
            rows.append(("Frozen parts", "default" if frozen is None else _code(frozen)))
        train = record.recipe.get("train") or {}
        rows += [
            (f"`{key}`", _code(train[key])) for key in TRAINING_KEYS if train.get(key) is not None
        ]
        steps = record.state.get("global_step")
        if steps:
            rows.append(("Optimizer steps", f"{steps:,} of {record.state['max_steps']:,}"))
        if record.settings.get("processes"):
            rows.append(("Processes", str(record.settings["processes"])))
        return _table(("Setting", "Value"), rows) if rows else ""

    def _weights(self) -> str:
        """Return the first and the last logged means of the weights."""
        logs = [log for log in self._logs() if "loss" in log]
        rows = []
        for name in WEIGHT_METRICS:
            values = [(log["step"], log[name]) for log in logs if name in log]
            if values:
                first, last = values[0], values[-1]
                rows.append((f"`{name}`", f"{first[1]:.4g}", f"{last[1]:.4g}"))
        if not rows:
            return ""
        first_step, last_step = logs[0]["step"], logs[-1]["step"]
        return _table(("Mean over pairs", f"Step {first_step}", f"Step {last_step}"), rows)

    def _evaluation(self) -> str:
        parts = []
        if self.evaluations:
            rows = [
                (
                    item.model,
                    item.benchmark,
                    f"`{item.metric}` ({item.protocol})",
                    _with_interval(item.value, item.interval),
                    "" if item.difference is None else _difference(item.difference),
                )
                for item in self.evaluations
            ]
            titles = ("Model", "Benchmark", "Metric", "Value [95 % interval]", "Difference")
            parts.append(_table(titles, rows))
        if held_out := [log for log in self._logs() if "eval_loss" in log]:
            first, last = held_out[0], held_out[-1]
            parts.append(
                _table(
                    ("Held-out rows", f"Step {first['step']}", f"Step {last['step']}"),
                    [
                        (f"`{name}`", f"{first[f'eval_{name}']:.4g}", f"{last[f'eval_{name}']:.4g}")
                        for name in HELD_OUT_METRICS
                        if f"eval_{name}" in first and f"eval_{name}" in last
                    ],
                )
            )
        return "\n\n".join(parts)

    def _checks(self) -> str:
        proof = self.proof
        lines = [
            "`unidpo-mm export` loaded this model with transformers alone and compared it with the "
            f"trained model on {proof.rows} prompts: {proof.logps} log-probs differ by at most "
            f"{proof.difference:.2g}, and {proof.equal_tokens} of {proof.tokens} greedy tokens are "
            "equal. The names and shapes of its weights are those of the base model.",
            *(f"- {note[0].upper()}{note[1:]}." for note in self.notes),
        ]
        return "\n\n".join(lines)

    def _versions(self) -> str:
        versions = {
            **(self.record.settings.get("versions") or {}),
            "unidpo-mm (export)": __version__,
        }
        return ", ".join(f"{name} {version}" for name, version in versions.items())

    def _logs(self) -> Sequence[Mapping[str, Any]]:
        return self.record.state.get("log_history") or ()


def _source_rows(record: RunRecord, source: Mapping[str, Any]) -> str:
    name = source.get("name") or source.get("subset") or Path(source["path"]).stem
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


def _with_interval(value: float, interval: tuple[float, float] | None) -> str:
    return f"{value:.1f}" + ("" if interval is None else f" [{interval[0]:.1f}, {interval[1]:.1f}]")


def _difference(difference: tuple[float, float, float]) -> str:
    value, low, high = difference
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(cells: Iterable[str]) -> Iterator[str]:
        return (str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells)

    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(line(cells))} |" for cells in lines)


def _code(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return f"`{text}`"


def _short(path: str) -> str:
    """Return a hub name, or the last part of a local path, which means nothing elsewhere."""
    return path if _is_hub_name(path) else Path(path).name


def _is_hub_name(name: str) -> bool:
    return bool(HUB_NAME.match(name)) and not Path(name).exists()
