"""The tables of docs/performance.md equal the CSV file of the benchmark."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_has_the_measurements() -> None:
    spec = importlib.util.spec_from_file_location(
        "results_page", ROOT / "benchmarks" / "results_page.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (path,) = (ROOT / "benchmarks" / "results").glob("*.csv")
    _, page_tables, _ = module.split_page(module.PAGE.read_text(encoding="utf-8"))
    assert page_tables == module.tables(path), "run python benchmarks/results_page.py RESULTS.csv"
