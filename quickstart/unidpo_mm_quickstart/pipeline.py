"""The quick-start from parts to figures: assemble, align, warm up, tune by preferences, measure.

Both training stages are ordinary recipes, `configs/quickstart/warmup.yaml` and `uni_dpo.yaml`; this
module only names their files and looks at what comes out.
"""

import json
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from unidpo_mm_eval.benchmarks.quickstart import KINDS

from unidpo_mm.recipe import Recipe, load_recipe
from unidpo_mm.recipe.shipped import shipped_recipe
from unidpo_mm.training.run import train_from_recipe, trainer_for

from .assets import fetch_assets
from .captions import Figures, figures, greedy_captions, majority_rate, shuffle
from .comparison import compare_models, print_compared
from .fast_path import Saving, measure_saving
from .held_out_pairs import DOMAINS, PairResult, pair_results, preference_accuracy
from .number_format import compute_dtype, recipe_keys
from .projector import fit_projector, tower_features
from .qwen_shape import assemble_qwen_vl
from .report import GalleryItem, draw_answers, draw_curves, result_table
from .training_rows import DemoData, write_data
from .vlm import assemble_vlm, save_vlm

__all__ = [
    "Outcome",
    "Start",
    "pairs_at_start",
    "prepare",
    "run_demo",
    "summarise",
    "tune",
]

PACKAGES = ("unidpo-mm", "torch", "transformers", "peft", "accelerate")
ALIGNMENT_STEPS = 300
SHOWN_IMAGES = 12
Shape = Literal["llava", "qwen_vl"]

console = Console(stderr=True)


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where the preference stage begins: data, the warmed-up model, what was measured so far."""

    folder: Path
    seed: int
    data: DemoData
    model: Path
    untrained: Figures
    warmup: Figures
    warmup_captions: tuple[str, ...]
    """Greedy captions of the test images after the warm-up."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the preference stage made of the warmed-up model."""

    captions: tuple[str, ...]
    figures: Figures
    shuffled: Figures
    before: Mapping[str, PairResult]
    after: Mapping[str, PairResult]
    saving: Saving | None
    """What the packed layout saves; None where rows stayed plain."""
    history: Sequence[Mapping[str, float]] = field(repr=False)
    """The trainer's log."""


def run_demo(
    out: Path, seed: int, *, split: str = "heldout", shape: Shape = "llava"
) -> dict[str, Any]:
    """Run the quick-start once and writes `summary.json`, `curves.png` and `answers.png`.

    Args:
        out: Folder of everything.
        seed: Of images, data order and LoRA.
        split: Unseen concepts to measure on, ``heldout`` or ``validation``.
        shape: Of the model; see `prepare`.

    Returns:
        The summary, as written.
    """
    began = time.perf_counter()
    start = prepare(out / f"seed-{seed}", seed, split=split, shape=shape)
    tuned = start.folder / "uni_dpo"
    outcome = tune(start, tuned)
    with stage("before and after, by the commands of eval"):
        compared = compare_models(
            start.model,
            tuned,
            start.data.folder,
            out / "eval",
            seed=seed,
            dtype=str(compute_dtype()).removeprefix("torch."),
        )
    summary = summarise(start, outcome, seconds=time.perf_counter() - began)
    summary |= {"split": split, "shape": shape, "compared": compared.content()}
    out.mkdir(parents=True, exist_ok=True)
    (out / "summary.json").write_text(json.dumps(summary, indent=2), encoding="utf-8")
    draw_curves(outcome.history, out / "curves.png")
    draw_answers(gallery(start, outcome), out / "answers.png")
    shown = Console()
    shown.print(result_table(summary))
    print_compared(compared, shown)
    if outcome.saving is not None:
        shown.print(outcome.saving.line())
    shown.print(f"{summary['seconds']:.0f} seconds. Written: {out / 'summary.json'}, ", end="")
    shown.print(f"{out / 'curves.png'}, {out / 'answers.png'}")
    return summary


