"""The generated tables of the documentation are up to date."""

from pathlib import Path

import pytest

from unidpo_mm.config.page import IN_PYTHON, TABLES, updated_page

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("name", TABLES)
def test_the_page_has_the_table_of_the_code(name: str):
    page = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    changed = page.replace("| --- | --- |", "| --- |")
    command = "run python -m unidpo_mm.config.page docs"
    assert updated_page(changed, {name: TABLES[name]()}) == page, command


def test_every_key_of_the_python_column_exists():
    lines = "\n".join(TABLES["recipe"]())
    for key in IN_PYTHON:
        assert f"| `{key}` |" in lines, key
