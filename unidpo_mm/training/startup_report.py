"""The report that a run prints before its first step: parameters, data, loss, layout, steps."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from transformers import TrainerCallback, TrainerControl, TrainerState

from ..config.checks.python_arguments import check_steps
from ..config.python import UniDPOConfig
from ..errors import counted
from ..modeling.parts import PartCount, count_parameters
from .context import TrainingContext
from .run_parts import LayoutChoice, RunParts

__all__ = ["StartupReport", "parameter_table", "print_startup_report", "step_line"]


def parameter_table(counts: Sequence[PartCount]) -> Table:
    """Return the table of trainable parameters."""
    table = Table(title="Parameters", title_justify="left")
    table.add_column("part")
    table.add_column("trainable", justify="right")
    table.add_column("all", justify="right")
    table.add_column("share", justify="right")
    trainable, total = sum(c.trainable for c in counts), sum(c.total for c in counts)
    for count in (*counts, PartCount("total", trainable, total)):
        share = f"{100 * count.trainable / count.total:.2f} %"
        table.add_row(count.part, f"{count.trainable:,}", f"{count.total:,}", share)
    return table


def step_line(parts: RunParts, args: UniDPOConfig, *, max_steps: int, processes: int) -> str:
    """Return a line with the number of steps, and of pairs, groups and responses per step."""
    rows = parts.train_rows
    per_step = args.per_device_train_batch_size * args.gradient_accumulation_steps * processes
    units = sum(len(row.pairs) or len(row.responses) for row in rows)
    groups = per_step * len(rows) / max(units, 1)
    responses = per_step * sum(len(row.responses) for row in rows) / max(units, 1)
    return (
        f"{counted(max_steps, 'optimizer step')} of about "
        f"{counted(per_step, parts.settings.loss.unit)} in {groups:.1f} groups (prompts) with "
        f"{responses:.1f} responses"
    )


class StartupReport(TrainerCallback):
    """A callback that prints the report when training begins, on the main process."""

    def __init__(self, trainer: TrainingContext) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check the warmup against the number of steps, and print the report."""
        check_steps(self.trainer.args, state.max_steps)
        if state.is_world_process_zero:
            print_startup_report(self.trainer, max_steps=state.max_steps)


def print_startup_report(
    trainer: TrainingContext, *, max_steps: int, console: Console | None = None
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
        console.print("[yellow]The pairs of a micro-batch affect each other in this loss[/yellow]")
    console.print(layout_line(trainer.layout, parts), soft_wrap=True)
    steps = step_line(parts, args, max_steps=max_steps, processes=args.world_size)
    console.print(steps, soft_wrap=True)


def layout_line(choice: LayoutChoice, parts: RunParts) -> str:
    """Return a line with the layout, what it computes repeatedly, why, and at what cost."""
    if choice.layout == "joined":
        return "Layout: joined, prompt and images run once for all responses, without padding"
    if choice.layout == "packed":
        return "Layout: packed, prompt and images run once for all responses"
    repeated = "prompts" if parts.logp_model.takes_features else "prompts and images"
    cost = ""
    if parts.preflight is not None and parts.preflight.responses > parts.preflight.rows:
        tokens = parts.preflight.tokens
        cost = f", which costs {tokens['plain'] / tokens['packed']:.2f} times the tokens"
    return f"Layout: plain, {repeated} run once for each response{cost} ({choice.reason})"


def data_lines(parts: RunParts, args: UniDPOConfig) -> list[str]:
    """Return the lines about the data; none if the preflight is off."""
    preflight = parts.preflight
    if preflight is None:
        return []
    domains = ", ".join(f"{count} {name}" for name, count in sorted(preflight.domains.items()))
    lines = [
        f"Data: {counted(preflight.rows, 'row')} ({domains}), {counted(preflight.pairs, 'pair')}, "
        f"{counted(preflight.responses, 'response')}, {counted(preflight.images, 'image')}, "
        f"{counted(preflight.prompts, 'distinct prompt')}; longest row "
        f"{counted(preflight.longest, 'token')}; {counted(len(parts.eval_rows), 'row')} held out"
    ]
    if preflight.cut_responses:
        lines.append(
            f"[yellow]{_part(preflight.cut_responses, preflight.responses, 'response')} cut to fit "
            f"max_length {args.max_length}[/yellow]"
        )
    if preflight.shrunk_images:
        lines.append(
            f"[yellow]{_part(preflight.shrunk_images, preflight.images, 'image')} made smaller to "
            f"fit max_length {args.max_length}[/yellow]"
        )
    if preflight.identical_pairs:
        lines.append(
            f"[yellow]{preflight.identical_pairs} of {counted(preflight.pairs, 'pair')} "
            f"{'has' if preflight.identical_pairs == 1 else 'have'} the same tokens in both "
            "responses, and so no preference[/yellow]"
        )
    if preflight.too_long:
        lines.append(
            f"[yellow]{counted(preflight.too_long, 'row is', 'rows are')} skipped: longer than "
            f"max_length {args.max_length}[/yellow]"
        )
    if preflight.unreadable:
        first = preflight.unreadable[0]
        number = len(preflight.skipped) - preflight.too_long
        lines.append(
            f"[yellow]{counted(number, 'row is', 'rows are')} skipped because of unusable images, "
            f"the first {escape(first.where)}: {escape(first.message)}[/yellow]"
        )
    return lines


def _part(number: int, total: int, noun: str) -> str:
    return f"{number:,} of {counted(total, noun)} {'is' if number == 1 else 'are'}"


def loss_line(parts: RunParts) -> str:
    """Return the loss and its parameters, with those that differ by data source."""
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
