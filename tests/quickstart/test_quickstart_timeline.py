"""The time left follows the speed of the machine, and ignores stages that were cached."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console
from unidpo_mm_quickstart import timeline
from unidpo_mm_quickstart.timeline import Timeline

STAGES = {"assemble": 20.0, "train": 60.0, "evaluate": 40.0}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(timeline, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


def run_stage(line: Timeline, name: str, clock: SimpleNamespace, seconds: float) -> None:
    with line.stage(name):
        clock.now += seconds


def test_the_usual_time_counts_until_the_speed_is_known(clock: SimpleNamespace) -> None:
    line = Timeline(STAGES, Console(file=io.StringIO()))
    assert line.left(0) == "about 2:00 left"
    run_stage(line, "assemble", clock, 40)
    assert line.left(0) == "about 3:20 left"  # twice the usual time


def test_a_cached_stage_says_nothing_about_the_speed(clock: SimpleNamespace) -> None:
    line = Timeline(STAGES, Console(file=io.StringIO()))
    run_stage(line, "assemble", clock, 1)
    with line.stage("train"):
        assert line.left(0) == "about 1:40 left"
        clock.now += 30
        assert line.left(30) == "about 1:10 left"
        clock.now += 30
    assert line.left(0) == "about 0:40 left"
    assert line.seconds == {"assemble": 1, "train": 60}
