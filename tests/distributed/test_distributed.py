"""Two processes give the same losses and weights as one, even if only one of them has images."""

import json
from pathlib import Path

import pytest
import torch
from builders import QWEN_TYPES, family_name
from support.distributed_modes import train_modes
from support.forked_runs import run_ranks

from unidpo_mm.plugins import load_family

QUICK_TYPES = ("llava", "qwen3_vl_moe")
"""A projector on a vision tower; features that also enter deeper layers, and experts."""
SLOW_TYPES = tuple(name for name in QWEN_TYPES if name not in QUICK_TYPES)
MODEL_TYPES = (*QUICK_TYPES, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_TYPES))
LAUNCHES = (
    ("single",),
    ("ddp", "ddp_fast"),
    ("fsdp2", "fsdp2_fast"),
    ("fsdp2_half",),
    ("local_mean",),
)
"""Modes that run one after the other in the same processes."""
ONE_TYPE = ("fsdp2_half", "local_mean")
"""Modes that run for a single model type."""

Result = tuple[dict, dict[str, torch.Tensor]]


class Runs:
    """The results of modes and model types, with one run of the worker per launch and group."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"

    def result(self, mode: str, model_type: str) -> Result:
        """Return the record and the final weights of a mode."""
        result = self.folder / model_type / f"{mode}.json"
        if not result.is_file():
            modes = next(modes for modes in LAUNCHES if mode in modes)
            group = QUICK_TYPES if model_type in QUICK_TYPES else SLOW_TYPES
            group = (model_type,) if mode in ONE_TYPE else group
            self.run(modes, group, processes=1 if mode == "single" else 2)
        return json.loads(result.read_text()), torch.load(result.with_suffix(".pt"))

    def run(self, modes: tuple[str, ...], group: tuple[str, ...], *, processes: int) -> None:
        folders = [self.folder / name for name in group]
        for name, folder in zip(group, folders, strict=True):
            if not folder.exists():
                load_family(family_name(name)).tiny(folder / "model", model_type=name)
        ends = run_ranks(lambda: train_modes(modes, folders, self.cache), processes=processes)
        outputs = "\n".join(end.output[-3000:] for end in ends)
        assert [end.code for end in ends] == [0] * processes, outputs


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("distributed"))


def largest_difference(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    assert left.keys() == right.keys()
    return max(float((left[name] - right[name]).abs().max()) for name in left)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("mode", ["ddp", "fsdp2", "ddp_fast", "fsdp2_fast"])
def test_two_processes_give_the_results_of_a_single_one(
    runs: Runs, mode: str, model_type: str
) -> None:
    expected, weights = runs.result("single", model_type)
    record, other = runs.result(mode, model_type)
    for ours, theirs in zip(expected["logs"], record["logs"], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-5)
    # plain SGD: equal weights after three steps are equal gradients in each of them
    assert largest_difference(weights, other) < 1e-6
    timings = ("runtime", "per_second")
    for name, value in expected["metrics"].items():
        if not name.endswith(timings):
            assert record["metrics"][name] == pytest.approx(value, abs=1e-5), name


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("mode", ["fsdp2", "fsdp2_fast"])
def test_an_fsdp2_run_shards_its_weights(runs: Runs, mode: str, model_type: str) -> None:
    record, weights = runs.result(mode, model_type)
    assert record["sharded"] == len(weights)


def test_half_precision_of_fsdp2_keeps_log_probs_in_float32(runs: Runs) -> None:
    record, _ = runs.result("fsdp2_half", "llava")
    assert record["sharded"]
    assert record["formats"] == ["torch.float32"]
    # before the first update, policy and frozen copy differ by rounding at most: no gate is open
    first, *_, last = record["logs"]
    assert abs(first["rewards/margins"]) < 0.02
    assert first["nll_gate"] == 0.0
    assert last["rewards/margins"] > 0.1


@pytest.mark.parametrize("mode", ["ddp_fast", "fsdp2_fast"])
def test_the_responses_of_all_processes_are_cached(runs: Runs, mode: str) -> None:
    record, _ = runs.result(mode, "llava")
    assert record["cached"] == 12 * 2 + 3 + 2  # and the filler's two


@pytest.mark.parametrize(
    "model_type", ["llava", *(pytest.param(name, marks=pytest.mark.slow) for name in QWEN_TYPES)]
)
def test_the_comparison_detects_a_mean_over_the_units_of_each_process(
    runs: Runs, model_type: str
) -> None:
    _, weights = runs.result("single", model_type)
    _, wrong = runs.result("local_mean", model_type)
    assert largest_difference(weights, wrong) > 1e-5
