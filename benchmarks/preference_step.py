"""Time and memory of a preference step beside TRL's: same pairs, one process, interleaved.

    make bench                    # every case
    make bench ARGS="'LLaVA VQA'"

Our rows are joined: all groups of a micro-batch in one. Processing of images and collation are
counted, the optimizer's step is not. Time is the CPU time of this process on one thread, memory the
peak of live tensors above what lived before the step. The models are random and small, of real
proportions (shapes.py). Speed and memory are relative to the first line of each case: TRL with
checkpointing, without the hooks that make it back-propagate through a frozen tower; for text and
full fine-tunes TRL as it ships.
"""

import csv
import gc
import os
import platform
import statistics
import subprocess
import sys
import time
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from contenders import Run, contenders, within_memory
from inputs import build, check_proportions
from parity import Parity
from shapes import CASES, Case

ROUNDS = 5
COLUMNS = (
    *("case", "who", "seconds", "spread", "megabytes", "speedup", "memory"),
    *("loss", "loss_difference", "gradient_difference"),
    *("device", "dtype", "threads", "versions", "commit", "load"),
)


def cpu_seconds(run: Run) -> float:
    """Return the CPU time of one step."""
    gc.collect()
    began = time.process_time()
    run.go()
    return time.process_time() - began


def peak_bytes(run: Run) -> int:
    """Return the peak of live tensors above what lived before, from the profiler's events."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        run.go()
    live = peak = 0
    for event in found.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak


MEMORY_SHARES = (1.0, 2.2)
"""Of TRL's memory, that `memory` is allowed."""


def compare(case: Case) -> list[dict[str, Any]]:
    """Return a line for each contender; speed and memory are relative to the first, TRL."""
    with TemporaryDirectory() as name:
        folder = build(case, Path(name) / "model")
        os.environ["UNIDPO_MM_CACHE"] = str(Path(name) / "cache")
        check_proportions(case, folder)
        runs = {who: make(case, folder) for who, make in contenders(case).items()}
        parity = Parity(next(iter(runs.values())))
        same = {who: parity.of(run) for who, run in runs.items()}  # warms up, too
        peaks = {who: peak_bytes(run) for who, run in runs.items()}
        first = next(iter(peaks.values()))
        for share in () if case.epoch_steps else MEMORY_SHARES:
            who = f"ours, caches, memory for {share:.1f}x"
            runs[who], peaks[who] = fitted(case, folder, share * first)
            same[who] = parity.of(runs[who])
        seconds: dict[str, list[float]] = {who: [] for who in runs}
        for _ in range(ROUNDS):
            for who, run in runs.items():
                seconds[who].append(cpu_seconds(run))
    yardstick = statistics.median(next(iter(seconds.values())))
    return [
        {
            "case": case.name,
            "who": who,
            "seconds": round(statistics.median(values), 3),
            "spread": round(max(values) - min(values), 3),
            "megabytes": round(peaks[who] / 2**20, 1),
            "speedup": round(yardstick / statistics.median(values), 2),
            "memory": round(peaks[who] / first, 3),
            **same[who],
            **SURROUNDINGS,
        }
        for who, values in seconds.items()
    ]


def fitted(case: Case, folder: Path, most: float) -> tuple[Run, int]:
    """Return ours within so many bytes, all in all, with its peak.

    `train.memory` counts what layers keep; what else a step takes shows when it runs.
    """
    budget = most
    while True:
        run = within_memory(case, folder, budget)
        run.go()
        peak = peak_bytes(run)
        if peak <= most or budget == 1:
            return run, peak
        budget = max(budget - max(peak - most, most / 50), 1)


def surroundings() -> dict[str, str]:
    """Return what the figures depend on beside the code."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    names = ("torch", "transformers", "trl", "peft", "accelerate")
    return {
        "device": platform.processor() or platform.machine(),
        "dtype": "float32",
        "threads": "1",
        "versions": " ".join(f"{name}={version(name)}" for name in names),
        "commit": commit.stdout.strip(),
        "load": f"{os.getloadavg()[0]:.1f}",
    }


SURROUNDINGS = surroundings()


def main(wanted: list[str]) -> None:
    """Print the table of the cases named, or of all, as CSV."""
    torch.set_num_threads(1)
    out = csv.DictWriter(sys.stdout, COLUMNS)
    out.writeheader()
    for case in CASES:
        if not wanted or case.name in wanted:
            with redirect_stdout(sys.stderr):  # a trainer prints its log
                lines = compare(case)
            out.writerows(lines)
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
