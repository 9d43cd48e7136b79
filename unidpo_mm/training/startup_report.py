"""What a run prints before its first step: what trains, on what, how often."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from transformers import TrainerCallback, TrainerControl, TrainerState

from ..modeling.parts import PartCount, count_parameters
from .config import UniDPOConfig
from .setup import RunParts
from .startup_checks import LayoutChoice

if TYPE_CHECKING:
    from .trainer import UniDPOTrainer

__all__ = ["StartupReport", "parameter_table", "print_startup_report", "step_line"]


def parameter_table(counts: Sequence[PartCount]) -> Table:
    """Return the table of trainable parameters."""
    table = Table(title="Parameters", title_justify="left")
    table.add_column("part")
    table.add_column("trainable", justify="right")
    table.add_column("all", justify="right")
    table.add_column("share", justify="right")
    trainable, total = sum(c.trainable for c in counts), sum(c.total for c in counts)
    for count in (*counts, PartCount("together", trainable, total)):
        share = f"{100 * count.trainable / count.total:.2f} %"
        table.add_row(count.part, f"{count.trainable:,}", f"{count.total:,}", share)
    return table


def step_line(parts: RunParts, args: UniDPOConfig, *, max_steps: int, processes: int) -> str:
    """Return how many pairs, groups, prompts and responses an optimizer step sees."""
    rows = parts.train_rows
    per_step = args.per_device_train_batch_size * args.gradient_accumulation_steps * processes
    units = sum(len(row.pairs) or len(row.responses) for row in rows)
    groups = per_step * len(rows) / max(units, 1)
    responses = per_step * sum(len(row.responses) for row in rows) / max(units, 1)
    unit = f"{parts.settings.loss.unit}s"
    return (
        f"{max_steps} optimizer steps of about {per_step} {unit} in {groups:.1f} groups (prompts) "
        f"with {responses:.1f} responses"
    )


class StartupReport(TrainerCallback):
    """Prints the report when training begins, on the main process."""

    def __init__(self, trainer: "UniDPOTrainer") -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called by the trainer."""
        if state.is_world_process_zero:
            print_startup_report(self.trainer, max_steps=state.max_steps)


def print_startup_report(
    trainer: "UniDPOTrainer", *, max_steps: int, console: Console | None = None
) -> None:
    """Print the table of parameters and the lines about data, loss, layout and steps."""
    parts, args = trainer.parts, trainer.args
    console = console or Console(stderr=True)
    console.print(parameter_table(count_parameters(parts.logp_model.model, parts.family)))
    for line in data_lines(parts, args):
        console.print(line, soft_wrap=True)
    reference = type(parts.reference).__name__ if parts.reference is not None else "none"
    console.print(f"Loss: {loss_line(parts)}; reference: {reference}", soft_wrap=True)
    if parts.settings.loss.batch_dependent(parts.settings.config):
        console.print("[yellow]This loss depends on the micro-batch a pair falls into[/yellow]")
    console.print(layout_line(trainer.layout, parts), soft_wrap=True)
    steps = step_line(parts, args, max_steps=max_steps, processes=args.world_size)
    console.print(steps, soft_wrap=True)


def layout_line(choice: LayoutChoice, parts: RunParts) -> str:
    """Return what a batch repeats, why, and what it costs."""
    if choice.layout == "joined":
        return "Layout: joined, prompt and images run once for all answers, nothing is padded"
    if choice.layout == "packed":
        return "Layout: packed, prompt and images run once for all answers"
    repeated = "prompts" if parts.logp_model.takes_features else "prompts and images"
    cost = ""
    if parts.preflight is not None and parts.preflight.responses > parts.preflight.rows:
        tokens = parts.preflight.tokens
        cost = f", which costs {tokens['plain'] / tokens['packed']:.2f} times the tokens"
    return f"Layout: plain, {repeated} run once for each answer{cost} ({choice.reason})"


def data_lines(parts: RunParts, args: UniDPOConfig) -> list[str]:
    """Return what a pass over the data found."""
    found = parts.preflight
    if found is None:
        return []
    domains = ", ".join(f"{count} {name}" for name, count in sorted(found.domains.items()))
    lines = [
        f"Data: {found.rows} rows ({domains}), {found.pairs} pairs, {found.responses} responses, "
        f"{found.images} images, {found.prompts} distinct prompts; longest row {found.longest} "
        f"tokens; {len(parts.eval_rows)} rows held out"
    ]
    if found.cut_responses:
        lines.append(
            f"[yellow]{found.cut_responses} of {found.responses} responses are cut to fit "
            f"max_length {args.max_length}[/yellow]"
        )
    if found.shrunk_images:
        lines.append(
            f"[yellow]{found.shrunk_images} of {found.images} images are made smaller to fit "
            f"max_length {args.max_length}[/yellow]"
        )
    if found.identical_pairs:
        lines.append(
            f"[yellow]{found.identical_pairs} of {found.pairs} pairs have the same tokens as both "
            "answers, so that they prefer nothing[/yellow]"
        )
    if found.too_long:
        lines.append(
            f"[yellow]{found.too_long} rows are left out: longer than max_length "
            f"{args.max_length}[/yellow]"
        )
    if found.unreadable:
        first = found.unreadable[0]
        lines.append(
            f"[yellow]{len(found.skipped) - found.too_long} rows are left out for their images, "
            f"the first of them {escape(first.where)}: {escape(first.message)}[/yellow]"
        )
    return lines


def loss_line(parts: RunParts) -> str:
    """Return the loss, its parameters, and where sources differ."""
    described = parts.settings.describe()
    name, by_source = described.pop("name"), described.pop("by_source")
    words = [f"{key} {value}" for key, value in described.items()]
    words += [
        f"{key} {value} for '{source}'"
        for source, values in by_source.items()
        for key, value in values.items()
        if value != described[key]
    ]
    return f"{name} with {', '.join(words)}"
