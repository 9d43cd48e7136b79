"""Run the stages of the quick-start: assemble, align, warm up, tune on preferences, evaluate.

Both training stages are ordinary recipes, `configs/quickstart/warmup.yaml` and `uni_dpo.yaml`. This
module sets their paths and seeds and evaluates the models.
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

from unidpo_mm.config import Recipe, load_recipe
from unidpo_mm.config.shipped import shipped_recipe
from unidpo_mm.number_format import fastest_dtype
from unidpo_mm.training.run import train_from_recipe, trainer_for

from .assets import fetch_assets
from .captions import CaptionMetrics, caption_metrics, greedy_captions, majority_rate, shuffle
from .comparison import compare_models, print_tuning_comparison
from .fast_path import Saving, measure_saving
from .held_out_pairs import DOMAINS, PairResult, pair_results, preference_accuracy
from .projector import fit_projector, tower_features
from .qwen_shape import assemble_qwen_vl
from .report import GalleryItem, draw_curves, draw_responses, result_table
from .training_rows import DemoData, write_data
from .vlm import assemble_vlm, save_vlm

__all__ = [
    "Outcome",
    "Start",
    "pairs_at_start",
    "prepare",
    "run_demo",
    "summarize",
    "tune",
]

PACKAGES = ("unidpo-mm", "torch", "transformers", "peft", "accelerate")
ALIGNMENT_STEPS = 300
GALLERY_SIZE = 12
Shape = Literal["llava", "qwen_vl"]

console = Console(stderr=True)


@dataclass(frozen=True, kw_only=True)
class Start:
    """The starting point of the preference stage.

    Attributes:
        folder: Directory of the seed's files.
        seed: Seed of everything.
        data: The data files and images.
        model: Directory of the warmed-up model.
        untrained: Metrics of the assembled model.
        warmup: Metrics of the warmed-up model.
        warmup_captions: Its greedy captions of the test images.
    """

    folder: Path
    seed: int
    data: DemoData
    model: Path
    untrained: CaptionMetrics
    warmup: CaptionMetrics
    warmup_captions: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The results of the preference stage.

    Attributes:
        captions: Greedy captions of the test images.
        metrics: Their metrics.
        shuffled: Their metrics on shuffled images.
        before: Held-out pairs under the warmed-up model, by row id.
        after: Held-out pairs under the tuned model, by row id.
        saving: Time saved by the trainer's layout; `None` if it is the plain one.
        history: Log history of the trainer.
    """

    captions: tuple[str, ...]
    metrics: CaptionMetrics
    shuffled: CaptionMetrics
    before: Mapping[str, PairResult]
    after: Mapping[str, PairResult]
    saving: Saving | None
    history: Sequence[Mapping[str, float]] = field(repr=False)


def run_demo(
    out: Path, seed: int, *, split: str = "heldout", shape: Shape = "llava"
) -> dict[str, Any]:
    """Run the quick-start once and write `summary.json`, `curves.png` and `responses.png`.

    Args:
        out: Directory for all files.
        seed: Seed of images, data order and LoRA.
        split: Unseen concepts to evaluate on, ``heldout`` or ``validation``.
        shape: Architecture of the model; see `prepare`.

    Returns:
        The summary, as written.
    """
    start_time = time.perf_counter()
    start = prepare(out / f"seed-{seed}", seed, split=split, shape=shape)
    tuned = start.folder / "uni_dpo"
    outcome = tune(start, tuned)
    with stage("comparison of both models"):
        comparison = compare_models(
            start.model,
            tuned,
            start.data.folder,
            out / "eval",
            seed=seed,
            dtype=str(fastest_dtype()).removeprefix("torch."),
        )
    summary = summarize(start, outcome, seconds=time.perf_counter() - start_time)
    summary |= {"split": split, "shape": shape, "compared": comparison.content()}
    out.mkdir(parents=True, exist_ok=True)
    (out / "summary.json").write_text(json.dumps(summary, indent=2), encoding="utf-8")
    draw_curves(outcome.history, out / "curves.png")
    draw_responses(gallery(start, outcome), out / "responses.png")
    output = Console()
    output.print(result_table(summary))
    print_tuning_comparison(comparison, output)
    if outcome.saving is not None:
        output.print(outcome.saving.line())
    output.print(f"{summary['seconds']:.0f} seconds. Written: {out / 'summary.json'}, ", end="")
    output.print(f"{out / 'curves.png'}, {out / 'responses.png'}")
    return summary


def prepare(folder: Path, seed: int, *, split: str, shape: Shape = "llava") -> Start:
    """Assemble the model, write the data, align the projector and run the warm-up.

    Args:
        folder: Directory for the data and models of this seed.
        seed: Seed of everything.
        split: Unseen concepts to evaluate on.
        shape: ``llava``, or ``qwen_vl``, whose vision tower is random and therefore not aligned.
    """
    with stage("parts and data"):
        assets = fetch_assets()
        data = write_data(assets.emoji, folder / "data", seed=seed, split=split)
        if shape == "llava":
            assembled = assemble_vlm(assets, [canvas.file for canvas in data.train], seed=seed)
        else:
            assembled = assemble_qwen_vl(assets, seed=seed)
    with stage("captions of the untrained model"):
        untrained = caption_metrics(captions_of(assembled, data), data.test)
    initial = assembled
    if shape == "llava":
        initial = folder / "aligned"
        with stage("projector alignment"):
            align(assembled, data, initial, seed=seed)
    with stage("warm-up (sft)"):
        model = warm_up(initial, folder / "warmup", data, seed)
    with stage("captions of the warmed-up model"):
        captions = captions_of(model, data)
    return Start(
        folder=folder,
        seed=seed,
        data=data,
        model=model,
        untrained=untrained,
        warmup=caption_metrics(captions, data.test),
        warmup_captions=tuple(captions),
    )


