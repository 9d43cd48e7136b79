"""The commands, called in this process."""

import json
import re
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest
import typer
from builders import EVERY_IMAGE_TYPE
from typer.testing import CliRunner

from unidpo_mm.cli import main as cli
from unidpo_mm.cli.summaries import first_line
from unidpo_mm.config import Recipe
from unidpo_mm.errors import RecipeError, UniDPOError
from unidpo_mm.plugins import FAMILIES, LOSSES, SCORERS, plugin_names

COMMANDS = {
    "train": {"--dry-run", "--check", "--help"},
    "list": {"--json", "--help"},
    "sweep": {"--output", "--seeds", "--dry-run", "--help"},
    "migrate": {"--output", "--help"},
    "export": {"--output", "--merge", "--dtype", "--base", "--evaluation", "--push", "--help"},
    "chat": {
        "--image",
        "--video",
        "--prompt",
        "--system",
        "--before",
        "--compare",
        "--max-new-tokens",
        "--temperature",
        "--top-p",
        "--seed",
        "--dtype",
        "--device",
        "--style",
        "--chat-template-kwargs",
        "--help",
    },
}
"""Command of the core -> its flags; adding one is a decision."""


def invoke(*arguments: str):
    return CliRunner().invoke(cli.build_app(arguments), arguments)


def group() -> typer.core.TyperGroup:
    built = typer.main.get_command(cli.build_app([]))
    assert isinstance(built, typer.core.TyperGroup)
    return built


def test_the_flags_are_frozen():
    for name, flags in COMMANDS.items():
        options = {text for part in group().commands[name].params for text in part.opts}
        assert {text for text in options if text.startswith("--")} == flags - {"--help"}


def test_every_command_is_listed_with_one_line_of_help():
    for name, command in group().commands.items():
        assert command.get_short_help_str(), name


def test_list_losses_and_models():
    losses = invoke("list", "losses").stdout.splitlines()
    assert [line.split()[0] for line in losses] == list(plugin_names(LOSSES))
    models, _, table = invoke("list", "models").stdout.partition("\n\n")
    families = models.splitlines()
    assert [line.split()[0] for line in families] == list(plugin_names(FAMILIES))
    assert all(len(line.split()) > 3 for line in (*losses, *families))
    rows = {line.split()[0]: re.split("  +", line) for line in table.splitlines()}
    assert rows["internvl"] == [
        "internvl", "image_text", "plain, packed, joined", "several", "yes", "tiles", "InternVL",
    ]  # fmt: skip
    assert rows["qwen3_5"][2] == "plain"
    assert rows["paligemma"][-1].endswith("every row needs an image")
    assert rows["any"][1:6] == ["text", "plain, packed, joined", "none", "no", "-"]


def test_list_models_as_json_has_every_type(tmp_path: Path):
    assert invoke("list", "models", "--json", str(tmp_path / "models.json")).exit_code == 0
    entries = json.loads((tmp_path / "models.json").read_text())
    names = [entry["model_type"] for entry in entries]
    assert names == [*sorted(EVERY_IMAGE_TYPE), None]
    (gemma,) = [entry for entry in entries if entry["model_type"] == "gemma4"]
    assert gemma == {
        "model_type": "gemma4",
        "family": "image_text",
        "models": "Gemma 4",
        "layouts": ["plain", "packed", "joined"],
        "images": "several",
        "videos": gemma["videos"],
        "image_unit": "tokens",
        "caveats": ["image size: 70, 140, 280, 560 or 1120"],
    }
    refused = invoke("list", "losses", "--json", "losses.json")
    assert refused.exit_code == 2
    assert "only models are listed as JSON" in refused.output


def test_list_formats():
    result = invoke("list", "formats")
    assert result.exit_code == 0, result.output
    assert result.stdout.strip()


def test_plugins_in_files_are_loaded_and_listed(tmp_path: Path):
    lines = (
        "from unidpo_mm.authoring import Scorer",
        "class Last(Scorer):",
        "    '''The last digit.\n    More.'''\n",
    )
    code = "\n".join(lines)
    (tmp_path / "last.py").write_text(code + "SCORER = Last\n")
    result = invoke("list", "scorers", str(tmp_path / "last.py"))
    assert result.exit_code == 0, result.output
    *others, added = result.stdout.splitlines()
    assert added.split(maxsplit=1) == [str(tmp_path / "last.py"), "The last digit."]
    assert [line.split()[0] for line in others] == list(plugin_names(SCORERS))
    (tmp_path / "nothing.py").write_text(code)
    for path in ("nothing.py", "missing.py"):
        result = invoke("list", "scorers", str(tmp_path / path))
        assert isinstance(result.exception, UniDPOError)
        assert path in str(result.exception)


