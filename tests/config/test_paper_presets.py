"""The recipes of the paper and of the baselines equal the released settings, restated as tables."""

import re
from pathlib import Path

import pytest

from unidpo_mm.config import Recipe, load_recipe
from unidpo_mm.config.checks.recipe import check_loss, check_train
from unidpo_mm.config.from_recipe import config_of
from unidpo_mm.config.yaml_loader import parse_yaml
from unidpo_mm.training.configured_loss import configured_loss

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

Row = dict[str, str]


def table(text: str) -> dict[str, Row]:
    """Return the rows of a table as {first cell: {column: cell}}."""
    head, *rows = (line.split() for line in text.strip().splitlines())
    return {cells[0]: dict(zip(head, cells, strict=True)) for cells in rows}


PAPER = table(
    """
file                         beta tau_ref lambda tau_good lr   epochs warm length per acc dev batch
llama3_8b_base               2    0.8     0.001  3.2      1e-6 1      0.1  2048   2   16  8   256
llama3_8b_base_v2_qwen       2    0.8     0.001  3.2      1e-6 1      0.1  2048   2   4   8   64
llama3_8b_instruct           2    1.0     0.001  3.2      1e-6 1      0.1  2048   2   16  8   256
llama3_8b_instruct_v2_armorm 10   1.0     0.001  3.2      1e-6 1      0.1  2048   1   8   8   64
llama3_8b_instruct_v2_gpt_4o 10   1.0     0.001  3.2      1e-6 1      0.1  2048   2   16  8   256
gemma2_9b_it                 10   0.8     0.001  3.2      8e-7 1      0.1  2048   1   16  8   128
qwen2_5_0_5b                 3.5  0.8     0.001  3.2      2e-6 1      0.1  2048   4   16  8   512
qwen2_5_1_5b                 3.5  0.8     0.001  3.2      2e-6 1      0.1  2048   4   16  8   512
qwen2_5_3b                   3.5  0.8     0.001  3.2      2e-6 1      0.1  2048   1   16  8   128
qwen2_5_7b                   3.5  0.8     0.001  3.2      2e-6 1      0.1  2048   1   16  8   128
qwen2_5_14b                  3.5  0.8     0.001  3.2      2e-6 1      0.1  2048   1   16  8   128
qwen2_5_math_7b              2    2.0     0.2    8.0      1e-6 2      0    4096   1   16  8   128
qwen2_vl_2b                  2    2.0     0.001  2.5      6e-6 1      0    4096   1   32  4   128
"""
)
"""The released Uni-DPO runs: `warm` is the share of warmup steps, `length` the maximum number of
tokens of a row, `per` pairs per device, `acc` accumulation, `dev` devices, `batch` pairs in a
step."""

BASELINES = table(
    """
file                           loss  lr   epochs warm length per acc dev batch
dpo_qwen2_vl_2b_as_released    dpo   5e-7 1      0    4096   1   32  4   128
simpo_qwen2_vl_2b_as_released  simpo 5e-7 1      0    4096   1   32  4   128
dpo_qwen2_vl_2b_summed         dpo   5e-7 1      0    4096   1   32  4   128
"""
)

OPTIMIZERS = {"paper/qwen2_5_math_7b": "rmsprop"}
"""Run -> its optimizer, if the official arguments have another default than AdamW."""

LOSSES = {
    "dpo_qwen2_vl_2b_as_released": {"beta": 0.1, "label_smoothing": 0.1, "length_norm": True},
    "simpo_qwen2_vl_2b_as_released": {"beta": 2.0, "simpo_gamma": 1.0},
    "dpo_qwen2_vl_2b_summed": {"beta": 0.1, "label_smoothing": 0.0, "length_norm": False},
}
"""Every parameter of the baselines' losses."""

SWEEP = "dpo_qwen2_vl_2b_summed_sweep"

MODELS = {
    "llama3_8b_base": "princeton-nlp/Llama-3-Base-8B-SFT",
    "llama3_8b_base_v2_qwen": "princeton-nlp/Llama-3-Base-8B-SFT",
    "llama3_8b_instruct": "meta-llama/Meta-Llama-3-8B-Instruct",
    "llama3_8b_instruct_v2_armorm": "meta-llama/Meta-Llama-3-8B-Instruct",
    "llama3_8b_instruct_v2_gpt_4o": "meta-llama/Meta-Llama-3-8B-Instruct",
    "gemma2_9b_it": "google/gemma-2-9b-it",
    "qwen2_5_0_5b": "Qwen/Qwen2.5-0.5B",
    "qwen2_5_1_5b": "Qwen/Qwen2.5-1.5B",
    "qwen2_5_3b": "Qwen/Qwen2.5-3B",
    "qwen2_5_7b": "Qwen/Qwen2.5-7B",
    "qwen2_5_14b": "Qwen/Qwen2.5-14B",
    "qwen2_5_math_7b": "Qwen/Qwen2.5-Math-7B",
    "qwen2_vl_2b": "Qwen/Qwen2-VL-2B",
}

