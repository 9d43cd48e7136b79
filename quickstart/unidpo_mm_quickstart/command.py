"""`unidpo-mm demo`: the quick-start as a command."""

import warnings
from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = ["demo"]

OUT = Path("runs/demo")
Shape = Literal["llava", "qwen_vl"]
Split = Literal["heldout", "validation"]


def demo(
    out: Annotated[
        Path, typer.Option(help="Directory for data, models, charts and summary.")
    ] = OUT,
    seed: Annotated[int, typer.Option(help="Seed of data order, LoRA and training.")] = 0,
    compare: Annotated[
        bool, typer.Option("--compare", help="Add DPO, SimPO, more SFT and shuffled images.")
    ] = False,
    seeds: Annotated[str, typer.Option(help="Seeds of --compare, separated by commas.")] = "0,1,2",
    split: Annotated[Split, typer.Option(help="Unseen concepts to evaluate on.")] = "heldout",
    shape: Annotated[
        Shape,
        typer.Option(help="Model architecture; qwen_vl has a random vision tower and cannot see."),
    ] = "llava",
) -> None:
    """Assemble a small vision-language model, tune it on three domains and report the change.

    Example: unidpo-mm demo --out runs/demo --seed 1
    """
    if compare and (shape != "llava" or seed):
        raise typer.BadParameter("--compare accepts --seeds and --split, not --seed or --shape")
    silence_libraries()
    if compare:
        run_comparison(out, seeds, split)
        return
    from .pipeline import run_demo

    run_demo(out, seed, split=split, shape=shape)


def run_comparison(out: Path, seeds: str, split: str) -> None:
    """Run the sweep `configs/quickstart/comparison.yaml` and print its table."""
    from unidpo_mm.config.shipped import shipped_recipe
    from unidpo_mm.sweep.command import run_and_show

    from .runner import DemoRunner

    run_and_show(
        shipped_recipe("quickstart/comparison.yaml"), out, seeds, runner=DemoRunner(split=split)
    )


def silence_libraries() -> None:
    """Suppress output that would clutter the report.

    Models of this size load instantly, so a progress bar is of no use, and users cannot change that
    PEFT uses a deprecated name of transformers.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
