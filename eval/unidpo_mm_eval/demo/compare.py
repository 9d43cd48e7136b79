"""`unidpo-mm demo --compare`: one warmed-up model, several methods, several seeds."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from .pipeline import METHODS, PairResult, Start, prepare, summarise, tune

__all__ = ["comparison_table", "run_comparison"]

TITLES = {
    "warmup": "warm-up",
    "uni_dpo": "Uni-DPO",
    "dpo": "DPO",
    "simpo": "SimPO",
    "sft": "more SFT",
    "uni_dpo_shuffled": "Uni-DPO, trained on shuffled pictures",
}
ROWS = {
    "accuracy": "right kind first, %",
    "hallucination_rate": "second kind on one object, %",
    "object_recall": "object recall, %",
    "exact": "caption exactly right, %",
    "caption_words": "words a caption",
    "pairs_all": "pairs, all, %",
    "pairs_multimodal": "pairs, pictures, %",
    "pairs_math": "pairs, math, %",
    "pairs_text": "pairs, text, %",
    "chosen_logp": "better answer's log-prob a token",
}
"""Figures of the table and their names; all but the last two lines of words are per cent."""

PLAIN = ("caption_words", "chosen_logp")


def run_comparison(out: Path, seeds: Sequence[int], *, split: str = "heldout") -> dict[str, Any]:
    """Runs every method from the same start for each seed; writes and prints the table.

    A method that is in `comparison-SEED.json` already is not run again, so an interrupted
    comparison goes on where it stopped.

    Args:
        out: Folder of everything.
        seeds: Which seeds.
        split: Unseen concepts to measure on, ``heldout`` or ``validation``.

    Returns:
        {method: {figure: [value of each seed]}}.
    """
    results: dict[str, dict[str, list[float]]] = {}
    for seed in seeds:
        for method, found in _one_seed(out, seed, split).items():
            for name, value in found.items():
                results.setdefault(method, {}).setdefault(name, []).append(value)
    (out / "comparison.json").write_text(json.dumps(results, indent=2), encoding="utf-8")
    table = comparison_table(results)
    (out / "comparison.md").write_text(markdown(results), encoding="utf-8")
    Console(width=130).print(table)
    return results


def comparison_table(results: Mapping[str, Mapping[str, Sequence[float]]]) -> Table:
    """Returns mean and standard error over seeds, a column for each method."""
    table = Table(title="Mean and standard error over seeds", box=SIMPLE_HEAD, title_justify="left")
    table.add_column("")
    for method in results:
        table.add_column(TITLES[method], justify="right")
    for name, text in ROWS.items():
        table.add_row(text, *(cell(found, name) for found in results.values()))
    return table


def markdown(results: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Returns the same table as Markdown."""
    heads = ["", *(TITLES[method] for method in results)]
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for name, text in ROWS.items():
        lines.append(f"| {text} | {' | '.join(cell(f, name) for f in results.values())} |")
    return "\n".join(lines) + "\n"


def cell(found: Mapping[str, Sequence[float]], name: str) -> str:
    """Returns ``mean ± standard error`` of one figure."""
    values = found.get(name)
    if not values:
        return ""
    mean = sum(values) / len(values)
    spread = sum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1)
    error = math.sqrt(spread / len(values))
    if name in PLAIN:
        return f"{mean:.2f} ± {error:.2f}"
    return f"{100 * mean:.0f} ± {100 * error:.0f}"


def _one_seed(out: Path, seed: int, split: str) -> dict[str, dict[str, float]]:
    path = out / f"comparison-{seed}.json"
    done: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.is_file() else {}
    start: Start | None = None
    before: Mapping[str, PairResult] | None = None
    for method in METHODS:
        if method in done:
            continue
        start = start or prepare(out / f"seed-{seed}", seed, split=split)
        outcome = tune(start, method, before=before)
        before = outcome.before
        summary = summarise(start, outcome, seconds=0.0)
        done["warmup"] = done.get("warmup", _values(summary, "warmup", "before"))
        done[method] = _values(summary, "tuned", "tuned")
        out.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(done, indent=2), encoding="utf-8")
    return done


def _values(summary: Mapping[str, Any], stage: str, pairs: str) -> dict[str, float]:
    pictures = summary["multimodal"]
    names = ("accuracy", "hallucination_rate", "object_recall", "exact", "caption_words")
    values = {name: pictures[name][stage] for name in names}
    for domain in ("all", "multimodal", "math", "text"):
        values[f"pairs_{domain}"] = summary[domain]["preference_accuracy"][pairs]
    values["chosen_logp"] = summary["all"]["preference_accuracy"][f"chosen_logp_{pairs}"]
    return values
