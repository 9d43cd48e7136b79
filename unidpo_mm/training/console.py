"""Console output of a run while it trains: a progress bar, and a line for each log."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from transformers import TrainerCallback, TrainerControl, TrainerState

from ..errors import counted
from ..records import DOMAINS
from .evaluation import Sample

__all__ = ["ConsoleProgress", "evaluation_line", "evaluation_table", "log_line"]

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
            self._show_pace(logs)
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

    def _show_pace(self, logs: Mapping[str, float]) -> None:
        pace = _pace(logs)
        if self._bar is not None and pace:
            self._bar.update(self._bar.task_ids[0], pace=pace)


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
