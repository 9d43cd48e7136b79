"""The pages of models list every model type with images and its properties."""

import pytest
from builders import EVERY_IMAGE_TYPE
from support.markdown_blocks import ROOT

from unidpo_mm.cli.models_page import TABLE, models_table, types_page
from unidpo_mm.config.page import updated_page

DOCS = ROOT / "docs"
MAX_LINES = 30
"""Maximum number of lines of a section, about a screen."""


def test_the_table_and_the_page_are_up_to_date() -> None:
    page = (DOCS / "models.md").read_text(encoding="utf-8")
    command = "run python -m unidpo_mm.cli.models_page docs"
    changed = page.replace("| pixels |", "| tiles |")
    assert changed != page
    assert updated_page(changed, {TABLE: models_table()}) == page, command
    assert (DOCS / "model_types.md").read_text(encoding="utf-8") == types_page(), command


def test_every_type_has_a_row_and_a_section_of_one_screen() -> None:
    rows = [line.split(" | ")[1].strip("`") for line in models_table()[2:]]
    assert rows == sorted(EVERY_IMAGE_TYPE)
    sections = types_page().split("\n## ")[1:]
    assert [section.partition("\n")[0] for section in sections] == sorted(EVERY_IMAGE_TYPE)
    assert max(section.count("\n") for section in sections) <= MAX_LINES


@pytest.mark.parametrize("name", ["Qwen2.5-VL 7B", "SmolVLM 256M", "InternVL3 8B"])
def test_memory_grows_with_what_is_trained(name: str) -> None:
    lines = [line for line in types_page().splitlines() if line.startswith(f"| {name} |")]
    lora, qlora, full = (float(line.split("|")[-2]) for line in lines)
    assert qlora < lora < full