def prepare(folder: Path, seed: int, *, split: str, shape: Shape = "llava") -> Start:
    """Assemble the model, writes the data, aligns the projector and runs the warm-up.

    Args:
        folder: Where the data and the models of this seed go.
        seed: Of everything.
        split: Unseen concepts to measure on.
        shape: ``llava``, whose tower sees, or ``qwen_vl``, whose tower is random and is therefore
            not aligned.
    """
    with stage("parts and data"):
        assets = fetch_assets()
        data = write_data(assets.emoji, folder / "data", seed=seed, split=split)
        if shape == "llava":
            assembled = assemble_vlm(assets, [canvas.file for canvas in data.train], seed=seed)
        else:
            assembled = assemble_qwen_vl(assets, seed=seed)
    with stage("untrained model answers"):
        untrained = figures(captions_of(assembled, data), data.test)
    begin = assembled
    if shape == "llava":
        begin = folder / "aligned"
        with stage("projector alignment"):
            align(assembled, data, begin, seed=seed)
    with stage("warm-up (sft)"):
        model = warm_up(begin, folder / "warmup", data, seed)
    with stage("warmed-up model answers"):
        captions = captions_of(model, data)
    return Start(
        folder=folder,
        seed=seed,
        data=data,
        model=model,
        untrained=untrained,
        warmup=figures(captions, data.test),
        warmup_captions=tuple(captions),
    )


def align(assembled: Path, data: DemoData, folder: Path, *, seed: int) -> None:
    """Fits the projector alone to the embeddings of the kinds' names; the language model rests."""
    model, processor = load(assembled, dtype=torch.float32)
    features = tower_features(model, processor, [canvas.file for canvas in data.train])
    kinds = list(KINDS)
    words = [processor.tokenizer.encode(kind, add_special_tokens=False)[0] for kind in kinds]
    targets = torch.zeros(len(data.train), len(kinds))
    for row, canvas in zip(targets, data.train, strict=True):
        for kind in canvas.kinds:
            row[kinds.index(kind)] = 1 / len(canvas.kinds)
    fit_projector(model, features, targets, words, steps=ALIGNMENT_STEPS, seed=seed)
    save_vlm(model, processor, folder)


def warm_up(begin: Path, folder: Path, data: DemoData, seed: int) -> Path:
    """Run the warm-up recipe and returns the folder of the model with its LoRA merged in."""
    overrides = [
        f"model.name_or_path={begin}",
        f"data.sources=[{{path: {data.file('warmup')}}}]",
        f"train.output_dir={folder}",
        *fixed(seed),
    ]
    trainer = train_from_recipe(load_recipe(shipped_recipe("quickstart/warmup.yaml"), overrides))
    merged = folder / "merged"
    model: Any = trainer.model.model
    model.merge_and_unload().to(compute_dtype()).save_pretrained(merged)
    trainer.parts.adapter.processor.save_pretrained(merged)
    return merged


def tune(
    start: Start,
    folder: Path,
    *,
    recipe: Path | None = None,
    overrides: Sequence[str] = (),
    before: Mapping[str, PairResult] | None = None,
) -> Outcome:
    """Run the preference stage and measures the result.

    Args:
        start: The warmed-up model and the data.
        folder: Where the trained model goes.
        recipe: The recipe; None for `configs/quickstart/uni_dpo.yaml`.
        overrides: Keys of the recipe to set; `$DATA` stands for the folder of the data.
        before: The held-out pairs under the warmed-up model, where they are known already.
    """
    loaded = preference_recipe(start, folder, recipe=recipe, overrides=overrides)
    with stage("held-out pairs before"):
        trainer = trainer_for(loaded)
        before = before or pair_results(trainer)
    saving = measure_saving(trainer)
    with stage(f"{loaded.loss.name} on images, math and text"):
        trainer.train()
        trainer.save_model()
    with stage("held-out pairs and images after"):
        after = pair_results(trainer)
        model: Any = trainer.model.model
        captions = greedy_captions(model.eval(), trainer.parts.adapter.processor, start.data.test)
    return Outcome(
        captions=tuple(captions),
        figures=figures(captions, start.data.test),
        shuffled=figures(shuffle(captions, seed=start.seed), start.data.test),
        before=before,
        after=after,
        saving=saving,
        history=trainer.state.log_history,
    )


