"""The tables of docs/performance.md are those of the CSV beside the benchmark."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_shows_what_was_measured() -> None:
    spec = importlib.util.spec_from_file_location(
        "results_page", ROOT / "benchmarks" / "results_page.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (path,) = (ROOT / "benchmarks" / "results").glob("*.csv")
    _, shown, _ = module.between(module.PAGE.read_text(encoding="utf-8"))
    assert shown == module.tables(path), "run python benchmarks/results_page.py RESULTS.csv"
