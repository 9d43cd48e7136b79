"""Compare time and memory of a preference step with TRL: same pairs, one process, interleaved.

    make bench                    # every case
    make bench ARGS="'LLaVA VQA'"

Our rows are joined: all groups of a micro-batch are one row. Image processing and collation are
included, the optimizer step is not. Time is the CPU time of this process on one thread, memory the
peak of live tensors minus those before the step. The models are random and small, with the
proportions of real models (`shapes.py`). Speed and memory are relative to the first line of each
case: TRL with checkpointing, without the hooks that make it back-propagate through a frozen tower;
for text and full fine-tunes, unmodified TRL ("as it ships").
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
    start = time.process_time()
    run.compute()
    return time.process_time() - start


def peak_bytes(run: Run) -> int:
    """Return the peak of live tensors minus those before the step, from the profiler's events."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run.compute()
    live = peak = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak


MEMORY_SHARES = (1.0, 2.2)
"""Multiples of TRL's memory that runs with `train.memory` may use."""


def compare(case: Case) -> list[dict[str, Any]]:
    """Return a line per contender; speed and memory are relative to the first one, TRL."""
    with TemporaryDirectory() as name:
        folder = build(case, Path(name) / "model")
        os.environ["UNIDPO_MM_CACHE"] = str(Path(name) / "cache")
        check_proportions(case, folder)
        runs = {who: make(case, folder) for who, make in contenders(case).items()}
        parity = Parity(next(iter(runs.values())))
        same = {who: parity.compare(run) for who, run in runs.items()}  # also the warm-up
        peaks = {who: peak_bytes(run) for who, run in runs.items()}
        first = next(iter(peaks.values()))
        for share in () if case.epoch_steps else MEMORY_SHARES:
            who = f"ours, caches, memory for {share:.1f}x"
            runs[who], peaks[who] = fitted(case, folder, share * first)
            same[who] = parity.compare(runs[who])
        seconds: dict[str, list[float]] = {who: [] for who in runs}
        for _ in range(ROUNDS):
            for who, run in runs.items():
                seconds[who].append(cpu_seconds(run))
    baseline = statistics.median(next(iter(seconds.values())))
    return [
        {
            "case": case.name,
            "who": who,
            "seconds": round(statistics.median(values), 3),
            "spread": round(max(values) - min(values), 3),
            "megabytes": round(peaks[who] / 2**20, 1),
            "speedup": round(baseline / statistics.median(values), 2),
            "memory": round(peaks[who] / first, 3),
            **same[who],
            **ENVIRONMENT,
        }
        for who, values in seconds.items()
    ]


def fitted(case: Case, folder: Path, limit: float) -> tuple[Run, int]:
    """Return our run with a peak of at most `limit` bytes, and the peak.

    `train.memory` limits what layers keep; the other memory of a step is only known when it runs.
    """
    budget = limit
    while True:
        run = within_memory(case, folder, budget)
        run.compute()
        peak = peak_bytes(run)
        if peak <= limit or budget == 1:
            return run, peak
        budget = max(budget - max(peak - limit, limit / 50), 1)


def environment() -> dict[str, str]:
    """Return the versions and hardware that the numbers depend on."""
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


ENVIRONMENT = environment()


def main(names: list[str]) -> None:
    """Print the table as CSV, of the cases with these names or of all cases."""
    torch.set_num_threads(1)
    out = csv.DictWriter(sys.stdout, COLUMNS)
    out.writeheader()
    for case in CASES:
        if not names or case.name in names:
            with redirect_stdout(sys.stderr):  # trainers print their logs
                lines = compare(case)
            out.writerows(lines)
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
