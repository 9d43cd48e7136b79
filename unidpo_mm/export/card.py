"""The model card of an exported model, from the record of its run.

A card has no number that is not in the record: what a run did not record is not mentioned.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from .. import __version__
from ..report import RunRecord
from ..report.sections import (
    Section,
    held_out_table,
    is_hub_name,
    run_sections,
    short_name,
    versions,
)
from ..secrets import mask_text
from .evaluation import Evaluation
from .proof import Proof

__all__ = ["ModelCard"]

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
                    *((section.title, _markdown(section)) for section in run_sections(self.record)),
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
        if is_hub_name(self.base):
            content["base_model"] = self.base
            content["base_model_relation"] = "adapter" if self.kind == "adapter" else "finetune"
        return f"---\n{yaml.safe_dump(content, sort_keys=False)}---"

    def _summary(self) -> str:
        loss = self.record.settings.get("loss") or {}
        how = f" with the loss `{loss['name']}`" if loss else ""
        return (
            f"This is {KINDS[self.kind]} `{short_name(self.base)}`, tuned on preference data{how} "
            f"by unidpo-mm."
        )

    def _use(self) -> str:
        loader = "AutoProcessor" if self.has_images else "AutoTokenizer"
        base, name = short_name(self.base), self.name
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
        if (held_out := held_out_table(self.record)) is not None:
            parts.append(_table(held_out.titles, held_out.rows))
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
        recorded = {**versions(self.record), "unidpo-mm (export)": __version__}
        return ", ".join(f"{name} {version}" for name, version in recorded.items())


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


def _markdown(section: Section) -> str:
    table = _table(section.table.titles, section.table.rows)
    return f"{table}\n\n{section.text}" if section.text else table
