"""Import rules: the contracts of the linter, and rules that it cannot express."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "unidpo_mm": ROOT / "unidpo_mm",
    "model_adapters": ROOT / "model_adapters",
    "unidpo_mm_eval": ROOT / "eval" / "unidpo_mm_eval",
    "unidpo_mm_quickstart": ROOT / "quickstart" / "unidpo_mm_quickstart",
}
FAMILY_WORDS = (
    "llava|qwen|llama|internvl|internlm|gemma|pixtral|idefics|minicpm|mistral|deepseek|smolvlm|"
    "smollm|blip|florence|molmo|phi[-_]?[34]|glm|vicuna"
)
FRAMEWORK_WORDS = r"llama[-_ ]?factory|use_llama_pro"
"""Names of a framework that users migrate from; they are not families."""


def sources(*packages: str) -> Iterator[Path]:
    for package in packages or PACKAGES:
        yield from sorted(PACKAGES[package].rglob("*.py"))


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (level, module) of every import statement, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((0, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            yield node.level, module
            yield from ((node.level, f"{module}.{name.name}".strip(".")) for name in node.names)


def test_the_import_contracts_are_kept():
    code = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_inside_a_package_imports_are_relative():
    wrong = [
        f"{path.relative_to(ROOT)}: {module}"
        for package in PACKAGES
        for path in sources(package)
        for level, module in imported(path)
        if level == 0 and module.split(".")[0] == package
    ]
    assert not wrong


def test_families_share_functions_through_underscored_modules_only():
    """Two families never import each other, and what they share imports no family."""
    names = {path.stem for path in sources("model_adapters") if not path.stem.startswith("_")}
    wrong = [
        f"{path.name}: {module}"
        for path in sources("model_adapters")
        for level, module in imported(path)
        if level > 0 and module.split(".")[0] in names - {path.stem}
    ]
    assert not wrong


def test_only_the_plugin_module_imports_by_name():
    pattern = re.compile(r"import_module\(|__import__\(|importlib\.import_module|import importlib$")
    modules = {
        path.relative_to(ROOT).as_posix()
        for path in sources("unidpo_mm", "model_adapters")
        if any(pattern.search(line) for line in path.read_text(encoding="utf-8").splitlines())
    }
    assert modules == {"unidpo_mm/plugins.py"}


def test_only_the_distributed_package_calls_torch_distributed():
    def is_call(node: ast.AST) -> bool:
        match node:
            case ast.Attribute(value=ast.Name(id="torch"), attr="distributed"):
                return True
            case ast.Import(names=names):
                return any(name.name.startswith("torch.distributed") for name in names)
            case ast.ImportFrom(module="torch", names=names):
                return any(name.name == "distributed" for name in names)
            case ast.ImportFrom(module=str(module)):
                return module.startswith("torch.distributed")
        return False

    callers = {
        path.relative_to(ROOT).as_posix()
        for path in sources("unidpo_mm", "model_adapters")
        if any(map(is_call, ast.walk(ast.parse(path.read_text(encoding="utf-8")))))
    }
    assert callers == {"unidpo_mm/distributed/__init__.py"}


def test_the_core_names_no_model_family():
    pattern = re.compile(FAMILY_WORDS, re.IGNORECASE)
    lines = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sources("unidpo_mm")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(re.sub(FRAMEWORK_WORDS, "", line, flags=re.IGNORECASE))
    ]
    assert not lines


def test_the_folder_eval_is_never_imported():
    """`import eval` would shadow the builtin; ruff detects that, but not `import eval.x`."""
    everything = [*sources(), *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    wrong = [
        path
        for path in everything
        for level, module in imported(path)
        if level == 0 and module.split(".")[0] == "eval"
    ]
    assert not wrong
    assert not (ROOT / "eval" / "__init__.py").exists()


def test_test_directories_shadow_no_package_and_file_names_are_unique():
    tests = ROOT / "tests"
    folders = {path.name for path in tests.rglob("*") if path.is_dir()}
    assert not folders & {"eval", *PACKAGES}
    assert not list(tests.rglob("__init__.py"))
    names = [path.name for path in tests.rglob("test_*.py")]
    assert len(names) == len(set(names))


def test_importing_the_package_is_light_and_has_no_side_effects():
    code = """
import os, sys, warnings
environment, filters = dict(os.environ), list(warnings.filters)
import unidpo_mm, unidpo_mm.config, unidpo_mm.plugins, unidpo_mm.cli.main
heavy = {"torch", "transformers", "datasets", "peft", "accelerate", "PIL"} & set(sys.modules)
assert not heavy, heavy
assert dict(os.environ) == environment
assert warnings.filters == filters
assert {"UniDPOConfig", "UniDPOTrainer"} <= set(dir(unidpo_mm))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
