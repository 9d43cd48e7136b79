"""The wheel contains the four packages, the recipes and nothing else."""

import zipfile
from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).resolve().parents[2]


def test_the_wheel_contains_exactly_the_packages_and_the_recipes(tmp_path: Path):
    wheel = next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))
    names = zipfile.ZipFile(wheel).namelist()
    folders = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert folders == {"unidpo_mm", "model_adapters", "unidpo_mm_eval", "unidpo_mm_quickstart"}
    shipped = {name.removeprefix("unidpo_mm/") for name in names if "/configs/" in name}
    on_disk = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("configs/**/*.yaml")}
    assert shipped == on_disk
    for package in folders:
        assert f"{package}/py.typed" in names