def preference_recipe(
    start: Start, folder: Path, *, recipe: Path | None = None, overrides: Sequence[str] = ()
) -> Recipe:
    """Return the recipe of the preference stage of a seed; see `tune` for the arguments."""
    scale = "scores: {scale: [0, 10], judge: rules}"
    sources = ", ".join(
        f"{{path: {start.data.file(domain)}, name: {domain}, domain: {domain}, {scale}}}"
        for domain in DOMAINS
    )
    return load_recipe(
        recipe or shipped_recipe("quickstart/uni_dpo.yaml"),
        [
            f"model.name_or_path={start.model}",
            f"data.sources=[{sources}]",
            f"data.eval_sources=[{{path: {start.data.file('heldout_pairs')}, {scale}}}]",
            f"train.output_dir={folder}",
            *fixed(start.seed),
            *(written.replace("$DATA", str(start.data.folder)) for written in overrides),
        ],
    )


def pairs_at_start(start: Start) -> dict[str, PairResult]:
    """Return the held-out pairs under the warmed-up model."""
    with stage("held-out pairs before"):
        return pair_results(trainer_for(preference_recipe(start, start.folder / "start")))


def summarise(start: Start, outcome: Outcome, *, seconds: float) -> dict[str, Any]:
    """Return the summary of one run; rates are between 0 and 1."""
    stages = {"warmup": start.warmup, "tuned": outcome.figures}
    all_stages = {"untrained": start.untrained, **stages, "shuffled": outcome.shuffled}

    def values(name: str, of: Mapping[str, Figures], what: str) -> dict[str, float]:
        return {stage: getattr(getattr(found, name), what) for stage, found in of.items()}

    wanted = {
        "accuracy": all_stages,
        "hallucination_rate": stages,
        "object_recall": stages,
        "caption_words": stages,
        "exact": stages,
    }
    multimodal = {name: values(name, of, "value") for name, of in wanted.items()}
    preferences = preference_accuracy(outcome.before, outcome.after)
    return {
        "multimodal": {
            **multimodal,
            "majority": majority_rate(start.data.test),
            "preference_accuracy": preferences["multimodal"],
        },
        "math": {"preference_accuracy": preferences["math"]},
        "text": {"preference_accuracy": preferences["text"]},
        "all": {"preference_accuracy": preferences["all"]},
        "fast_path": None if outcome.saving is None else outcome.saving.figures(),
        "standard_errors": {name: values(name, of, "error") for name, of in wanted.items()},
        "images_answered": len(start.data.test),
        "seconds": seconds,
        "seed": start.seed,
        "dtype": str(compute_dtype()).removeprefix("torch."),
        "versions": {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
    }


def gallery(start: Start, outcome: Outcome) -> list[GalleryItem]:
    """Return the first test images with the answers before and after; nothing is picked."""
    rows = zip(start.data.test, start.warmup_captions, outcome.captions, strict=True)
    return [
        GalleryItem(image=canvas.file, truth=canvas.caption, before=before, after=after)
        for canvas, before, after in list(rows)[:SHOWN_IMAGES]
    ]


def captions_of(folder: Path, data: DemoData) -> list[str]:
    """Return the greedy captions of a checkpoint for the test images."""
    model, processor = load(folder, dtype=compute_dtype())
    return greedy_captions(model, processor, data.test)


def load(folder: Path, *, dtype: torch.dtype) -> tuple[Any, Any]:
    """Load a checkpoint of the demo as transformers does it."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype)
    return model.eval(), AutoProcessor.from_pretrained(folder)


def fixed(seed: int) -> list[str]:
    """Return the overrides that set every seed, start anew, and compute in a fast format."""
    seeds = [f"train.seed={seed}", f"data.seed={seed}"]
    return [*seeds, "run.resume=never", *recipe_keys(compute_dtype())]


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Says what is going on and how long it took."""
    began = time.perf_counter()
    console.print(f"[bold]{name}[/bold] ...")
    yield
    console.print(f"  {time.perf_counter() - began:.1f} s", style="dim")
