"""The page of models lists every model type with images, its family and its properties."""

import re

from builders import EVERY_IMAGE_TYPE, family_name
from support.markdown_blocks import ROOT

from model_adapters._image_sizing import Unit
from model_adapters._image_text_traits import TYPES
from model_adapters.qwen_vl import QWEN_TYPES

ROW = re.compile(r"^\| ([^|]+) \| `(\w+)` \| `(\w+)` \| ([^|]+) \|([^|]*)\|$", re.M)
VIDEO_TYPES = {*QWEN_TYPES, "llava_onevision", *(name for name in TYPES if TYPES[name].videos)}
PLAIN_ONLY = {"qwen3_5", "qwen3_5_moe", "lfm2_vl", "minicpmv4_6"}


def test_the_table_lists_every_type_with_its_family_unit_and_notes() -> None:
    rows = ROW.findall((ROOT / "docs" / "models.md").read_text(encoding="utf-8"))
    assert sorted(row[1] for row in rows) == sorted(EVERY_IMAGE_TYPE)
    for _, model_type, family, unit, notes in rows:
        assert family == family_name(model_type)
        expected: Unit = "fixed"
        if model_type in TYPES:
            expected = TYPES[model_type].sizing.unit
        elif family == "qwen_vl":
            expected = "pixels"
        assert unit.startswith("fixed size" if expected == "fixed" else expected)
        assert ("plain rows only" in notes) == (model_type in PLAIN_ONLY)
        assert ("needs an image" in notes) == (model_type == "paligemma")
        assert ("videos" in notes) == (model_type in VIDEO_TYPES)
