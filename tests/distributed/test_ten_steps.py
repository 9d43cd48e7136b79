"""DDP and FSDP2 in two processes give the results of one, over ten steps and after a resume.

`test_deepspeed.py` compares DeepSpeed in the same way.
"""

from typing import Any

import pytest
from support.ten_steps import MODEL_TYPES, TenSteps, largest_change

TOLERANCE = 1e-5

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> TenSteps:
    return TenSteps(tmp_path_factory.mktemp("ten-steps"), timeout=250)


def marked(name: str) -> Any:
    return pytest.param(name, marks=[] if name == "llava" else pytest.mark.slow)


@pytest.mark.parametrize("model_type", [marked(name) for name in MODEL_TYPES])
@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_ten_steps_equal_those_of_a_single_process(
    runs: TenSteps, kind: str, model_type: str
) -> None:
    expected, single, continued = runs.result("single", model_type)
    record, divided, resumed = runs.result(kind, model_type)
    for ours, theirs in zip(expected["logs"], record["logs"], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=TOLERANCE)
    assert largest_change(single, divided) < TOLERANCE
    assert largest_change(single, continued) == 0
    assert largest_change(divided, resumed) == 0
    assert record["layout"] == expected["layout"], record["reason"]
    assert (record["divided"] > 0) == (kind == "fsdp2")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_lora_adapters_train_and_resume(runs: TenSteps, kind: str) -> None:
    _, single, _ = runs.result("single-lora", "llava")
    _, divided, resumed = runs.result(f"{kind}-lora", "llava")
    assert largest_change(single, divided) < TOLERANCE
    assert largest_change(divided, resumed) == 0


@pytest.mark.slow
def test_the_comparison_detects_a_mean_over_the_units_of_each_process(runs: TenSteps) -> None:
    _, single, _ = runs.result("single", "llava")
    _, wrong, _ = runs.result("ddp-wrong", "llava")
    assert largest_change(single, wrong) > TOLERANCE
