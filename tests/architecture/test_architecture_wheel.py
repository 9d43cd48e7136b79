"""The wheel contains the four packages and the recipes, the sdist what is needed to build it."""

import re
import tarfile
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from packaging.metadata import Metadata

import unidpo_mm

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"unidpo_mm", "model_adapters", "unidpo_mm_eval", "unidpo_mm_quickstart"}
MAX_BYTES = 500_000
SUFFIXES = set(
    "py md yaml yml jinja css html js json jsonl toml txt tsv csv svg png typed ipynb".split()
)
"""Types of files in a release; another one is a decision."""
NAMES = {"LICENSE", "Makefile", ".gitignore", "PKG-INFO"}
"""Files without a type."""
FOR_TRAINING = set(
    "accelerate datasets filelock jinja2 numpy peft pillow polars pydantic pyyaml rich torch"
    " torchvision transformers typer xxhash".split()
)
"""The packages that `pip install unidpo-mm` installs; adding one is a decision."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    return zipfile.ZipFile(
        next(WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"]))
    )


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Metadata:
    """Return the metadata of the wheel, which are checked as an index checks them."""
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return Metadata.from_email(wheel.read(name), validate=True)


def test_the_wheel_contains_exactly_the_packages_and_the_recipes(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    folders = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert folders == PACKAGES
    in_wheel = {name.removeprefix("unidpo_mm/") for name in names if "/configs/" in name}
    paths = (path for path in ROOT.glob("configs/**/*.*") if path.suffix in (".yaml", ".py"))
    on_disk = {path.relative_to(ROOT).as_posix() for path in paths}
    assert in_wheel == on_disk
    for package in folders:
        assert f"{package}/py.typed" in names
    assert not [name for name in names if "test" in name.split("/")[-1].lower().split("_")]


def test_the_wheel_contains_every_file_of_the_packages(wheel: zipfile.ZipFile) -> None:
    folders = {name: ROOT / name for name in ("unidpo_mm", "model_adapters")}
    folders["unidpo_mm_eval"] = ROOT / "eval" / "unidpo_mm_eval"
    folders["unidpo_mm_quickstart"] = ROOT / "quickstart" / "unidpo_mm_quickstart"
    files = {
        f"{name}/{path.relative_to(folder).as_posix()}"
        for name, folder in folders.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and "configs" not in path.parts
    }
    names = {name for name in wheel.namelist() if ".dist-info" not in name}
    assert {name for name in names if "/configs/" not in name} == files


def test_the_metadata_are_valid_and_complete(wheel: zipfile.ZipFile, metadata: Metadata) -> None:
    assert metadata.name == "unidpo-mm"
    assert str(metadata.version) == unidpo_mm.__version__
    assert metadata.license_expression == "Apache-2.0"
    assert metadata.description_content_type == "text/markdown"
    assert "Typing :: Typed" in (metadata.classifiers or [])
    minors = re.findall(r"Python :: 3\.(\d+)", "\n".join(metadata.classifiers or []))
    assert minors[0] == "11"
    assert str(metadata.requires_python) == ">=3.11"
    (name,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    points = wheel.read(name).decode()
    assert "unidpo-mm = unidpo_mm.cli.main:main" in points
    for module in re.findall(r"= ([\w.]+)", points):
        path = module.replace(".", "/")
        assert {f"{path}.py", f"{path}/__init__.py"} & set(wheel.namelist()), module


def test_extras_are_not_installed_by_default(metadata: Metadata) -> None:
    required, extras = set(), {}
    for requirement in metadata.requires_dist or []:
        marker = str(requirement.marker or "")
        if "extra ==" in marker:
            extra = marker.rpartition('extra == "')[2].rstrip('"')
            extras.setdefault(extra, set()).add(requirement.name)
        else:
            required.add(requirement.name)
    assert required == FOR_TRAINING
    assert set(extras) == set(metadata.provides_extra or [])
    assert {"eval", "demo", "lm-eval", "xlsx", "test", "dev"} <= set(extras)
    assert extras["eval"] < extras["demo"]
    assert extras["eval"] < extras["lm-eval"]
    repeated = {name for names in extras.values() for name in names} & required
    assert not repeated


def test_the_sdist_contains_sources_and_tests_only(tmp_path: Path) -> None:
    sdist = next(SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))
    with tarfile.open(sdist) as archive:
        members = {m.name.partition("/")[2]: m.size for m in archive.getmembers() if m.isfile()}
    tops = {name.partition("/")[0] for name in members}
    needed = {"configs", "eval", "model_adapters", "quickstart", "unidpo_mm", "tests", "docs"}
    needed |= {"LICENSE", "README.md", "Makefile"}
    needed |= {"pyproject.toml", "constraints.txt", "mkdocs.yml"}
    assert needed <= tops
    assert tops <= needed | {
        "benchmarks", "examples", "CHANGELOG.md", "CONTRIBUTING.md", ".gitignore", "PKG-INFO",
    }  # fmt: skip
    for name, size in members.items():
        assert size <= MAX_BYTES, name
        last = name.rpartition("/")[2]
        assert last in NAMES or last.rpartition(".")[2] in SUFFIXES, name


def test_the_changelog_has_the_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## [{unidpo_mm.__version__}]" in text
