"""Run the quick-start: teach a small model an error, tune it, show the difference."""

import json
import platform
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from unidpo_mm_eval.results.comparison import compare

from unidpo_mm.number_format import fastest_dtype

from .evaluation import commands, control_result, evaluate
from .page import write_page
from .stages import Shape, assemble, tune, warm_up
from .summary import Summary, print_summary
from .timeline import Timeline

__all__ = ["AFTER", "BEFORE", "run_demo"]

BEFORE, AFTER = "before", "after"
PACKAGES = ("unidpo-mm", "torch", "transformers", "peft", "accelerate")

ASSEMBLE = "assembling a vision-language model and drawing images"
WARM_UP = "teaching captions, some with a planted error"
TUNE = "tuning on preferences: images, math and text"
EVALUATE = "comparing both models on unseen images and pairs"
SECONDS = {ASSEMBLE: 12, WARM_UP: 78, TUNE: 94, EVALUATE: 72}
"""Stage -> its usual number of seconds on two cores with AVX2."""


def run_demo(
    output: Path, seed: int, *, split: str = "heldout", shape: Shape = "llava"
) -> dict[str, Any]:
    """Run the quick-start once; write `report.html` and `summary.json`.

    Args:
        output: Directory for all files.
        seed: Seed of images, data order and LoRA.
        split: Unseen concepts to evaluate on, ``heldout`` or ``validation``.
        shape: Architecture of the model; see `assemble`.

    Returns:
        The summary, as written.
    """
    timeline = Timeline(SECONDS, Console(stderr=True))
    folder = output / f"seed-{seed}"
    with timeline.stage(ASSEMBLE):
        start = assemble(folder, seed, split=split, shape=shape)
    with timeline.stage(WARM_UP):
        model = warm_up(start, lambda done: timeline.advance(WARM_UP, done))
        start = replace(start, model=model)
    tuned = folder / "uni_dpo"
    with timeline.stage(TUNE):
        history = tune(start, tuned, on_progress=lambda done: timeline.advance(TUNE, done))
    models = {BEFORE: start.model, AFTER: tuned}
    dtype = str(fastest_dtype()).removeprefix("torch.")
    with timeline.stage(EVALUATE):
        before, after = evaluate(models, start.data, output / "eval", dtype=dtype)
        control = control_result(after.captions, start.data, output / "eval", seed=seed)
    summary = Summary(
        captions=compare([before.captions, after.captions, control]),
        pairs=compare([before.pairs, after.pairs]),
        commands=commands(models, start.data, output / "eval", dtype=dtype),
        page=output / "report.html",
        tuned=tuned,
    )
    write_page(summary, start.data, history, summary.page)
    content = {
        "seconds": timeline.seconds,
        "seed": seed,
        "split": split,
        "shape": shape,
        "dtype": dtype,
        "versions": {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
        "values": {BEFORE: before.values(), AFTER: after.values()},
        **summary.content(),
    }
    (output / "summary.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
    print_summary(summary, Console(), seconds=sum(timeline.seconds.values()))
    return content
