"""Each shipped configuration of accelerate is read by its launcher, and accepted by ours."""

from pathlib import Path

import pytest
from support.accelerate_configs import CONFIGS, launch_environment

from unidpo_mm.config import load_recipe
from unidpo_mm.config.checks.launch import _accelerate_problems

NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
RECIPE = """
model: {name_or_path: model}
data: {sources: [{path: pairs.jsonl}]}
train: {bf16: true, gradient_accumulation_steps: 4}
"""


@pytest.fixture
def recipe(tmp_path: Path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return load_recipe(path)


def test_every_way_to_use_several_gpus_is_shipped() -> None:
    fsdp = {"fsdp2", "fsdp2_hybrid", "fsdp2_offload"}
    assert set(NAMES) == {"ddp", "ddp_cpu", "deepspeed_zero2", "deepspeed_zero3"} | fsdp


def marked(name: str):
    """Return a parameter of a test; accelerate reads some configurations with DeepSpeed only."""
    needs_deepspeed = name.startswith("deepspeed")
    return pytest.param(name, marks=[pytest.mark.deepspeed] if needs_deepspeed else [])


@pytest.mark.parametrize("name", [marked(name) for name in NAMES])
def test_a_shipped_configuration_agrees_with_a_recipe(name: str, recipe) -> None:
    env = launch_environment(name)
    assert list(_accelerate_problems(recipe, env)) == []
    if name.startswith("fsdp2"):
        assert env["ACCELERATE_USE_FSDP"] == "true"
        assert env["FSDP_VERSION"] == "2"
        assert env["FSDP_OFFLOAD_PARAMS"] == str(name == "fsdp2_offload").lower()
    if name.startswith("deepspeed"):
        assert env["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == name[-1]
    if name == "fsdp2_hybrid":
        sizes = [env[f"PARALLELISM_CONFIG_DP_{kind}_SIZE"] for kind in ("REPLICATE", "SHARD")]
        assert sizes == ["2", "8"]


@pytest.mark.parametrize("kind", ["CP", "SP", "TP"])
def test_a_split_of_rows_or_layers_is_refused(kind: str, recipe) -> None:
    name = f"PARALLELISM_CONFIG_{kind}_SIZE"
    env = {"ACCELERATE_USE_PARALLELISM_CONFIG": "true", name: "2"}
    (problem,) = _accelerate_problems(recipe, env)
    assert name in problem.where
    assert "2 is not supported" in problem.message
    assert list(_accelerate_problems(recipe, {**env, name: "1"})) == []