DATA = {
    "llama3_8b_base": "Textual/UltraFeedback-GPT-4o",
    "llama3_8b_base_v2_qwen": "Textual/UltraFeedback-Qwen2_5_72B",
    "llama3_8b_instruct": "Textual/Llama-3-8B-Instruct-UltraFeedback-GPT-4o",
    "llama3_8b_instruct_v2_armorm": "Textual/Llama-3-8B-Instruct-UltraFeedback-ArmoRM",
    "llama3_8b_instruct_v2_gpt_4o": "Textual/Llama-3-8B-Instruct-UltraFeedback-ArmoRM-GPT-4o",
    "gemma2_9b_it": "Textual/Gemma-2-9B-IT-UltraFeedback-GPT-4o",
    "qwen2_5_0_5b": "Textual/UltraFeedback-GPT-4o",
    "qwen2_5_1_5b": "Textual/UltraFeedback-GPT-4o",
    "qwen2_5_3b": "Textual/UltraFeedback-GPT-4o",
    "qwen2_5_7b": "Textual/UltraFeedback-GPT-4o",
    "qwen2_5_14b": "Textual/UltraFeedback-GPT-4o",
    "qwen2_5_math_7b": "Math/Train_Qwen_2_5_math_7B.jsonl",
    "qwen2_vl_2b": "Multimodal/uni_dpo_image_only_mcq_short_long_50k.json",
}
"""Model -> file of the data set psp-dada/Uni-DPO, or directory of a `train.jsonl`, as in the README
and configs of the authors."""

RUNS = [f"paper/{name}" for name in PAPER] + [f"baselines/{name}" for name in BASELINES]
BATCH = re.compile(r"# Batch: (\d+) x (\d+) accumulation x (\d+) devices = (\d+) pairs")


