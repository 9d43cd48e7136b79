"""The command, what it refuses to read, how it writes, and the page made from the same tables."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from unidpo_mm.cli.main import build_app
from unidpo_mm.errors import RecipeError
from unidpo_mm.migrate import migrate
from unidpo_mm.migrate.page import updated
from unidpo_mm.migrate.writer import write_recipe
from unidpo_mm.recipe import load_recipe
from unidpo_mm.recipe.yaml_loader import parse_yaml

PAGE = Path(__file__).parents[2] / "docs" / "coming_from.md"
FILE = "model_name_or_path: a/b\nstage: dpo\ndataset: pairs\ntemplate: default\nhf_hub_token: abc\n"


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(build_app(arguments), arguments)


def test_the_recipe_is_printed_and_the_notes_beside_it(tmp_path: Path) -> None:
    (tmp_path / "theirs.yaml").write_text(FILE)
    result = invoke("migrate", str(tmp_path / "theirs.yaml"))
    assert result.exit_code == 0, result.output
    assert yaml.safe_load(result.stdout)["loss"]["name"] == "dpo"
    assert result.stdout.startswith("# Written by unidpo-mm migrate from theirs.yaml")
    notes = result.stderr.splitlines()
    assert len(notes) == 3
    assert [re.findall(r"key '(\w+)'", note) for note in notes] == [
        ["dataset"],
        ["template"],
        ["hf_hub_token"],
    ]
    assert notes[1].startswith("note: theirs.yaml line 4, key 'template': prompts are rendered")
    assert "abc" not in result.output  # a secret is neither carried over nor shown


def test_the_recipe_is_written_once(tmp_path: Path) -> None:
    (tmp_path / "theirs.yaml").write_text(FILE)
    out = tmp_path / "recipe.yaml"
    arguments = ("migrate", str(tmp_path / "theirs.yaml"), "--out", str(out))
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert load_recipe(out).loss.name == "dpo"
    out.write_text("mine")
    assert "is there already" in str(invoke(*arguments).exception)
    assert out.read_text() == "mine"
    lost = invoke(*arguments[:3], str(tmp_path / "no" / "recipe.yaml"))
    assert isinstance(lost.exception, RecipeError)
    assert "cannot be written" in str(lost.exception)


def test_errors_are_printed_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "theirs.yaml").write_text("alpha: 1\n")
    command = [sys.executable, "-m", "unidpo_mm", "migrate", str(tmp_path / "theirs.yaml")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stdout == ""
    assert "error: theirs.yaml: its keys are those of no known framework" in result.stderr
    assert "LLaMA-Factory: stage: dpo" in result.stderr
    assert "Traceback" not in result.stderr


def test_help_imports_nothing_heavy() -> None:
    code = """
import sys
from unidpo_mm.cli.main import build_app
try:
    build_app(["migrate", "--help"])(["migrate", "--help"])
except SystemExit:
    pass
heavy = {"torch", "transformers", "datasets", "peft", "accelerate", "unidpo_mm.migrate"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
import unidpo_mm.migrate
assert not {"torch", "transformers", "peft"} & set(sys.modules)
"""
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [\n", "this is not YAML"),
        ("a: 1\na: 2\n", "stands here a second time"),
        ("- a\n", "the file holds no keys"),
        ("", "the file holds no keys"),
        ("alpha: 1\nbeta_2: 2\n", "no known framework: alpha, beta_2"),
        ("stage: dpo\ndataset_name: x\n", "as many keys of one framework as of another"),
        ("model: {name_or_path: a}\ndata: {}\n", "it is a recipe already"),
    ],
    ids=["syntax", "twice", "a list", "empty", "unknown", "two at once", "a recipe"],
)
def test_what_cannot_be_recognised_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "theirs.yaml").write_text(text)
    with pytest.raises(RecipeError, match=message):
        migrate(tmp_path / "theirs.yaml")


def test_a_file_that_is_not_there_or_no_text_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"gone\.yaml: it cannot be read: No such file"):
        migrate(tmp_path / "gone.yaml")
    (tmp_path / "theirs.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match="it is not text in UTF-8"):
        migrate(tmp_path / "theirs.yaml")


VALUES = [
    *("plain", "two words", "a: b", "#x", "- x", "x]", "[x", "{", "a, b", "", " ", "1e-6", "5"),
    *("no", "Yes", "on", "null", "None", "~", "true", "2024-01-01", "'", '"', "a\nb", "ü", "@x"),
    *(".*language_model.*\\.(?:q_proj|v_proj)", "*", "&a", "!x", "%", "a #b", "x:", "é\u2028"),
    *(None, True, False, 0, -3, 0.1, 5e-6, 1e-7, 1e20, 3.0, float("inf"), [], {}, ["no", 1]),
]


@pytest.mark.parametrize("value", VALUES, ids=[f"{n}" for n in range(len(VALUES))])
def test_what_is_written_is_read_again_as_it_was(value: Any) -> None:
    recipe = {"model": {"a": value}, "data": {"b": [{"c": value}], "d": {"e": {"f": value}}}}
    text = write_recipe(recipe, {"model.a": "why"}, "head")
    document = parse_yaml(text, "")
    assert not document.problems
    assert document.data == recipe
    assert yaml.safe_load(text) == recipe  # also for a reader of YAML 1.1


def test_comments_stand_on_their_lines() -> None:
    comments = {"model.b": "a default", "model.c.d": "another"}
    text = write_recipe({"model": {"a": 1, "b": 5e-5, "c": {"d": [1, "x"]}}}, comments, "head")
    assert text.splitlines() == [
        "# head",
        "model:",
        "  a: 1",
        f"{'  b: 5.0e-5':<40}# a default",
        "  c:",
        f"{'    d: [1, x]':<40}# another",
    ]


def test_the_page_has_the_tables_of_the_code() -> None:
    written = PAGE.read_text(encoding="utf-8")
    command = "python -m unidpo_mm.migrate.page docs/coming_from.md"
    assert updated(written) == written, f"run {command}"
    changed = written.replace("| `pref_beta` | `0.1` |", "| `pref_beta` | `0.2` |")
    assert changed != written
    assert updated(changed) == written
    with pytest.raises(ValueError, match="no place for the table 'TRL'"):
        updated(written.replace("<!-- table: TRL -->", ""))


def test_the_commands_of_the_page_exist() -> None:
    block = re.search(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    for line in block.group(1).splitlines():
        words = line.split("#")[0].split()
        assert words[0] == "unidpo-mm"
        help_text = invoke(words[1], "--help").output
        assert all(word in help_text for word in words if word.startswith("--"))
