"""Every key has a meaning; docs/recipe.md lists them with their defaults, kept by a test."""

from unidpo_mm.config import LoraOptions, ScoreOptions, SourceOptions
from unidpo_mm.config.options import documentation
from unidpo_mm.config.recipe import (
    DataSection,
    ImagesSection,
    LossSection,
    ModelSection,
    Recipe,
    RunSection,
    TrainSection,
)
from unidpo_mm.config.sections import Section

SECTIONS: tuple[type[Section], ...] = (
    ModelSection, LoraOptions, DataSection, SourceOptions, ScoreOptions, ImagesSection,
    LossSection, TrainSection, RunSection, Recipe,
)  # fmt: skip


def test_every_key_has_a_description():
    for section in SECTIONS:
        texts = documentation(section)
        for name in section.model_fields:
            assert texts.get(name), f"{section.__name__}.{name} has no text under it"


def test_a_section_stays_small():
    assert max(len(section.model_fields) for section in SECTIONS) <= 16
