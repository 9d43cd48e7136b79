"""`unidpo-mm demo`: the quick-start as a command."""

import os
import warnings
from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = ["demo"]

OUTPUT = Path("runs/demo")
Shape = Literal["llava", "qwen_vl"]
Split = Literal["heldout", "validation"]


def demo(
    output: Annotated[
        Path, typer.Option(help="Directory for data, models, charts and summary.")
    ] = OUTPUT,
    seed: Annotated[int, typer.Option(help="Seed of data order, LoRA and training.")] = 0,
    compare: Annotated[
        bool,
        typer.Option("--compare", help="Compare DPO, SimPO, more SFT and shuffled images, too."),
    ] = False,
    seeds: Annotated[str, typer.Option(help="Seeds of --compare, separated by commas.")] = "0,1,2",
    concepts: Annotated[Split, typer.Option(help="Unseen concepts to evaluate on.")] = "heldout",
    shape: Annotated[
        Shape,
        typer.Option(help="Model architecture; qwen_vl has a random vision tower and cannot see."),
    ] = "llava",
) -> None:
    """Assemble a small vision-language model, tune it on three domains and report the change.

    Example: unidpo-mm demo --output runs/demo --seed 1
    """
    if compare and (shape != "llava" or seed):
        raise typer.BadParameter("--compare accepts --seeds and --concepts, not --seed or --shape")
    silence_libraries()
    if compare:
        run_comparison(output, seeds, concepts)
        return
    from .pipeline import run_demo

    run_demo(output, seed, split=concepts, shape=shape)


def run_comparison(output: Path, seeds: str, split: str) -> None:
    """Run the sweep `configs/quickstart/comparison.yaml` and print its table."""
    from unidpo_mm.config.shipped import shipped_recipe
    from unidpo_mm.sweep.command import run_and_show

    from .runner import DemoRunner

    run_and_show(
        shipped_recipe("quickstart/comparison.yaml"), output, seeds, runner=DemoRunner(split=split)
    )


def silence_libraries() -> None:
    """Suppress output that would clutter the report.

    Models of this size load instantly, so a progress bar is of no use, and users cannot change that
    PEFT uses a deprecated name of transformers.
    """
    os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported
    from transformers.utils import logging

    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
