"""Check a machine with a GPU in ten minutes: correctness, speed, memory, waits, and TRL.

    python benchmarks/gpu_check --out gpu.csv
    python benchmarks/gpu_check --cpu --out cpu.csv    # smoke test with tiny models

Models have random weights in the sizes of LLaVA-1.5-7B, Qwen2.5-VL-7B and Qwen2.5-7B, so nothing
is downloaded. Each measurement is a line of the CSV file, written immediately. A section that fails
leaves a line with the reason, and the next one starts. After the time limit, sections stop.
"""

import argparse
import csv
import logging
import os
import platform
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

COLUMNS = ("section", "case", "who", "quantity", "value", "unit", "device", "versions")


def main(arguments: list[str] | None = None) -> int:
    """Run the sections; return 1 if one of them failed."""
    options = _options(arguments)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ["UNIDPO_MM_CACHE"] = tempfile.mkdtemp()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    import torch
    from sections import SECTIONS, Settings

    device = "cpu" if options.cpu else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        sys.exit("gpu_check: torch finds no GPU. Pass --cpu for a smoke test with tiny models.")
    settings = Settings(device, 2 if options.cpu else options.groups, tempfile.mkdtemp())
    start, failed = time.monotonic(), False
    with options.out.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(COLUMNS)
        environment = (_device_name(device), _versions())
        for name in options.only or SECTIONS:
            if time.monotonic() - start > options.limit:
                lines.writerow((name, "", "", "skipped", "time limit", "", *environment))
                continue
            try:
                for measurement in SECTIONS[name](settings):
                    lines.writerow((name, *measurement, *environment))
                    file.flush()
                    print(f"[{time.monotonic() - start:4.0f} s] {name}:", *measurement, flush=True)
                    failed |= measurement[2] == "failed"
                    if time.monotonic() - start > options.limit:
                        lines.writerow((name, "", "", "stopped", "time limit", "", *environment))
                        break
            except Exception as error:  # the other sections are still worth running
                failed = True
                reason = f"{type(error).__name__}: {error}"[:300]
                lines.writerow((name, "", "", "failed", reason, "", *environment))
                traceback.print_exc()
            file.flush()
    return int(failed)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="gpu_check", description=summary)
    parser.add_argument("--cpu", action="store_true", help="smoke test with tiny models")
    parser.add_argument("--out", type=Path, default=Path("gpu_check.csv"), help="the CSV file")
    parser.add_argument("--groups", type=int, default=8, help="prompts per micro-batch")
    parser.add_argument("--limit", type=float, default=540, help="seconds after which it stops")
    names = ("machine", "correctness", "steps", "peers")
    parser.add_argument("--only", nargs="+", choices=names, help="sections to run")
    return parser.parse_args(arguments)


def _device_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else platform.machine()


def _versions() -> str:
    import peft
    import torch
    import transformers

    modules = (torch, transformers, peft)
    return " ".join(f"{module.__name__}={module.__version__}" for module in modules)


if __name__ == "__main__":
    sys.exit(main())
