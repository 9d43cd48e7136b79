"""Console output of a run: the report before its first step, progress, and a line per log."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from transformers import TrainerCallback, TrainerControl, TrainerState

from ..config.python import UniDPOConfig
from ..data.row_table import columns_of
from ..errors import counted
from ..modeling.parts import PartCount, count_parameters
from ..records import DOMAINS
from .evaluation import Sample
from .run_parts import LayoutChoice, RunParts
from .saving import SavingTrainer

__all__ = ["ConsoleProgress", "layout_line", "print_startup_report"]

LINE_METRICS = {
    "loss": "loss",
    "rewards/accuracies": "accuracy",
    "rewards/margins": "margin",
    "w_qual": "w_qual",
    "w_perf": "w_perf",
    "nll_gate": "gate",
    "learning_rate": "lr",
}
"""Metrics in a log line and their short names; the log history has all of them."""

TABLE_METRICS = {
    "loss": "loss",
    "rewards/accuracies": "reward accuracy",
    "logps/accuracies": "log-prob accuracy",
    "rewards/margins": "margin",
    "w_qual": "w_qual",
    "w_perf": "w_perf",
    "nll_gate": "gate rate",
    "effective_sample_size": "effective sample size",
    "logps/chosen": "chosen log-prob per token",
    "logps/chosen_change": "change of the above",
}
"""Metrics in the evaluation table and the headings of their rows."""


class ConsoleProgress(TrainerCallback):
    """A callback that shows progress on the main process, in place of transformers' output.

    Args:
        console: The console to print to; `None` for stderr.
        bar: Whether to show a progress bar in a terminal, and evaluations as tables rather than
            lines.
    """

    def __init__(self, console: Console | None = None, *, bar: bool = True) -> None:
        self.console = console or Console(stderr=True)
        self.has_bar = bar
        self._bar: Progress | None = None
        self._began = 0.0

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the bar."""
        self._began = time.perf_counter()
        if not (state.is_world_process_zero and self.has_bar and self.console.is_terminal):
            return
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[pace]}"),
            console=self.console,
            transient=True,
        )
        self._bar.add_task("", total=state.max_steps, completed=state.global_step, pace="")
        self._bar.start()

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Update the bar."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=state.global_step)

    def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Print a line for training, a table for an evaluation."""
        if not state.is_world_process_zero or not logs:
            return
        if "eval_loss" in logs or any(name.startswith("eval_logps") for name in logs):
            if self.has_bar:
                self.console.print(evaluation_table(logs, step=state.global_step))
            else:
                line = evaluation_line(logs, step=state.global_step, of=state.max_steps)
                self.console.print(line, soft_wrap=True)
        elif "loss" in logs:
            if self._bar is not None:
                self._bar.update(self._bar.task_ids[0], pace=_pace(logs))
            line = log_line(logs, step=state.global_step, of=state.max_steps)
            self.console.print(line, soft_wrap=True)

    def on_train_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Remove the bar and print how long training took."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if state.is_world_process_zero:
            seconds = time.perf_counter() - self._began
            done = counted(state.global_step, "step")
            self.console.print(f"{done} done in {_duration(seconds)}")

    def show_samples(self, samples: Sequence[Sample]) -> None:
        """Print the responses generated at an evaluation."""
        table = Table(title="Sample responses", title_justify="left", box=SIMPLE_HEAD)
        for heading in ("prompt", "response", "preferred in the data"):
            table.add_column(heading, overflow="ellipsis", max_width=44)
        for sample in samples:
            table.add_row(*map(escape, (sample.prompt, sample.answer, sample.preferred)))
        self.console.print(table)


def log_line(logs: Mapping[str, float], *, step: int, of: int) -> str:
    """Return a training log as one line."""
    parts = [f"{short} {logs[name]:.4g}" for name, short in LINE_METRICS.items() if name in logs]
    left = f"{_duration(logs['seconds_left'])} left" if "seconds_left" in logs else ""
    return "  ".join(part for part in (f"step {step}/{of}", *parts, _pace(logs), left) if part)


def evaluation_line(logs: Mapping[str, float], *, step: int, of: int) -> str:
    """Return an evaluation as one line, with the metrics over all domains."""
    values = {name.removeprefix("eval_"): value for name, value in logs.items()}
    parts = [
        f"{short} {values[name]:.4g}" for name, short in LINE_METRICS.items() if name in values
    ]
    return "  ".join((f"step {step}/{of}", "held out:", *parts))


def evaluation_table(logs: Mapping[str, float], *, step: int) -> Table:
    """Return an evaluation as a table: a row for each metric, a column for each domain."""
    table = Table(title=f"Held-out pairs at step {step}", title_justify="left", box=SIMPLE_HEAD)
    domains = [name for name in DOMAINS if f"eval_{name}/logps/chosen" in logs]
    table.add_column("")
    for heading in ("all", *domains):
        table.add_column(heading, justify="right")
    for name, text in TABLE_METRICS.items():
        if f"eval_{name}" in logs:
            values = [
                logs.get(f"eval_{group}{name}") for group in ("", *(f"{d}/" for d in domains))
            ]
            table.add_row(text, *("" if value is None else f"{value:.4g}" for value in values))
    return table


def _pace(logs: Mapping[str, float]) -> str:
    for name, value in logs.items():
        if name.endswith("s_per_second") and not name.startswith(("train", "eval")):
            return f"{value:.3g} {name.removesuffix('_per_second')}/s"
    return ""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def parameter_table(counts: Sequence[PartCount]) -> Table:
    """Return the table of trainable parameters."""
    table = Table(title="Parameters", title_justify="left")
    table.add_column("part")
    for heading in ("trainable", "all", "share"):
        table.add_column(heading, justify="right")
    trainable, total = sum(c.trainable for c in counts), sum(c.total for c in counts)
    for count in (*counts, PartCount("total", trainable, total)):
        share = f"{100 * count.trainable / count.total:.2f} %"
        table.add_row(count.part, f"{count.trainable:,}", f"{count.total:,}", share)
    return table


def step_line(parts: RunParts, args: UniDPOConfig, max_steps: int) -> str:
    """Return a line with the number of steps, and of pairs, groups and responses per step."""
    columns, per_step = columns_of(parts.train_rows), args.per_device_train_batch_size
    per_step *= args.gradient_accumulation_steps * args.world_size
    units = max(int(columns.units.sum()), 1)
    if args.tokens_per_micro_batch is not None:
        micro_batches = args.gradient_accumulation_steps * args.world_size
        return (
            f"{counted(max_steps, 'optimizer step')} of "
            f"{counted(micro_batches, 'micro-batch', 'micro-batches')} with up to "
            f"{counted(args.tokens_per_micro_batch, 'token')}"
        )
    groups = per_step * len(columns) / units
    responses = per_step * int(columns.responses.sum()) / units
    return (
        f"{counted(max_steps, 'optimizer step')} of about "
        f"{counted(per_step, parts.settings.loss.noun)} in {groups:.1f} groups (prompts) with "
        f"{responses:.1f} responses"
    )


def print_startup_report(
    trainer: SavingTrainer, *, max_steps: int, console: Console | None = None
) -> None:
    """Print the table of parameters and the lines about data, loss, layout and steps."""
    parts, args = trainer.parts, trainer.args
    console = console or Console(stderr=True)
    console.print(parameter_table(count_parameters(parts.logp_model.model, parts.family)))
    for line in data_lines(parts, args):
        console.print(line, soft_wrap=True)
    loss = f"Loss: {loss_line(parts)}; reference: {parts.reference_name}"
    console.print(loss, soft_wrap=True)
    if parts.settings.loss.batch_dependent(parts.settings.config):
        noun = parts.settings.loss.noun
        text = f"The {noun}s of a micro-batch affect each other in this loss"
        console.print(f"[yellow]{text}[/yellow]")
    console.print(layout_line(trainer.layout, parts), soft_wrap=True)
    if trainer.shared_layers is not None:
        layers = counted(len(trainer.shared_layers), "layer")
        console.print(f"The first {layers} run once for policy and reference", soft_wrap=True)
    console.print(step_line(parts, args, max_steps), soft_wrap=True)


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
    if parts.stream is not None:
        rows = counted(preflight.rows, "row")
        return [f"Data: streamed while the run trains; the first {rows} were checked"]
    domains = ", ".join(f"{count} {name}" for name, count in sorted(preflight.domains.items()))
    videos = f"{counted(preflight.videos, 'video')}, " if preflight.videos else ""
    labels = f"{counted(preflight.labels, 'label')}, " if preflight.labels else ""
    data = (
        f"Data: {counted(preflight.rows, 'row')} ({domains}), {counted(preflight.pairs, 'pair')}, "
        f"{labels}{counted(preflight.responses, 'response')}, "
        f"{counted(preflight.images, 'image')}, {videos}"
        f"{counted(preflight.prompts, 'distinct prompt')}; longest row "
        f"{counted(preflight.longest, 'token')}; {counted(len(parts.eval_rows), 'row')} held out"
    )
    limit = f"max_length {args.max_length}"
    notes = []
    if preflight.cut_responses:
        part = _part(preflight.cut_responses, preflight.responses, "response")
        notes.append(f"{part} cut to fit {limit}")
    if preflight.shrunk_images:
        part = _part(preflight.shrunk_images, preflight.images, "image")
        notes.append(f"{part} made smaller to fit {limit}")
    if preflight.shortened_videos:
        part = _part(preflight.shortened_videos, preflight.videos, "video")
        notes.append(f"{part} given fewer or smaller frames to fit {limit}")
    if preflight.identical_pairs:
        notes.append(
            f"{preflight.identical_pairs} of {counted(preflight.pairs, 'pair')} "
            f"{'has' if preflight.identical_pairs == 1 else 'have'} the same tokens in both "
            "responses, and so no preference"
        )
    if preflight.too_long:
        rows = counted(preflight.too_long, "row is", "rows are")
        notes.append(f"{rows} skipped: longer than {limit}")
    if preflight.unreadable:
        first = preflight.unreadable[0]
        rows = counted(len(preflight.skipped) - preflight.too_long, "row is", "rows are")
        notes.append(
            f"{rows} skipped because of unusable {preflight.media}, the first "
            f"{escape(first.where)}: {escape(first.message)}"
        )
    return [data, *(f"[yellow]{note}[/yellow]" for note in notes)]


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
