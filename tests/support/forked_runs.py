"""Training runs through the real command line, in forked children of one process.

torch and transformers are imported once, so that a run starts in milliseconds. Several processes of
a run have the environment variables that torchrun sets.
"""

import os
import random
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from support.forked import Finished, run_forked

__all__ = ["Kill", "launch", "preload", "run_ranks", "train", "unidpo_mm"]

EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "shutil.rmtree"}


@dataclass(frozen=True)
class Kill:
    """The time at which a process of a run is killed.

    Attributes:
        rank: Rank of the process.
        seconds: Seconds after the start; `None` to count accesses to a path instead.
        match: Part of the paths whose accesses are counted.
        touch: Number of the access at which the process is killed.
        number: The signal.
    """

    rank: int = 0
    seconds: float | None = None
    match: str = ".saving"
    touch: int = 1
    number: int = signal.SIGKILL


def preload() -> None:
    """Import the modules that runs need; call this once, before the first fork."""
    import torch
    import transformers.models.llama.modeling_llama
    import transformers.models.llava.modeling_llava  # noqa: F401

    import unidpo_mm.cli.main
    import unidpo_mm.training.run  # noqa: F401

    torch.set_num_threads(1)


def unidpo_mm(*arguments: str) -> Callable[[], None]:
    """Return a function that runs the command line."""

    def run() -> None:
        from unidpo_mm.cli.main import main

        sys.argv = ["unidpo-mm", *arguments]
        main()

    return run


def run_ranks(
    function: Callable[[], object],
    *,
    processes: int,
    env: Mapping[str, str | None] | None = None,
    cwd: Path | None = None,
    timeout: float = 250,
) -> list[Finished]:
    """Run a function in several processes, as torchrun does, and return the end of each.

    If a process fails, the others are killed.

    Args:
        function: The function that each process runs.
        processes: Number of processes; a single one has no variables of torchrun.
        env: Changes of the environment; `None` removes a variable.
        cwd: Working directory of the processes.
        timeout: Seconds after which the processes are killed.
    """
    port = _free_port()
    children: dict[int, int] = {}

    def run() -> None:
        _reset_accelerate()
        function()

    def process(rank: int) -> Finished:
        finished = run_forked(
            run,
            env={**(env or {}), **_environment(rank, processes, port)},
            cwd=cwd,
            timeout=timeout,
            on_start=lambda child: children.update({rank: child}),
        )
        if finished.code != 0:
            for other, child in children.items():
                if other != rank:
                    _send(child, signal.SIGKILL)
        return finished

    with ThreadPoolExecutor(processes) as pool:
        return list(pool.map(process, range(processes)))


def _reset_accelerate() -> None:
    """Clear the state that accelerate keeps about the parent's processes and devices."""
    from accelerate.state import AcceleratorState, GradientState, PartialState

    for state in (AcceleratorState, GradientState, PartialState):
        state._shared_state.clear()


def train(
    folder: Path,
    *overrides: str,
    processes: int = 1,
    kill: Kill | None = None,
    before: Callable[[], None] | None = None,
    timeout: float = 120,
) -> list[Finished]:
    """Run `unidpo-mm train recipe.yaml` in a directory, see `launch`."""
    words = ("train", "recipe.yaml", *overrides)
    return launch(folder, *words, processes=processes, kill=kill, before=before, timeout=timeout)


def launch(
    folder: Path,
    *words: str,
    processes: int = 1,
    kill: Kill | None = None,
    before: Callable[[], None] | None = None,
    timeout: float = 120,
) -> list[Finished]:
    """Run a command of `unidpo-mm` in a directory and return the end of each process.

    Args:
        folder: The directory.
        words: The words of the command.
        processes: Number of processes.
        kill: The time at which one of them is killed; the others are then killed as by torchrun.
        before: Called in each process before the command.
        timeout: Seconds after which the processes are killed.
    """
    port = _free_port()
    children: dict[int, int] = {}

    def process(rank: int) -> Finished:
        def run() -> None:
            if kill is not None and kill.rank == rank and kill.seconds is None:
                _kill_self_at(kill)
            _reset_accelerate()
            if before is not None:
                before()
            unidpo_mm(*words)()

        def started(child: int) -> None:
            children[rank] = child
            if kill is not None and kill.rank == rank and kill.seconds is not None:
                threading.Timer(kill.seconds, _send, (child, kill.number)).start()

        finished = run_forked(
            run,
            env=_environment(rank, processes, port),
            cwd=folder,
            timeout=timeout,
            on_start=started,
        )
        if finished.signal is not None:
            for other, child in children.items():
                if other != rank:
                    _send(child, signal.SIGKILL)
        return finished

    with ThreadPoolExecutor(processes) as pool:
        return list(pool.map(process, range(processes)))


def _environment(rank: int, processes: int, port: int) -> dict[str, str | None]:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    if processes == 1:
        return dict.fromkeys(names)
    values = (rank, rank, processes, processes, "127.0.0.1", port)
    return {name: str(value) for name, value in zip(names, values, strict=True)}


def _kill_self_at(kill: Kill) -> None:
    touches = 0

    def watch(event: str, arguments: Sequence[object]) -> None:
        nonlocal touches
        if event in EVENTS and kill.match in " ".join(map(str, arguments)):
            touches += 1
            if touches == kill.touch:
                os.kill(os.getpid(), kill.number)

    sys.addaudithook(watch)


def _send(child: int, number: int) -> None:
    try:
        os.kill(child, number)
    except ProcessLookupError:  # it has already ended
        return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def random_kill(draw: random.Random, *, processes: int, saving: bool) -> Kill:
    """Return a kill at a random time, during a save or at any time of the run."""
    rank = draw.randrange(processes)
    if saving:  # only the first process writes more than its random state
        return Kill(rank=rank, touch=draw.randrange(1, 100 if rank == 0 else 6))
    return Kill(rank=rank, seconds=draw.uniform(0.05, 1.2 * processes))