def text_of(name: str) -> str:
    return (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")


def loaded(name: str, *overrides: str) -> Recipe:
    return load_recipe(CONFIGS / f"{name}.yaml", overrides, checks=[check_loss, check_train])


def row_of(name: str) -> Row:
    folder, _, file = name.partition("/")
    return (PAPER if folder == "paper" else BASELINES)[file]


def test_the_folders_hold_exactly_these_files():
    files = {
        path.relative_to(CONFIGS).as_posix()
        for folder in ("paper", "baselines")
        for path in (CONFIGS / folder).rglob("*")
    }
    assert files == {f"{name}.yaml" for name in (*RUNS, f"baselines/{SWEEP}")}
    assert len(PAPER) == 13


@pytest.mark.parametrize("name", PAPER)
def test_a_released_setting_has_the_tabled_loss(name: str):
    row, recipe = PAPER[name], loaded(f"paper/{name}")
    assert recipe.loss.name == "uni_dpo"
    assert recipe.loss.parameters == {
        "beta": float(row["beta"]),
        "eta": 0.7,
        "gamma": 3.0,
        "tau_ref": float(row["tau_ref"]),
        "nll_lambda": float(row["lambda"]),
        "tau_good": float(row["tau_good"]),
        "length_norm": True,
        "detach_weights": False,
    }
    assert not any(source.loss for source in recipe.data.sources)


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_has_the_tabled_loss(name: str):
    recipe = loaded(f"baselines/{name}")
    assert recipe.loss.name == BASELINES[name]["loss"]
    assert recipe.loss.parameters == LOSSES[name]
    assert recipe.train.reference == ("none" if recipe.loss.name == "simpo" else "frozen_copy")


@pytest.mark.parametrize("name", RUNS)
def test_a_run_trains_as_tabled(name: str):
    row, recipe = row_of(name), loaded(name)
    stated = recipe.train.arguments
    assert {key: stated[key] for key in ("lr_scheduler_type", "optim", "bf16", "seed")} == {
        "lr_scheduler_type": "cosine",
        "optim": OPTIMIZERS.get(name, "adamw_torch"),
        "bf16": True,
        "seed": 42,
    }
    assert stated["activation_checkpointing"] is True
    assert stated["learning_rate"] == float(row["lr"])
    assert stated["num_train_epochs"] == float(row["epochs"])
    assert stated["warmup_steps"] == float(row["warm"])
    assert stated["per_device_train_batch_size"] == int(row["per"])
    assert stated["gradient_accumulation_steps"] == int(row["acc"])
    assert "max_steps" not in stated
    assert recipe.train.learning_rates is None
    assert recipe.train.output_dir == f"runs/{name}"
    assert recipe.run.resume == "auto"
    assert recipe.data.max_length == int(row["length"])
    assert recipe.data.seed == 42
    assert "  group_by_prompt: false " in text_of(name)  # even if the default changes
    assert recipe.model.lora is None
    assert recipe.model.dtype == "bfloat16"


@pytest.mark.parametrize("name", PAPER)
def test_a_released_setting_has_its_model_and_data(name: str):
    recipe, released = loaded(f"paper/{name}"), DATA[name]
    (source,) = recipe.data.sources
    assert recipe.model.name_or_path == MODELS[name]
    file = f"{released}/train.jsonl" if source.domain == "text" else released
    # `endswith`, because a path is absolute if the data set exists
    assert source.path.endswith(f"data/uni_dpo/{file}")
    assert (source.images or "").endswith("data/MM-RLHF") == (source.domain == "multimodal")
    assert recipe.train.reference == "frozen_copy"
    assert source.scores is not None
    assert source.scores.judge is not None
    head = text_of(f"paper/{name}").partition("\nmodel:")[0]
    assert "hf download psp-dada/Uni-DPO" in head
    assert f'--include "{file.rpartition("/")[0]}/*"' in head


@pytest.mark.parametrize("name", RUNS)
def test_the_header_states_the_pairs_per_step(name: str):
    row = row_of(name)
    ((per, acc, devices, batch),) = BATCH.findall(text_of(name))
    assert [per, acc, devices, batch] == [row["per"], row["acc"], row["dev"], row["batch"]]
    assert int(per) * int(acc) * int(devices) == int(batch)


@pytest.mark.parametrize("name", RUNS)
def test_only_a_documented_scale_is_declared(name: str):
    data = loaded(name).data
    scale = (0.0, 10.0) if name == "paper/qwen2_5_math_7b" else None
    assert data.score_scale == scale
    assert [source.scores and source.scores.scale for source in data.sources] == [scale]


@pytest.mark.parametrize("name", RUNS)
def test_only_images_have_a_size_and_frozen_parts(name: str):
    recipe = loaded(name)
    images = "_vl_" in name
    domain = "multimodal" if images else "math" if "_math_" in name else "text"
    assert [source.domain for source in recipe.data.sources] == [domain]
    assert recipe.model.freeze == (("vision_tower", "projector") if images else None)
    assert recipe.model.image_max_size == ("589824 pixels" if images else None)
    assert recipe.model.prompt_style == ("raw" if domain == "math" else "chat")
    assert recipe.model.attn_implementation == ("eager" if "gemma" in name else None)


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_differs_from_uni_dpo_only_in_loss_and_learning_rate(name: str):
    paper, baseline = loaded("paper/qwen2_vl_2b"), loaded(f"baselines/{name}")
    assert (baseline.model, baseline.data) == (paper.model, paper.data)
    changed = paper.train.arguments.items() ^ baseline.train.arguments.items()
    assert {key for key, _ in changed} == {"learning_rate"}


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_states_its_author_in_its_first_line(name: str):
    first, *rest = text_of(f"baselines/{name}").splitlines()
    released = name.endswith("_as_released")
    assert first.startswith("# As released, not tuned" if released else "# Ours, not the authors'")
    assert any(line.startswith("# Why it matters: ") for line in rest) == released


@pytest.mark.parametrize("name", RUNS)
def test_the_trainer_accepts_every_setting(name: str):
    args = config_of(loaded(name, "train.use_cpu=true"))
    assert args.get_warmup_steps(1000) == 1000 * float(row_of(name)["warm"])
    assert configured_loss(args).loss.name == row_of(name).get("loss", "uni_dpo")
    assert args.report_to == []


def test_the_sweep_tunes_learning_rate_and_beta_of_the_summed_baseline():
    sweep = parse_yaml(text_of(f"baselines/{SWEEP}"), SWEEP)
    assert not sweep.problems
    assert list(sweep.data) == ["recipe", "seeds", "arms"]
    assert sweep.data["recipe"] == "baselines/dpo_qwen2_vl_2b_summed.yaml"
    assert sweep.data["seeds"] == [0, 1, 2]
    grid = set()
    for name, overrides in sweep.data["arms"].items():
        arm = loaded(sweep.data["recipe"].removesuffix(".yaml"), *overrides)
        rate, beta = arm.train.arguments["learning_rate"], arm.loss.parameters["beta"]
        assert name == f"lr{rate:.0e}_beta{beta}".replace("e-0", "e-")
        assert arm.data.eval_fraction > 0, "a sweep compares its arms on held-out pairs"
        grid.add((rate, beta))
    assert grid == {(rate, beta) for rate in (5e-7, 2e-6, 6e-6) for beta in (0.05, 0.1, 0.3)}