def align(assembled: Path, data: DemoData, folder: Path, *, seed: int) -> None:
    """Fit the projector to the embeddings of the kinds' names, without the language model."""
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


def warm_up(initial: Path, folder: Path, data: DemoData, seed: int) -> Path:
    """Run the warm-up recipe; return the directory of the model with its LoRA adapter merged."""
    overrides = [
        f"model.name_or_path={initial}",
        f"data.sources=[{{path: {data.file('warmup')}}}]",
        f"train.output_dir={folder}",
        *seed_overrides(seed),
    ]
    trainer = train_from_recipe(load_recipe(shipped_recipe("quickstart/warmup.yaml"), overrides))
    merged = folder / "merged"
    model: Any = trainer.model.model
    model.merge_and_unload().to(fastest_dtype()).save_pretrained(merged)
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
    """Run the preference stage and evaluate the model.

    Args:
        start: The warmed-up model and the data.
        folder: Directory for the tuned model.
        recipe: The recipe; `None` for `configs/quickstart/uni_dpo.yaml`.
        overrides: Overrides of recipe keys, in which `$DATA` is replaced by the data directory.
        before: The held-out pairs under the warmed-up model; `None` to evaluate them.
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
        metrics=caption_metrics(captions, start.data.test),
        shuffled=caption_metrics(shuffle(captions, seed=start.seed), start.data.test),
        before=before,
        after=after,
        saving=saving,
        history=trainer.state.log_history,
    )


def preference_recipe(
    start: Start, folder: Path, *, recipe: Path | None = None, overrides: Sequence[str] = ()
) -> Recipe:
    """Load the recipe of the preference stage; see `tune` for the arguments."""
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
            *seed_overrides(start.seed),
            *(override.replace("$DATA", str(start.data.folder)) for override in overrides),
        ],
    )


def pairs_at_start(start: Start) -> dict[str, PairResult]:
    """Evaluate the held-out pairs under the warmed-up model."""
    with stage("held-out pairs before"):
        return pair_results(trainer_for(preference_recipe(start, start.folder / "start")))


def summarize(start: Start, outcome: Outcome, *, seconds: float) -> dict[str, Any]:
    """Return the summary of one run; rates are between 0 and 1."""
    stages = {"warmup": start.warmup, "tuned": outcome.metrics}
    all_stages = {"untrained": start.untrained, **stages, "shuffled": outcome.shuffled}

    def values(
        name: str, metrics: Mapping[str, CaptionMetrics], attribute: str
    ) -> dict[str, float]:
        return {stage: getattr(getattr(m, name), attribute) for stage, m in metrics.items()}

    reported = {
        "accuracy": all_stages,
        "hallucination_rate": stages,
        "object_recall": stages,
        "caption_words": stages,
        "exact": stages,
    }
    multimodal = {name: values(name, metrics, "value") for name, metrics in reported.items()}
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
        "fast_path": None if outcome.saving is None else outcome.saving.values(),
        "standard_errors": {
            name: values(name, metrics, "error") for name, metrics in reported.items()
        },
        "images_answered": len(start.data.test),
        "seconds": seconds,
        "seed": start.seed,
        "dtype": str(fastest_dtype()).removeprefix("torch."),
        "versions": {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
    }


def gallery(start: Start, outcome: Outcome) -> list[GalleryItem]:
    """Return the first test images with the responses before and after, not a selection."""
    rows = zip(start.data.test, start.warmup_captions, outcome.captions, strict=True)
    return [
        GalleryItem(image=canvas.file, truth=canvas.caption, before=before, after=after)
        for canvas, before, after in list(rows)[:GALLERY_SIZE]
    ]


def captions_of(folder: Path, data: DemoData) -> list[str]:
    """Generate the greedy captions of a checkpoint for the test images."""
    model, processor = load(folder, dtype=fastest_dtype())
    return greedy_captions(model, processor, data.test)


def load(folder: Path, *, dtype: torch.dtype) -> tuple[Any, Any]:
    """Load a checkpoint of the quick-start with transformers."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype)
    return model.eval(), AutoProcessor.from_pretrained(folder)


def seed_overrides(seed: int) -> list[str]:
    """Return the overrides that set every seed, never resume, and use the fastest dtype."""
    seeds = [f"train.seed={seed}", f"data.seed={seed}"]
    return [*seeds, "run.resume=never", *dtype_overrides(fastest_dtype())]


def dtype_overrides(dtype: torch.dtype) -> list[str]:
    """Return the overrides that make a recipe compute in `dtype`."""
    name = str(dtype).removeprefix("torch.")
    return [f"model.dtype={name}", f"train.bf16={str(dtype is torch.bfloat16).lower()}"]


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Print the name of a stage and its duration."""
    start_time = time.perf_counter()
    console.print(f"[bold]{name}[/bold] ...")
    yield
    console.print(f"  {time.perf_counter() - start_time:.1f} s", style="dim")
