"""The page of recipe keys is up to date."""

from pathlib import Path

from unidpo_mm.config.page import IN_PYTHON, recipe_page

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_equals_the_docstrings():
    written = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")
    assert written == recipe_page(), "run python -m unidpo_mm.config.page > docs/recipe.md"


def test_every_key_of_the_python_column_exists():
    page = recipe_page()
    for key in IN_PYTHON:
        assert f"| `{key}` |" in page, key
