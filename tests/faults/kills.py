"""Kill runs at random moments, and at every file operation of a save."""

import hashlib
import os
import random
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from faults.report import Section
from support.forked import Finished
from support.forked_runs import Kill, random_kill, train
from support.runs import launch, ledger_lines, sabotage, write_run

__all__ = ["every_place_of_a_save", "random_kills", "torchrun_kills"]


def digest(folder: Path) -> str:
    """Return a digest of the final weights of a run and of the lines in its ledger."""
    names = ("model.safetensors", "adapter_model.safetensors")
    files = [folder / name for name in names if (folder / name).exists()]
    content = b"".join(file.read_bytes() for file in files) + repr(ledger_lines(folder)).encode()
    return hashlib.sha256(content).hexdigest()


def fresh(folder: Path, model: Path) -> Path:
    """Create the directory of a new run."""
    folder.mkdir(parents=True)
    write_run(folder, model, optim="adamw_torch")
    return folder


def uninterrupted(folder: Path, model: Path, processes: int, keys: Sequence[str] = ()) -> str:
    """Return the digest of a run that is not killed."""
    ends = train(fresh(folder, model), *keys, processes=processes)
    if [end.code for end in ends] != [0] * processes:
        raise RuntimeError(f"the run without a kill failed: {ends[0].stderr[-2000:]}")
    return digest(folder / "out")


def random_kills(
    section: Section,
    folder: Path,
    model: Path,
    *,
    kills: int,
    processes: int,
    keys: Sequence[str] = (),
) -> None:
    """Kill runs repeatedly, half of the times during a save, and then let each of them finish."""
    draw = random.Random(f"kills of {processes}")
    expected = uninterrupted(folder / "expected", model, processes, keys)
    number = 0
    while section.cases < kills:
        run = fresh(folder / f"run-{number}", model)
        number += 1
        ends: list[Finished] = []
        while section.cases < kills and not (ends and all(end.code == 0 for end in ends)):
            kill = random_kill(draw, processes=processes, saving=section.cases % 2 == 0)
            ends = train(run, *keys, processes=processes, kill=kill)
            refused = [end for end in ends if end.code == 2]
            section.expect(not refused, f"refused after {kill}: {_last(refused)}")
            if any(end.signal == signal.SIGKILL for end in ends):
                section.count("killed while saving" if kill.seconds is None else "killed at random")
        ends = train(run, *keys, processes=processes)
        finished = all(end.code == 0 for end in ends)
        if section.expect(finished, f"the restart failed: {_last(ends)}"):
            same = digest(run / "out") == expected
            section.expect(same, f"other weights in {run.name} ({processes} processes)")


def every_place_of_a_save(section: Section, folder: Path, model: Path) -> None:
    """Kill a run at each access to a file or directory during its second and its final save."""
    expected = uninterrupted(folder / "expected", model, 1)
    for match in PLACES:
        touch = 0
        while True:
            touch += 1
            run = fresh(folder / f"{match.replace('/', '-')}-{touch}", model)
            killed = train(run, kill=Kill(match=match, touch=touch))[0]
            if killed.signal is None:
                section.expect(killed.code == 0, f"{match}: {_last([killed])}")
                break
            section.count("killed")
            end = train(run)[0]
            where = f"{match}, touch {touch}"
            if section.expect(end.code == 0, f"{where}: the restart failed: {_last([end])}"):
                section.expect(digest(run / "out") == expected, f"{where}: other weights")
                left = [path.name for path in (run / "out").iterdir() if path.name in LEFTOVERS]
                section.expect(not left, f"{where}: {left} was left behind")


def torchrun_kills(section: Section, folder: Path, model: Path, *, processes: int) -> None:
    """Kill one process of a real torchrun during a save, then run the same command again."""
    expected = uninterrupted(folder / "expected", model, processes)
    for rank, touch in ((0, 12), (processes - 1, 1)):
        run = fresh(folder / f"rank-{rank}", model)
        env = sabotage(".saving/checkpoint-2", touch, rank=rank)
        output = _finish(launch(run / "recipe.yaml", processes=processes, env=env))[1]
        section.expect("SIGKILL" in output, f"rank {rank} was not killed: {output[-500:]}")
        section.count("killed")
        code, output = _finish(launch(run / "recipe.yaml", processes=processes))
        if section.expect(code == 0, f"rank {rank}: the restart failed: {output[-500:]}"):
            section.expect(digest(run / "out") == expected, f"rank {rank}: other weights")


PLACES = (
    ".saving/checkpoint-2",
    ".saving/final",
    "out/checkpoint-2",
    "out/ledger",
    ".deleting",
)
"""Parts of the paths at whose accesses a run is killed."""

LEFTOVERS = (".saving", ".deleting")


def _finish(process: "subprocess.Popen[str]") -> tuple[int, str]:
    try:
        output = process.communicate(timeout=240)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output = "timed out: " + process.communicate()[0]
    return process.returncode, output


def _last(ends: list) -> str:
    lines = [line for end in ends for line in end.output.strip().splitlines()[-1:]]
    return " | ".join(lines)[-500:]
