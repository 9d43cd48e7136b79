"""Times of stages, and what is expected from them."""

import json
import time
from pathlib import Path

import pytest

from unidpo_mm.pipelines.timing import StageTime, Stopwatch, Timing, duration


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_loading_is_no_part_of_the_rate(clock: list[float]):
    watch = Stopwatch()
    clock[0] = 30
    watch.loaded()
    for _ in range(3):
        clock[0] += 2
        watch.add(10)
    clock[0] += 100  # merging files, for example
    assert watch.result() == StageTime(loading=30, seconds=6, items=30)
    assert watch.result().expected(300, processes=2) == 30 + 60 / 2


def test_what_the_first_batch_takes_longer_is_loading(clock: list[float]):
    watch = Stopwatch()
    clock[0] = 7
    watch.add(10)
    clock[0] = 9
    watch.add(10)
    assert watch.result() == StageTime(loading=5, seconds=4, items=20)


def test_a_resumed_stage_adds_up_and_a_repeated_one_does_not(tmp_path: Path, clock: list[float]):
    path = tmp_path / "timing.json"
    for loading in (5.0, 3.0):
        timing = Timing(path, processes=2)
        with timing.stage("sample") as watch:
            clock[0] += loading
            watch.loaded()
            clock[0] += 1
            watch.add(4)
        with timing.stage("pair", repeated=True) as watch:
            clock[0] += 2
            watch.add(1)
    with timing.stage("nothing was left to do"):
        clock[0] += 9
    stored = Timing.of(path)
    assert stored is not None
    assert stored.processes == 2
    assert stored.stages == {"sample": StageTime(3, 2, 8), "pair": StageTime(0, 2, 1)}


def test_an_interrupted_stage_is_stored(tmp_path: Path, clock: list[float]):
    timing = Timing(tmp_path / "timing.json")

    def work() -> None:
        with timing.stage("sample") as watch:
            clock[0] += 3
            watch.add(6)
            raise SystemExit

    with pytest.raises(SystemExit):
        work()
    assert Timing(tmp_path / "timing.json").stages["sample"] == StageTime(0, 3, 6)


def test_only_one_process_writes(tmp_path: Path):
    with Timing(tmp_path / "timing.json", saves=False).stage("sample") as watch:
        watch.add(1)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text",
    ["", "[1]", "{}", '{"stages": {"a": 1}, "processes": 1}', '{"stages": {}, "processes": "x"}'],
)
def test_a_damaged_file_is_replaced(tmp_path: Path, text: str):
    path = tmp_path / "timing.json"
    path.write_text(text, encoding="utf-8")
    assert Timing.of(path) is None
    with Timing(path).stage("pair") as watch:
        watch.add(2)
    assert json.loads(path.read_text(encoding="utf-8"))["stages"]["pair"]["items"] == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.96, "10.0 s"), (59, "59 s"), (125, "2 min 5 s"), (7260, "2 h 1 min")],
)
def test_durations(seconds: float, text: str):
    assert duration(seconds) == text
