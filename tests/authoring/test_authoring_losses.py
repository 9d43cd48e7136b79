"""A loss from outside the package: as a file, an object or an entry point."""

import json
import re
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from builders import pairs_of
from trainers import config, make_trainer

from unidpo_mm import UniDPOConfig, authoring, plugins
from unidpo_mm.cli import main as cli
from unidpo_mm.config import load_recipe
from unidpo_mm.config.checks.recipe import check_loss
from unidpo_mm.errors import RecipeError
from unidpo_mm.plugins import LOSSES, load_loss, plugin_names

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "losses.md").read_text(encoding="utf-8")
EXAMPLE = re.findall(r"```python\n(# my_loss\.py.*?)```", PAGE, re.DOTALL)[0]
ROWS = [
    {"prompt": f"What is {n}?", "chosen": "Seven" + "x" * n, "rejected": "Eight"} for n in range(4)
]


@pytest.fixture
def loss_file(tmp_path: Path) -> Path:
    path = tmp_path / "my_loss.py"
    path.write_text(EXAMPLE)
    return path


def recipe_text(model: Path, loss: str) -> str:
    rows = model.parent / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return (
        f"model: {{name_or_path: {model}}}\ndata: {{sources: [{{path: {rows}}}]}}\n"
        f"loss: {loss}\n"
        "train: {output_dir: out, max_steps: 2, per_device_train_batch_size: 2, use_cpu: true, "
        "report_to: none, save_strategy: 'no', logging_steps: 1, disable_tqdm: true}\n"
    )


def test_the_file_in_the_documentation_trains_through_the_command_line(
    loss_file: Path, checkpoint, monkeypatch: pytest.MonkeyPatch, capsys
):
    path = loss_file.parent / "recipe.yaml"
    path.write_text(
        recipe_text(checkpoint("llama"), "{name: ./my_loss.py, beta: 0.2, target: 2.0}")
    )
    monkeypatch.chdir(loss_file.parent)
    monkeypatch.setattr(sys, "argv", ["unidpo-mm", "train", str(path)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert not caught.value.code
    assert "squared with beta 0.2, target 2.0" in capsys.readouterr().err
    recorded = (loss_file.parent / "out" / "run.json").read_text()
    assert '"name": "squared"' in recorded


def test_the_parameters_of_a_file_are_checked(loss_file: Path):
    path = loss_file.parent / "recipe.yaml"
    path.write_text("model: {name_or_path: a/b}\ndata: {sources: [{path: c/d}]}\n")
    with pytest.raises(RecipeError, match=r"no parameter 'targt', did you mean 'target'\?"):
        load_recipe(path, ["loss.name=./my_loss.py", "loss.targt=1"], checks=[check_loss])
    with pytest.raises(RecipeError, match="target must be > 0"):
        load_recipe(path, ["loss.name=./my_loss.py", "loss.target=0"], checks=[check_loss])


def test_an_object_trains_in_python(loss_file: Path, checkpoint, tmp_path: Path):
    loss = load_loss(str(loss_file))
    args = config(tmp_path / "out", loss_type=loss, beta=0.2, loss_kwargs={"target": 2.0})
    assert args.loss_type == "squared"
    trainer = make_trainer(checkpoint("llama"), ROWS, args)
    first = trainer.train() and trainer.state.log_history[0]["loss"]
    assert first == pytest.approx(4.0, abs=1e-4)  # (0 - target)^2 while policy equals reference


def test_an_object_must_not_have_the_name_of_a_shipped_loss(loss_file: Path):
    loss = load_loss(str(loss_file))
    named = authoring.Loss(**{**vars(loss), "name": "dpo"})
    with pytest.raises(RecipeError, match="'dpo' is the name of another loss"):
        UniDPOConfig(output_dir="out", use_cpu=True, loss_type=named)
    with pytest.raises(RecipeError, match="no LOSS that is"):
        UniDPOConfig(output_dir="out", use_cpu=True, loss_type=object())


def test_an_entry_point_is_listed_and_loaded(loss_file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(loss_file.parent)
    point = EntryPoint("squared_plugin", "my_loss:LOSS", LOSSES.group)
    entry_points = plugins.entry_points
    monkeypatch.setattr(
        plugins,
        "entry_points",
        lambda group: [point] if group == LOSSES.group else entry_points(group=group),
    )
    assert "squared_plugin" in plugin_names(LOSSES)
    with pytest.raises(RecipeError, match=r"LOSS\.name is 'squared'"):
        load_loss("squared_plugin")
    loss_file.write_text(EXAMPLE.replace('name="squared"', 'name="squared_plugin"'))
    sys.modules.pop("my_loss")
    assert load_loss("squared_plugin").config().target == 1.0
    sys.modules.pop("my_loss")
    plugins._load.cache_clear()


def test_the_formula_of_the_example(loss_file: Path):
    loss = load_loss(str(loss_file))
    pairs = pairs_of([-1.0], [-3.0], [-2.0], [-2.0], [4.0], [1.0])
    output = loss.compute(pairs, loss.config(beta=0.5, target=2.0))
    # margin 0.5 * ((-1 + 2) - (-3 + 2)) = 1, (1 - 2)^2 = 1
    assert torch.allclose(output.per_unit, torch.ones(1, dtype=torch.float64))


def test_every_public_name_exists():
    assert all(hasattr(authoring, name) for name in authoring.__all__)
