"""How far a run is, on the error stream: done, of how many, and the time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["Told", "progress"]

Told = Callable[[str, int, int], None]
"""Is told a benchmark, how many more of its questions were answered, and how many there are."""


@contextmanager
def progress(*, shown: bool) -> Iterator[Told]:
    """Shows a line for each benchmark; gives what is to be told of it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        task = bar.add_task("", total=None)

        def told(benchmark: str, more: int, whole: int) -> None:
            done = min(bar.tasks[task].completed + more, whole)  # shares differ by a batch
            bar.update(task, description=benchmark, total=whole, completed=done)

        try:
            yield told
        except KeyboardInterrupt:
            bar.console.print("stopped; the same command goes on from here")
            raise
