"""Inject signals, full disks, numbers that are not finite, and failing data workers."""

import os
import resource
import signal
import time
from pathlib import Path

from faults.kills import digest, fresh, uninterrupted
from faults.report import Section
from support.forked import run_forked
from support.forked_runs import Kill, train, unidpo_mm

__all__ = ["failing_workers", "full_disk", "not_finite", "signals"]


def signals(section: Section, folder: Path, model: Path) -> None:
    """Send each signal at several moments; the run must save, exit with its code and resume."""
    expected = {n: uninterrupted(folder / f"expected-{n}", model, n) for n in (1, 2)}
    codes = {"SIGTERM": 75, "SIGUSR1": 75, "SIGHUP": 75, "SIGINT": 130}
    for processes in (1, 2):
        for name, code in codes.items():
            for touch in (1, 20, 60):
                number = getattr(signal, name)
                run = fresh(folder / f"{name}-{processes}-{touch}", model)
                kill = Kill(rank=processes - 1, match="out/.saving", touch=touch, number=number)
                ends = train(run, processes=processes, kill=kill)
                where = f"{name}, {processes} processes, touch {touch}"
                if not section.expect(
                    {end.code for end in ends} <= {code, 0}, f"{where}: {[e.code for e in ends]}"
                ):
                    continue
                stopped = ends[0].code == code
                section.count(f"saved, exit {code}" if stopped else "finished")
                if stopped:
                    reported = "Saved out/checkpoint-" in ends[0].stderr
                    reported = reported or "there is no step to save" in ends[0].output
                    section.expect(reported, f"{where}: no message")
                again = train(run, processes=processes)
                section.expect(all(end.code == 0 for end in again), f"{where}: no restart")
                section.expect(digest(run / "out") == expected[processes], f"{where}: weights")


def full_disk(section: Section, folder: Path, model: Path) -> None:
    """Limit the size of files, as on a full disk; without limit, the command must then finish."""
    expected = uninterrupted(folder / "expected", model, 1)
    for size in (2_000, 20_000, 100_000, 200_000, 330_000, 600_000):
        run = fresh(folder / f"limit-{size}", model)
        train(run, kill=Kill(match=".saving/checkpoint-3", touch=1))

        def limit(size: int = size) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that write() fails instead
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

        end = train(run, before=limit)[0]
        last = (end.output.strip().splitlines() or [""])[-1]
        section.count("clear message" if end.code == 2 else f"exit {end.code}")
        if end.code != 0:  # the limit was too small for some file
            section.expect(
                end.code == 2 and "Traceback" not in end.output, f"{size}: {end.code} {last[:300]}"
            )
        names = {path.name for path in (run / "out").glob("checkpoint-*")}
        section.expect(
            "checkpoint-2" in names or end.code == 0, f"{size}: checkpoint-2 was deleted"
        )
        again = train(run)[0]
        section.expect(again.code == 0, f"{size}: no restart: {again.output[-300:]}")
        section.expect(digest(run / "out") == expected, f"{size}: other weights")


LOSS_FILE = """
import dataclasses

import torch

from unidpo_mm.losses.base import implicit_rewards
from unidpo_mm.losses.dpo import LOSS as DPO


def compute(pairs, config):
    output = DPO.compute(pairs, config)
    rewards = implicit_rewards(pairs, beta=config.beta, length_norm=config.length_norm)
    margin = rewards[0] - rewards[1]
    return dataclasses.replace(output, per_unit=output.per_unit + (TERM))


LOSS = dataclasses.replace(DPO, name="dpo_with_term", compute=compute)
"""
"""DPO with a term that is infinite, has an infinite gradient, or becomes NaN after the start."""


def _weights_overflow() -> None:
    import torch

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.fill_(torch.inf)

    torch.optim.SGD.step = step


def not_finite(section: Section, folder: Path, model: Path) -> None:
    """Make losses, gradients and weights infinite; the run must stop or skip, and be replayable."""
    lora = "model.lora.r=4 model.lora.targets=language_model"
    cases = {
        "loss": ("margin.log()", "", 3),
        "gradient": ("margin.abs().sqrt()", "", 3),
        "weights": ("margin * 0", "train.optim=sgd train.max_steps=1", 3),
        "LoRA": ("margin.abs().sqrt()", lora, 3),
        "skipped to the end": (
            "torch.where(margin.abs() > 1e-5, torch.nan, 0.0)",
            "run.on_nonfinite=skip",
            0,
        ),
    }
    for name, (term, overrides, code) in cases.items():
        for processes in (1, 2):
            run = fresh(folder / f"{name.replace(' ', '-')}-{processes}", model)
            (run / "my_loss.py").write_text(LOSS_FILE.replace("TERM", term), encoding="utf-8")
            words = (*overrides.split(), "loss.name=./my_loss.py")
            before = _weights_overflow if name == "weights" else None
            ends = train(run, *words, processes=processes, before=before)
            where = f"{name}, {processes} processes"
            section.count("stopped" if code else "skipped")
            section.expect(
                all(end.code == code for end in ends), f"{where}: {[e.code for e in ends]}"
            )
            printed = "".join(end.output for end in ends)
            section.expect("not finite" in printed, f"{where}: no message")
            for dump in sorted((run / "out").glob("nonfinite-step-*")):
                replayed = run_forked(unidpo_mm("replay", str(dump)))
                section.expect(
                    replayed.code == 0, f"{where}: not reproduced: {replayed.output[-300:]}"
                )


def failing_workers(section: Section, folder: Path, model: Path) -> None:
    """Let data workers hang, be killed, and read an image that is damaged after the check."""
    for name in ("hangs", "killed", "image breaks"):
        run = fresh(folder / name.replace(" ", "-"), model)

        def sabotage(name: str = name, run: Path = run) -> None:
            _sabotage_workers(name, run)

        words = ("train.dataloader_num_workers=1", "data.worker_timeout=3")
        end = train(run, *words, before=sabotage, timeout=60)[0]
        last = (end.output.strip().splitlines() or [""])[-1]
        section.count("clear error" if end.code == 2 else f"exit {end.code}")
        section.expect(end.code == 2, f"{name}: exit code {end.code}: {last[:300]}")
        section.expect("Traceback" not in end.output, f"{name}: a traceback")
        section.expect(
            ".jsonl" in end.output[-2000:], f"{name}: no row in the message: {last[:300]}"
        )


def _sabotage_workers(name: str, run: Path) -> None:
    from unidpo_mm.data import batches

    original = batches.GroupDataset.__getitem__

    def __getitem__(self, index):
        from torch.utils.data import get_worker_info

        if get_worker_info() is not None:
            if name == "hangs":
                with self.reading_log.reading(index):
                    time.sleep(3600)
            if name == "killed":
                with self.reading_log.reading(index):
                    os.kill(os.getpid(), signal.SIGKILL)
            for image in run.glob("*.png"):
                image.write_bytes(b"broken")
        return original(self, index)

    batches.GroupDataset.__getitem__ = __getitem__
