"""The ledger of runs that are killed and resumed, in one and in two processes."""

import functools
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.forked_runs import Kill, train
from support.runs import ledger_lines, write_run

pytestmark = pytest.mark.usefixtures("preloaded")

Checkpoint = Callable[[str], Path]

RUN = ("train.save_steps=2", "train.max_steps=5", "train.eval_strategy=no")


def start(folder: Path, model: Path, kill: Kill | None = None, *, processes: int = 1) -> list[int]:
    """Start or resume a run and return the signal or exit code of each process."""
    if not folder.exists():
        folder.mkdir()
        write_run(folder, model)
    ends = train(folder, *RUN, processes=processes, kill=kill)
    return [-end.signal if end.signal else end.code for end in ends]


@pytest.fixture(scope="module")
def expected(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function of the number of processes: the lines of a run that is not killed."""

    @functools.cache
    def lines(processes: int) -> list[tuple[Any, ...]]:
        folder = tmp_path_factory.mktemp("straight") / "run"
        assert start(folder, checkpoint("llava"), processes=processes) == [0] * processes
        return ledger_lines(folder / "out")

    return lines


SLOW = pytest.mark.slow
PART = "out/ledger/.steps-to-000000004"


@pytest.mark.parametrize(
    ("processes", "kill"),
    [
        pytest.param(1, Kill(match=PART), id="before the part is written"),
        pytest.param(1, Kill(match=PART, touch=2), id="before it gets its name", marks=SLOW),
        pytest.param(
            1,
            Kill(match="out/ledger/open.arrows", touch=7),
            id="before the open file is removed",
            marks=SLOW,
        ),
        pytest.param(
            1,
            Kill(match=".saving/checkpoint-4/manifest"),
            id="before the checkpoint is complete",
            marks=SLOW,
        ),
        pytest.param(2, Kill(match=".saving/checkpoint-4/manifest"), id="two processes"),
    ],
)
def test_a_killed_run_loses_and_doubles_no_line(
    checkpoint: Checkpoint, tmp_path: Path, expected: Any, processes: int, kill: Kill
) -> None:
    folder = tmp_path / "run"
    assert start(folder, checkpoint("llava"), kill, processes=processes)[0] == -signal.SIGKILL
    assert not (folder / "out" / "checkpoint-4").exists()
    part = folder / "out" / "ledger" / "steps-to-000000004.parquet"
    assert part.exists() == (kill.match != PART)
    before = ledger_lines(folder / "out")  # what is readable meanwhile has no line twice
    assert before == expected(processes)[: len(before)]
    assert {line[0] for line in before} == {1, 2, 3, 4}
    assert start(folder, checkpoint("llava"), processes=processes) == [0] * processes
    assert ledger_lines(folder / "out") == expected(processes)


def test_lines_belong_to_steps_and_processes(expected: Any) -> None:
    for processes in (1, 2):
        lines = expected(processes)
        assert len(lines) == len({line[:1] + line[2:4] for line in lines})
        assert {line[0] for line in lines} == {1, 2, 3, 4, 5}
        assert {line[2] for line in lines} == set(range(processes))


def test_an_earlier_ledger_is_set_aside_with_its_checkpoints(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    assert start(folder, checkpoint("llava")) == [0]
    before = ledger_lines(folder / "out")
    other = ("run.resume=never", "data.seed=3")
    (end,) = train(folder, *RUN, *other)
    assert end.code == 0, end.output
    assert ledger_lines(folder / "out" / "set-aside-1") == before
    assert ledger_lines(folder / "out") != before
    again = ("run.resume=out/checkpoint-4", "data.seed=3")
    (end,) = train(folder, *RUN, *again)
    assert end.code == 0, end.output
    steps = {line[0] for line in ledger_lines(folder / "out" / "set-aside-2")}
    assert steps == {5}
    assert {line[0] for line in ledger_lines(folder / "out")} == {1, 2, 3, 4, 5}