def test_an_unknown_kind_is_refused_by_list():
    result = invoke("list", "optimizers")
    assert result.exit_code == 2
    assert "models" in result.output


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Recipe]]:
    """Replace the training layer, and return the calls that it gets."""
    calls: list[tuple[str, Recipe]] = []
    run = ModuleType("unidpo_mm.training.run")
    run.train_from_recipe = lambda recipe: calls.append(("train", recipe))  # type: ignore[attr-defined]
    run.check_from_recipe = lambda recipe: calls.append(("check", recipe))  # type: ignore[attr-defined]
    run.finished_run = lambda recipe: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "unidpo_mm.training.run", run)
    return calls


@pytest.mark.parametrize(("flags", "verb"), [((), "train"), (("--dry-run",), "check")])
def test_train_passes_the_recipe_on(tmp_path: Path, called, flags, verb):
    path = tmp_path / "r.yaml"
    path.write_text("model: {name_or_path: a/b}\ndata: {sources: [{path: c/d}]}\n")
    result = invoke("train", str(path), "loss.name=dpo", "loss.beta=0.5", *flags)
    assert result.exit_code == 0, result.output
    ((function, recipe),) = called
    assert function == verb
    assert recipe.loss.parameters == {"beta": 0.5}


def test_the_former_name_of_the_dry_run_works_and_warns_once(tmp_path: Path, called):
    path = tmp_path / "r.yaml"
    path.write_text("model: {name_or_path: a/b}\ndata: {sources: [{path: c/d}]}\n")
    result = invoke("train", str(path), "loss.name=dpo", "--check")
    assert [verb for verb, _ in called] == ["check"]
    assert result.stderr.count("--check is deprecated, use --dry-run") == 1
    assert "--check" not in invoke("train", "--help").output


def test_a_wrong_recipe_is_not_trained(tmp_path: Path, called):
    path = tmp_path / "r.yaml"
    path.write_text("model: {name_or_path: a/b}\ndata: {sources: [{path: c/d}]}\n")
    result = invoke("train", str(path), "loss.name=dpo", "loss.gamma=0.5")
    assert isinstance(result.exception, RecipeError)
    assert called == []


def make_command(folder: Path, text: str) -> None:
    (folder / "their_package").mkdir()
    (folder / "their_package" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (folder / "their_package" / "command.py").write_text(text)


def test_a_help_line_is_read_without_importing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make_command(tmp_path, '"""A module."""\ndef run():\n    """Does it.\n\n    More."""\n')
    monkeypatch.syspath_prepend(tmp_path)
    assert first_line(EntryPoint("x", "their_package.command:run", "g")) == "Does it."
    assert first_line(EntryPoint("x", "their_package.command:app", "g")) == "A module."
    assert first_line(EntryPoint("x", "their_package.absent:app", "g")) == ""
    assert first_line(EntryPoint("x", "absent.command:app", "g")) == ""


def test_a_module_with_a_syntax_error_has_no_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    make_command(tmp_path, "def")
    monkeypatch.syspath_prepend(tmp_path)
    assert first_line(EntryPoint("x", "their_package.command:run", "g")) == ""


def test_commands_of_other_packages_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "their_commands.py").write_text(
        "import typer\n"
        "def hello(name: str = 'you'):\n    print('hello', name)\n"
        "app = typer.Typer()\n"
        "@app.command()\ndef one():\n    print('one')\n"
        "@app.command()\ndef two():\n    print('two')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    points = {
        "hello": EntryPoint("hello", "their_commands:hello", "g"),
        "many": EntryPoint("many", "their_commands:app", "g"),
        "broken": EntryPoint("broken", "their_absent_module:app", "g"),
    }
    monkeypatch.setattr(cli, "user_commands", lambda: points)
    assert invoke("hello", "--name", "me").stdout == "hello me\n"
    assert invoke("many", "two").stdout == "two\n"
    with pytest.raises(UniDPOError, match=r"'broken' cannot be loaded .* pip install"):
        invoke("broken")


def test_main_prints_errors_and_exits_with_two(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["unidpo-mm", "train", "absent.yaml"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == cli.EXIT_CODE
    assert "error: absent.yaml: there is no such file, and no recipe" in capsys.readouterr().err
