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


def demo(  # noqa: PLR0917, one parameter per option
    output: Annotated[
        Path, typer.Option(help="Directory for data, models, charts and summary.")
    ] = OUTPUT,
    seed: Annotated[int, typer.Option(help="Seed of data order, LoRA and training.")] = 0,
    compare: Annotated[
        bool,
        typer.Option("--compare", help="Compare DPO, SimPO, more SFT and shuffled images, too."),
    ] = False,
    on_policy: Annotated[
        bool,
        typer.Option(
            "--on-policy",
            help="Tune on scored responses of the model itself, and on controls.",
        ),
    ] = False,
    seeds: Annotated[
        str,
        typer.Option(
            help="Seeds of --compare and --on-policy, separated by commas. "
            "[default: 0,1,2 for --compare, 0 for --on-policy]"
        ),
    ] = "",
    concepts: Annotated[Split, typer.Option(help="Unseen concepts to evaluate on.")] = "heldout",
    shape: Annotated[
        Shape,
        typer.Option(help="Model architecture; qwen_vl has a random vision tower and cannot see."),
    ] = "llava",
) -> None:
    """Assemble a small vision-language model, tune it on three domains and report the change.

    Example: unidpo-mm demo --output runs/demo --seed 1
    """
    if compare and on_policy:
        raise typer.BadParameter("use either --compare or --on-policy")
    if (compare or on_policy) and (shape != "llava" or seed):
        option = "--compare" if compare else "--on-policy"
        raise typer.BadParameter(f"{option} accepts --seeds and --concepts, not --seed or --shape")
    silence_libraries()
    if compare or on_policy:
        run_arms("comparison" if compare else "on_policy", output, seeds, concepts)
        return
    from .pipeline import run_demo

    run_demo(output, seed, split=concepts, shape=shape)


def run_arms(name: str, output: Path, seeds: str, split: str) -> None:
    """Run a sweep of the quick-start and print its table.

    Args:
        name: ``comparison`` or ``on_policy``, in `configs/quickstart`.
        output: Directory of the runs.
        seeds: Seeds, separated by commas; empty for those of the sweep.
        split: Unseen concepts to evaluate on.
    """
    from unidpo_mm.config.shipped import shipped_recipe
    from unidpo_mm.sweep.command import run_and_show

    from .on_policy import OnPolicyRunner
    from .runner import DemoRunner

    kind = OnPolicyRunner if name == "on_policy" else DemoRunner
    sweep = shipped_recipe(f"quickstart/{name}.yaml")
    run_and_show(sweep, output, seeds, runner=kind(split=split))


def silence_libraries() -> None:
    """Suppress output that would clutter the report.

    Models of this size load instantly, so a progress bar is of no use, and users cannot change that
    PEFT uses a deprecated name of transformers.
    """
    os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported
    from transformers.utils import logging

    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
