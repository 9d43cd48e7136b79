"""How far a run is, on the error stream: done, of how many, and the time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .stopping import stoppable

__all__ = ["Told", "progress"]

Told = Callable[[str, int, int], None]
"""Is told a benchmark, how many more of its questions were answered, and how many there are."""


@contextmanager
def progress(*, shown: bool, speaks: bool | None = None) -> Iterator[Told]:
    """Show a line for each benchmark, and say how to resume if a signal ends the run.

    Args:
        shown: Whether the line is shown.
        speaks: Whether this process answers a signal; None for whether it shows the line.

    Yields:
        A function that is told how far the run is.
    """
    speaks = shown if speaks is None else speaks
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with stoppable(speaks=speaks), Progress(*columns, console=console, disable=not shown) as bar:
        task = bar.add_task("", total=None)

        def told(benchmark: str, more: int, whole: int) -> None:
            done = min(bar.tasks[task].completed + more, whole)  # shares differ by a batch
            bar.update(task, description=benchmark, total=whole, completed=done)

        yield told
