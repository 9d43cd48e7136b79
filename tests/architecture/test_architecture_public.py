"""The public interface: documented names, types, recipes that load, the tree of the repository."""

import ast
import re
import subprocess
from pathlib import Path

import pytest
import yaml

import unidpo_mm
from unidpo_mm.config import load_recipe
from unidpo_mm.config.checks.recipe import check_loss, check_train
from unidpo_mm.pipelines.load import load_make_recipe
from unidpo_mm.sweep.plan import check_arms, read_sweep
from unidpo_mm.sweep.runner import load_runner

ROOT = Path(__file__).parents[2]
LAUNCHERS = sorted((ROOT / "configs" / "accelerate").glob("*.yaml"))
CONFIGS = sorted(set((ROOT / "configs").rglob("*.yaml")) - set(LAUNCHERS))
IS_SWEEP = re.compile(r"^(arms|factors):", re.MULTILINE)
SWEEPS = [path for path in CONFIGS if IS_SWEEP.search(path.read_text(encoding="utf-8"))]
MADE = [path for path in CONFIGS if "prompts" in yaml.safe_load(path.read_text("utf-8"))]
RECIPES = [path for path in CONFIGS if path not in (*SWEEPS, *MADE)]
PACKAGES = [
    "unidpo_mm",
    "model_adapters",
    "eval/unidpo_mm_eval",
    "quickstart/unidpo_mm_quickstart",
]
UNLISTED = {"__init__.py", "__main__.py", "py.typed"}
"""Files of every package, which the tree omits."""


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_config_loads(path: Path):
    load_recipe(path, checks=[check_loss, check_train])


@pytest.mark.parametrize("path", MADE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_recipe_of_data_loads(path: Path):
    load_make_recipe(path)


@pytest.mark.parametrize("path", LAUNCHERS, ids=lambda path: path.stem)
def test_accelerate_reads_every_configuration(path: Path):
    from accelerate.commands.config.config_args import load_config_from_file

    loaded = load_config_from_file(str(path))
    assert loaded.num_processes == (16 if path.stem == "fsdp2_hybrid" else 2)
    assert loaded.mixed_precision == "no"  # the recipe determines it
    assert loaded.use_cpu is ("cpu" in path.stem)
    text = path.read_text(encoding="utf-8")
    assert f"accelerate launch --config_file configs/accelerate/{path.name}" in text


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_arm_of_every_sweep_loads(path: Path):
    sweep = read_sweep(path)
    check_arms(sweep, [check_loss, check_train])
    assert len(sweep.arms) > 1
    assert load_runner(sweep.runner).metrics


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_is_typed(package: str):
    assert (ROOT / package / "py.typed").is_file()


def test_every_exported_name_exists_and_is_documented():
    for name in set(unidpo_mm.__all__) - {"__version__"}:
        assert getattr(unidpo_mm, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        unidpo_mm.absent  # noqa: B018 - the access is the test


@pytest.mark.parametrize("package", ["unidpo_mm", "model_adapters"])
def test_every_module_opens_with_a_docstring_and_states_its_names(package: str):
    for path in (ROOT / package).rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), f"{path} has no docstring"
        named = [node.targets[0] for node in tree.body if isinstance(node, ast.Assign)]
        typed = [node.target for node in tree.body if isinstance(node, ast.AnnAssign)]
        names = {target.id for target in (*named, *typed) if isinstance(target, ast.Name)}
        if path.name not in ("__main__.py", "__init__.py"):
            assert "__all__" in names, f"{path} states no __all__"


def tree_of(page: str) -> dict[str, list[str]]:
    """Parse the annotated tree: {folder: names in it}, for folders whose content is listed."""
    block = re.search(r"<!-- tree -->(.*?)<!-- /tree -->", page, re.DOTALL)
    assert block is not None, "docs/architecture.md has no annotated tree"
    listed: dict[str, list[str]] = {}
    above: list[tuple[int, str]] = [(-1, "")]
    for line in block.group(1).splitlines():
        match = re.match(r"^([\s│├└─|`-]*)([\w.\-/]+)(\s{2,}\S.*|\s*)$", line)
        if match is None or line.strip().startswith("```"):
            continue
        depth, name = len(match.group(1)), match.group(2)
        while above[-1][0] >= depth:
            above.pop()
        listed.setdefault(above[-1][1], []).append(name.rstrip("/"))
        above.append((depth, f"{above[-1][1]}{name.rstrip('/')}/"))
    return listed


def on_disk() -> set[str]:
    """Return all files that git does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, "this test needs a git checkout"
    return {name for name in result.stdout.splitlines() if (ROOT / name).exists()}


def test_the_tree_of_the_page_equals_the_disk():
    page = ROOT / "docs" / "architecture.md"
    listed, files = tree_of(page.read_text(encoding="utf-8")), on_disk()
    for folder, names in listed.items():
        below = {
            name.removeprefix(folder).split("/")[0] for name in files if name.startswith(folder)
        }
        visible = {name for name in below - UNLISTED if not name.startswith(".")}
        if folder == "":  # tool and license files are omitted
            visible = {name for name in visible if (ROOT / name).is_dir()}
            names = [name for name in names if (ROOT / name).is_dir() or name not in below]
        assert set(names) == visible, f"the tree in {page} differs from the disk in '{folder}'"


def test_the_tree_is_parsed_as_it_is_drawn():
    page = (
        "<!-- tree -->\n```text\ncore/         the core\n  a.py        one\n  deep/       two\n"
        "    b.py      three\nother/        more\n```\n<!-- /tree -->"
    )
    assert tree_of(page) == {
        "": ["core", "other"],
        "core/": ["a.py", "deep"],
        "core/deep/": ["b.py"],
    }
