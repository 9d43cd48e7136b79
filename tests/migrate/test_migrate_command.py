"""The command, input errors, written YAML, and the page that is generated from the tables."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from unidpo_mm.cli.main import build_app
from unidpo_mm.config import load_recipe
from unidpo_mm.config.dump import format_recipe
from unidpo_mm.config.yaml_loader import parse_yaml
from unidpo_mm.errors import RecipeError
from unidpo_mm.migrate import migrate
from unidpo_mm.migrate.page import updated_page

PAGE = Path(__file__).parents[2] / "docs" / "migrating.md"
FILE = "model_name_or_path: a/b\nstage: dpo\ndataset: pairs\ntemplate: default\nhf_hub_token: abc\n"


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(build_app(arguments), arguments)


def test_recipe_and_notes_are_printed(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(FILE)
    result = invoke("migrate", str(tmp_path / "config.yaml"))
    assert result.exit_code == 0, result.output
    assert yaml.safe_load(result.stdout)["loss"]["name"] == "dpo"
    assert result.stdout.startswith("# Written by unidpo-mm migrate from config.yaml")
    notes = result.stderr.splitlines()
    assert len(notes) == 3
    assert [re.findall(r"key '(\w+)'", note) for note in notes] == [
        ["dataset"],
        ["template"],
        ["hf_hub_token"],
    ]
    assert notes[1].startswith("note: config.yaml line 4, key 'template': prompts are rendered")
    assert "abc" not in result.output  # a secret is neither migrated nor shown


def test_output_never_overwrites(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(FILE)
    output = tmp_path / "recipe.yaml"
    arguments = ("migrate", str(tmp_path / "config.yaml"), "--output", str(output))
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert load_recipe(output).loss.name == "dpo"
    output.write_text("mine")
    assert "already exists" in invoke(*arguments).output
    assert output.read_text() == "mine"
    absent = invoke(*arguments[:3], str(tmp_path / "absent" / "recipe.yaml"))
    assert absent.exit_code == 2
    assert "absent' does not exist" in " ".join(absent.output.split())


def test_errors_are_printed_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("alpha: 1\n")
    command = [sys.executable, "-m", "unidpo_mm", "migrate", str(tmp_path / "config.yaml")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stdout == ""
    assert "error: config.yaml: its keys do not belong to a supported framework" in result.stderr
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
        ("a: [\n", "not valid YAML"),
        ("a: 1\na: 2\n", "duplicate key"),
        ("- a\n", "the file contains no keys"),
        ("", "the file contains no keys"),
        ("alpha: 1\nbeta_2: 2\n", "do not belong to a supported framework: alpha, beta_2"),
        ("stage: dpo\ndataset_name: x\n", "equally many keys of two frameworks"),
        ("model: {name_or_path: a}\ndata: {}\n", "this file is already a recipe"),
    ],
    ids=["syntax", "twice", "a list", "empty", "unknown", "two at once", "a recipe"],
)
def test_unrecognized_files_are_errors(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(RecipeError, match=message):
        migrate(tmp_path / "config.yaml")


def test_unreadable_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"absent\.yaml: cannot be read: No such file"):
        migrate(tmp_path / "absent.yaml")
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match="not valid UTF-8"):
        migrate(tmp_path / "config.yaml")


VALUES = [
    *("plain", "two words", "a: b", "#x", "- x", "x]", "[x", "{", "a, b", "", " ", "1e-6", "5"),
    *("no", "Yes", "on", "null", "None", "~", "true", "2024-01-01", "'", '"', "a\nb", "ü", "@x"),
    *(".*language_model.*\\.(?:q_proj|v_proj)", "*", "&a", "!x", "%", "a #b", "x:", "é\u2028"),
    *(None, True, False, 0, -3, 0.1, 5e-6, 1e-7, 1e20, 3.0, float("inf"), [], {}, ["no", 1]),
]


@pytest.mark.parametrize("value", VALUES, ids=[f"{n}" for n in range(len(VALUES))])
def test_written_values_are_read_unchanged(value: Any) -> None:
    recipe = {"model": {"a": value}, "data": {"b": [{"c": value}], "d": {"e": {"f": value}}}}
    text = format_recipe(recipe, {"model.a": "why"}, "head")
    document = parse_yaml(text, "")
    assert not document.problems
    assert document.data == recipe
    assert yaml.safe_load(text) == recipe  # for readers of YAML 1.1


def test_comments_are_on_their_lines() -> None:
    comments = {"model.b": "a default", "model.c.d": "another"}
    text = format_recipe({"model": {"a": 1, "b": 5e-5, "c": {"d": [1, "x"]}}}, comments, "head")
    assert text.splitlines() == [
        "# head",
        "model:",
        "  a: 1",
        f"{'  b: 5.0e-05':<40}# a default",
        "  c:",
        f"{'    d: [1, x]':<40}# another",
    ]


def test_page_has_the_tables_of_the_code() -> None:
    page = PAGE.read_text(encoding="utf-8")
    command = "python -m unidpo_mm.migrate.page docs/migrating.md"
    assert updated_page(page) == page, f"run {command}"
    changed = page.replace("| `pref_beta` | `0.1` |", "| `pref_beta` | `0.2` |")
    assert changed != page
    assert updated_page(changed) == page
    with pytest.raises(ValueError, match="lacks the comments that enclose the table 'TRL'"):
        updated_page(page.replace("<!-- table: TRL -->", ""))


def test_commands_of_the_page_exist() -> None:
    block = re.search(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    for line in block.group(1).splitlines():
        words = line.split("#")[0].split()
        assert words[0] == "unidpo-mm"
        help_text = invoke(words[1], "--help").output
        assert all(word in help_text for word in words if word.startswith("--"))


def test_a_comment_after_a_long_line_stays_a_comment():
    name = "organization/a-model-with-a-name-of-fifty-characters"
    text = format_recipe({"model": {"name_or_path": name}}, {"model.name_or_path": "why"}, "head")
    assert f"{name} # why" in text
    assert yaml.safe_load(text) == {"model": {"name_or_path": name}}
